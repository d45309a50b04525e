"""The form of every file that a study leaves: typed, versioned, whole or not there.

Every file is written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from overfit_lab.errors import UserError, first_line
from overfit_lab.files import write_atomically

# 2: run.json has `descriptive`. 3: run.json has digests and interruptions, cohorts/ has configurations. 4: an onset has
# spikes. What an older version wrote is still read.
SCHEMA_VERSION = 4


class Damaged(UserError):
    """A file is not what was written: it is missing, truncated, foreign, or was edited."""


class Record(BaseModel):
    """A part of a file; unknown keys are errors, and numbers that are not finite become null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:  # noqa: ANN401 - any field
        return None if isinstance(value, float) and not math.isfinite(value) else value


def frame_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as a parquet file holds it; equal frames give equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame as parquet, atomically."""
    write_atomically(path, frame_bytes(frame))


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, atomically."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def read_bytes(path: Path, digest: str | None = None) -> bytes:
    """Read a file.

    Args:
        path: The file.
        digest: SHA-256 of what was written there, where it is known.

    Raises:
        Damaged: It is missing, or something else stands there now.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} is missing or damaged: {first_line(error)}") from error
    if digest not in (None, sha256(content)):
        raise Damaged(f"{path} is missing or damaged: it is not what was written there")
    return content


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_frame(path: Path, *columns: str | pl.Expr, digest: str | None = None) -> pl.DataFrame:
    """Read columns of a parquet file; `digest` as in `read_bytes`.

    Raises:
        Damaged: It is missing or damaged.
    """
    # As bytes: a path would be taken for a pattern or an address, and a study may be called [a]*.
    content = read_bytes(path, digest)
    try:
        return pl.read_parquet(io.BytesIO(content)).select(columns)
    except pl.exceptions.PolarsError as error:
        raise Damaged(f"{path} is missing or damaged: {first_line(error)}") from error


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a record says, its own field `digest` left out: whoever edits it is noticed."""
    said = {key: value for key, value in values.items() if key != "digest"}
    return sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a record.

    Raises:
        Damaged: It is damaged.
        UserError: It was written by a newer version.
    """
    try:
        values = json.loads(path.read_bytes())
        version = int(values["schema_version"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}; this overfit_lab reads up to {SCHEMA_VERSION}: upgrade it"
        )
    signed = version >= 3 and "digest" in kind.model_fields
    if (signed or "digest" in values) and values.get("digest") != digest_of(values):
        raise Damaged(f"{path} is damaged: it was edited")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise Damaged(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
