"""CSV files as people have them, against the same table written plainly."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl
import pytest

from overfit_lab.data.csv_text import parse_csv
from overfit_lab.errors import UserError

PLAIN = "size,kind,count,died\n0.5,a b,7,no\n-1.25,c,8,yes\n,d,9,no\n3,a b,10,yes\n"
FRAME = pl.DataFrame(
    {
        "size": [0.5, -1.25, None, 3.0],
        "kind": ["a b", "c", "d", "a b"],
        "count": [7, 8, 9, 10],
        "died": ["no", "yes", "no", "yes"],
    }
)


def indexed(numbers: Sequence[int], name: str) -> str:
    head, *rows = PLAIN.splitlines()
    return "\n".join([f"{name},{head}", *(f"{number},{row}" for number, row in zip(numbers, rows, strict=True))])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(PLAIN.encode(), (), id="plain"),
        pytest.param(PLAIN.replace("\n", "\r\n").encode(), (), id="lines of Windows"),
        pytest.param(PLAIN.encode("utf-8-sig"), (), id="the mark of UTF-8"),
        pytest.param(PLAIN.encode("utf-16"), (), id="UTF-16"),
        pytest.param(b"\xfe\xff" + PLAIN.encode("utf-16-be"), (), id="UTF-16, the other way round"),
        pytest.param(PLAIN.replace(",", ";").encode(), (), id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t").encode(), (), id="tabs"),
        pytest.param(PLAIN.replace(",", ", ").encode(), (), id="spaces behind commas"),
        pytest.param(PLAIN.replace(",", " ;  ").encode(), (), id="spaces around semicolons"),
        pytest.param(re.sub(r",([^,\n]*)", r', "\1"', PLAIN).encode(), (), id="quotes behind spaces"),
        pytest.param(PLAIN.replace("\n", "\r").encode(), (), id="lines of an old Macintosh"),
        pytest.param(f"sep=;\r\n{PLAIN.replace(',', ';')}".encode(), (), id="a separator that Excel names"),
        pytest.param(PLAIN.replace(",", ";").replace(".", ",").encode(), ("decimal commas in size",), id="commas"),
        pytest.param(
            PLAIN.replace(",", " ; ").replace(".", ",").encode(), ("decimal commas in size",), id="commas and spaces"
        ),
        *(
            pytest.param(
                indexed(numbers, name).encode(),
                ("the row numbers in its first column, which has no name, are left out",),
                id=f"an index {numbers}, {name or 'without name'}",
            )
            for numbers in ((0, 1, 2, 3), (1, 2, 3, 4), (7, 0, 12, 3))
            for name in ("", "Unnamed: 0")
        ),
    ],
)
def test_it_is_the_plain_table(content: bytes, said: tuple[str, ...]) -> None:
    frame, told = parse_csv(content, "here")
    assert frame.equals(FRAME)
    assert [dtype.is_float() for dtype in frame.dtypes] == [True, False, False, False]
    assert told == said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("a;b\n1,5;x\n1.5;y\n", ["1,5", "1.5"], id="points and commas are no numbers"),
        pytest.param("a;b\n1,5,2;x\n2;y\n", ["1,5,2", "2"], id="two commas are none"),
        pytest.param('a,b\n"1,5",x\n"2,5",y\n', ["1,5", "2,5"], id="where commas separate they are no decimal ones"),
        pytest.param(",b\n5,x\n5,y\n", [5, 5], id="what does not number rows stays"),
        pytest.param("a;b\n1,250;x\n0,125;y\n", [1.25, 0.125], id="three decimals, of which one is below 1"),
        pytest.param("row,b\n0,x\n1,y\n", [0, 1], id="what has a name stays"),
        pytest.param("a,b\n 12345678901234567890123,x\n 1,y\n", [12345678901234567890123.0, 1.0], id="a long number"),
    ],
)
def test_what_is_left_as_it_is(content: str, expected: list[object]) -> None:
    frame, said = parse_csv(content.encode(), "here")
    assert frame.to_series(0).to_list() == expected
    assert said in ((), ("decimal commas in a",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("größe,y\n1,2\n".encode("latin-1"), "here: is not in UTF-8 (at byte 2); save it as UTF-8"),
        (b"\xff\xfea\x00,\x00y", "here: is not in UTF-16, as it says (at byte 6); save it as UTF-8"),
        (b"a, a\n1,2\n", "here: its first line holds 'a' twice; needed are the names of columns"),
        (b"a, 1.5\n1,2\n", "here: its first line holds the number 1.5; needed are the names of columns"),
        (
            PLAIN.encode("utf-16-le"),
            "here: holds zero bytes, as UTF-16 without its mark does; save it as UTF-8",
        ),
        (
            b"qty\tsold\n980\t0\n1,000\t1\n2,980\t1\n",
            "here: column qty holds 1,000, whose comma may part thousands or decimals; write decimals with a point, or "
            "thousands without a comma",
        ),
    ],
)
def test_what_cannot_be_read(content: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_csv(content, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "names", "first"),
    [
        ("Länge, cm;Breite, cm\n5,1;3,5\n5,2;3,6\n5,3;3,7\n", ["Länge, cm", "Breite, cm"], 5.1),
        ("Size (in m, rounded)\tclass\n1,50\t0\n1,60\t1\n1,75\t1\n", ["Size (in m, rounded)", "class"], 1.5),
        ('"x\nin cm";y;label\n1;2;3\n4;5;6\n7;8;9\n', ["x\nin cm", "y", "label"], 1),
        ('a, "b, or c", label\n1.2, "3, or 4", "c0"\n1.3, "x", "c1"\n1.4, "y", "c0"\n', ["a", "b, or c", "label"], 1.2),
    ],
)
def test_what_separates_is_seen_in_more_than_the_names(content: str, names: list[str], first: float) -> None:
    frame, _ = parse_csv(content.encode(), "here")
    assert frame.columns == names
    assert frame.to_series(0)[0] == first


def test_missing_cells_may_have_spaces_around_them() -> None:
    frame, _ = parse_csv(b"a, b\n 1, NA\n 2, 3\n , 5\n", "here")
    assert frame.to_dict(as_series=False) == {"a": [1, 2, None], "b": [None, 3, 5]}
