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


def test_equal_losses_have_no_variance_however_often_a_row_was_drawn() -> None:
    rng = np.random.default_rng(3)
    rows = np.stack([rng.permutation(100)[:20] for _ in range(5)])
    pooled = pool_rows(np.ones((5, 2, 20)), rows)
    np.testing.assert_allclose(pooled, 1.0, rtol=1e-12)


def test_the_standard_error_of_reshuffled_hold_outs_is_that_of_their_mean() -> None:
    """Against simulation: how far the mean over validations moves when the rows of the data are drawn anew."""
    rng = np.random.default_rng(4)
    means, claimed = [], []
    for _ in range(2000):
        of_row = rng.normal(1.0, 0.3, size=100)
        rows = np.stack([rng.permutation(100)[:20] for _ in range(5)])
        pooled = pool_rows(of_row[rows][:, None], rows)[0]
        means.append(pooled.mean())
        claimed.append(pooled.std(ddof=1) / np.sqrt(len(pooled)))
    np.testing.assert_allclose(np.mean(claimed), np.std(means), rtol=0.06)


def test_blocks_of_several_repeats_claim_no_more_than_one_repeat() -> None:
    losses = np.repeat(np.random.default_rng(2).random((1, 3, 128)), 4, axis=0)
    pooled, alone = (pool_rows(v, np.full((len(v), 128), -1)) for v in (losses, losses[:1]))
    np.testing.assert_allclose(pooled.mean(1), alone.mean(1))
    for epoch in range(3):
        se, se_alone = (v[epoch].std() / np.sqrt(v.shape[1]) for v in (pooled, alone))
        np.testing.assert_allclose(se, se_alone)
