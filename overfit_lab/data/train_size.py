"""Fewer train rows, for learning curves: subsets of which the smaller ones are contained in the larger ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overfit_lab.data.split import Rows
from overfit_lab.errors import UserError
from overfit_lab.seeding import numpy_generator


def count_train_rows(size: float | None, rows: int) -> int:
    """Say how many of some train rows are used.

    Args:
        size: A count as an integer, or a share below 1; None for all.
        rows: How many there are.

    Raises:
        UserError: There are fewer than the count.
    """
    if size is None:
        return rows
    if isinstance(size, int):
        if size > rows:
            raise UserError(
                f"data.train_size={size}: a fold has {rows} train rows; allowed is 1 to {rows}, or a share below 1"
            )
        return size
    return max(1, round(size * rows))


def choose_train_rows(train: Rows, size: float | None, classes: NDArray[Any] | None, *name: int) -> Rows:
    """Choose the train rows of a fold that are used.

    They are the first ones of an order that does not depend on the size, so a smaller choice is contained in a larger
    one. Where classes are given, each is spread evenly over the order, and has its share of every choice but for one
    row.

    Args:
        train: Row numbers of the source, sorted.
        size: As for `count_train_rows`, which says what is raised.
        classes: The class of every row of the source, or None.
        name: What the order is drawn from: the seed of the split, the repeat and the fold.

    Returns:
        Row numbers of the source, sorted.
    """
    count = count_train_rows(size, len(train))
    if count == len(train):
        return train
    order = numpy_generator("train size", *name).permutation(train)
    if classes is not None:
        # The k-th of the n rows of a class stands at the place (k + 1/2) / n of the whole; ties stay in random order.
        place = np.empty(len(order))
        for label in np.unique(classes[order]):
            own = np.flatnonzero(classes[order] == label)
            place[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = order[np.argsort(place, kind="stable")]
    return np.sort(order[:count])
