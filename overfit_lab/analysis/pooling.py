"""Pooled out-of-fold losses: the validation losses of all folds and repeats as one table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pool_rows(losses: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pool validation losses into one column for each row of the data.

    A row that several repeats have validated is one example, not several: its losses stand in one column, so that the
    bootstrap over columns keeps them together. The mean over columns is the mean over all validations. A reshuffled
    hold-out validates some rows more often than others; such a column deviates from that mean by as much as all its
    validations together do [the linearised ratio estimator, Cochran 1977, section 2.11], so that equal losses have no
    variance, however often each was drawn.

    Blocks of rows differ between repeats, so it cannot be told which belong together. They stand for themselves, with
    deviations that are larger by the root of the number of repeats, as if the repeats had told nothing new: too wide
    an interval rather than one too narrow.

    Args:
        losses: `repeats x epochs x columns`.
        rows: `repeats x columns`, row numbers; -1 for a block of rows.

    Returns:
        `epochs x pooled columns`.
    """
    repeats, epochs, columns = losses.shape
    flat = losses.astype(np.float64).transpose(1, 0, 2).reshape(epochs, repeats * columns)
    if repeats == 1:
        return flat
    mean = flat.mean(axis=1, keepdims=True)
    if (rows < 0).any():
        pooled: NDArray[np.float64] = mean + (flat - mean) * np.sqrt(repeats)
        return pooled
    names, position, counts = np.unique(rows.reshape(-1), return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), epochs))
    np.add.at(sums, position, flat.T)
    by_row: NDArray[np.float64] = mean + (sums.T - counts * mean) * len(names) / flat.shape[1]
    return by_row
