"""What a run and its study leave on disk: typed, versioned, saved and loaded here and nowhere else.

Every file is written under a temporary name, synced and renamed, so it is either there as a whole or not at all.
`run.json` comes last: where it exists, the run is finished.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError, first_line
from overfit_lab.files import write_atomically

SCHEMA_VERSION = 1
Status = Literal["finished", "diverged"]


class Record(BaseModel):
    """A part of a file; unknown keys are errors, and numbers that are not finite become null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:  # noqa: ANN401 - any field
        return None if isinstance(value, float) and not math.isfinite(value) else value


class ValLoss(Record):
    """The validation loss of a configuration: pooled over all validation rows of its folds, without penalty.

    Args:
        mean: Mean over rows at `epoch`.
        se: Its standard error over rows.
        epoch: The epoch of the lowest trend, in completed passes.
    """

    mean: float | None
    se: float | None = Field(ge=0)
    epoch: int | None


class FitRecord(Record):
    """One training from scratch: one (repeat, fold) with one seed.

    Args:
        diverged_at: The first epoch with a value that is not finite, or None.
        best_epoch: The epoch of the lowest trend of this fit alone.
        val_loss: Its mean validation loss there.
    """

    repeat: int
    fold: int
    seed: int
    status: Status
    diverged_at: int | None
    onset: Onset
    best_epoch: int | None
    val_loss: float | None


class Environment(Record):
    """What the run was made with; `git` is the commit of the working directory, with + where it was changed."""

    overfit_lab: str
    torch: str
    lightning: str
    python: str
    git: str | None
    command: str


class RunRecord(Record):
    """`run.json`: one configuration and all its fits. Epochs count completed passes; 0 is the untrained network."""

    schema_version: int
    run_id: str
    config_id: str
    status: Status
    config: dict[str, Any]
    overrides: list[str]
    parameters: int = Field(ge=1)
    onset: Onset
    val_loss: ValLoss
    train_loss: float | None
    fits: list[FitRecord]
    seconds: float
    device: str
    environment: Environment

    @property
    def gap(self) -> float | None:
        """The generalisation gap: validation loss less train loss, at the epoch of `val_loss`."""
        if self.val_loss.mean is None or self.train_loss is None:
            return None
        return self.val_loss.mean - self.train_loss


class FailureRecord(Record):
    """`failure.json`: stands where `run.json` would, if the run raised an exception."""

    schema_version: int
    run_id: str
    config: dict[str, Any]
    error: str
    traceback: str


class SourceRecord(Record):
    """What a study knows of its source."""

    name: str
    problem: str
    rows: int
    features: int
    outputs: int
    fingerprint: str


class StudyRecord(Record):
    """`study.json`: the one source and the one split that all runs of a study share."""

    schema_version: int
    name: str
    source: SourceRecord
    split: dict[str, Any]


class CohortRecord(Record):
    """`cohorts/NAME.json`, while a cohort trains: what its checkpoint holds.

    Stacked arithmetic may round differently in other company, so what was begun together goes on together.

    Args:
        runs: Their ids.
        max_fits: How many fits train at once, if not all.
    """

    schema_version: int
    runs: list[str]
    max_fits: int | None


class ValLosses(Record):
    """`val_losses.npz`: validation losses of each row (or block of rows) at each kept epoch.

    Args:
        epochs: `epochs`, completed passes, from 0.
        losses: `repeats x epochs x columns`, float32.
        rows: `repeats x columns`, row numbers of the source; -1 where a column is the mean of a block of rows.
        folds: `repeats x columns`, the fold in which the column was validated.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    epochs: NDArray[np.int64]
    losses: NDArray[np.float32]
    rows: NDArray[np.int64]
    folds: NDArray[np.int64]


class RunFiles:
    """The files of one run.

    Args:
        directory: `STUDY/runs/RUN_ID`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record = directory / "run.json"
        self.failure = directory / "failure.json"
        self.curves = directory / "curves.parquet"
        self.val_losses = directory / "val_losses.npz"

    def save(self, record: RunRecord, curves: pl.DataFrame, val_losses: ValLosses) -> None:
        """Write a finished run: `run.json` last."""
        write_frame(self.curves, curves)
        buffer = io.BytesIO()
        np.savez(buffer, **dict(val_losses))
        write_atomically(self.val_losses, buffer.getvalue())
        _write_record(self.record, record)
        self.failure.unlink(missing_ok=True)

    def save_failure(self, run_id: str, config: Mapping[str, Any], error: Exception) -> FailureRecord:
        """Write why a run failed, in one line and with the traceback, and return it."""
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        text = "".join(traceback.format_exception(error))
        record = FailureRecord(
            schema_version=SCHEMA_VERSION, run_id=run_id, config=dict(config), error=line, traceback=text
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        _write_record(self.failure, record)
        return record

    def load(self) -> RunRecord:
        """Read `run.json`.

        Raises:
            UserError: It is damaged, or written by a newer version.
        """
        return _read_record(self.record, RunRecord)

    def load_failure(self) -> FailureRecord:
        """Read `failure.json`; raises as `load`."""
        return _read_record(self.failure, FailureRecord)

    def load_curves(self) -> pl.DataFrame:
        """Read `curves.parquet`: repeat, fold, epoch, split, metric, value.

        Raises:
            UserError: It is missing or damaged.
        """
        try:
            # As bytes: a path would be taken for a pattern or an address, and a study may be called [a]*.
            frame = pl.read_parquet(io.BytesIO(self.curves.read_bytes()))
            return frame.select("repeat", "fold", "epoch", "split", "metric", pl.col("value").cast(pl.Float64))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{self.curves} is missing or damaged: {first_line(error)}") from error

    def load_val_losses(self) -> ValLosses:
        """Read `val_losses.npz`; it is never unpickled."""
        with np.load(self.val_losses, allow_pickle=False) as arrays:
            return ValLosses(**arrays)


class StudyFiles:
    """The files of a study that its runs share.

    Args:
        directory: `STUDY`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record = directory / "study.json"
        self.split = directory / "split.parquet"
        self.runs = directory / "runs"
        self.report = directory / "report"
        self.cohorts = directory / "cohorts"

    def checkpoint(self, cohort: str, part: int) -> Path:
        """Name the checkpoint of one part of a cohort that is training."""
        return self.cohorts / f"{cohort}.{part}.ckpt"

    def begin(self, cohort: str, record: CohortRecord) -> None:
        """Write down a cohort before it trains."""
        self.cohorts.mkdir(parents=True, exist_ok=True)
        _write_record(self.cohorts / f"{cohort}.json", record)

    def begun(self) -> list[CohortRecord]:
        """Read which cohorts were begun and can go on.

        One whose file is damaged is set aside, and one of which a run is finished is forgotten: what is left of either
        begins afresh.
        """
        records = []
        for path in sorted(self.cohorts.glob("*.json")):
            try:
                record = _read_record(path, CohortRecord)
            except UserError as error:
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                print(f"overfit-lab: {error}; set aside as {aside.name}", file=sys.stderr)
                continue
            if any(self.run(run_id).record.is_file() for run_id in record.runs):
                self.end(path.stem)
            else:
                records.append(record)
        return records

    def end(self, cohort: str) -> None:
        """Remove what is kept of a cohort while it trains."""
        # What a kill leaves of a file that was being written begins with a dot.
        for pattern in (f"{cohort}.*", f".{cohort}.*"):
            for path in self.cohorts.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Others may be training.
            self.cohorts.rmdir()

    def run(self, run_id: str) -> RunFiles:
        """Return the files of one of its runs."""
        return RunFiles(self.runs / run_id)

    def load(self) -> StudyRecord:
        """Read `study.json`.

        Raises:
            UserError: There is none, it is damaged, or written by a newer version.
        """
        if not self.record.is_file():
            raise UserError(f"{self.directory} is not a study: it holds no study.json")
        return _read_record(self.record, StudyRecord)

    def check(self, record: StudyRecord) -> None:
        """Compare with the study that lies here, if one does.

        Raises:
            UserError: It is on another source or split.
        """
        if not self.record.is_file():
            return
        present = self.load()
        if present.source != record.source:
            theirs, ours = present.source, record.source
            what = f"{theirs.name}" if theirs.name != ours.name else f"other rows of {theirs.name}"
            raise UserError(f"{self.directory} belongs to {what}, not to {ours.name}; give another study.name")
        # The kind comes first: kinds have keys of their own. A key that the study does not know is younger than it.
        for key in sorted(record.split, key=lambda key: key != "kind"):
            value, theirs = record.split[key], present.split.get(key, record.split[key])
            if theirs != value:
                raise UserError(
                    f"split.{key}={value}: {self.directory} is split with {key}={theirs}; "
                    "give the same split or another study.name"
                )

    def create(self, record: StudyRecord, split: pl.DataFrame) -> None:
        """Write the study's files where they are not there yet; raises as `check`."""
        self.check(record)
        if not self.record.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            write_frame(self.split, split)
            _write_record(self.record, record)


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame as parquet, atomically; equal frames give equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_atomically(path, buffer.getvalue())


def _write_record(path: Path, record: Record) -> None:
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


AnyRecord = TypeVar("AnyRecord", bound=Record)


def _read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    try:
        values = json.loads(path.read_bytes())
        version = int(values["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}; this overfit_lab reads up to {SCHEMA_VERSION}: upgrade it"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
