"""Sparse inputs on their way from a source to a batch."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from overfit_lab.config import KFoldSplit
from overfit_lab.data import Source, make_split
from overfit_lab.data.batches import Batch
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.data.development import Stream, seal
from overfit_lab.data.duplicates import find_duplicates
from overfit_lab.data.inputs import Inputs
from overfit_lab.data.preparation import FittedPreparation
from overfit_lab.data.sparse_rows import SparseRows
from overfit_lab.data.unseal import unseal
from overfit_lab.errors import UserError


def table(rows: int = 47) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng(0)
    x = np.where(rng.random((rows, 12)) < 0.2, rng.normal(size=(rows, 12)), 0)
    x[:, 0] = 1 + np.arange(rows)  # a row's number can be read off its first input
    return x


def source(x: Any, **changes: Any) -> Source:  # noqa: ANN401 - wrong ones, too
    return Source("table", "binary", x, np.arange(x.shape[0]) % 2, **changes)


def module(own: Source, seeds: int = 2) -> CohortDataModule:
    split = make_split(own, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))
    return CohortDataModule(
        seal(own, split),
        [Stream(seed, fold.repeat, fold.fold) for fold in split.folds for seed in range(seeds)],
        batch_size=8,
        max_train_rows_measured=10_000,
        scale_inputs=False,
        scale_targets=False,
        dtype=torch.float64,
    )


def dense(x: object) -> torch.Tensor:
    assert isinstance(x, SparseRows)
    return x.dense(torch.device("cpu"))


def test_batches_and_measured_rows_are_those_of_dense_inputs() -> None:
    x = table()
    sparse_one, dense_one = module(source(sparse.csr_array(x))), module(source(x))
    for ours, theirs in (
        (sparse_one.train, dense_one.train),
        (sparse_one.train_measured, dense_one.train_measured),
        (sparse_one.val, dense_one.val),
    ):
        assert ours is not None
        assert theirs is not None
        assert isinstance(theirs.x, torch.Tensor)
        assert torch.equal(dense(ours.x), theirs.x)
        assert (ours.x.shape, ours.x.dtype) == (theirs.x.shape, theirs.x.dtype)
        assert torch.equal(dense(ours.x[[2, 0, 0]]), theirs.x[[2, 0, 0]])
        assert torch.equal(dense(ours.x[:, 3:9]), theirs.x[:, 3:9])
        assert ours.sizes == theirs.sizes
    for epoch in (0, 1):
        batches: list[list[Batch]] = []
        for data in (sparse_one, dense_one):
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            batches.append([batch for chunk in loader for batch in chunk])
        for one, other in zip(*batches, strict=True):
            assert isinstance(other.x, torch.Tensor)
            assert torch.equal(dense(one.x), other.x)
            assert torch.equal(one.y, other.y)
            assert torch.equal(one.weight, other.weight)
            assert one.sizes == other.sizes


def test_opened_rows_stay_sparse() -> None:
    x = table()
    own = source(sparse.csr_array(x))
    split = make_split(own, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))
    rows = module(own).prepare(unseal(own, split, lambda: None))
    np.testing.assert_array_equal(dense(rows.x), np.stack([x[split.test]] * 3))


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_every_sparse_kind_is_the_same_source(kind: Any) -> None:  # noqa: ANN401
    x = table()
    given = kind(x)
    own = source(given)
    assert (own.sparse, own.rows, own.features) == (True, 47, 12)
    np.testing.assert_array_equal(own.x.toarray(), x)
    given.data[:] = 0
    np.testing.assert_array_equal(own.x.toarray(), x)
    assert own.fingerprint == source(sparse.csr_array(x)).fingerprint
    with pytest.raises(ValueError, match="read-only"):
        own.x.data[0] = 1
    again = pickle.loads(pickle.dumps(own))
    assert (again.x != own.x).nnz == 0
    assert again.fingerprint == own.fingerprint


def test_what_is_kept_of_a_row() -> None:
    x = np.zeros((4, 50))
    x[0, :9] = 1
    x[1, 3] = 1
    assert source(x).values_per_row == 50
    assert source(sparse.csr_array(x)).values_per_row == 2 * 3  # 10 values in 4 rows, and their columns


def test_values_that_are_stored_though_they_are_0_make_no_difference() -> None:
    x = table()
    given = sparse.csr_array(x)
    extra = sparse.csr_array(
        (np.r_[given.data, 0.0, -0.0], [*given.indices.tolist(), 1, 2], np.r_[given.indptr[:-1], given.nnz + 2])
    )
    twice = sparse.coo_array((np.r_[given.data / 2, given.data / 2], [np.r_[i, i] for i in given.nonzero()]), x.shape)
    for other in (extra, twice):
        np.testing.assert_array_equal(other.toarray(), x)
        assert source(other).fingerprint == source(given).fingerprint
    moved = x.copy()
    moved[4, [3, 4]] = 5.0, 0.0
    swapped = x.copy()
    swapped[4, [3, 4]] = 0.0, 5.0
    assert source(sparse.csr_array(moved)).fingerprint != source(sparse.csr_array(swapped)).fingerprint


def test_equal_rows_are_counted_as_dense_ones_are() -> None:
    x = table()
    x[:, 0] = 0
    x[5], x[30], x[31] = x[20], x[20], 0
    x[32] = 0
    split = make_split(
        source(x), KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3)
    )
    found = find_duplicates(source(sparse.csr_array(x)), split)
    assert found == find_duplicates(source(x), split)
    assert found.rows >= 5


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (sparse.csr_array((4, 0)), "x has shape (4, 0); at least one row and one column are needed"),
        (
            sparse.csr_array(np.array([[1, np.nan], [np.inf, np.nan], [0, 1], [1, 0]])),
            "x holds NaN or infinite values in 2 of 4 rows",
        ),
        (sparse.csr_array(np.eye(4) * 1j), "x holds complex128 values; allowed are numbers"),
    ],
)
def test_sparse_inputs_that_are_at_fault(x: Any, what: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=re.escape(f"data=table: {what}")):
        source(x)


def test_a_preparation_of_sparse_rows_gives_sparse_rows() -> None:
    class Fills:
        features = 12

        def fit(self, train: Inputs) -> FittedPreparation:
            return self

        def apply(self, rows: Inputs) -> Inputs:
            return rows.toarray()

    with pytest.raises(UserError, match="Fills made ndarray of csr_array; allowed is the same"):
        module(source(sparse.csr_array(table()), preparation=Fills()))
