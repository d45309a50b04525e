"""Matched measurement: from epoch 0, on the same weights, in eval mode, without penalty and without random numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from overfit_lab.data import Source, load_source
from overfit_lab.objective import Penalty
from overfit_lab.training import CohortModule, History
from overfit_lab.training import measure as measure_module
from tests.training.cohorts import make_cohort


def test_curves_start_at_epoch_0_and_the_running_loss_has_its_own_name(tmp_path: Path) -> None:
    cohort = make_cohort(load_source("wine"), epochs=4, penalties=[Penalty(0.0, 0.3)])
    history = cohort.train(tmp_path / "c.ckpt")
    assert history.curve("train", "loss").shape == (6, 1, 5)
    assert history.curve("val", "loss").shape == (6, 1, 5)
    assert history.curve("train", "running_loss").shape == (6, 1, 4)
    assert (history.curve("train", "penalty") > 0).all()


def test_measured_losses_are_those_of_the_weights_in_eval_mode(tmp_path: Path) -> None:
    """Against scikit-learn on each member's own weights, by hand, in uneven folds: no dropout, no penalty."""
    penalties = [Penalty(0.0, 1.0), Penalty(0.0, 0.0)]
    cohort = make_cohort(load_source("wine"), dropout=0.5, penalties=penalties, epochs=2, folds=4, metrics=["accuracy"])
    assert len(set(cohort.data.val.sizes)) == 2
    history = cohort.train(tmp_path / "c.ckpt")
    weights = {name: value.detach().numpy() for name, value in cohort.module.network.stacked_parameters().items()}
    for (stream, fold), member, (split, rows) in itertools.product(
        enumerate(cohort.data.fold_of_stream), (0, 1), (("train", cohort.data.train), ("val", cohort.data.val))
    ):
        size = rows.sizes[fold]
        hidden, targets = rows.x[fold, :size].numpy(), rows.y[fold, :size].numpy()
        for layer in ("0", "3"):
            own = weights[f"{layer}.weight"][stream, member], weights[f"{layer}.bias"][stream, member]
            hidden = np.tanh(hidden @ own[0].T + own[1])
        logits = hidden @ weights["6.weight"][stream, member].T + weights["6.bias"][stream, member]
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = log_loss(targets, probabilities, labels=[0, 1, 2])
        assert history.curve(split, "loss")[stream, member, -1] == pytest.approx(loss, rel=1e-9)
        accuracy = accuracy_score(targets, logits.argmax(1))
        assert history.curve(split, "accuracy")[stream, member, -1] == pytest.approx(accuracy, rel=1e-6)


def test_evaluation_consumes_no_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def final_weights() -> list[torch.Tensor]:
        cohort = make_cohort(load_source("wine"), dropout=0.5, epochs=3)
        cohort.train(tmp_path / "c.ckpt")
        return [p.detach() for p in cohort.module.network.stacked_parameters().values()]

    measured = final_weights()
    monkeypatch.setattr(CohortModule, "_measure", lambda self: None)
    unmeasured = final_weights()
    assert all(torch.equal(a, b) for a, b in zip(measured, unmeasured, strict=True))


def test_training_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    make_cohort(load_source("wine"), dropout=0.5, epochs=2).train(tmp_path / "c.ckpt")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_measuring_in_chunks_is_measuring_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve() -> np.ndarray:
        history: History = make_cohort(load_source("wine"), epochs=2).train(tmp_path / "c.ckpt")
        return history.curve("val", "loss")

    whole = curve()
    monkeypatch.setattr(measure_module, "CHUNK_ELEMENTS", 6 * 13 * 7)
    np.testing.assert_allclose(curve(), whole, rtol=1e-12)


def test_metrics_are_in_the_targets_own_units(tmp_path: Path) -> None:
    """Targets in thousands, scaled for training: the error is in thousands, the loss in standard deviations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    source = Source("thousands", "regression", x, 5000 + 1000 * x[:, 0])
    cohort = make_cohort(source, scale_targets=True, metrics=["mean_absolute_error", "r2"], epochs=0 + 1)
    history = cohort.train(tmp_path / "c.ckpt")
    for stream, fold in enumerate(cohort.data.fold_of_stream):
        scaling, size = cohort.data.target_scalings[fold], cohort.data.val.sizes[fold]
        deviation = float(scaling.scale[0])
        assert 500 < deviation < 2000
        mae = history.curve("val", "mean_absolute_error")[stream, 0, 0]
        # At epoch 0 predictions are near 0 in scaled units: the error is about that of predicting the mean.
        targets = cohort.data.val.y[fold, :size].numpy() * deviation
        assert 0.5 * np.abs(targets).mean() < mae < 2 * np.abs(targets).mean()
        assert history.curve("val", "loss")[stream, 0, 0] < 10
