from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data import Fold, Source, Split, make_split
from overfit_lab.data import inputs as module
from overfit_lab.data.duplicates import Duplicates, find_duplicates

KFOLD = KFoldSplit(kind="kfold", test_fraction=0.3, repeats=2, seed=0, stratify=False, folds=3)
HOLDOUT = HoldoutSplit(kind="holdout", test_fraction=0.3, repeats=3, seed=0, stratify=False, val_fraction=0.4)


def by_loops(source: Source, split: Split) -> Duplicates:
    """Compare every row with every other."""

    def equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
        return all(p == q for p, q in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True))

    def twins(i: int, among: NDArray[np.int64]) -> list[int]:
        return [j for j in among if j != i and equal(source.x[i], source.x[j])]

    in_repeat: dict[int, int] = {}
    for fold in split.folds:
        counted = [i for i in fold.val if twins(i, fold.train)]
        in_repeat[fold.repeat] = in_repeat.get(fold.repeat, 0) + len(counted)
    return Duplicates(
        rows=len([i for i in range(source.rows) if twins(i, np.arange(source.rows))]),
        across_test=len([i for i in split.development if twins(i, split.test)]),
        across_folds=max(in_repeat.values()),
        conflicting=len(
            [
                i
                for i in split.development
                if any(not equal(source.y[i : i + 1], source.y[j : j + 1]) for j in twins(i, split.development))
            ]
        ),
    )


@pytest.mark.parametrize("config", [KFOLD, HOLDOUT], ids=["kfold", "holdout"])
@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_a_slow_loop(config: KFoldSplit | HoldoutSplit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (60, 4)) * rng.choice([1.0, -1.0], (60, 4))  # with zeros of both signs
    targets: tuple[tuple[Any, NDArray[Any]], ...] = (
        ("multiclass", np.r_[0:3, rng.integers(0, 3, 57)]),
        ("regression", rng.integers(0, 2, (60, 2)) * rng.choice([1.0, -1.0], (60, 2))),
    )
    for problem, y in targets:
        source = Source("integers", problem, x, y)
        split = make_split(source, config.model_copy(update={"seed": seed}))
        found = find_duplicates(source, split)
        assert found == by_loops(source, split)
        assert min(found.across_test, found.across_folds, found.conflicting) > 0
        assert found.rows < 60


def rows(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


#                  0  1  2  3  4  5  6  7
X = np.array([[x] for x in (1, 1, 2, 2, 2, 3, 4, 1)])
Y = np.array([0, 0, 1, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("test", "folds", "expected"),
    [
        # All the same by hand: of 1 there are three rows, of 2 three; those of 2 have different targets.
        ((), ((0, (0, 1, 2, 3), (4, 5, 6, 7)),), Duplicates(rows=6, across_test=0, across_folds=2, conflicting=6)),
        # The third row with a 1 is a test row: its target is sealed, so the other two do not conflict.
        ((7,), ((0, (0, 1, 2, 3), (4, 5, 6)),), Duplicates(rows=6, across_test=2, across_folds=1, conflicting=3)),
        # Row 4 has two twins in train, and is one row; a test row with no twin changes nothing.
        ((6,), ((0, (0, 1, 7, 2, 3), (4, 5)),), Duplicates(rows=6, across_test=0, across_folds=1, conflicting=6)),
        # Twins that are validated together are not trained on.
        ((), ((0, (5, 6), (0, 1, 2, 3, 4, 7)),), Duplicates(rows=6, across_test=0, across_folds=0, conflicting=6)),
        # Two repeats of two folds: 0 of all development rows, and those of 1 and 2 that are cut apart.
        (
            (7,),
            (
                (0, (5, 6), (0, 1, 2, 3, 4)),
                (0, (0, 1, 2, 3, 4), (5, 6)),
                (1, (0, 2, 5), (1, 3, 4, 6)),
                (1, (1, 3, 4, 6), (0, 2, 5)),
            ),
            Duplicates(rows=6, across_test=2, across_folds=5, conflicting=3),
        ),
    ],
)
def test_counts_by_hand(
    test: tuple[int, ...], folds: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...], expected: Duplicates
) -> None:
    source = Source("by hand", "binary", X, Y)
    development = np.setdiff1d(np.arange(8), test)
    made = tuple(Fold(repeat, i, rows(*train), rows(*val)) for i, (repeat, train, val) in enumerate(folds))
    assert find_duplicates(source, Split(rows(*test), development, made)) == expected


def test_zero_and_minus_zero_are_equal_and_near_is_not() -> None:
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0 + 1e-15], [5e-324, 1.0], [1.0, 0.0]])
    source = Source("zeros", "regression", x, np.array([0.0, -0.0, 1.0, 2.0, 3.0]))
    split = Split(rows(), np.arange(5), (Fold(0, 0, rows(0, 2, 3), rows(1, 4)),))
    assert find_duplicates(source, split) == Duplicates(rows=2, across_test=0, across_folds=1, conflicting=0)


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_rows_are_compared_across_chunks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(30, 5))
    x[29], x[17] = x[0], x[1]
    source = Source("chunks", "regression", x, np.arange(30.0))
    split = Split(rows(29), np.arange(29), (Fold(0, 0, np.arange(10), np.arange(10, 29)),))
    monkeypatch.setattr(module, "_CHUNK_BYTES", size)
    assert find_duplicates(source, split) == Duplicates(rows=4, across_test=1, across_folds=1, conflicting=2)


def test_targets_of_test_rows_are_not_read() -> None:
    split = Split(rows(6, 7), np.arange(6), (Fold(0, 0, rows(0, 1, 2), rows(3, 4, 5)),))
    other = Y.copy()
    other[6:] = 1 - other[6:]
    assert find_duplicates(Source("a", "binary", X, Y), split) == find_duplicates(
        Source("a", "binary", X, other), split
    )
