"""A member that diverges is recorded at its epoch, and disturbs no other: bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab import config as cfg
from overfit_lab.data import load_source
from overfit_lab.objective import Penalty
from overfit_lab.training.history import History
from overfit_lab.training.stack import Form
from tests.training.cohorts import ADAM, Cohort, make_cohort, mlp

FORMS: tuple[Form, ...] = ("layered", "vmapped", "looped")
# Of the member that is made ill.
STREAM, CONFIGURATION = 2, 1


def _cohort(form: Form = "layered", source: str = "breast_cancer", optimizers: int = 1) -> Cohort:
    penalties = [Penalty(0.0, 0.0), Penalty(0.01, 0.1), Penalty(0.0, 0.1)]
    adams = [ADAM, ADAM.model_copy(update={"lr": 0.003}), ADAM]
    return make_cohort(
        load_source(source),
        penalties=penalties,
        optimizers=adams if optimizers > 1 else None,
        models=[mlp(width, "tanh", dropout) for width, dropout in ((8, 0.0), (5, 0.3), (8, 0.3))],
        epochs=3,
        precision="32-true",
        batch_size=60,
        form=form,
        metrics=["accuracy", "auroc"] if source == "breast_cancer" else ["r2"],
    )


def _poison(cohort: Cohort, stream: int, configuration: int, value: float) -> None:
    """Write a value over a member's second layer; what pads it stays 0."""
    layer = cohort.module.network.stacked_parameters()["3.weight"][stream, configuration]
    layer[layer != 0] = value


def _assert_others_are_bit_identical(healthy: Cohort, sick: Cohort, tmp_path: Path) -> tuple[History, History]:
    ours, theirs = (cohort.train(tmp_path / "c.ckpt") for cohort in (healthy, sick))
    assert ours.curves.keys() == theirs.curves.keys()
    others = np.ones((len(healthy.streams), 3), dtype=bool)
    others[STREAM, CONFIGURATION] = False
    for curve in ours.curves:
        assert np.array_equal(ours.curve(*curve)[others], theirs.curve(*curve)[others]), curve
        assert np.isfinite(ours.curve(*curve)).all()
    for epoch, their_epoch in zip(ours.val_losses, theirs.val_losses, strict=True):
        for s, (losses, their_losses) in enumerate(zip(epoch, their_epoch, strict=True)):
            assert torch.equal(losses[others[s]], their_losses[others[s]])
    for name, weight in healthy.module.network.stacked_parameters().items():
        keep = torch.from_numpy(others)
        assert torch.equal(weight[keep], sick.module.network.stacked_parameters()[name][keep]), name
    for s, c in zip(*np.nonzero(others), strict=True):
        assert theirs.first_divergence(s, c) is None
    return ours, theirs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_others_are_bit_identical(value: float, form: Form, tmp_path: Path) -> None:
    sick = _cohort(form)
    _poison(sick, STREAM, CONFIGURATION, value)
    ours, theirs = _assert_others_are_bit_identical(_cohort(form), sick, tmp_path)
    for split in ("train", "val"):
        own = theirs.curve(split, "loss")[STREAM, CONFIGURATION]
        assert not np.array_equal(ours.curve(split, "loss")[STREAM, CONFIGURATION], own)
    if not np.isfinite(value):
        assert theirs.first_divergence(STREAM, CONFIGURATION) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_member_with_inf_loss_leaves_the_others_bit_identical(form: Form, tmp_path: Path) -> None:
    """Its values and gradients are finite, but squares of its errors are beyond float32."""
    sick = _cohort(form, "linnerud")
    sick.module.network.stacked_parameters()["6.bias"][STREAM, CONFIGURATION] = 1e25
    _, theirs = _assert_others_are_bit_identical(_cohort(form, "linnerud"), sick, tmp_path)
    assert np.isposinf(theirs.curve("val", "loss")[STREAM, CONFIGURATION]).all()
    assert theirs.first_divergence(STREAM, CONFIGURATION) == 0
    # It is not the weights that are lost.
    assert sick.module.network.flat.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_with_optimizers_of_their_own_others_are_bit_identical(form: Form, tmp_path: Path) -> None:
    sick = _cohort(form, optimizers=2)
    _poison(sick, STREAM, CONFIGURATION, float("nan"))
    _assert_others_are_bit_identical(_cohort(form, optimizers=2), sick, tmp_path)


def test_one_that_diverges_by_its_own_step_size_leaves_the_others_bit_identical(tmp_path: Path) -> None:
    """The usual way to diverge: beside a step size that is far too large, not poisoned from outside."""

    def make(lr: float) -> Cohort:
        rates = (1e-4, lr)
        return make_cohort(
            load_source("linnerud"),
            penalties=[Penalty(0.0, 0.0), Penalty(0.0, 0.1)],
            optimizers=[cfg.SGD(kind="sgd", lr=rate) for rate in rates],
            activation="leaky_relu",
            precision="32-true",
            epochs=20,
        )

    calm, wild = (make(lr).train(tmp_path / "c.ckpt") for lr in (1e-5, 1e3))
    for split in ("train", "val"):
        assert np.array_equal(calm.curve(split, "loss")[:, 0], wild.curve(split, "loss")[:, 0])
    assert all(0 < (wild.first_divergence(s, 1) or 0) <= 20 for s in range(6))
    assert all(wild.first_divergence(s, 0) is None for s in range(6))


def test_divergence_is_noted_at_its_epoch(tmp_path: Path) -> None:
    cohort = _cohort()
    poisoned: list[int] = []

    def poison_after_two_epochs(history: History) -> None:
        if history.epochs == 2:
            poisoned.append(history.epochs)
            _poison(cohort, 1, 0, float("nan"))

    cohort.module.listeners = (poison_after_two_epochs,)
    history = cohort.train(tmp_path / "c.ckpt")
    assert poisoned == [2]
    assert history.first_divergence(1, 0) == 3
    assert history.first_divergence(1, 1) is None
    assert history.first_divergence(0, 0) is None
    assert np.isfinite(history.curve("val", "loss")[1, 0]).tolist() == [True] * 3 + [False]
