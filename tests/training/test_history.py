"""What is kept of the validation losses, and how curves are laid out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from overfit_lab import config as cfg
from overfit_lab.data import load_source
from overfit_lab.data.development import Stream
from overfit_lab.objective import Penalty
from overfit_lab.training.history import BLOCKS, CURVE_SCHEMA, History, join, plan_storage
from tests.training.cohorts import make_cohort


def test_short_horizons_keep_every_epoch_and_every_row() -> None:
    storage = plan_storage(100, [(0, 0), (0, 1)], [50, 51])
    assert storage.epochs == tuple(range(101))
    assert storage.blocks == {(0, 0): None, (0, 1): None}
    losses = torch.rand(3, 50, dtype=torch.float64)
    kept = storage.reduce(losses, (0, 1))
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
    blocks, small = storage.blocks[0, 0], storage.blocks[0, 1]
    assert blocks is not None
    # All folds alike, so that columns of the pooled table are: also one that would be small enough on its own.
    assert small is not None
    assert storage.reduce(torch.arange(10.0)[None], (0, 1)).shape == (1, 10)
    assert np.ptp(np.bincount(blocks)) <= 1
    assert len(np.bincount(blocks)) == BLOCKS
    again, other = (plan_storage(60, [name], [rows]).blocks[name] for name in ((0, 0), (0, 3)))
    assert again is not None
    assert other is not None
    assert np.array_equal(blocks, again)
    assert not np.array_equal(blocks, other)

    losses = torch.rand(2, rows, dtype=torch.float64)
    reduced = storage.reduce(losses, (0, 0))
    for block in (0, 77, 127):
        expected = losses.numpy()[:, blocks == block].mean(1)
        np.testing.assert_allclose(reduced[:, block], expected, rtol=1e-6)


def _history(epochs: int = 3) -> History:
    """Two streams, two configurations; values tell where they belong: epoch + 10 stream + 100 configuration + .5."""
    history = History()
    place = torch.tensor([[0.0, 100.0], [10.0, 110.0]])
    for epoch in range(epochs):
        history.begin(epoch)
        if epoch:
            history.append("train", "running_loss", 1000.0 + epoch + place)
        history.append("val", "loss", epoch + 0.5 + place)
        history.val_losses.append([torch.full((2, rows), epoch + 0.25) for rows in (4, 5)])
        history.note_divergence(torch.tensor([[True, True], [True, epoch < 1]]))
    return history


def test_curves_are_laid_out_in_long_form() -> None:
    frame = _history().curves_frame({0: Stream(0, 0, 3), 1: Stream(0, 1, 4)}, configuration=1)
    assert frame.schema == CURVE_SCHEMA
    assert len(frame) == 2 * (3 + 2)
    own = frame.filter(pl.col("metric") == "loss", pl.col("repeat") == 1)
    assert own["fold"].to_list() == [4, 4, 4]
    assert own["epoch"].to_list() == [0, 1, 2]
    assert own["value"].to_list() == [110.5, 111.5, 112.5]
    assert set(own["split"]) == {"val"}
    running = frame.filter(pl.col("metric") == "running_loss", pl.col("fold") == 3)
    assert running["epoch"].to_list() == [1, 2]
    assert running["value"].to_list() == [1101.0, 1102.0]
    assert set(running["split"]) == {"train"}


def test_a_frame_holds_the_fits_that_are_asked_for() -> None:
    """Places need neither begin at 0 nor be all."""
    frame = _history().curves_frame({1: Stream(5, 2, 7)}, configuration=0)
    assert frame.select("repeat", "fold").unique().rows() == [(2, 7)]
    assert frame.filter(pl.col("metric") == "loss")["value"].to_list() == [10.5, 11.5, 12.5]
    swapped = _history().curves_frame({1: Stream(0, 0, 4), 0: Stream(0, 0, 3)}, configuration=0)
    for fold, first in ((3, 0.5), (4, 10.5)):
        own = swapped.filter(pl.col("metric") == "loss", pl.col("fold") == fold)
        assert own["value"].to_list() == [first, first + 1, first + 2]


def test_curves_grow_with_the_history() -> None:
    history = _history(2)
    assert history.epochs == 1
    assert history.curve("val", "loss")[1, 1].tolist() == [110.5, 111.5]
    history.begin(2)
    history.append("val", "loss", torch.full((2, 2), 7.0))
    assert history.curve("val", "loss")[1, 1].tolist() == [110.5, 111.5, 7.0]
    assert history.curve("val", "loss").dtype == np.float64
    assert History().epochs == -1


def test_a_history_replayed_epoch_by_epoch_is_what_was_seen_while_it_grew() -> None:
    replayed = list(_history().epoch_by_epoch())
    assert [history.epochs for history in replayed] == [0, 1, 2]
    for epoch, history in enumerate(replayed):
        grown = _history(epoch + 1)
        # A curve that starts at epoch 1 is empty or missing at epoch 0.
        ours = {curve: values for curve, values in history.curves.items() if values}
        assert ours.keys() == grown.curves.keys()
        for curve in ours:
            assert np.array_equal(history.curve(*curve), grown.curve(*curve))
    assert list(History().epoch_by_epoch()) == []


def test_what_a_checkpoint_holds_brings_a_history_back() -> None:
    buffer = io.BytesIO()
    torch.save(_history().state(), buffer)
    buffer.seek(0)
    found = History()
    found.extend(torch.load(buffer, weights_only=True))
    expected = _history()
    for history in (found, expected):
        history.begin(3)
        history.append("train", "running_loss", torch.full((2, 2), 3.0))
        history.append("val", "loss", torch.full((2, 2), 2.0))
        history.note_divergence(torch.tensor([[False, True], [True, False]]))
    _assert_same(found, expected)
    assert found.first_divergence(0, 0) == 3
    assert found.first_divergence(1, 1) == 1


def _assert_same(found: History, expected: History) -> None:
    assert found.measured == expected.measured
    assert found.curves.keys() == expected.curves.keys()
    for curve in expected.curves:
        assert np.array_equal(found.curve(*curve), expected.curve(*curve)), curve
    assert len(found.val_losses) == len(expected.val_losses)
    for ours, theirs in zip(found.val_losses, expected.val_losses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert found.diverged_at is not None
    assert expected.diverged_at is not None
    assert torch.equal(found.diverged_at, expected.diverged_at)


def test_parts_are_joined_along_the_streams() -> None:
    first, second = _history(), _history()
    for values in second.curves.values():
        values[:] = [v[:1] + 1000 for v in values]
    second.val_losses = [[losses[0] + 1000] for losses in second.val_losses]
    second.diverged_at = torch.tensor([[2, -1]])
    whole = join([first, second])
    assert whole.epochs == 2
    assert whole.curve("val", "loss")[:, 1].tolist() == [
        [100.5, 101.5, 102.5],
        [110.5, 111.5, 112.5],
        [1100.5, 1101.5, 1102.5],
    ]
    assert whole.curve("train", "running_loss").shape == (3, 2, 2)
    assert [[tuple(losses.shape) for losses in epoch] for epoch in whole.val_losses] == [[(2, 4), (2, 5), (2, 4)]] * 3
    assert [epoch[2][0, 0].item() for epoch in whole.val_losses] == [1000.25, 1001.25, 1002.25]
    divergences = [[whole.first_divergence(s, c) for c in range(2)] for s in range(3)]
    assert divergences == [[None, None], [None, 1], [2, None]]


def test_a_single_part_is_the_whole() -> None:
    history = _history()
    assert join([history]) is history


def test_a_cohort_trained_in_parts_is_the_cohort_trained_at_once(tmp_path: Path) -> None:
    """In parts of different size, one of which holds a shorter fold only, with a member that diverges."""

    def train(only: Callable[[Stream], bool]) -> History:
        rates = (0.01, 1e6)
        return make_cohort(
            load_source("linnerud"),
            penalties=[Penalty(0.0, 0.1)] * 2,
            optimizers=[cfg.SGD(kind="sgd", lr=lr) for lr in rates],
            dropout=0.3,
            epochs=3,
            activation="leaky_relu",
            only=only,
            metrics=["r2"],
        ).train(tmp_path / "c.ckpt")

    # Streams lie seed by seed, (0, 0, 0), (0, 0, 1), ... (1, 0, 2).
    whole = train(lambda stream: True)
    parts = [
        train(lambda s: s.seed == 0),
        train(lambda s: s.seed == 1 and s.fold < 2),
        train(lambda s: s[::2] == (1, 2)),
    ]
    assert [history.curve("val", "loss").shape[0] for history in parts] == [3, 2, 1]
    joined = join(parts)
    assert joined.curves.keys() == whole.curves.keys()
    for curve in whole.curves:
        np.testing.assert_allclose(joined.curve(*curve), whole.curve(*curve), rtol=1e-9, err_msg=str(curve))
    for ours, theirs in zip(joined.val_losses, whole.val_losses, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
    assert joined.diverged_at is not None
    assert whole.diverged_at is not None
    assert torch.equal(joined.diverged_at, whole.diverged_at)
    assert (whole.diverged_at[:, 0] == -1).all()
    assert (whole.diverged_at[:, 1] > 0).all()


def test_only_the_first_divergence_counts() -> None:
    history = History()
    for epoch, healthy in enumerate(([True, True], [True, False], [False, True])):
        history.begin(epoch)
        history.note_divergence(torch.tensor([healthy]))
    assert history.first_divergence(0, 0) == 2
    assert history.first_divergence(0, 1) == 1
