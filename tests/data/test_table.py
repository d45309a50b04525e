"""CSV and Parquet files as sources: separators, missing values, categories, columns by name, and what is refused."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from overfit_lab.data.load import load
from overfit_lab.data.split import make_split
from overfit_lab.errors import UserError
from tests.data.files import file_data
from tests.data.test_datamodule import kfold

ROWS = 40
RNG = np.random.default_rng(0)
COLUMNS: dict[str, Any] = {
    "age": [None if i % 7 == 3 else float(i) for i in range(ROWS)],
    "sex": ["f" if i % 3 else "m" for i in range(ROWS)],
    "town": [None if i % 11 == 2 else ("Rome", "Bonn", "Oslo")[i % 3] for i in range(ROWS)],
    "fare": [i / 4 for i in range(ROWS)],
    "writer": [f"w{i // 4}" for i in range(ROWS)],
    "died": ["yes" if i % 2 else "no" for i in range(ROWS)],
}
FRAME = pl.DataFrame(COLUMNS)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    FRAME.write_csv(tmp_path / "a.csv")
    return tmp_path / "a.csv"


def test_a_csv_with_categories_and_missing_values(csv: Path) -> None:
    source = load(file_data(csv, group="writer"))
    assert (source.name, source.problem, source.rows) == ("mine", "binary", ROWS)
    assert source.said == (
        "target died is binary: no, yes are classes 0, 1",
        "4 input columns, categories in sex, town, missing values in age, town",
    )
    # age, f and m, Bonn and Oslo and Rome and none, fare
    assert source.features == 1 + 2 + 4 + 1
    assert source.preparation is not None
    prepared = source.preparation.fit(source.x).apply(source.x)
    ages = [value for value in COLUMNS["age"] if value is not None]
    for i in range(ROWS):
        town = COLUMNS["town"][i]
        assert prepared[i].tolist() == [
            np.median(ages) if COLUMNS["age"][i] is None else i,
            *(float(COLUMNS["sex"][i] == sex) for sex in ("f", "m")),
            *(float(town == one) for one in ("Bonn", "Oslo", "Rome", None)),
            i / 4,
        ]
    assert source.groups["writer"].tolist() == COLUMNS["writer"]
    split = make_split(source, kfold(group="writer"))
    writers = source.groups["writer"]
    assert not any(set(writers[fold.train]) & set(writers[fold.val]) for fold in split.folds)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    frame = FRAME.with_columns(pl.lit("a, b; c").alias("note, of; all"))
    frame.write_csv(tmp_path / "a.csv", separator=separator, quote_style="always")
    assert load(file_data(tmp_path / "a.csv", inputs=["age", "fare"], target="died")).features == 2


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet"])
def test_other_files_hold_the_same(tmp_path: Path, csv: Path, name: str) -> None:
    if name == "a.parquet":
        FRAME.write_parquet(tmp_path / name)
    else:
        content = FRAME.write_csv(separator="\t" if "tsv" in name else ",").encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert load(file_data(tmp_path / name)).fingerprint == load(file_data(csv)).fingerprint


def test_numbers_alone_need_no_preparation(csv: Path) -> None:
    source = load(file_data(csv, inputs=["fare"]))
    assert source.preparation is None
    assert source.x[:, 0].tolist() == COLUMNS["fare"]
    assert source.said[1] == "input column fare"


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?"])
def test_what_stands_for_a_missing_number(tmp_path: Path, missing: str) -> None:
    lines = ["a,b,label", *(f"{i},{missing if i == 3 else i * 2},{i % 2}" for i in range(12))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    source = load(file_data(tmp_path / "a.csv"))
    assert np.argwhere(np.isnan(source.x)).tolist() == [[3, 1]]


@pytest.mark.parametrize(
    ("columns", "target"),
    [
        (["a", "label", "b"], "label"),
        (["y", "a", "b"], "y"),
        (["a", "Class", "b"], "Class"),
        (["a", "b", "c"], "c"),
        (["label", "y", "c"], "c"),  # two are as good as none
    ],
)
def test_the_target_is_inferred(tmp_path: Path, columns: list[str], target: str) -> None:
    frame = pl.DataFrame({name: RNG.normal(size=20) for name in columns})
    frame.write_csv(tmp_path / "a.csv")
    source = load(file_data(tmp_path / "a.csv"))
    assert source.said[0].startswith(f"target {target} is regression")
    np.testing.assert_allclose(source.y[:, 0], frame[target].to_numpy())


def test_inputs_and_groups_are_not_taken_for_the_target(csv: Path) -> None:
    source = load(file_data(csv, inputs=["sex", "died"], group="writer"))
    assert source.said[0].startswith("target fare is regression")
    with pytest.raises(UserError, match=r"data\.target is missing; .* has no column beside the inputs and groups"):
        load(file_data(csv, inputs=FRAME.columns))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5.1,3.5,setosa", "its first line holds the number 5.1; needed are the names of columns"),
        ("0,1,0,7", "its first line holds '0' twice; needed are the names of columns"),
        ("a;b;a", "its first line holds 'a' twice; needed are the names of columns"),
    ],
)
def test_a_table_whose_columns_have_no_names(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(f"{line}\n" * 20)
    with pytest.raises(UserError, match=message):
        load(file_data(tmp_path / "a.csv"))


def test_names_may_be_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,0,1,2\n" + "1,0,5,7\n0,1,2,3\n" * 10)
    assert load(file_data(tmp_path / "a.csv")).features == 3


def test_several_targets_and_the_problem_that_is_asked_for(tmp_path: Path) -> None:
    pl.DataFrame({name: [0, 1] * 10 for name in "abc"}).write_csv(tmp_path / "a.csv")
    data = file_data(tmp_path / "a.csv", target=["b", "c"])
    assert (load(data).problem, load(data).outputs, load(data).features) == ("multilabel", 2, 1)
    assert load(data, "regression").problem == "regression"
    assert load(data, "regression").said[0] == "target b, c is regression, as task says: values from 0 to 1"


def test_what_categories_are_called_makes_no_difference_to_the_fingerprint(tmp_path: Path) -> None:
    for name, words in (("a.csv", "xyz"), ("b.csv", "pqr")):
        frame = pl.DataFrame({"word": list(words) * 8, "label": [0, 1] * 12})
        frame.write_csv(tmp_path / name)
    assert load(file_data(tmp_path / "a.csv")).fingerprint == load(file_data(tmp_path / "b.csv")).fingerprint


def test_numbers_that_a_parquet_file_calls_text_are_names(tmp_path: Path) -> None:
    codes = [("04103", "10115", "80331")[i % 3] for i in range(30)]
    pl.DataFrame({"code": codes, "label": [0, 1] * 15}).write_parquet(tmp_path / "a.parquet")
    assert load(file_data(tmp_path / "a.parquet")).features == 3


def test_a_column_of_texts_alone_is_learned_from_by_its_words(tmp_path: Path) -> None:
    texts = [f"number {i} is {'odd' if i % 2 else 'even'}" for i in range(40)]
    pl.DataFrame({"id": range(40), "text": texts, "y": Y}).write_csv(tmp_path / "a.csv")
    source = load(file_data(tmp_path / "a.csv", inputs=["text"], words=5))
    assert source.sparse
    assert source.features == 5
    assert source.said[1] == "the 5 most frequent words of text"
    assert source.preparation is not None
    prepared = source.preparation.fit(source.x).apply(source.x).toarray()
    # Of number, is, even, odd and one of the numbers, in alphabetical order, 20 rows have even or odd.
    assert sorted(prepared.sum(axis=0).tolist())[1:] == [20, 20, 40, 40]


def test_texts_that_are_long_are_no_categories_however_few(tmp_path: Path) -> None:
    """The first rows of a data set of texts, to try it with; names of one to four words stay categories."""
    for text, prose in (("a film that is very {}", True), ("a very {} film", False)):
        frame = pl.DataFrame({"text": [text.format("bad"), text.format("good")] * 6 + [None], "y": [0, 1] * 6 + [1]})
        frame.write_parquet(tmp_path / "a.parquet")
        source = load(file_data(tmp_path / "a.parquet", words=6))
        assert source.sparse is prose
        # Six words, or two categories and that of missing ones.
        assert source.preparation is not None
        assert source.preparation.features == (6 if prose else 3)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([f"{i / 10}" if i % 30 else "broken" for i in range(60)], "holds text where numbers are needed, such as 'bro"),
        ([f"{i} %" for i in range(60)], "holds 60 different texts in 60 rows, such as '0 %', which are no categories"),
        ([f'"${i},013.00"' for i in range(60)], r"column x holds 60 different texts in 60 rows, such as '\$0,013.00'"),
    ],
)
def test_numbers_in_a_column_alone_are_not_taken_for_texts(tmp_path: Path, cells: list[str], message: str) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{cell},{i % 2}\n" for i, cell in enumerate(cells)))
    with pytest.raises(UserError, match=message):
        load(file_data(tmp_path / "a.csv"))


def test_an_index_of_pandas_in_a_parquet_file_is_no_column(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(40), "bought": Y, "__index_level_0__": RNG.permutation(40)})
    frame.write_parquet(tmp_path / "a.parquet")
    source = load(file_data(tmp_path / "a.parquet"))
    assert (source.features, source.said[0]) == (1, "target bought is binary: 2 classes")


def test_constant_columns_are_kept(tmp_path: Path) -> None:
    pl.DataFrame({"a": [5.0] * 20, "b": ["x"] * 20, "c": range(20), "y": [0, 1] * 10}).write_csv(tmp_path / "a.csv")
    assert load(file_data(tmp_path / "a.csv")).features == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"target": "dead"},
            "data.target=dead: {path} has no such column; allowed are age, sex, town, fare, writer, d",
        ),
        ({"inputs": ["age", "weight"]}, "data.inputs=weight: {path} has no such column; allowed are age, sex"),
        ({"group": "patient"}, "data.group=patient: {path} has no such column"),
        ({"inputs": ["age", "died"], "target": "died"}, "data.inputs=died: it is the target; a network would only"),
        ({"inputs": ["age", "age"]}, "data.inputs=age,age: age is named twice"),
        ({"inputs": []}, "data.path={path}: has no input beside died; at least one is needed"),
        ({"target": "age"}, "data.target=age: no target in 6 of 40 rows (NaN, infinite or empty, or in"),
        ({"target": ["fare", "sex"]}, "data.target=fare,sex: holds String such as 'm'; regression needs numbers"),
    ],
)
def test_columns_that_cannot_be_what_they_are_to_be(csv: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(file_data(csv, **keys))
    assert message.format(path=csv) in str(caught.value)


Y = [0, 1] * 20


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": ["1", "2", "3", "four"] * 10, "y": Y},
            "column a holds text where numbers are needed, such as 'four'; m",
        ),
        (
            {"a": [f"no. {i}" for i in range(40)], "b": Y, "y": Y},
            "column a holds 40 different texts in 40 rows, such as 'no. 0",
        ),
        ({"a": [1.0, float("inf")] * 20, "y": Y}, "column a is infinite in 20 of 40 rows"),
        ({"a": [1] * 40, "y": ["x"] * 40}, "target y: holds one class only (x); binary needs two or more"),
        ({"y": Y}, "has no input beside y; at least one is needed"),
        ({"a": [], "y": []}, "has no row; at least one is needed"),
    ],
)
def test_tables_that_are_no_data_set(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pl.DataFrame(columns).write_csv(tmp_path / "a.csv")
    with pytest.raises(UserError) as caught:
        load(file_data(tmp_path / "a.csv"))
    assert message in str(caught.value)


@pytest.mark.parametrize("values", [[date(2020, 1, 1)] * 40, [[1, 2]] * 40, [{"a": 1}] * 40])
def test_columns_of_other_types(tmp_path: Path, values: list[Any]) -> None:
    pl.DataFrame({"a": values, "y": Y}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"column a holds .*; allowed are numbers, text, and true and false"):
        load(file_data(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.npz"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.path=.*{name}: there is no such file; it is looked for in"):
        load(file_data(tmp_path / name))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a\.xlsx: allowed are files that end with \.csv, \.tsv, .*\.parquet or \.npz"):
        load(file_data(tmp_path / "a.xlsx"))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("keep", [0, 20, -9])
def test_a_file_that_ends_too_early(tmp_path: Path, name: str, keep: int) -> None:
    if name == "a.parquet":
        FRAME.write_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(FRAME.write_csv().encode()))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(UserError, match=r"is missing or damaged: |has no row") as caught:
        load(file_data(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_empty_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(UserError, match="is missing or damaged: "):
        load(file_data(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_bytes(b"a,label\n\xff\xfe\x00,1\n\x80,0\n")
    with pytest.raises(UserError, match="is not in UTF-8 "):
        load(file_data(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_bytes(b"a,b,label\n1,2,3\n1,2\n1,2,3,4,5\n")
    with pytest.raises(UserError, match="is missing or damaged: "):
        load(file_data(tmp_path / "a.csv"))
