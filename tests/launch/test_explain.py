"""Hydra's own errors, each as Hydra raises it, in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from overfit_lab.config import Config
from overfit_lab.launch.explain import explain


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("split=loo", "split=loo: allowed are holdout, kfold"),
        ("foo=1", "there is no key foo; allowed there are split, data, model, task, penalty, optimizer"),
        ("model.foo=1", "there is no key model.foo; allowed there are _target_, width, depth, activation, dropout"),
        ("model.width=[", "model.width=[ cannot be read as KEY=VALUE: no viable alternative at input '['"),
        (
            "data.path=~/d.csv",
            "data.path=~/d.csv cannot be read as KEY=VALUE: as a text its value is given in quotes, "
            "\"data.path='~/d.csv'\"",
        ),
        ("study.name=ünï", "study.name=ünï cannot be read as KEY=VALUE: as a text its value is given in quotes, "),
        ("study.name='a", "study.name='a cannot be read as KEY=VALUE: LexerNoViableAltException"),
        ("model.width=f()", "model.width=f() cannot be read as KEY=VALUE: "),
        ("hydra.job.num=x", "hydra.job.num=x: Value 'x' of type 'str' could not be converted to Integer"),
        ("a b", "a b cannot be read as KEY=VALUE: "),
        ("seed=1,2", "seed=1,2: several values are a sweep; add -m to run one job for each"),
        ("~nope", "Could not delete from config. 'nope' does not exist."),
    ],
)
def test_one_line(config: Callable[..., Config], override: str, line: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Hydra's, of several kinds
        config(override)
    said = explain(caught.value)
    assert said.startswith(line)
    assert "\n" not in said
