"""Inputs that are prepared by something fitted on train rows: what may enter it, and where it is applied."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from overfit_lab.config import KFoldSplit
from overfit_lab.data import Source, make_split
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.data.development import Stream, seal
from overfit_lab.data.duplicates import find_duplicates
from overfit_lab.data.inputs import Inputs
from overfit_lab.data.preparation import FittedPreparation, fit_inputs
from overfit_lab.data.unseal import unseal
from overfit_lab.errors import UserError
from tests.data.dense import dense

COLOURS = ("blue", "green", "grey", "red", "violet")


@dataclass(frozen=True)
class Colours:
    """A number that may be missing and a colour: the mean stands for a missing one, a colour is one-hot."""

    features: int = 7
    fitted_on: list[NDArray[Any]] = field(default_factory=list, compare=False)

    def fit(self, train: Inputs) -> FittedPreparation:
        self.fitted_on.append(train)
        numbers = SimpleImputer().fit(train[:, :1].astype(float))
        categories = OneHotEncoder(sparse_output=False, handle_unknown="ignore", max_categories=6).fit(
            train[:, 1:].astype(str)
        )
        return FittedColours(numbers, categories, self.features)


@dataclass(frozen=True)
class FittedColours:
    numbers: SimpleImputer
    categories: OneHotEncoder
    features: int

    def apply(self, rows: Inputs) -> NDArray[np.float64]:
        values = np.zeros((len(rows), self.features))
        values[:, :1] = self.numbers.transform(rows[:, :1].astype(float))
        known = self.categories.transform(rows[:, 1:].astype(str))
        values[:, 1 : 1 + known.shape[1]] = known
        return values


def raw(rows: int, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    x = np.empty((rows, 2), dtype=object)
    x[:, 0] = [None if rng.random() < 0.3 else float(rng.normal(50, 10)) for _ in range(rows)]
    x[:, 1] = [str(colour) for colour in rng.choice(COLOURS, rows)]
    x[0, 0], x[1, 0] = 1.0, 2.0
    return x


def source(x: NDArray[Any], preparation: Any = None) -> Source:  # noqa: ANN401 - tests hand in wrong ones, too
    return Source("colours", "binary", x, np.arange(len(x)) % 2, preparation=preparation or Colours())


def kfold(folds: int = 3) -> KFoldSplit:
    return KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=folds)


def module(own: Source, *, scale: bool, folds: int = 3) -> CohortDataModule:
    development = seal(own, make_split(own, kfold(folds)))
    return CohortDataModule(
        development,
        [Stream(0, fold.repeat, fold.fold) for fold in development.folds],
        batch_size=8,
        max_train_rows_measured=10_000,
        scale_inputs=scale,
        scale_targets=False,
        dtype=torch.float64,
    )


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(rows=st.integers(40, 80), seed=st.integers(0, 99), folds=st.integers(2, 4), scale=st.booleans())
def test_each_fold_is_prepared_by_its_train_rows(rows: int, seed: int, folds: int, scale: bool) -> None:
    preparation = Colours()
    own = source(raw(rows, seed), preparation)
    split = make_split(own, kfold(folds))
    data = module(own, scale=scale, folds=folds)
    # Fitted once for each fold, on nothing but its train rows.
    for fold, fitted_on in zip(split.folds, preparation.fitted_on, strict=True):
        assert fitted_on.tolist() == own.x[fold.train].tolist()
    assert data.val is not None
    for i, fold in enumerate(split.folds):
        train = own.x[fold.train]
        imputer = SimpleImputer().fit(train[:, :1].astype(float))
        colours = sorted(set(train[:, 1]))

        def by_hand(
            part: NDArray[Any], imputer: SimpleImputer = imputer, colours: list[str] = colours
        ) -> NDArray[np.float64]:
            one_hot = [
                [float(value == colour) for colour in colours] + [0.0] * (6 - len(colours)) for value in part[:, 1]
            ]
            return np.hstack([imputer.transform(part[:, :1].astype(float)), one_hot])

        scaler = StandardScaler(with_mean=scale, with_std=scale).fit(by_hand(train))
        for stack, part in ((data.train, fold.train), (data.val, fold.val)):
            found = dense(stack.x)[i, : len(part)].numpy()
            np.testing.assert_allclose(found, scaler.transform(by_hand(own.x[part])), rtol=1e-9, atol=1e-9)


def test_what_is_fitted_changes_with_no_row_but_the_train_rows() -> None:
    x = raw(60)
    own = source(x)
    split = make_split(own, kfold())
    expected = module(own, scale=True)
    fold = split.folds[0]
    for rows in (split.test, fold.val):
        poisoned = x.copy()
        poisoned[rows, 0], poisoned[rows, 1] = 1e9, "a colour nobody has seen"
        found = module(source(poisoned), scale=True)
        size = len(fold.train)
        assert torch.equal(dense(found.train.x)[0, :size], dense(expected.train.x)[0, :size])
    poisoned = x.copy()
    poisoned[fold.train[0], 0] = 1e9
    assert not torch.equal(dense(module(source(poisoned), scale=True).train.x)[0], dense(expected.train.x)[0])


def test_opened_rows_are_prepared_as_the_fold_was() -> None:
    preparation = Colours()
    own = source(raw(60), preparation)
    split, data = make_split(own, kfold()), module(own, scale=True)
    count = len(preparation.fitted_on)
    rows = data.prepare(unseal(own, split, lambda: None))
    assert len(preparation.fitted_on) == count, "nothing is fitted on test rows"
    assert rows.sizes == (len(split.test),) * 3
    for i, fold in enumerate(split.folds):
        fitted = fit_inputs(own.x[fold.train], own.preparation, scale=True)
        np.testing.assert_array_equal(dense(rows.x)[i].numpy(), fitted.apply(own.x[split.test]))


def test_a_source_with_a_preparation_keeps_raw_rows() -> None:
    x = raw(20)
    own = source(x)
    assert own.features == 7
    assert own.x.tolist() == x.tolist()
    x[0, 1] = "changed by the caller"
    assert own.x[0, 1] in COLOURS
    with pytest.raises(ValueError, match="read-only"):
        own.x[0, 1] = "red"
    again = pickle.loads(pickle.dumps(own))
    assert again.fingerprint == own.fingerprint
    assert again.x.tolist() == own.x.tolist()


def test_the_fingerprint_is_of_raw_values() -> None:
    x = raw(20)
    first = source(x).fingerprint
    same = x.copy()
    same[0, 0] = np.float64(x[0, 0])
    assert source(same).fingerprint == first
    for place, value in (((3, 1), "Red"), ((3, 0), None if x[3, 0] is not None else 0.0), ((0, 0), "1.0")):
        other = x.copy()
        other[place] = value
        assert source(other).fingerprint != first, value
    # Where one cell ends and the next begins is part of it.
    pairs = [np.array([["ab", "c"], ["d", "e"]], dtype=object), np.array([["a", "bc"], ["d", "e"]], dtype=object)]
    assert len({source(pair).fingerprint for pair in pairs}) == 2


def test_rows_with_equal_raw_inputs_are_counted() -> None:
    x = raw(30)
    x[7], x[21], x[22] = x[4], x[4], (None, "red")
    x[23] = (None, "red")
    expected = [any(i != j and x[i].tolist() == x[j].tolist() for j in range(30)) for i in range(30)]
    own = source(x)
    assert find_duplicates(own, make_split(own, kfold())).rows == sum(expected) >= 5


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (np.array([[1, object()]] * 4, dtype=object), "x holds a object; allowed are numbers, strings and None"),
        (np.array([[1, b"red"]] * 4, dtype=object), "x holds a bytes; allowed are numbers, strings and None"),
        (
            np.zeros((4, 2), dtype="datetime64[s]"),
            "x holds datetime64[s] values; allowed are numbers, strings and None",
        ),
        (np.empty((0, 2), dtype=object), "x has shape (0, 2); at least one row and one column are needed"),
        (np.zeros((4, 2, 2)), "x has shape (4, 2, 2); raw inputs are rows or rows x columns"),
    ],
)
def test_raw_inputs_that_cannot_be_prepared(x: NDArray[Any], what: str) -> None:
    with pytest.raises(UserError) as caught:
        Source("colours", "binary", x, np.array([0, 1, 0, 1]), preparation=Colours())
    assert str(caught.value) == f"data=colours: {what}"


@pytest.mark.parametrize(
    ("gives", "what"),
    [
        (lambda rows: np.zeros((len(rows), 2)), "Wrong made shape (48, 2) of 48 rows"),
        (lambda rows: np.full((len(rows), 3), np.nan), "Wrong made values that are no finite numbers"),
        (lambda rows: np.full((len(rows), 3), "red"), "Wrong made values that are no finite numbers, of type <U3"),
    ],
)
def test_a_preparation_that_gives_something_else(gives: Callable[[Inputs], NDArray[Any]], what: str) -> None:
    @dataclass(frozen=True)
    class Wrong:
        features: int = 3

        def fit(self, train: Inputs) -> FittedPreparation:
            return self

        def apply(self, rows: Inputs) -> NDArray[Any]:
            return gives(rows)

    with pytest.raises(UserError) as caught:
        module(source(raw(60), Wrong()), scale=False)
    assert what in str(caught.value) or what.replace("48", "32") in str(caught.value)
