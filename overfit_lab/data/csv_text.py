"""CSV files as people have them: other separators, spaces around cells, decimal commas, UTF-16."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re

import polars as pl

from overfit_lab.errors import UserError

# Cells that say that there is no value.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NULL", "null", "None", "?"]
# What a column is called whose name is empty; the second by pandas, which has read and written it again.
_UNNAMED = ("", "Unnamed: 0")
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"
# What may be a thousand, or one and some.
_EITHER_COMMA = r"^[+-]?[1-9]\d{0,2},\d{3}$"
# Commas are decimal ones, or stand in names, more often than semicolons and tabs do.
_SEPARATORS = "\t;,"
# So much of a file says what separates its cells.
_SAMPLE_BYTES, _SAMPLE_RECORDS = 2**20, 100
# Python's reader would refuse a cell with a long text.
csv.field_size_limit(2**31 - 1)


def parse_csv(content: bytes, place: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read the content of a CSV file with the names of columns in its first line.

    The separator is the first of tab, semicolon and comma that cuts the first records into as many cells as there are
    names, and leaves no quotes within them; where none does, the one that gives the most names. Spaces around names and
    cells do not count, where commas are no separators they may be decimal ones, and an index of pandas is no input.

    Args:
        content: As it lies in the file, in UTF-8 or with the mark of UTF-16.
        place: What messages begin with: where it comes from.

    Raises:
        UserError: It is in another encoding, its first line holds no names, or a comma may mean two things.
        polars.exceptions.PolarsError: It is damaged.

    Returns:
        The table, and what was done to it, in words.
    """
    content = _as_utf8(content, place)
    separator, content = _find_separator(content, place)
    frame = pl.read_csv(io.BytesIO(content), separator=separator, infer_schema_length=None, null_values=MISSING)
    frame = frame.rename(str.strip)
    said = []
    if frame.columns[0] in _UNNAMED and _is_index(frame.to_series(0)):
        frame = frame.drop(frame.columns[0])
        said.append("the row numbers in its first column, which has no name, are left out")
    columns, commas = [], []
    for column in frame.iter_columns():
        if column.dtype == pl.String:
            column = _without_spaces(column)
        if column.dtype == pl.String and separator != "," and _has_decimal_commas(column):
            _refuse_thousands(column, place)
            commas.append(column.name)
            column = column.str.replace(",", ".", literal=True).cast(pl.Float64)
        columns.append(column)
    if commas:
        said.append(f"decimal commas in {', '.join(commas)}")
    return pl.DataFrame(columns), tuple(said)


def _as_utf8(content: bytes, place: str) -> bytes:
    """Bring a file into UTF-8, with lines that end as on Unix or Windows."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: is not in {'UTF-16, as it says' if wide else 'UTF-8'} (at byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(f"{place}: holds zero bytes, as UTF-16 without its mark does; save it as UTF-8")
    content = text.encode() if wide else content.removeprefix(codecs.BOM_UTF8)
    # Lines of an old Macintosh.
    return content if b"\n" in content else content.replace(b"\r", b"\n")


def _find_separator(content: bytes, place: str) -> tuple[str, bytes]:
    """Find the separator, and make sure that the first record holds the names of the columns.

    Returns:
        The separator, and the content as a reader takes it that knows no spaces between a separator and a quote.
    """
    # Excel says it in a line of its own.
    told = re.match(rb"sep=(.)\r?\n", content)
    if told:
        content = content[told.end() :]
    text = content[:_SAMPLE_BYTES].decode(errors="ignore")
    records = {one: _records(text, one, place) for one in ([told[1].decode()] if told else _SEPARATORS)}
    separator = _choose_separator(records)
    _check_names(records[separator][:1], place)
    if re.search(rf'(^|{re.escape(separator)}) +"', text, re.MULTILINE):
        content = _join_quotes(content, separator)
    return separator, content


def _choose_separator(records: dict[str, list[list[str]]]) -> str:
    """Choose by what each separator makes of the first records; see `parse_csv`."""
    widths = {one: [len(record) for record in own] or [0] for one, own in records.items()}
    fitting = [one for one, own in widths.items() if own[0] > 1 and set(own) == {own[0]}]
    if not fitting:
        return max(reversed(records), key=lambda one: widths[one][0])
    # What cuts through quoted cells leaves their quotes.
    return min(fitting, key=lambda one: sum(cell.count('"') for record in records[one] for cell in record))


def _records(text: str, separator: str, place: str) -> list[list[str]]:
    """Read the first records that hold anything, but the last one of the sample, which may be cut off."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        found = list(itertools.islice((record for record in reader if record), _SAMPLE_RECORDS + 1))
    except csv.Error as error:
        raise UserError(f"{place}: is no CSV file: {error}") from error
    return found[:-1] if len(found) > 2 else found


def _check_names(first: list[list[str]], place: str) -> None:
    """Make sure that the first record, if there is one, holds the names of the columns."""
    names = [name.strip() for record in first for name in record]
    for name in names:
        # A year may be a name.
        if name and not name.isdigit() and _is_number(name):
            raise UserError(f"{place}: its first line holds the number {name}; needed are the names of columns")
        if names.count(name) > 1:
            raise UserError(f"{place}: its first line holds {name!r} twice; needed are the names of columns")


def _join_quotes(content: bytes, separator: str) -> bytes:
    """Take away the spaces in front of quotes, behind which polars takes a quote for text."""
    written = io.StringIO(newline="")
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=separator, skipinitialspace=True)
    csv.writer(written, delimiter=separator).writerows(reader)
    return written.getvalue().encode()


def _is_index(column: pl.Series) -> bool:
    """Whether a column numbers the rows, in whatever order: pandas writes its index unless it is told not to."""
    return column.dtype.is_integer() and not column.has_nulls() and column.n_unique() == len(column)


def _refuse_thousands(column: pl.Series, place: str) -> None:
    """Refuse commas that may part thousands, as in 1,250."""
    with_commas = column.filter(column.str.contains(",", literal=True))
    if with_commas.str.contains(_EITHER_COMMA).all():
        raise UserError(
            f"{place}: column {column.name} holds {with_commas[0]}, whose comma may part thousands or decimals; "
            "write decimals with a point, or thousands without a comma"
        )


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
