"""Whole groups are dealt to the parts of a split, so that the parts come as near to their wished sizes as they can.

Not scikit-learn's StratifiedGroupKFold: what it makes of a seed depends on its version, and in newer ones groups of
unlike class counts fall in the same way for every seed, so that repeats would repeat nothing. Nor has it a counterpart
for a cut by a fraction: GroupShuffleSplit counts groups, not rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal_groups(counts: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64] | None:
    """Deal groups to parts, in a random order and each to the part that it brings nearest to its wish.

    Some orders are tried, and the one that ends nearest to the wish is taken: the sum of squares of what the parts
    have too much or too little, each column as a fraction of its total.

    Args:
        counts: `groups x columns`, what each part is to have its share of: rows, and where classes keep their
            proportions, the rows of each class. No column is zero throughout.
        shares: `parts`, fractions with sum 1.
        seed: What the orders are drawn from.

    Returns:
        `groups`, the part of each; every part has something of every column. None if no order gave that.
    """
    groups, columns = counts.shape
    # Many groups come near in any order, and take longer.
    orders = _draw_orders(groups, int(np.clip(100_000 // groups, 10, 100)), seed)
    tried = np.arange(len(orders))
    total = counts.sum(axis=0)
    wished = np.outer(shares, total)
    dealt = np.zeros((len(orders), len(shares), columns), dtype=np.int64)
    parts = np.zeros((len(orders), groups), dtype=np.int64)
    left = np.tile((counts > 0).sum(axis=0), (len(orders), 1))
    for next_groups in orders.T:
        own = counts[next_groups]
        # Where no more groups with something of a column are left than there are parts without, one of those gets it.
        without = dealt == 0
        last = (own > 0) & (left <= without.sum(axis=1))
        need = (last[:, None] & without).sum(axis=2)
        excess = ((dealt - wished) / total * (own / total)[:, None]).sum(axis=2)
        # Rounded: ties are frequent, and must fall alike everywhere. No excess is beyond the number of columns.
        part = np.argmin(np.round(excess, 9) - 3 * columns * need, axis=1)
        dealt[tried, part] += own
        parts[tried, next_groups] = part
        left -= own > 0
    # No more than there are groups: where they are few, the best of many would be the same for every seed.
    complete = np.flatnonzero((dealt > 0).all(axis=(1, 2)))[:groups]
    if len(complete) == 0:
        return None
    distance = (((dealt[complete] - wished) / total) ** 2).sum(axis=(1, 2))
    best: NDArray[np.int64] = parts[complete[np.argmin(np.round(distance, 9))]]
    return best


def _draw_orders(groups: int, number: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(groups), (number, 1)), axis=1)
