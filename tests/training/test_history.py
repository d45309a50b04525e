"""What is kept of the validation losses, and how curves are laid out."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from overfit_lab.data.datamodule import Stream
from overfit_lab.training.history import BLOCKS, CURVE_SCHEMA, History, plan_storage


def test_short_horizons_keep_every_epoch_and_every_row() -> None:
    storage = plan_storage(100, [(0, 0), (0, 1)], [50, 51])
    assert storage.epochs == tuple(range(101))
    assert storage.blocks == (None, None)
    losses = torch.rand(3, 50, dtype=torch.float64)
    kept = storage.reduce(losses, 0)
    assert kept.dtype == torch.float32
    assert torch.equal(kept, losses.float())


def test_long_horizons_are_kept_log_spaced() -> None:
    epochs = plan_storage(5000, [(0, 0)], [50]).epochs
    assert epochs[0] == 0
    assert epochs[1] == 1
    assert epochs[-1] == 5000
    assert 100 < len(epochs) <= 129
    assert (np.diff(epochs) > 0).all()
    # Log-spaced: the ratio of neighbours is nearly constant where rounding does not matter.
    late = np.array([e for e in epochs if e > 500], dtype=float)
    assert np.ptp(late[1:] / late[:-1]) < 0.01


def test_many_rows_are_kept_as_means_of_fixed_random_blocks() -> None:
    rows = 200_000
    storage = plan_storage(60, [(0, 0), (0, 1)], [rows, 10])
    blocks, small = storage.blocks
    assert blocks is not None
    # All folds alike, so that columns of the pooled table are: also one that would be small enough on its own.
    assert small is not None
    assert storage.reduce(torch.arange(10.0)[None], 1).shape == (1, 10)
    assert np.ptp(np.bincount(blocks)) <= 1
    assert len(np.bincount(blocks)) == BLOCKS
    again, other = (plan_storage(60, [name], [rows]).blocks[0] for name in ((0, 0), (0, 3)))
    assert again is not None
    assert other is not None
    assert np.array_equal(blocks, again)
    assert not np.array_equal(blocks, other)

    losses = torch.rand(2, rows, dtype=torch.float64)
    reduced = storage.reduce(losses, 0)
    for block in (0, 77, 127):
        expected = losses.numpy()[:, blocks == block].mean(1)
        np.testing.assert_allclose(reduced[:, block], expected, rtol=1e-6)


def test_curves_are_laid_out_in_long_form() -> None:
    history = History()
    for epoch in range(3):
        if epoch:
            history.append("train", "running_loss", torch.full((2, 1), 100.0 * epoch))
        history.append("val", "loss", torch.tensor([[epoch + 0.5], [epoch + 10.5]]))
    frame = history.curves_frame([Stream(0, 0, 3), Stream(0, 1, 4)], configuration=0)
    assert frame.schema == CURVE_SCHEMA
    own = frame.filter(pl.col("metric") == "loss", pl.col("repeat") == 1)
    assert own["fold"].to_list() == [4, 4, 4]
    assert own["epoch"].to_list() == [0, 1, 2]
    assert own["value"].to_list() == [10.5, 11.5, 12.5]
    running = frame.filter(pl.col("metric") == "running_loss", pl.col("fold") == 3)
    assert running["epoch"].to_list() == [1, 2]
    assert running["value"].to_list() == [100.0, 200.0]


def test_only_the_first_divergence_counts() -> None:
    history = History()
    for healthy in ([True, True], [True, False], [False, True]):
        history.append("val", "loss", torch.zeros(1, 2))
        history.note_divergence(torch.tensor([healthy]))
    assert history.first_divergence(0, 0) == 2
    assert history.first_divergence(0, 1) == 1
