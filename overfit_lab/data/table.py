"""Tables: CSV and Parquet files, and what their columns become as inputs."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.data.columns import ColumnPreparation
from overfit_lab.data.csv_text import parse_csv
from overfit_lab.data.parquet import UNREADABLE, parse_parquet
from overfit_lab.errors import UserError, first_line

# So many categories are believed of a column of any length, and of a long one as many as half of its rows.
FEW_CATEGORIES = 20
# Categories have names, which are shorter than sentences.
FEWEST_WORDS_OF_PROSE = 5
# As scikit-learn's vectorizer has it, and not a number.
_WORD = r"\p{L}\w"
MOST_NAMED = 5


def read_table(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read a CSV, TSV or Parquet file.

    Raises:
        UserError: It is missing or damaged.

    Returns:
        The table, and what was done to it, in words.
    """
    place = f"data.path={path}"
    try:
        # As bytes: a path would be taken for a pattern or an address.
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return (parse_parquet(content), ()) if ".parquet" in path.suffixes else parse_csv(content, place)
    except UNREADABLE as error:
        raise UserError(f"{place}: is missing or damaged: {first_line(error)}") from error


@dataclass(frozen=True, eq=False)
class TableInputs:
    """Inputs as a source takes them.

    Args:
        x: `rows x columns` of numbers: categories are numbered in alphabetical order; a number that is missing is NaN.
        preparation: What makes inputs of a network of them; None where they are that already.
        said: What was found, in words.
    """

    x: NDArray[np.float64]
    preparation: ColumnPreparation | None
    said: str


def read_inputs(frame: pl.DataFrame, place: str) -> TableInputs:
    """Turn columns into inputs: text into categories, truth into 0 and 1, numbers as they are.

    Args:
        frame: The columns, at least one.
        place: What messages begin with: where the table comes from.

    Raises:
        UserError: A column is neither, or no network could learn from its text.
    """
    columns: list[NDArray[np.float64]] = []
    categories: list[int | None] = []
    missing: list[str] = []
    for column in frame.iter_columns():
        if _has_missing(column):
            missing.append(column.name)
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            codes, count = _number_categories(column.cast(pl.String), place)
            columns.append(codes)
            categories.append(count)
        else:
            columns.append(_numbers(column, place))
            categories.append(None)
    x = np.stack(columns, axis=1)
    texts = [name for name, count in zip(frame.columns, categories, strict=True) if count is not None]
    said = [f"{frame.width} input columns" if frame.width > 1 else f"input column {frame.columns[0]}"]
    if texts:
        said.append(f"categories in {_named(texts)}")
    if missing:
        said.append(f"missing values in {_named(missing)}")
    if not np.isnan(x).any() and not texts:
        return TableInputs(x, None, ", ".join(said))
    return TableInputs(x, ColumnPreparation(tuple(categories)), ", ".join(said))


def _has_missing(column: pl.Series) -> bool:
    return column.has_nulls() or (column.dtype.is_float() and bool(column.is_nan().any()))


def _numbers(column: pl.Series, place: str) -> NDArray[np.float64]:
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise UserError(
            f"{place}: column {column.name} holds {column.dtype}; allowed are numbers, text, and true and false; "
            "name the others by data.inputs"
        )
    values = column.cast(pl.Float64).to_numpy()
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise UserError(f"{place}: column {column.name} is infinite in {infinite} of {len(values)} rows")
    return values


def _number_categories(column: pl.Series, place: str) -> tuple[NDArray[np.float64], int]:
    """Number the categories of a column; where some are missing, that is one more category, the last."""
    present = column.drop_nulls()
    numbers = present.str.strip_chars().cast(pl.Float64, strict=False)
    odd = present.filter(numbers.is_null())
    # Numbers that a Parquet file calls text are meant as names.
    if 0 < len(odd) < len(present) / 2:
        raise UserError(
            f"{place}: column {column.name} holds text where numbers are needed, such as {odd[0]!r}; mend it, or leave "
            "it out by data.inputs"
        )
    names = present.unique().sort()
    if len(names) > _most_categories(column):
        raise UserError(
            f"{place}: column {column.name} holds {len(names)} different texts in {len(column)} rows, such as "
            f"{names[0]!r}, which are no categories; leave it out by data.inputs, or write "
            f"numbers as 1234.5; texts are learned from by their words alone: data.inputs=[{column.name}]"
        )
    codes = column.replace_strict(names, np.arange(len(names)), default=len(names), return_dtype=pl.Float64)
    return codes.to_numpy(), len(names) + column.has_nulls()


def is_prose(column: pl.Series) -> bool:
    """Say whether a column holds texts that are no categories: too many different ones, or mostly long ones.

    Digits without a word, as in `12 %` and `$1,013`, are numbers that are written in a way of their own.
    """
    if column.dtype != pl.String:
        return False
    texts = column.drop_nulls()
    if _mostly(texts.str.contains(r"\d") & ~texts.str.contains(_WORD)):
        return False
    words = texts.str.count_matches(r"\S+")
    return _mostly(words >= FEWEST_WORDS_OF_PROSE) or column.n_unique() > _most_categories(column)


def _mostly(truth: pl.Series) -> bool:
    return bool(2 * truth.sum() > len(truth))


def _most_categories(column: pl.Series) -> int:
    return max(FEW_CATEGORIES, len(column) // 2)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
