from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overfit_lab.data.train_size import choose_train_rows, count_train_rows
from overfit_lab.errors import UserError

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("size", "count"), [(None, 10), (1, 1), (7, 7), (10, 10), (0.5, 5), (0.26, 3), (0.01, 1), (0.99, 10)]
)
def test_a_count_or_a_share(size: float | None, count: int) -> None:
    assert count_train_rows(size, 10) == count


def test_more_than_there_are() -> None:
    with pytest.raises(UserError, match=r"data\.train_size=11: a fold has 10 train rows; allowed is 1 to 10, or a sh"):
        count_train_rows(11, 10)


@PROPERTY
@given(rows=st.integers(1, 80), classes=st.integers(1, 4), stratified=st.booleans(), seed=st.integers(0, 3))
def test_smaller_choices_are_contained_in_larger_ones(rows: int, classes: int, stratified: bool, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, 200)
    train = np.sort(np.random.default_rng(seed).choice(200, rows, replace=False))
    before: set[int] = set()
    for count in range(1, rows + 1):
        chosen = choose_train_rows(train, count, labels if stratified else None, seed, 0, 0)
        assert len(chosen) == count
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert before < set(chosen.tolist()) <= set(train.tolist())
        before = set(chosen.tolist())


@pytest.mark.parametrize("count", [5, 10, 37, 50, 99])
def test_each_class_has_its_share_of_every_choice(count: int) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = choose_train_rows(np.arange(100), count, labels, 0, 0, 0)
    np.testing.assert_allclose(
        np.bincount(labels[chosen], minlength=3), [0.5 * count, 0.3 * count, 0.2 * count], atol=1
    )


def test_without_classes_every_row_is_alike_likely() -> None:
    drawn = np.zeros(20)
    for seed in range(2000):
        drawn[choose_train_rows(np.arange(20), 5, None, seed, 0, 0)] += 1
    # Binomial with 2000 draws of 1/4: sd 19.4.
    np.testing.assert_allclose(drawn, 500, atol=5 * 19.4)


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_repeat_and_fold_have_orders_of_their_own(other: tuple[int, int, int]) -> None:
    labels = np.arange(100) % 2
    first, second = (choose_train_rows(np.arange(100), 30, labels, *name) for name in ((0, 0, 0), other))
    assert first.tolist() != second.tolist()
