"""A plan: everything that can be known of a run before it is trained, and nothing written for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from overfit_lab.config import Config, config_id, run_id
from overfit_lab.errors import UserError
from overfit_lab.plan import prepare
from tests.launch.plans import grid

Configure = Callable[..., Config]


def test_nothing_is_written(config: Configure, tmp_path: Path) -> None:
    plan = prepare(config("data=iris"))
    assert list(tmp_path.iterdir()) == []
    assert plan.study.directory == tmp_path / "studies" / "iris-kfold"
    assert plan.files.directory == plan.study.directory / "runs" / plan.run_id
    assert plan.run_id == run_id(plan.config)
    record = plan.study_record
    assert (record.name, record.source.name, record.source.rows, record.source.outputs) == (
        "iris-kfold",
        "iris",
        150,
        3,
    )
    assert record.split == {
        **{"kind": "kfold", "folds": 5, "test_fraction": 0.2, "repeats": 1, "seed": 0, "stratify": "auto"},
    }


def test_jobs_of_a_sweep_share_source_and_split(config: Configure) -> None:
    """Reading and cutting them again for each of thousands would take longer than to train them."""
    first, second = grid(config("data=iris"), seed=[0, 1])
    assert first.source is second.source
    assert first.split is second.split
    assert first.network is not second.network
    other = prepare(config("data=iris", "split.seed=1"))
    assert other.source.fingerprint == first.source.fingerprint
    assert other.split is not first.split


def rows(count: object) -> object:
    """Count 1 and count true are two data sets."""
    import numpy as np

    from overfit_lab.data import Source

    x = np.random.default_rng(0).normal(size=(40, 2)) + (5 if count is True else 0)
    return Source("rows", "binary", x, np.arange(40) % 2)


def test_what_python_calls_equal_is_not_the_same_data(config: Configure) -> None:
    own = ("data=custom", "data.name=rows", "data._target_=tests.test_plan.rows")
    one, true = (prepare(config(*own, f"+data.count={count}")) for count in ("1", "true"))
    assert one.source.fingerprint != true.source.fingerprint


def test_ids_are_of_what_matters_to_the_result(config: Configure) -> None:
    plan = prepare(config())
    same = ("study.name=x", "study.report=false", "trainer.accelerator=cpu", "training.checkpoint_seconds=0")
    assert {prepare(config(override)).run_id for override in same} == {plan.run_id}
    others = ("seed=1", "penalty=none", "trainer.precision=64-true", "training.epochs=7", "data.scale_inputs=false")
    assert len({plan.run_id, *(prepare(config(override)).run_id for override in others)}) == 6
    assert config_id(prepare(config("seed=1")).config) == config_id(plan.config)


WEIGHTS = {"0.weight", "3.weight", "6.weight"}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((), WEIGHTS),
        (("penalty=none",), WEIGHTS),
        (("penalty=none", "optimizer=adamw"), WEIGHTS),
        (("penalty.exclude=[0.*]",), WEIGHTS - {"0.weight"}),
        (("penalty.include=[6.bias]",), WEIGHTS | {"6.bias"}),
    ],
)
def test_which_parameters_are_weights(config: Configure, overrides: tuple[str, ...], names: set[str]) -> None:
    assert prepare(config(*overrides)).weights == names


class Unknown(torch.nn.Module):
    """Has a parameter that is in no layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.zeros(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.values


def test_a_parameter_of_which_nothing_is_known(config: Configure) -> None:
    """It must be said whether it is a weight, but only where that makes a difference."""
    own = ("model=custom", "model._target_=tests.test_plan.Unknown")
    assert prepare(config(*own, "penalty=none")).weights == frozenset()
    for more in ((), ("penalty=none", "optimizer=adamw")):
        with pytest.raises(UserError, match="parameter values of the network is in no known layer type"):
            prepare(config(*own, *more))
    assert prepare(config(*own, "penalty.include=[values]")).weights == {"values"}


@pytest.mark.parametrize(
    ("overrides", "form", "reason"),
    [
        ((), "layered", None),
        (("trainer.precision=bf16-mixed",), "vmapped", None),
        (("model=custom", "model._target_=tests.launch.plans.Failing"), "vmapped", None),
        (
            ("model=custom", "model._target_=tests.launch.plans.Mixing"),
            "looped",
            "layer 1 is a BatchNorm1d, which mixes the rows of a batch",
        ),
    ],
)
def test_how_fits_are_stacked(config: Configure, overrides: tuple[str, ...], form: str, reason: str | None) -> None:
    assert prepare(config(*overrides)).form == (form, reason)


def test_a_study_of_another_split_is_refused(config: Configure) -> None:
    plan = prepare(config("data=iris"))
    plan.study.directory.mkdir(parents=True)
    plan.study.record.write_text(plan.study_record.model_dump_json())
    assert prepare(config("data=iris", "seed=3")).study_record == plan.study_record
    with pytest.raises(UserError, match=r"split\.folds=3: .* is split with folds=5"):
        prepare(config("data=iris", "split.folds=3"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_here(config: Configure) -> None:
    with pytest.raises(UserError, match=r"trainer\.accelerator=cuda: there is no such device here"):
        prepare(config("trainer.accelerator=cuda"))
