from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from overfit_lab.analysis.onset import Onset, Verdict
from overfit_lab.config import Problem
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.labels import loss_label, onset_label, short_names, study_title, value_label, verdict_sentence
from overfit_lab.study import load_study
from overfit_lab.task.task import TABLE
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep


def test_the_last_part_of_a_key_is_its_name_unless_two_keys_share_it() -> None:
    keys = ["model.width", "model.dropout", "data.dropout", "model._target_", "penalty.kind", "seed"]
    assert list(short_names(keys).values()) == ["width", "model.dropout", "data.dropout", "model", "penalty", "seed"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1e-4, "0.0001"), (64, "64"), (1000000, "1000000"), (True, "True"), ("overfit_lab.model.MLP", "MLP")],
)
def test_values(value: object, shown: str) -> None:
    assert value_label(value) == shown


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_has_words(verdict: Verdict) -> None:
    onset = Onset(verdict, 25, (20, 31)) if verdict == "overfit" else Onset(verdict)
    assert onset_label(onset) == ("25 [20, 31]" if verdict == "overfit" else verdict.replace("_", " "))
    assert verdict_sentence(onset, 50)


@pytest.mark.parametrize("problem", get_args(Problem))
def test_the_loss_is_the_default_of_the_task(tmp_path: Path, problem: Problem) -> None:
    default = next(iter(TABLE[problem].losses))
    shown = loss_label(load_study(make_study(tmp_path, problem=problem).directory))
    assert shown == ("mean squared error" if default == "mean_squared_error" else "cross-entropy (nats)")


def test_a_loss_that_was_asked_for_and_standardised_targets_are_named(tmp_path: Path) -> None:
    files = make_study(tmp_path, problem="unit_regression")
    config = configuration(4, 0.0) | {"task": {"loss": "binary_cross_entropy"}}
    add_run(files.run("a"), config, Onset("not_reached", best_epoch=9), losses(9))
    assert loss_label(load_study(files.directory)) == "cross-entropy (nats)"
    config = configuration(8, 0.0) | {"data": {"scale_targets": True}}
    add_run(files.run("b"), config, Onset("not_reached", best_epoch=9), losses(9))
    assert loss_label(load_study(files.directory)) == "loss"
    files.run("a").record.unlink()
    assert loss_label(load_study(files.directory)) == "mean squared error (standardised targets)"


def test_configured_walks_dots_and_shows_lists_as_the_study_does(tmp_path: Path) -> None:
    config = configuration(4, 0.5)
    assert configured(config, "penalty.alpha") == 0.5
    assert configured(config, "penalty.include") == "[]"
    assert configured(config, "seed.no.such") is None


def test_keys_that_only_one_kind_of_penalty_has_are_not_swept(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    none = configuration(4, 0.0) | {"penalty": {"kind": "none"}}
    for name, config in {"a": none, "b": configuration(4, 0.1), "c": configuration(4, 0.2)}.items():
        add_run(files.run(name), config, Onset("not_reached", best_epoch=9), losses(9))
    study = load_study(files.directory)
    assert "penalty.include" in study.swept()
    assert sorted(swept_keys(study)) == ["penalty.alpha", "penalty.kind"]


def test_a_sweep_keeps_all_its_keys(tmp_path: Path) -> None:
    study = load_study(make_sweep(tmp_path).directory)
    assert swept_keys(study) == ["model.width", "penalty.alpha"]
    assert study_title(study) == "made-up: coins, 2-fold cross-validation"
