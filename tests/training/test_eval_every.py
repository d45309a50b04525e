"""Curves that are measured at some epochs only, and a training that holds no rows back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from overfit_lab import config as cfg
from overfit_lab.data import load_source
from overfit_lab.data.development import Stream
from overfit_lab.objective import Penalty
from overfit_lab.training.events import CohortEvents, RunMembers
from overfit_lab.training.history import MAX_EPOCHS, History, join, plan_storage
from tests.training.cohorts import Cohort, make_cohort


def _cohort(eval_every: int, epochs: int = 12, **changes: Any) -> Cohort:  # noqa: ANN401 - any argument
    return make_cohort(
        load_source("wine"),
        penalties=[Penalty(0.0, 0.0), Penalty(0.0, 0.1)],
        dropout=0.3,
        epochs=epochs,
        eval_every=eval_every,
        precision="32-true",
        **changes,
    )


@pytest.mark.parametrize(("epochs", "measured"), [(12, [0, 5, 10, 12]), (10, [0, 5, 10]), (3, [0, 3])])
def test_what_is_measured_is_bit_for_bit_what_it_is_when_every_epoch_is(
    tmp_path: Path, epochs: int, measured: list[int]
) -> None:
    every, fifth = (_cohort(n, epochs) for n in (1, 5))
    dense, sparse = every.train(tmp_path / "a.ckpt"), fifth.train(tmp_path / "b.ckpt")
    assert dense.measured == list(range(epochs + 1))
    assert sparse.measured == measured
    assert sparse.curves.keys() == dense.curves.keys()
    for curve in dense.curves:
        # The running loss begins at the first epoch after 0.
        own = measured[1:] if curve[1] == "running_loss" else measured
        expected = dense.curve(*curve)[..., [epoch - (curve[1] == "running_loss") for epoch in own]]
        assert np.array_equal(sparse.curve(*curve), expected), curve
    assert fifth.module.storage.epochs == tuple(measured)
    for ours, epoch in zip(sparse.val_losses, measured, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, dense.val_losses[epoch], strict=True))
    assert torch.equal(every.module.network.flat, fifth.module.network.flat)


@pytest.mark.parametrize("epoch", [5, 10, 12])
def test_a_resumed_cohort_is_bit_identical(tmp_path: Path, epoch: int) -> None:
    class Interruption(Exception):
        pass

    def interrupt(history: History) -> None:
        if history.epochs == epoch:
            raise Interruption

    undisturbed = _cohort(5).train(tmp_path / "a.ckpt")
    with pytest.raises(Interruption):
        _cohort(5, checkpoint_seconds=0, listeners=[interrupt]).train(tmp_path / "b.ckpt")
    seen: list[int] = []
    resumed = _cohort(5, listeners=[lambda history: seen.append(history.epochs)]).train(tmp_path / "b.ckpt")
    # The last checkpoint is that of the epoch before, whether it was measured or not.
    assert seen == [own for own in (5, 10, 12) if own >= epoch]
    assert resumed.measured == undisturbed.measured == [0, 5, 10, 12]
    for curve in undisturbed.curves:
        assert np.array_equal(resumed.curve(*curve), undisturbed.curve(*curve)), curve
    for ours, theirs in zip(resumed.val_losses, undisturbed.val_losses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_divergence_is_noted_at_the_epoch_that_shows_it(tmp_path: Path) -> None:
    def train(eval_every: int) -> History:
        return make_cohort(
            load_source("linnerud"),
            penalties=[Penalty(0.0, 0.1)] * 2,
            optimizers=[cfg.SGD(kind="sgd", lr=lr) for lr in (1e-4, 1e6)],
            activation="leaky_relu",
            epochs=7,
            eval_every=eval_every,
        ).train(tmp_path / "c.ckpt")

    dense, sparse = train(1), train(5)
    for stream in range(6):
        assert dense.first_divergence(stream, 0) is sparse.first_divergence(stream, 0) is None
        first = dense.first_divergence(stream, 1)
        assert first is not None
        assert sparse.first_divergence(stream, 1) == (5 if first <= 5 else 7)


def test_frames_and_event_files_have_the_measured_epochs(tmp_path: Path) -> None:
    run = RunMembers(tmp_path / "run", (0, 2), 1)
    run.directory.mkdir()
    events = CohortEvents([run])
    history = _cohort(5, listeners=[events]).train(tmp_path / "c.ckpt")
    events.close()
    frame = history.curves_frame({0: Stream(0, 0, 0), 2: Stream(0, 0, 2)}, configuration=1)
    for metric, epochs in (("loss", [0, 5, 10, 12]), ("running_loss", [5, 10, 12])):
        own = frame.filter(pl.col("metric") == metric, pl.col("split") == "train", pl.col("fold") == 2)
        assert own["epoch"].to_list() == epochs
        assert own["value"].to_list() == history.curve("train", metric)[2, 1].tolist()
    reader = EventAccumulator(str(run.directory))
    reader.Reload()
    assert [scalar.step for scalar in reader.Scalars("loss/val")] == [0, 5, 10, 12]
    assert [scalar.step for scalar in reader.Scalars("training/running_loss")] == [5, 10, 12]


def test_parts_that_are_joined_and_replayed_have_the_measured_epochs(tmp_path: Path) -> None:
    parts = [_cohort(5, only=lambda s, seed=seed: s.seed == seed).train(tmp_path / "c.ckpt") for seed in (0, 1)]
    joined = join(parts)
    assert joined.measured == [0, 5, 10, 12]
    replayed = list(joined.epoch_by_epoch())
    assert [history.epochs for history in replayed] == [0, 5, 10, 12]
    assert [len(history.curves["val", "loss"]) for history in replayed] == [1, 2, 3, 4]
    assert [len(history.curves["train", "running_loss"]) for history in replayed] == [0, 1, 2, 3]


def test_the_validation_losses_of_measured_epochs_are_kept() -> None:
    assert plan_storage(12, [(0, 0)], [50], 5).epochs == (0, 5, 10, 12)
    assert plan_storage(3, [(0, 0)], [50], 5).epochs == (0, 3)
    assert plan_storage(5 * MAX_EPOCHS, [(0, 0)], [50], 5).epochs == tuple(range(0, 5 * MAX_EPOCHS + 1, 5))


@pytest.mark.parametrize("epochs", [5000, 5003])
def test_of_many_measured_epochs_log_spaced_ones_are_kept(epochs: int) -> None:
    kept = np.array(plan_storage(epochs, [(0, 0)], [50], 5).epochs)
    assert kept[:3].tolist() == [0, 5, 10]
    assert kept[-1] == epochs
    assert (np.diff(kept) > 0).all()
    assert (kept[:-1] % 5 == 0).all()
    assert 80 < len(kept) <= MAX_EPOCHS + 1
    late = kept[(kept > 1500) & (kept < epochs)]
    assert np.ptp(late[1:] / late[:-1]) < 0.01


def test_without_validation_rows_only_train_is_measured(tmp_path: Path) -> None:
    cohort = _cohort(5, validated=False)
    assert cohort.data.val is None
    history = cohort.train(tmp_path / "c.ckpt")
    assert {split for split, _ in history.curves} == {"train"}
    assert history.measured == [0, 5, 10, 12]
    assert history.epochs == 12
    assert history.val_losses == []
    assert history.curve("train", "loss")[..., -1].max() < history.curve("train", "loss")[..., 0].min()
    assert history.first_divergence(0, 0) is None
