"""What a run leaves on disk. `run.json` comes last: where it exists, the run is finished."""

from __future__ import annotations

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
from overfit_lab.records.schema import SCHEMA_VERSION, Record, read_frame, read_record, write_frame, write_record

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
    descriptive: Descriptive | None = None
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
        write_record(self.record, record)
        self.failure.unlink(missing_ok=True)

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
            UserError: It is damaged, or written by a newer version.
        """
        return read_record(self.record, RunRecord)

    def load_failure(self) -> FailureRecord:
        """Read `failure.json`; raises as `load`."""
        return read_record(self.failure, FailureRecord)

    def load_curves(self) -> pl.DataFrame:
        """Read `curves.parquet`: repeat, fold, epoch, split, metric, value.

        Raises:
            UserError: It is missing or damaged.
        """
        value = pl.col("value").cast(pl.Float64)
        return read_frame(self.curves, "repeat", "fold", "epoch", "split", "metric", value)

    def load_val_losses(self) -> ValLosses:
        """Read `val_losses.npz`; it is never unpickled.

        Raises:
            UserError: It is missing or damaged.
        """
        try:
            with self.val_losses.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return ValLosses(**arrays)
        except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.val_losses} is missing or damaged: {first_line(error)}") from error
