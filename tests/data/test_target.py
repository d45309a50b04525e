"""A target read from columns: the problem type, the classes, and the sentence that says so."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from overfit_lab.config import Problem
from overfit_lab.data.target import read_target
from overfit_lab.errors import UserError

KEY = "data.target=kind"


def read(values: Any, asked: Problem | None = None, dtype: Any = None) -> tuple[Problem, list[Any], str]:  # noqa: ANN401
    target = read_target(pl.DataFrame({"kind": pl.Series(values, dtype=dtype)}), asked, KEY)
    return target.problem, target.y.tolist(), target.said


def test_text_of_two_kinds_is_binary_in_alphabetical_order() -> None:
    assert read(["yes", "no", "yes"]) == ("binary", [1, 0, 1], "binary: no, yes are classes 0, 1")


def test_truth_is_binary() -> None:
    assert read([True, False, True]) == ("binary", [1, 0, 1], "binary: 2 classes")


@pytest.mark.parametrize(
    ("values", "numbers", "said"),
    [
        ([0, 1, 1], [0, 1, 1], "binary: 2 classes"),
        ([0.0, 1.0, 1.0], [0, 1, 1], "binary: 2 classes"),
        ([1, 2, 2], [0, 1, 1], "binary: 1, 2 are classes 0, 1"),
        ([-1.0, 1.0, 1.0], [0, 1, 1], "binary: -1, 1 are classes 0, 1"),
    ],
)
def test_two_whole_numbers_are_binary(values: list[float], numbers: list[int], said: str) -> None:
    assert read(values) == ("binary", numbers, said)


def test_labels_from_1_are_mapped_and_it_is_said() -> None:
    problem, y, said = read([1, 2, 3] * 5)
    assert (problem, y) == ("multiclass", [0, 1, 2] * 5)
    assert said == "multiclass: 1, 2, 3 are classes 0, 1, 2"
    many = list(range(1, 11)) * 5
    assert read(many) == (
        "multiclass",
        [value - 1 for value in many],
        "multiclass: 1 to 10 are classes 0 to 9, in order",
    )


def test_labels_with_gaps_are_mapped_in_order() -> None:
    problem, y, said = read([7, 3, 5] * 5)
    assert (problem, y) == ("multiclass", [2, 0, 1] * 5)
    assert said == "multiclass: 3, 5, 7 are classes 0, 1, 2"


def test_classes_are_called_as_they_are() -> None:
    assert read([1.25, 1.5] * 5, "binary")[2] == "binary, as task says: 1.25, 1.5 are classes 0, 1"
    long = [10**25, 10**25 + 1]
    assert read(long * 5, dtype=pl.Int128) == ("binary", [0, 1] * 5, f"binary: {long[0]}, {long[1]} are classes 0, 1")


@pytest.mark.parametrize("first", [0, 1])
def test_beside_images_numbers_without_gaps_are_classes_however_many(first: int) -> None:
    columns = pl.DataFrame({"kind": [first + i % 26 for i in range(130)]})
    target = read_target(columns, None, KEY, of_images=True)
    assert (target.problem, target.y.tolist()) == ("multiclass", [i % 26 for i in range(130)])
    assert read_target(columns, None, KEY).problem == "regression"
    for amounts in (columns * 2, columns.head(52)):
        assert read_target(amounts, None, KEY, of_images=True).problem == "regression"


def test_labels_from_0_are_taken_as_they_are() -> None:
    assert read([0, 2, 1] * 5) == ("multiclass", [0, 2, 1] * 5, "multiclass: 3 classes")


def test_categories_keep_the_order_that_they_were_given() -> None:
    names = ["low", "middle", "high", "unused"]
    problem, y, said = read(["high", "low", "middle"] * 5, dtype=pl.Enum(names))
    assert (problem, y) == ("multiclass", [2, 0, 1] * 5)
    assert said == "multiclass: low, middle, high are classes 0, 1, 2"
    assert read(["b", "a", "c"] * 5, dtype=pl.Categorical)[1] == [1, 0, 2] * 5


@pytest.mark.parametrize(
    "values",
    [
        list(np.arange(0, 40, 0.5)),
        list(range(100)),  # whole numbers, but an amount
        [1, 2, 3, 4, 5, 6, 7, 8],  # as many values as rows
        [0.5, 1.5] * 10,
        [Decimal("0.25"), Decimal("0.75")] * 10,
    ],
)
def test_other_numbers_are_a_regression(values: list[float]) -> None:
    problem, y, said = read(values)
    assert problem == "regression"
    assert y == [[value] for value in values]
    assert said == f"regression: values from {min(values):g} to {max(values):g}"


def test_several_columns_of_zeros_and_ones_are_labels() -> None:
    columns = pl.DataFrame({"a": [0, 1, 1], "b": [True, True, False], "c": [0.0, 1.0, 1.0]})
    target = read_target(columns, None, KEY)
    assert (target.problem, target.y.tolist()) == ("multilabel", [[0, 1, 0], [1, 1, 1], [1, 0, 1]])
    assert target.said == "multilabel: 3 labels"


def test_a_single_one_in_each_row_is_a_class() -> None:
    columns = pl.DataFrame({"a": [0, 1, 0], "b": [0, 0, 1], "c": [1, 0, 0]})
    target = read_target(columns, None, KEY)
    assert (target.problem, target.y.tolist()) == ("multiclass", [2, 0, 1])
    assert target.said == "multiclass: 3 classes, one-hot"
    assert read_target(columns, "multilabel", KEY).y.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_several_columns_of_numbers_are_a_regression() -> None:
    target = read_target(pl.DataFrame({"a": [0.5, 2.0], "b": [1, 7]}), None, KEY)
    assert (target.problem, target.y.tolist()) == ("regression", [[0.5, 1], [2, 7]])


def test_what_is_asked_for_is_not_inferred() -> None:
    problem, y, said = read([3, 4, 5] * 5, "regression")
    assert (problem, y[:3]) == ("regression", [[3], [4], [5]])
    assert said == "regression, as task says: values from 3 to 5"
    assert read(list(range(30)), "multiclass")[:2] == ("multiclass", list(range(30)))
    assert read([0.1, 0.9], "unit_regression")[:2] == ("unit_regression", [[0.1], [0.9]])


@pytest.mark.parametrize(
    ("values", "asked", "message"),
    [
        ([1.0, None, 3.0], None, "data.target=kind: no target in 1 of 3 rows"),
        ([1.0, float("nan"), float("inf")], None, "data.target=kind: no target in 2 of 3 rows"),
        (["a", None], None, "data.target=kind: no target in 1 of 2 rows"),
        (["a", "a", "a"], None, "data.target=kind: holds one class only (a); binary needs two or more"),
        ([4, 4, 4], None, "data.target=kind: holds one class only (4)"),
        ([0, 1, 2], "binary", "data.target=kind: holds 3 classes; binary needs two, multiclass allows more"),
        (["1.5", "2.5", "x"], "regression", "data.target=kind: holds String such as '1.5'; regression needs numbers"),
        ([0, 1, 2], "multilabel", "holds values other than 0 and 1; multilabel needs columns of zeros and ones"),
        ([f"{i}th" for i in range(50)], None, "holds 50 different texts in 50 rows, such as '0th'; needed are numbers"),
        ([b"x", b"y"], None, "holds values of type Binary; allowed are numbers, text, and true and false"),
    ],
)
def test_what_is_no_target(values: list[Any], asked: Problem | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(values, asked)
    assert message in str(caught.value)


def test_a_missing_value_among_several_columns_is_found_in_its_column() -> None:
    with pytest.raises(UserError, match="no target in column b in 1 of 2 rows"):
        read_target(pl.DataFrame({"a": [0, 1], "b": [1, None]}), None, KEY)
    with pytest.raises(UserError, match="2 columns are no binary target; allowed is one"):
        read_target(pl.DataFrame({"a": [0, 1], "b": [1, 0]}), "binary", KEY)
    with pytest.raises(UserError, match="holds String such as 'x'; regression needs numbers"):
        read_target(pl.DataFrame({"a": [0, 1], "b": ["x", "y"]}), None, KEY)
