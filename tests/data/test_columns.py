"""Categories and missing values: what is fitted on train rows, and that nothing else is."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overfit_lab.data import Source, make_split
from overfit_lab.data.columns import ColumnPreparation
from tests.data.test_datamodule import kfold, module

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True, database=None)
NAN = float("nan")


def by_hand(train: list[list[float]], rows: list[list[float]], kinds: tuple[int | None, ...]) -> list[list[float]]:
    """One cell after the other."""
    prepared = []
    for row in rows:
        cells: list[float] = []
        for j, kind in enumerate(kinds):
            column = [other[j] for other in train]
            if kind is None:
                known = sorted(value for value in column if value == value)
                middle = len(known) // 2
                if not known:
                    median = 0.0
                else:
                    median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
                cells.append(row[j] if row[j] == row[j] else median)
            else:
                cells += [1.0 if row[j] == k and k in column else 0.0 for k in range(kind)]
        prepared.append(cells)
    return prepared


def drawn(rows: int, kinds: tuple[int | None, ...], seed: int, missing: float = 0.3) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    columns = []
    for kind in kinds:
        if kind is None:
            values = rng.normal(50, 10, rows)
            values[rng.random(rows) < missing] = np.nan
        else:
            values = rng.integers(0, kind, rows).astype(float)
        columns.append(values)
    return np.stack(columns, axis=1)


@PROPERTY
@given(
    kinds=st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=5).map(tuple),
    rows=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_it_is_what_is_done_by_hand(kinds: tuple[int | None, ...], rows: int, seed: int) -> None:
    preparation = ColumnPreparation(kinds)
    train, others = drawn(rows, kinds, seed), drawn(7, kinds, seed + 100)
    expected = by_hand(train.tolist(), others.tolist(), kinds)
    found = preparation.fit(train).apply(others)
    assert found.shape == (7, preparation.features)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_category_that_no_train_row_has_is_zeros_and_keeps_its_place() -> None:
    preparation = ColumnPreparation((3,))
    fitted = preparation.fit(np.array([[0.0], [2.0]]))
    assert fitted.apply(np.array([[0.0], [1.0], [2.0]])).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_a_column_without_a_value_on_the_train_rows_is_zeros() -> None:
    fitted = ColumnPreparation((None, None)).fit(np.array([[NAN, 1.0], [NAN, 3.0]]))
    assert fitted.apply(np.array([[NAN, NAN], [5.0, 4.0]])).tolist() == [[0, 2], [5, 4]]


def test_medians_and_categories_are_those_of_the_train_rows_of_each_fold() -> None:
    """A value of 10 000 in a validation or a test row does not move what stands for the missing ones."""
    kinds = (None, 4)
    x = drawn(60, kinds, 1, missing=0.4)
    source = Source("mine", "binary", x, np.arange(60) % 2, preparation=ColumnPreparation(kinds))
    split = make_split(source, kfold())
    for fold in split.folds:
        poisoned = x.copy()
        held = np.concatenate([fold.val, split.test])
        poisoned[held, 0] = np.where(np.isnan(x[held, 0]), np.nan, 10_000)
        own = Source("mine", "binary", poisoned, np.arange(60) % 2, preparation=ColumnPreparation(kinds))
        before, after = (module(one, split, dtype=torch.float64) for one in (source, own))
        size = before.train.sizes[fold.fold]
        assert torch.equal(_dense(before.train.x)[fold.fold, :size], _dense(after.train.x)[fold.fold, :size])
        expected = by_hand(x[fold.train].tolist(), x[fold.val].tolist(), kinds)
        assert before.val is not None
        found = _dense(before.val.x)[fold.fold, : len(fold.val)].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_after_it_comes_the_scaling_and_constant_columns_are_kept_as_zeros() -> None:
    x = np.column_stack([np.full(40, 3.0), drawn(40, (None,), 0)])
    source = Source("mine", "binary", x, np.arange(40) % 2, preparation=ColumnPreparation((None, None)))
    data = module(source, make_split(source, kfold()), scale_inputs=True)
    for fold, size in enumerate(data.train.sizes):
        own = _dense(data.train.x)[fold, :size].numpy()
        assert (own[:, 0] == 0).all()
        np.testing.assert_allclose([own[:, 1].mean(), own[:, 1].std()], [0, 1], atol=1e-12)


def _dense(x: object) -> torch.Tensor:
    assert isinstance(x, torch.Tensor)
    return x


def test_it_can_be_pickled_and_is_equal_for_equal_settings() -> None:
    preparation = ColumnPreparation((None, 3))
    assert pickle.loads(pickle.dumps(preparation)) == preparation == ColumnPreparation((None, 3))
    assert preparation != ColumnPreparation((3, None))


@pytest.mark.filterwarnings("error")
def test_sklearn_has_nothing_to_complain_about() -> None:
    fitted = ColumnPreparation((None, 2)).fit(np.array([[NAN, 0.0]]))
    fitted.apply(np.array([[1.0, 1.0], [NAN, 0.0]]))
