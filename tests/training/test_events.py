"""TensorBoard event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from overfit_lab.data import load_source
from overfit_lab.objective import Penalty
from overfit_lab.training import events
from overfit_lab.training.events import CohortEvents, RunMembers
from overfit_lab.training.history import History
from tests.training.cohorts import make_cohort

TAGS = {
    "loss/train": ("train", "loss"),
    "loss/val": ("val", "loss"),
    "accuracy/train": ("train", "accuracy"),
    "accuracy/val": ("val", "accuracy"),
    "training/running_loss": ("train", "running_loss"),
    "training/penalty": ("train", "penalty"),
    "training/weight_norm": ("train", "weight_norm"),
    "training/distance_from_init": ("train", "distance_from_init"),
}
RANGED = [tag for tag in TAGS if not tag.startswith("training/")]
RANGES = {f"folds/{tag}_{end}" for tag in RANGED for end in ("low", "high")}
HPARAMS = {"model.width": 8, "penalty.kind": "l2", "nothing": None}


def make_runs(directory: Path, *members: tuple[tuple[int, ...], int]) -> list[RunMembers]:
    runs = [RunMembers(directory / f"run{i}", *own) for i, own in enumerate(members)]
    for run in runs:
        run.directory.mkdir(exist_ok=True)
    return runs


def measure(history: History, values: list[list[float]]) -> History:
    """Add an epoch of `streams x configurations`."""
    history.begin(history.epochs + 1)
    for split in ("train", "val"):
        history.append(split, "loss", torch.tensor(values, dtype=torch.float64))
    return history


def read(run: RunMembers) -> EventAccumulator:
    reader = EventAccumulator(str(run.directory))
    reader.Reload()
    return reader


def read_curve(run: RunMembers, tag: str = "loss/val") -> list[tuple[int, float]]:
    return [(scalar.step, scalar.value) for scalar in read(run).Scalars(tag)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[RunMembers], History]:
    """Three runs of one cohort of 6 streams x 2 configurations, of unlike sizes and out of order."""
    directory = tmp_path_factory.mktemp("trained")
    runs = make_runs(directory, ((3, 4, 5), 1), ((0, 2), 0), ((1,), 1))
    writer = CohortEvents(runs)
    cohort = make_cohort(
        load_source("wine"),
        epochs=3,
        penalties=[Penalty(0.0, 0.0), Penalty(0.0, 0.5)],
        metrics=["accuracy"],
        listeners=[writer],
    )
    history = cohort.train(directory / "c.ckpt")
    for i in range(len(runs)):
        writer.finish(i, HPARAMS | {"seed": i}, {"val_loss": 0.25 + i, "onset": None})
    return runs, history


@pytest.mark.parametrize("run", range(3))
def test_every_curve_is_the_mean_over_the_runs_own_fits(trained: tuple[list[RunMembers], History], run: int) -> None:
    runs, history = trained
    reader = read(runs[run])
    assert set(reader.Tags()["scalars"]) == {*TAGS, *RANGES, "final/val_loss", "final/onset"}
    for tag, (split, metric) in TAGS.items():
        scalars = reader.Scalars(tag)
        assert [s.step for s in scalars] == ([1, 2, 3] if metric == "running_loss" else [0, 1, 2, 3])
        fits = [history.curve(split, metric)[stream, runs[run].configuration] for stream in runs[run].streams]
        np.testing.assert_allclose([s.value for s in scalars], sum(fits) / len(fits), rtol=1e-6, err_msg=tag)


@pytest.mark.parametrize("run", range(3))
def test_ranges_are_those_of_the_runs_own_fits(trained: tuple[list[RunMembers], History], run: int) -> None:
    runs, history = trained
    reader = read(runs[run])
    for tag in RANGED:
        fits = history.curve(*TAGS[tag])[list(runs[run].streams), runs[run].configuration]
        for end, expected in (("low", fits.min(axis=0)), ("high", fits.max(axis=0))):
            written = [s.value for s in reader.Scalars(f"folds/{tag}_{end}")]
            np.testing.assert_allclose(written, expected, rtol=1e-6, err_msg=tag)


def test_a_single_fit_has_no_range(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ((0,), 0))
    writer = CohortEvents(runs, flush_seconds=0)
    writer(measure(History(), [[1.0]]))
    writer.close()
    assert set(read(runs[0]).Tags()["scalars"]) == {"loss/train", "loss/val"}
    content = read(runs[0]).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert [own.title for own in layout_pb2.Layout.FromString(content).category] == ["train and val"]


@pytest.mark.parametrize("run", range(3))
def test_one_chart_for_each_metric(trained: tuple[list[RunMembers], History], run: int) -> None:
    content = read(trained[0][run]).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    category, ranges = layout_pb2.Layout.FromString(content).category
    assert category.title == "train and val"
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == {"loss": ["loss/train", "loss/val"], "accuracy": ["accuracy/train", "accuracy/val"]}
    margins = {chart.title: list(chart.margin.series) for chart in ranges.chart}
    assert list(margins) == ["loss, val", "loss, train", "accuracy, val", "accuracy, train"]
    (series,) = margins["loss, val"]
    assert (series.value, series.lower, series.upper) == ("loss/val", "folds/loss/val_low", "folds/loss/val_high")


@pytest.mark.parametrize("run", range(3))
def test_hparams_are_written_once_with_their_final_metrics(trained: tuple[list[RunMembers], History], run: int) -> None:
    reader = read(trained[0][run])
    assert session_start(reader) == {"model.width": 8, "penalty.kind": "l2", "seed": run}
    assert [s.value for s in reader.Scalars("final/val_loss")] == [0.25 + run]
    (onset,) = reader.Scalars("final/onset")
    assert math.isnan(onset.value)


def session_start(reader: EventAccumulator) -> dict[str, float | str]:
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}


def test_one_record_for_each_epoch(trained: tuple[list[RunMembers], History]) -> None:
    """One file for each run, in which an epoch's tags share a record: framing costs more than all the rest."""
    runs, _ = trained
    (path,) = runs[0].directory.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    written = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    # The layout, four epochs, the hyperparameters.
    assert [event.WhichOneof("what") for event in written] == ["file_version", "session_log", *["summary"] * 6]
    assert written[0].file_version == "brain.Event:2"
    assert [event.step for event in written[3:7]] == [0, 1, 2, 3]
    assert {value.tag for value in written[6].summary.value} == {*TAGS, *RANGES}
    assert all(abs(event.wall_time - time.time()) < 3600 for event in written)


def test_an_interrupted_run_shows_every_epoch_once(tmp_path: Path) -> None:
    """The first process has written epochs 0 to 2 and died; the second goes on from epoch 2."""
    runs = make_runs(tmp_path, ((0,), 0), ((1,), 0))
    history = History()
    first, second = (CohortEvents(runs, flush_seconds=0) for _ in range(2))
    for epoch in range(5):
        measure(history, [[10.0 + epoch], [20.0 + epoch]])
        if epoch < 3:
            first(history)
        if epoch >= 2:
            second(history)
    for run, start in zip(runs, (10, 20), strict=True):
        assert len(list(run.directory.iterdir())) == 2
        assert read_curve(run) == [(epoch, start + epoch) for epoch in range(5)]


def test_a_run_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    """Nor does it warn; the tests make an error of a warning."""
    runs = make_runs(tmp_path, ((0, 1), 0), ((2, 3), 0), ((0, 1), 1), ((2, 3), 1))
    writer = CohortEvents(runs)
    writer(measure(History(), [[math.inf, 1.0], [-math.inf, 2.0], [1.5e308, 3.0], [1.5e308, 4.0]]))
    writer.close()
    values = [read_curve(run)[0][1] for run in runs]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, 1.5, 3.5]


@pytest.mark.parametrize("missing", [{}, {("train", "running_loss"): []}])
def test_a_curve_may_begin_at_epoch_1(tmp_path: Path, missing: dict[tuple[str, str], list[torch.Tensor]]) -> None:
    (run,) = make_runs(tmp_path, ((0,), 0))
    writer = CohortEvents([run])
    history = History(missing)
    writer(measure(history, [[1.0]]))
    measure(history, [[2.0]]).append("train", "running_loss", torch.tensor([[3.0]]))
    writer(history)
    writer.close()
    assert read_curve(run) == [(0, 1.0), (1, 2.0)]
    assert read_curve(run, "training/running_loss") == [(1, 3.0)]


def test_records_wait_until_the_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(events, "time", SimpleNamespace(time=time.time, monotonic=lambda: now))
    (run,) = make_runs(tmp_path, ((0,), 0))
    writer = CohortEvents([run], flush_seconds=5)
    history, shown = History(), []
    for now in (101.0, 104.9, 105.1, 109.9, 110.2, 111.0):  # noqa: B007 (the clock reads it)
        writer(measure(history, [[1.0]]))
        shown.append(len(read_curve(run)) if any(run.directory.iterdir()) else 0)
    assert shown == [0, 0, 3, 3, 5, 5]
    writer.close()
    writer.close()
    assert [step for step, _ in read_curve(run)] == [0, 1, 2, 3, 4, 5]


def test_a_finished_run_does_not_wait_for_the_others(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ((0,), 0), ((0,), 1))
    writer = CohortEvents(runs, flush_seconds=3600)
    writer(measure(History(), [[1.0, 2.0]]))
    writer.finish(1, HPARAMS, {})
    assert read_curve(runs[1]) == [(0, 2.0)]
    assert session_start(read(runs[1])) == {"model.width": 8, "penalty.kind": "l2"}
    assert not any(runs[0].directory.iterdir())
    writer.close()
    assert read_curve(runs[0]) == [(0, 1.0)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_nothing_stays_open(tmp_path: Path) -> None:
    def count() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = count()
    runs = make_runs(tmp_path, *(((0,), i) for i in range(20)))
    writer = CohortEvents(runs, flush_seconds=0)
    writer(measure(History(), [[1.0] * 20]))
    assert all(len(list(run.directory.iterdir())) == 1 for run in runs)
    assert count() == before


def test_a_run_without_an_epoch_still_gets_its_hparams(tmp_path: Path) -> None:
    """As one whose process was interrupted after the last epoch; what that process has written stays."""
    runs = make_runs(tmp_path, ((0,), 0), ((0,), 1))
    before = CohortEvents(runs[:1])
    before(measure(History(), [[1.0]]))
    before.close()
    writer = CohortEvents(runs)
    writer.finish(0, HPARAMS, {"onset": None, "gap": 0.5})
    writer.close()
    reader = read(runs[0])
    assert session_start(reader) == {"model.width": 8, "penalty.kind": "l2"}
    assert [s.value for s in reader.Scalars("final/gap")] == [0.5]
    assert read_curve(runs[0]) == [(0, 1.0)]
    (path,) = set(runs[0].directory.iterdir()) - {min(runs[0].directory.iterdir())}
    assert Event.FromString(next(RawEventFileLoader(str(path)).Load())).file_version == "brain.Event:2"
    # Nothing has been said about the other one.
    assert not any(runs[1].directory.iterdir())
