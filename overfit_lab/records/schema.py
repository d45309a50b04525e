"""The form of every file that a study leaves: typed, versioned, whole or not there.

Every file is written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from overfit_lab.errors import UserError, first_line
from overfit_lab.files import write_atomically

# 2: run.json has `descriptive`. What an older version wrote is still read.
SCHEMA_VERSION = 2


class Record(BaseModel):
    """A part of a file; unknown keys are errors, and numbers that are not finite become null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:  # noqa: ANN401 - any field
        return None if isinstance(value, float) and not math.isfinite(value) else value


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame as parquet, atomically; equal frames give equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_atomically(path, buffer.getvalue())


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, atomically."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def read_frame(path: Path, *columns: str | pl.Expr) -> pl.DataFrame:
    """Read columns of a parquet file.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        # As bytes: a path would be taken for a pattern or an address, and a study may be called [a]*.
        return pl.read_parquet(io.BytesIO(path.read_bytes())).select(columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path} is missing or damaged: {first_line(error)}") from error


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a record.

    Raises:
        UserError: It is damaged, or written by a newer version.
    """
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
