"""CSV files as people have them: other separators, spaces around cells, decimal commas, UTF-16."""

from __future__ import annotations

import codecs
import csv
import io

import polars as pl

from overfit_lab.errors import UserError

# Cells that say that there is no value.
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?"]
# What a column is called whose name is empty; the second by pandas, which has read and written it again.
_UNNAMED = ("", "Unnamed: 0")
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"


def parse_csv(content: bytes, place: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read the content of a CSV file with the names of columns in its first line.

    The separator is the one of comma, semicolon and tab that the first line has most of. Spaces around names and cells
    do not count, where commas are no separators they may be decimal ones, and an index of pandas is no input.

    Args:
        content: As it lies in the file, in UTF-8 or with the mark of UTF-16.
        place: What messages begin with: where it comes from.

    Raises:
        UserError: It is in another encoding, or its first line holds no names.
        polars.exceptions.PolarsError: It is damaged.

    Returns:
        The table, and what was done to it, in words.
    """
    content = _as_utf8(content, place)
    separator = _find_separator(content.partition(b"\n")[0].decode().strip(), place)
    frame = pl.read_csv(io.BytesIO(content), separator=separator, infer_schema_length=None, null_values=MISSING)
    frame = frame.rename(str.strip)
    said = []
    if frame.columns[0] in _UNNAMED and _counts_rows(frame.to_series(0)):
        frame = frame.drop(frame.columns[0])
        said.append("the row numbers in its first column, which has no name, are left out")
    columns, commas = [], []
    for column in frame.iter_columns():
        if column.dtype == pl.String:
            column = _without_spaces(column)
        if column.dtype == pl.String and separator != "," and _has_decimal_commas(column):
            commas.append(column.name)
            column = column.str.replace(",", ".", literal=True).cast(pl.Float64)
        columns.append(column)
    if commas:
        said.append(f"decimal commas in {', '.join(commas)}")
    return pl.DataFrame(columns), tuple(said)


def _as_utf8(content: bytes, place: str) -> bytes:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8")
        return text.encode() if wide else content.removeprefix(codecs.BOM_UTF8)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: is not in {'UTF-16, as it says' if wide else 'UTF-8'} (at byte {error.start}); save it as UTF-8"
        ) from error


def _find_separator(line: str, place: str) -> str:
    """Choose the separator by the first line of a file, and make sure that it holds the names of the columns."""
    cells = {one: next(csv.reader([line], delimiter=one), []) for one in ",;\t"}
    separator = max(cells, key=lambda one: len(cells[one]))
    names = [name.strip() for name in cells[separator]]
    for name in names:
        # A year may be a name.
        if name and not name.isdigit() and _is_number(name):
            raise UserError(f"{place}: its first line holds the number {name}; needed are the names of columns")
        if names.count(name) > 1:
            raise UserError(f"{place}: its first line holds {name!r} twice; needed are the names of columns")
    return separator


def _counts_rows(column: pl.Series) -> bool:
    """Whether a column numbers the rows, from 0 or 1: pandas writes such an index unless it is told not to."""
    if not column.dtype.is_integer() or column.has_nulls():
        return False
    numbers = column.to_list()
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_spaces(column: pl.Series) -> pl.Series:
    """Take spaces off the cells of a column of texts; where there were any, it may be of numbers."""
    stripped = column.str.strip_chars()
    if stripped.equals(column):
        return column
    stripped = stripped.set(stripped.is_in(MISSING), None)
    for kind in (pl.Int64, pl.Float64):
        numbers = stripped.cast(kind, strict=False)
        if numbers.null_count() == stripped.null_count():
            return numbers
    return stripped


def _has_decimal_commas(column: pl.Series) -> bool:
    texts = column.drop_nulls()
    return bool(len(texts) and texts.str.contains(_DECIMAL_COMMA).all() and texts.str.contains(",").any())
