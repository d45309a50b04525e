"""What a run leaves on disk. `run.json` comes last: where it exists, the run is finished."""

from __future__ import annotations

import contextlib
import io
import traceback
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError, first_line
from overfit_lab.files import write_atomically
from overfit_lab.records.schema import (
    SCHEMA_VERSION,
    Damaged,
    Record,
    digest_of,
    frame_bytes,
    read_bytes,
    read_frame,
    read_record,
    sha256,
    write_record,
)

Status = Literal["finished", "diverged"]


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


class Descriptive(Record):
    """What the trained networks of a run are like; it selects nothing. None where it is not defined.

    Args:
        weight_norm: Norm of the weights, biases left out, at the horizon; as what follows, the mean over the fits.
        distance_from_init: Norm of what training has added to them.
        effective_dof: Effective number of parameters of the first fit.
        effective_dof_rows: Train rows on which it was computed; it cannot exceed them times the outputs.
        normalised_margin: The 10 % quantile of the train margins, by the product of the layers' spectral norms.
    """

    weight_norm: float | None
    distance_from_init: float | None
    effective_dof: float | None
    effective_dof_rows: int | None
    normalised_margin: float | None


class Environment(Record):
    """What the run was made with; `git` is the commit of the working directory, with + where it was changed."""

    overfit_lab: str
    torch: str
    lightning: str
    python: str
    git: str | None
    command: str


class FileDigests(Record):
    """SHA-256 of the files beside `run.json`: what is not what was written is not trusted."""

    curves: str
    val_losses: str


class RunRecord(Record):
    """`run.json`: one configuration and all its fits. Epochs count completed passes; 0 is the untrained network.

    Args:
        interruptions: How often the training of its cohort was interrupted, and went on.
        epochs_repeated: How many of the cohort's epochs were computed a second time for that.
        files: What lies beside it; None where an older version wrote it.
        digest: Of the record itself.
    """

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
    descriptive: Descriptive | None = None
    seconds: float
    device: str
    environment: Environment
    interruptions: int = 0
    epochs_repeated: float = 0.0
    files: FileDigests | None = None
    digest: str | None = None

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

    def save(self, record: RunRecord, curves: pl.DataFrame, val_losses: ValLosses) -> RunRecord:
        """Write a finished run, `run.json` last, and return the record with its digests."""
        buffer = io.BytesIO()
        np.savez(buffer, **dict(val_losses))
        contents = {self.curves: frame_bytes(curves), self.val_losses: buffer.getvalue()}
        for path, content in contents.items():
            write_atomically(path, content)
        digests = FileDigests(curves=sha256(contents[self.curves]), val_losses=sha256(contents[self.val_losses]))
        whole = record.model_copy(update={"files": digests})
        whole = whole.model_copy(update={"digest": digest_of(whole.model_dump(mode="json"))})
        write_record(self.record, whole)
        self.failure.unlink(missing_ok=True)
        return whole

    def verify(self) -> RunRecord:
        """Read `run.json`, and make sure that what lies beside it is what was written.

        Raises:
            Damaged: Something is missing, damaged, or was edited, or it belongs elsewhere.
            UserError: It was written by a newer version.
        """
        record = self.load()
        if record.run_id != self.directory.name:
            raise Damaged(f"{self.record} is damaged: it is of run {record.run_id}, not of the folder that it lies in")
        if record.files is None:
            self.load_curves()
            self.load_val_losses()
        else:
            read_bytes(self.curves, record.files.curves)
            read_bytes(self.val_losses, record.files.val_losses)
        return record

    def set_aside(self) -> None:
        """Give the files of a finished run other names: what is damaged is computed again, and kept to be looked at."""
        for path in (self.record, self.curves, self.val_losses):
            # Another process may be about the same.
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.damaged"))

    def save_failure(self, run_id: str, config: Mapping[str, Any], error: Exception) -> FailureRecord:
        """Write why a run failed, in one line and with the traceback, and return it."""
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        text = "".join(traceback.format_exception(error))
        record = FailureRecord(
            schema_version=SCHEMA_VERSION, run_id=run_id, config=dict(config), error=line, traceback=text
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        write_record(self.failure, record)
        return record

    def load(self) -> RunRecord:
        """Read `run.json`.

        Raises:
            Damaged: It is damaged, or was edited.
            UserError: It was written by a newer version.
        """
        return read_record(self.record, RunRecord)

    def load_failure(self) -> FailureRecord:
        """Read `failure.json`; raises as `load`."""
        return read_record(self.failure, FailureRecord)

    def load_curves(self) -> pl.DataFrame:
        """Read `curves.parquet`: repeat, fold, epoch, split, metric, value.

        Raises:
            Damaged: It is missing or damaged.
        """
        value = pl.col("value").cast(pl.Float64)
        digest = self._digest("curves")
        return read_frame(self.curves, "repeat", "fold", "epoch", "split", "metric", value, digest=digest)

    def load_val_losses(self) -> ValLosses:
        """Read `val_losses.npz`; it is never unpickled.

        Raises:
            Damaged: It is missing or damaged.
        """
        content = read_bytes(self.val_losses, self._digest("val_losses"))
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return ValLosses(**arrays)
        except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise Damaged(f"{self.val_losses} is missing or damaged: {first_line(error)}") from error

    def _digest(self, name: Literal["curves", "val_losses"]) -> str | None:
        """What the record says of a file beside it; None where there is no record, or an older one."""
        try:
            digests = self.load().files
        except UserError:
            return None  # whoever asks for the record is told
        return None if digests is None else digests.model_dump()[name]
