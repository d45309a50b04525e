"""From columns of a file to a target: which problem type it is, what its classes are, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from overfit_lab.config import Problem
from overfit_lab.errors import UserError

# Whole numbers with more different values than this are amounts, not classes; so are those with fewer rows a value.
MOST_CLASSES = 20
ROWS_FOR_EACH_CLASS = 5
# So many classes are named one by one.
MOST_NAMED = 6


@dataclass(frozen=True, eq=False)
class Target:
    """A target as a source takes it.

    Args:
        problem: The problem type.
        y: By problem type, see `Source`.
        said: What was inferred, in words.
    """

    problem: Problem
    y: NDArray[Any]
    said: str


def read_target(columns: pl.DataFrame, asked: Problem | None, key: str, *, of_images: bool = False) -> Target:
    """Turn one column or several into a target.

    Text and truth values are classes; so are whole numbers of few different values, in files of enough rows. Other
    numbers are a regression. Several columns of zeros and ones are labels, or where each row has a single one, classes.

    Args:
        columns: `rows x columns`, at least one of each.
        asked: The problem type, where it is not to be inferred.
        key: What a message begins with: the key that names the columns, and its value.
        of_images: Whether inputs are images: whole numbers from 0 or 1 without gaps are then classes, however many.

    Raises:
        UserError: A value is missing, there is one class only, or the columns do not fit the problem type.
    """
    columns = columns.with_columns(cs.decimal().cast(pl.Float64))
    for column in columns.iter_columns():
        _refuse_missing(column, key, several=columns.width > 1)
    problem = _infer(columns, key, of_images) if asked is None else asked
    how = "" if asked is None else ", as task says"
    if problem == "multiclass" and _is_one_hot(columns):
        return Target(problem, columns.to_numpy().argmax(axis=1), f"{problem}{how}: {columns.width} classes, one-hot")
    if problem in ("binary", "multiclass"):
        if columns.width > 1:
            raise UserError(f"{key}: {columns.width} columns are no {problem} target; allowed is one")
        y, classes = _number_classes(columns.to_series(), problem, key)
        return Target(problem, y, f"{problem}{how}: {_classes_in_words(classes)}")
    y = np.stack([_numbers(column, problem, key) for column in columns.iter_columns()], axis=1)
    if problem == "multilabel":
        if not np.isin(y, (0, 1)).all():
            raise UserError(f"{key}: holds values other than 0 and 1; multilabel needs columns of zeros and ones")
        return Target(problem, y, f"{problem}{how}: {columns.width} labels")
    return Target(problem, y, f"{problem}{how}: values from {y.min():g} to {y.max():g}")


def _infer(columns: pl.DataFrame, key: str, of_images: bool) -> Problem:
    if columns.width > 1:
        if _is_one_hot(columns):
            return "multiclass"
        return "multilabel" if all(_is_truth(column) for column in columns.iter_columns()) else "regression"
    column = columns.to_series()
    different = column.n_unique()
    if _is_text(column) and different > max(MOST_CLASSES, len(column) // ROWS_FOR_EACH_CLASS):
        raise UserError(
            f"{key}: holds {different} different texts in {len(column)} rows, such as {column[0]!r}; needed are "
            "numbers, or classes of several rows each"
        )
    if _is_text(column) or column.dtype == pl.Boolean:
        return "binary" if different <= 2 else "multiclass"
    if not column.dtype.is_numeric():
        raise UserError(f"{key}: holds values of type {column.dtype}; allowed are numbers, text, and true and false")
    whole = bool((column == column.round()).all()) if column.dtype.is_float() else True
    if whole and different <= 2:
        return "binary"
    numbered = of_images and column.unique().sort().to_list() in (
        list(range(different)),
        list(range(1, different + 1)),
    )
    most = len(column) if numbered else MOST_CLASSES
    few = different <= min(most, len(column) // ROWS_FOR_EACH_CLASS)
    return "multiclass" if whole and few else "regression"


def _refuse_missing(column: pl.Series, key: str, *, several: bool) -> None:
    missing = column.null_count()
    if column.dtype.is_float():
        missing += int((~column.is_finite()).sum())
    if missing:
        of = f" in column {column.name}" if several else ""
        raise UserError(
            f"{key}: no target{of} in {missing} of {len(column)} rows (NaN, infinite or empty, or in a CSV file "
            "NA, None or null); remove those rows, or if it is a class, give it another name"
        )


def _number_classes(column: pl.Series, problem: Problem, key: str) -> tuple[NDArray[np.int64], Sequence[object]]:
    if not (_is_text(column) or column.dtype == pl.Boolean or column.dtype.is_numeric()):
        raise UserError(f"{key}: holds values of type {column.dtype}; allowed are numbers, text, and true and false")
    if isinstance(column.dtype, pl.Enum):
        # In the order in which whoever wrote the file has put them.
        codes, numbers = np.unique(column.to_physical().to_numpy(), return_inverse=True)
        classes = column.dtype.categories.to_numpy()[codes]
    else:
        # Other categories are in the order in which they came.
        # Numbers of more than 64 bits are no more than names.
        named = _is_text(column) or column.dtype in (pl.Int128, pl.UInt128)
        values = (column.cast(pl.String) if named else column).to_numpy()
        classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{key}: holds one class only ({classes[0]}); {problem} needs two or more")
    if problem == "binary" and len(classes) > 2:
        raise UserError(f"{key}: holds {len(classes)} classes; binary needs two, multiclass allows more")
    return numbers.astype(np.int64).reshape(-1), classes.tolist()


def _numbers(column: pl.Series, problem: Problem, key: str) -> NDArray[np.float64]:
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise UserError(f"{key}: holds {column.dtype} such as {column[0]!r}; {problem} needs numbers")
    return column.cast(pl.Float64).to_numpy()


def _classes_in_words(classes: Sequence[object]) -> str:
    count = len(classes)
    if list(classes) == list(range(count)):
        return f"{count} classes"
    if len(classes) <= MOST_NAMED:
        names = [f"{name:g}" if isinstance(name, float) else str(name) for name in classes]
        numbers = ", ".join(map(str, range(count)))
        return f"{', '.join(names)} are classes {numbers}"
    return f"{classes[0]} to {classes[-1]} are classes 0 to {count - 1}, in order"


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.Categorical, pl.Enum)


def _is_one_hot(columns: pl.DataFrame) -> bool:
    truth = columns.width > 2 and all(_is_truth(column) for column in columns.iter_columns())
    return truth and bool((columns.sum_horizontal() == 1).all())


def _is_truth(column: pl.Series) -> bool:
    return column.dtype == pl.Boolean or (column.dtype.is_numeric() and bool(((column == 0) | (column == 1)).all()))
