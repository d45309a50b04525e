"""Rows that whoever published the data has set aside to test or to validate on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data import Source, make_split
from overfit_lab.errors import UserError


def source(rows: int = 40, **changes: Any) -> Source:  # noqa: ANN401 - any of its fields
    x = np.random.default_rng(0).normal(size=(rows, 3))
    return Source("published", "binary", x, np.arange(rows) % 2, **changes)


def holdout(**changes: Any) -> HoldoutSplit:  # noqa: ANN401 - any of its fields
    values = {"kind": "holdout", "test_fraction": 0.0, "repeats": 1, "seed": 0, "stratify": "auto", "val_fraction": 0.2}
    return HoldoutSplit.model_validate({**values, **changes})


def kfold(**changes: Any) -> KFoldSplit:  # noqa: ANN401 - any of its fields
    values = {"kind": "kfold", "test_fraction": 0.0, "repeats": 1, "seed": 0, "stratify": "auto", "folds": 3}
    return KFoldSplit.model_validate({**values, **changes})


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(rows=st.integers(30, 80), test=st.integers(1, 15), seed=st.integers(0, 99), folds=st.integers(2, 4))
def test_official_test_rows_are_the_test_rows_of_every_split(rows: int, test: int, seed: int, folds: int) -> None:
    official = np.random.default_rng(seed).permutation(rows)[:test]
    own = source(rows, official_test=official)
    for config in (kfold(folds=folds, seed=seed, repeats=2), holdout(seed=seed)):
        split = make_split(own, config)
        assert split.test.tolist() == sorted(official)
        assert split.development.tolist() == sorted(set(range(rows)) - set(official.tolist()))
        for fold in split.folds:
            assert sorted([*fold.train, *fold.val]) == split.development.tolist()


def test_official_validation_rows_are_the_hold_out() -> None:
    split = make_split(source(official_test=np.arange(30, 40), official_val=np.arange(5)), holdout(val_fraction=None))
    (fold,) = split.folds
    assert (fold.train.tolist(), fold.val.tolist()) == (list(range(5, 30)), list(range(5)))
    assert split.test.tolist() == list(range(30, 40))
    assert split.development.tolist() == list(range(30))


def test_test_rows_that_are_validated_on_are_no_test() -> None:
    own = source(official_test=np.arange(25, 40), official_val=np.arange(25, 40))
    assert own.validates_on_test
    split = make_split(own, holdout(val_fraction=None))
    assert len(split.test) == 0
    assert (split.folds[0].train.tolist(), split.folds[0].val.tolist()) == (list(range(25)), list(range(25, 40)))
    for other in (
        source(),
        source(official_test=[1]),
        source(official_val=[1]),
        source(official_test=[1], official_val=[2]),
    ):
        assert not other.validates_on_test


@pytest.mark.parametrize(
    ("changes", "config", "what"),
    [
        (
            {"official_test": [1, 2]},
            kfold(test_fraction=0.2),
            "split.test_fraction=0.2: published brings 2 test rows of its own; allowed is 0",
        ),
        (
            {"official_test": [1, 2]},
            kfold(outer_folds=3, outer=0),
            "split.outer_folds=3: published brings 2 test rows of its own; allowed is null",
        ),
        (
            {},
            holdout(val_fraction=None),
            "split.val_fraction=null: published brings no rows to validate on; allowed is above 0 and below 1",
        ),
        (
            {"official_val": [1, 2]},
            holdout(),
            "split.val_fraction=0.2: published brings 2 rows of its own to validate on; allowed is null",
        ),
        (
            {"official_val": [1, 2]},
            kfold(),
            "split=kfold: published brings 2 rows of its own to validate on; allowed is split=holdout "
            "split.val_fraction=null",
        ),
        (
            {"official_val": [1, 2]},
            holdout(val_fraction=None, repeats=2),
            "split.repeats=2: published brings 2 rows of its own to validate on, the same in each repeat; allowed is 1",
        ),
        (
            {"official_val": [1, 2], "groups": {"patient": ["a", "b"] * 20}},
            holdout(val_fraction=None, group="patient"),
            "split.group=patient: published brings 2 rows of its own to validate on; allowed is null",
        ),
    ],
)
def test_a_split_that_does_not_fit(changes: Any, config: Any, what: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError) as caught:
        make_split(source(**changes), config)
    assert str(caught.value) == what


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"official_test": []},
            "official_test has shape (0,) and type float64; allowed are numbers of some of 40 rows",
        ),
        (
            {"official_test": range(40)},
            "official_test has shape (40,) and type int64; allowed are numbers of some of 40 rows",
        ),
        (
            {"official_val": [1.0]},
            "official_val has shape (1,) and type float64; allowed are numbers of some of 40 rows",
        ),
        ({"official_test": [3, 40]}, "official_test goes from 3 to 40; allowed are the numbers of 40 rows, each once"),
        ({"official_test": [3, 3]}, "official_test goes from 3 to 3; allowed are the numbers of 40 rows, each once"),
        (
            {"official_test": [3, 4], "official_val": [4, 5]},
            "official_test and official_val share 1 rows; allowed is none, or that they are the same",
        ),
        (
            {"official_test": range(20), "official_val": range(20, 40)},
            "official_test and official_val are all of 40 rows; at least one must be left to train on",
        ),
    ],
)
def test_numbers_that_are_no_rows(changes: Any, what: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError) as caught:
        source(**changes)
    assert str(caught.value) == f"data=published: {what}"


def test_they_are_part_of_what_rows_mean() -> None:
    plain, test, val = source(), source(official_test=[1, 2]), source(official_val=[1, 2])
    assert len({one.fingerprint for one in (plain, test, val)}) == 3
    assert source(official_test=[2, 1]).fingerprint == test.fingerprint


def test_groups_that_others_have_cut_through_are_not_called_whole() -> None:
    """Whole groups are asked for, and whoever published the test rows has parted some."""
    groups = {"patient": np.arange(40) // 4}
    whole = source(official_test=np.arange(32, 40), groups=groups)
    assert make_split(whole, kfold(group="patient", stratify=False)).test.tolist() == list(range(32, 40))
    parted = source(official_test=np.arange(31, 40), groups=groups)
    assert len(make_split(parted, kfold()).test) == 9
    with pytest.raises(UserError) as caught:
        make_split(parted, kfold(group="patient", stratify=False))
    assert str(caught.value) == (
        "split.group=patient: 1 of its groups have rows both among the 9 test rows that published brings and among the "
        "others; allowed is null, or data without test rows of its own"
    )
