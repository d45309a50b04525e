"""A folder of parquet files as the public hub has them: one part or several of each split."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import polars.selectors as cs

from overfit_lab.data.arrays import DAMAGE
from overfit_lab.errors import UserError, first_line

# What polars raises where a file is not what its name says.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, *DAMAGE)


@dataclass(frozen=True, eq=False)
class Splits:
    """The rows of a data set, as whoever published it has split them.

    Args:
        frames: `rows x columns` of each split, by its name.
        classes: The names of classes, for the columns that number them.
        folder: Where files that a column names may lie; None where it can name none.
    """

    frames: Mapping[str, pl.DataFrame]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path | None = None


def read_parquet_folder(folder: Path, subset: str | None = None) -> Splits:
    """Read the splits of a folder: `train-00000-of-00001.parquet`, `data/train-*.parquet`, `train/0000.parquet`, ...

    Args:
        folder: Where the files are.
        subset: A folder in it, where it holds several data sets.

    Raises:
        UserError: There are none, there are several data sets, or a file is damaged.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # what others keep there is not for readers
        own, split = _name(path.relative_to(folder))
        found.setdefault(own, {}).setdefault(split, []).append(path)
    if not found:
        raise UserError(f"data.path={folder}: holds no parquet files; they are called train-*.parquet, test-*.parquet")
    if subset is None and len(found) > 1:
        raise UserError(f"data.subset is missing; {folder} holds several data sets: {', '.join(map(repr, found))}")
    if subset is not None and subset not in found:
        raise UserError(f"data.subset={subset}: allowed are {', '.join(map(repr, found))}")
    parts = found[subset] if subset is not None else next(iter(found.values()))
    frames = {split: _concat([read_parquet(path) for path in paths], folder) for split, paths in parts.items()}
    classes: dict[str, list[str]] = {}
    for paths in parts.values():
        classes |= _classes(paths[0])
    return Splits(frames, classes, folder)


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a parquet file.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        # As bytes: a path would be taken for a pattern or an address.
        return parse_parquet(path.read_bytes())
    except UNREADABLE as error:
        raise UserError(f"{path} is missing or damaged: {first_line(error)}") from error


def parse_parquet(content: bytes) -> pl.DataFrame:
    """Read the content of a parquet file, without an index of pandas.

    Raises:
        One of `UNREADABLE`: It is damaged.
    """
    with _without_panic():
        frame = pl.read_parquet(io.BytesIO(content))
    # What pandas writes beside the columns, unless it is told not to.
    return frame.drop(cs.matches(r"^__index_level_\d+__$"))


@contextmanager
def _without_panic() -> Iterator[None]:
    """Keep back what polars prints when damage surprises it: a Rust traceback, and the exception says it again."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        except pl.exceptions.PanicException:
            printed.truncate(0)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            # Whatever else was printed meanwhile is for the user.
            printed.seek(0)
            sys.stderr.write(printed.read().decode(errors="replace"))


def _name(path: Path) -> tuple[str, str]:
    """Read subset and split off the place of a file."""
    folders = list(path.parent.parts)
    split = path.stem.partition("-")[0]
    if not split.isidentifier() and folders:  # train/0000.parquet
        split = folders.pop()
    return "/".join(folder for folder in folders if folder != "data"), split


def _concat(frames: Sequence[pl.DataFrame], folder: Path) -> pl.DataFrame:
    try:
        return pl.concat(frames)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"data.path={folder}: its parts do not fit together: {first_line(error)}") from error


def _classes(path: Path) -> dict[str, list[str]]:
    """Read the names of classes that the library `datasets` notes in a file."""
    try:
        with path.open("rb") as file:
            noted = json.loads(pl.read_parquet_metadata(file).get("huggingface", "{}"))
        features = noted.get("info", {}).get("features", {})
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # What somebody wrote there is no more than a hint.
        return {}
