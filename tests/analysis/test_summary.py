"""The epoch to select a curve at, and its onset."""

from __future__ import annotations

import numpy as np

from overfit_lab.analysis.onset import Onset, estimate_onset
from overfit_lab.analysis.summary import summarise
from scripts.benchmarks.scenarios import SCENARIOS


def test_a_long_curve_is_selected_where_its_trend_is_lowest() -> None:
    curve = SCENARIOS[0].draw(np.random.default_rng(0))
    epochs = np.arange(1, len(curve.val_losses) + 1)
    onset, best = summarise(curve.val_losses, curve.train_loss, epochs)
    assert onset == estimate_onset(curve.val_losses, curve.train_loss)
    assert best == onset.best_epoch


def test_a_short_curve_is_selected_where_it_is_lowest() -> None:
    losses = np.array([[3.0, 5.0], [1.0, 2.0], [2.0, 2.0]])
    assert summarise(losses, None, np.array([5, 10, 15])) == (Onset("too_short", best_epoch=10), 10)


def test_one_row_proves_nothing() -> None:
    losses = np.concatenate([np.linspace(2, 1, 20), np.linspace(1, 3, 20)])[:, None]
    onset, best = summarise(losses, None, np.arange(1, 41))
    assert (onset.verdict, best) == ("too_short", 20)


def test_no_finite_loss_has_no_best_epoch() -> None:
    assert summarise(np.full((3, 2), np.nan), None, np.arange(1, 4))[1] is None
