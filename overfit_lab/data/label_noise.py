"""Labels made wrong on purpose: how a network behaves that can learn them only by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overfit_lab.data.source import Source
from overfit_lab.data.split import Rows
from overfit_lab.errors import UserError
from overfit_lab.seeding import numpy_generator

CLASSIFICATION = ("binary", "multiclass", "multilabel")


def check_label_noise(source: Source, share: float) -> None:
    """Refuse label noise where there are no labels.

    Raises:
        UserError: The source's targets are no labels.
    """
    if share and source.problem not in CLASSIFICATION:
        raise UserError(
            f"data.label_noise={share:g}: {source.name} is {source.problem}; only {', '.join(CLASSIFICATION)} allow it"
        )


def with_label_noise(source: Source, rows: Rows, share: float, seed: int) -> NDArray[Any]:
    """Make a share of the labels of some rows wrong: each of them becomes one of the other classes, all alike likely.

    Of a multilabel target every entry is a label. What is drawn depends on the seed alone: the labels that are wrong
    at a smaller share are wrong at a larger one, too, and in the same way. Rows that were published to test on keep the
    right ones, also where they are validated on.

    Args:
        source: Where the rows are; it keeps the right labels.
        rows: Which rows: all but the test rows.
        share: Of the labels that may become wrong, rounded to a whole number of them.
        seed: Of the split: fits with different seeds have the same wrong labels.

    Returns:
        Their targets, `rows` or `rows x targets`, as in the source.
    """
    right = source.y[rows]
    kept = np.zeros(len(rows), dtype=bool) if source.official_test is None else np.isin(rows, source.official_test)
    wrong = round(share * right[~kept].size)
    if wrong == 0:
        return right
    classes = source.outputs if source.problem == "multiclass" else 2
    # Drawn for every row there is, so that a row has the same noise whatever rows it is asked for with.
    generator = numpy_generator("label noise", seed)
    rank = generator.permutation(source.y.size).reshape(source.y.shape)[rows]
    rank[kept] = source.y.size
    shift = generator.integers(1, classes, size=source.y.shape)[rows]
    last = np.partition(rank, wrong - 1, axis=None)[wrong - 1]
    return np.where(rank <= last, (right + shift) % classes, right).astype(right.dtype)
