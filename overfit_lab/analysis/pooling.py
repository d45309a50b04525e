"""Pooled out-of-fold losses: the validation losses of all folds and repeats as one table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pool_rows(losses: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pool validation losses into one column for each row of the data.

    A row that several repeats have validated is one example, not several: its losses are added up in one
    column, so that the bootstrap over columns keeps them together. Columns are scaled so that their mean is
    the mean over all validations. Blocks of rows stand for themselves.

    Args:
        losses: `repeats x epochs x columns`.
        rows: `repeats x columns`, row numbers; -1 for a block of rows.

    Returns:
        `epochs x pooled columns`.
    """
    repeats, epochs, columns = losses.shape
    flat = losses.astype(np.float64).transpose(1, 0, 2).reshape(epochs, repeats * columns)
    if repeats == 1 or (rows < 0).any():
        return flat
    names, position = np.unique(rows.reshape(-1), return_inverse=True)
    sums = np.zeros((len(names), epochs))
    np.add.at(sums, position, flat.T)
    return sums.T * len(names) / flat.shape[1]
