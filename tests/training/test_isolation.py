"""A member that diverges is recorded at its epoch, and disturbs no other: bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab.data import load_source
from overfit_lab.objective import Penalty
from overfit_lab.training import History
from tests.training.cohorts import Cohort, make_cohort


def _cohort() -> Cohort:
    penalties = [Penalty(0.0, 0.0), Penalty(0.0, 0.1)]
    return make_cohort(load_source("breast_cancer"), penalties=penalties, epochs=6, precision="32-true", batch_size=60)


def _poison(cohort: Cohort, stream: int, configuration: int, value: float) -> None:
    with torch.no_grad():
        cohort.module.network.stacked_parameters()["3.weight"][stream, configuration] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_others_are_bit_identical(value: float, tmp_path: Path) -> None:
    healthy, sick = _cohort(), _cohort()
    _poison(sick, 2, 1, value)
    histories: list[History] = [cohort.train(tmp_path / "c.ckpt") for cohort in (healthy, sick)]
    for split in ("train", "val"):
        ours, theirs = (history.curve(split, "loss") for history in histories)
        same = np.ones(ours.shape[:2], dtype=bool)
        same[2, 1] = False
        assert np.array_equal(ours[same], theirs[same])
        assert not np.array_equal(ours[2, 1], theirs[2, 1])
    for name, weight in healthy.module.network.stacked_parameters().items():
        others = sick.module.network.stacked_parameters()[name]
        keep = torch.ones(weight.shape[:2], dtype=torch.bool)
        keep[2, 1] = False
        assert torch.equal(weight[keep], others[keep]), name


def test_divergence_is_noted_at_its_epoch(tmp_path: Path) -> None:
    cohort = _cohort()
    poisoned: list[int] = []

    def poison_after_three_epochs(history: History) -> None:
        if history.epochs == 3:
            poisoned.append(history.epochs)
            _poison(cohort, 1, 0, float("nan"))

    cohort.module.listeners = (poison_after_three_epochs,)
    history = cohort.train(tmp_path / "c.ckpt")
    assert poisoned == [3]
    assert history.first_divergence(1, 0) == 4
    assert history.first_divergence(1, 1) is None
    assert history.first_divergence(0, 0) is None
    assert np.isfinite(history.curve("val", "loss")[1, 0]).tolist() == [True] * 4 + [False] * 3
