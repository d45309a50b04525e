"""Pooled losses against a loop over rows."""

from __future__ import annotations

import numpy as np

from overfit_lab.analysis.pooling import pool_rows


def test_one_repeat_is_left_as_it_is() -> None:
    losses = np.random.default_rng(0).random((1, 4, 5)).astype(np.float32)
    pooled = pool_rows(losses, np.array([[3, 1, 4, 0, 2]]))
    assert pooled.dtype == np.float64
    assert np.array_equal(pooled, losses[0])


def test_repeats_of_a_row_are_one_example() -> None:
    losses = np.random.default_rng(0).random((3, 4, 5))
    rows = np.array([[3, 1, 4, 0, 2], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    pooled = pool_rows(losses, rows)
    assert pooled.shape == (4, 5)
    for epoch in range(4):
        for row in range(5):
            own = [losses[r, epoch, c] for r in range(3) for c in range(5) if rows[r, c] == row]
            assert len(own) == 3
            np.testing.assert_allclose(pooled[epoch, row], np.mean(own))


def test_the_mean_over_columns_is_the_mean_over_validations() -> None:
    """Reshuffled hold-outs validate some rows more often than others."""
    losses = np.random.default_rng(1).random((3, 6, 4))
    rows = np.array([[0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 7, 8]])
    pooled = pool_rows(losses, rows)
    assert pooled.shape == (6, 9)
    np.testing.assert_allclose(pooled.mean(1), losses.transpose(1, 0, 2).reshape(6, 12).mean(1))


def test_blocks_stand_for_themselves() -> None:
    losses = np.random.default_rng(2).random((2, 3, 4))
    pooled = pool_rows(losses, np.full((2, 4), -1))
    assert np.array_equal(pooled, np.concatenate([losses[0], losses[1]], axis=1))
