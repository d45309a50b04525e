"""TensorBoard event files of the runs of a cohort, written while it trains.

Train and val of a metric are two tags of one event file; a custom-scalars layout draws them on one chart, and on others
the range over the folds around their mean. The x-axis is the epoch. Nothing is ever computed from these files:
TensorBoard thins them out.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary

from overfit_lab.training.event_file import VERSION, framed
from overfit_lab.training.history import History

# Sets the files apart that one process writes into one folder within a second.
_numbers = itertools.count()


class RunMembers(NamedTuple):
    """Where a run of a cohort is written, and which members of the cohort are its fits.

    Args:
        directory: The run's folder, which is there.
        streams: Indices of its fits along the streams; at least one.
        configuration: Its index along the configurations.
    """

    directory: Path
    streams: tuple[int, ...]
    configuration: int


class CohortEvents:
    """Writes for each run the mean over its fits of each curve, and their range; a listener of the cohort's module.

    torch's SummaryWriter would need a thread and an open file for each run, of which there may be thousands. Here
    records wait in memory, and a file is open only while they are appended to it.

    Args:
        runs: The runs of the cohort, each in a folder of its own.
        flush_seconds: For how long at least records wait before the next epoch appends them.
    """

    def __init__(self, runs: Sequence[RunMembers], flush_seconds: float = 5.0) -> None:
        self.flush_seconds = flush_seconds
        # TensorBoard reads the files of a folder in the order of their names, and purging relies on it.
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):04}"
        self._files = [run.directory / name for run in runs]
        self._waiting = [bytearray() for _ in runs]
        self._begun, self._flushed = False, time.monotonic()
        # The members run by run, side by side: where each lies in the cohort, and where each run begins.
        self._counts = np.array([len(run.streams) for run in runs])
        self._starts = self._counts.cumsum() - self._counts
        # Of a single fit there is no range.
        self._has_range = bool((self._counts > 1).any())
        self._streams = np.concatenate([run.streams for run in runs])
        self._configurations = np.repeat([run.configuration for run in runs], self._counts)

    def __call__(self, history: History) -> None:
        """Write the epoch that has just been measured."""
        if not self._begun:
            self._begin(history)
        # A curve that begins at epoch 1 is missing or empty at epoch 0.
        last = {curve: epochs[-1].numpy() for curve, epochs in history.curves.items() if epochs}
        members = np.stack(list(last.values()))[:, self._streams, self._configurations]
        tags = [history.tag(*curve) for curve in last]
        # What has diverged shows as inf or NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.add.reduceat(members, self._starts, axis=1) / self._counts
        if self._has_range:
            ranged = [i for i, (_, metric) in enumerate(last) if ("val", metric) in history.curves]
            ends = {"low": np.minimum, "high": np.maximum}
            values = np.concatenate([values, *(f.reduceat(members[ranged], self._starts, 1) for f in ends.values())])
            tags += [f"folds/{tags[i]}_{end}" for end in ends for i in ranged]
        # One event for all, filled in anew for each run.
        event = Event(wall_time=time.time(), step=history.epochs)
        shown = [event.summary.value.add(tag=tag) for tag in tags]
        for waiting, row in zip(self._waiting, values.T.tolist(), strict=True):
            for scalar, value in zip(shown, row, strict=True):
                scalar.simple_value = value
            waiting += framed(event)
        if time.monotonic() - self._flushed >= self.flush_seconds:
            self._flush()

    def finish(self, run: int, hparams: Mapping[str, object], metrics: Mapping[str, float | None]) -> None:
        """Write a run's hyperparameters once, with its final metrics beside them.

        Args:
            run: Its index among the runs.
            hparams: What the HPARAMS tab shows of the configuration; None is left out, as it would hide the run.
            metrics: What it shows of the outcome; None (an onset that was not reached) becomes NaN.
        """
        shown = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in hparams.items() if v is not None}
        finals = {f"final/{name}": math.nan if v is None else v for name, v in metrics.items()}
        # Which columns there are is said by the report, which knows what was swept.
        _, *session = summary.hparams(shown, finals)  # type: ignore[no-untyped-call]
        values = [value for part in session for value in part.value]
        values += [Summary.Value(tag=tag, simple_value=value) for tag, value in finals.items()]
        # A cohort that was interrupted after its last epoch has no epoch left to write.
        first = () if self._begun else (Event(wall_time=time.time(), file_version=VERSION),)
        self._waiting[run] += framed(*first, Event(wall_time=time.time(), summary=Summary(value=values)))
        self._append(run)

    def close(self) -> None:
        """Append what still waits."""
        self._flush()

    def _begin(self, history: History) -> None:
        metrics = [metric for split, metric in history.curves if split == "val"]
        layout = summary.custom_scalars(_charts(metrics, ranged=self._has_range))  # type: ignore[no-untyped-call]
        head = framed(
            Event(wall_time=time.time(), file_version=VERSION),
            # What an interrupted process has written from this epoch on does not count.
            Event(wall_time=time.time(), step=history.epochs, session_log=SessionLog(status=SessionLog.START)),
            Event(wall_time=time.time(), summary=layout),
        )
        for waiting in self._waiting:
            waiting += head
        self._begun = True

    def _flush(self) -> None:
        for run in range(len(self._files)):
            self._append(run)
        # Counted from the end, so that slow files leave time to train.
        self._flushed = time.monotonic()

    def _append(self, run: int) -> None:
        if records := bytes(self._waiting[run]):
            # Emptied first: what an interruption hits may be lost, but is never there twice.
            self._waiting[run].clear()
            with self._files[run].open("ab") as file:
                file.write(records)


def _charts(metrics: Sequence[str], *, ranged: bool) -> dict[str, dict[str, list[Any]]]:
    """Lay the charts out: first train and val together, then each with its range over the folds."""
    charts = {"train and val": {metric: ["Multiline", [f"{metric}/train", f"{metric}/val"]] for metric in metrics}}
    if ranged:
        tags = {f"{metric}, {split}": f"{metric}/{split}" for metric in metrics for split in ("val", "train")}
        charts["mean and range over the folds"] = {
            name: ["Margin", [tag, f"folds/{tag}_low", f"folds/{tag}_high"]] for name, tag in tags.items()
        }
    return charts
