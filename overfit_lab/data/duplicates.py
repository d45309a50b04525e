"""Rows whose inputs are equal: where they stand on both sides of a cut, what is measured there is partly memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overfit_lab.data.inputs import Inputs, digest_rows
from overfit_lab.data.source import Source
from overfit_lab.data.split import Rows, Split


@dataclass(frozen=True)
class Duplicates:
    """How many rows have a twin, a row with equal inputs.

    Args:
        rows: Rows with a twin anywhere.
        across_test: Development rows with a twin among the test rows.
        across_folds: Validation rows with a twin among the train rows of their fold, over the folds of a repeat; of
            the repeats, the most.
        conflicting: Development rows with a twin among the development rows whose target differs.
    """

    rows: int
    across_test: int
    across_folds: int
    conflicting: int


def find_duplicates(source: Source, split: Split) -> Duplicates:
    """Count rows with equal inputs, as they are before any preparation; 0.0 and -0.0 are equal.

    The sealed test rows are looked at only for this count: their inputs are compared, their targets are not read, and
    which rows are equal is not handed on.
    """
    inputs = _number(source.x)
    development = inputs[split.development]
    targets = _number(source.y[split.development].reshape(len(development), -1))
    distinct = np.unique(np.stack([development, targets]), axis=1)[0]
    by_repeat = dict.fromkeys((fold.repeat for fold in split.folds), 0)
    for fold in split.folds:
        by_repeat[fold.repeat] += _count_in(inputs[fold.val], inputs[fold.train])
    return Duplicates(
        rows=int((np.bincount(inputs)[inputs] > 1).sum()),
        across_test=_count_in(development, inputs[split.test]),
        across_folds=max(by_repeat.values(), default=0),
        conflicting=int((np.bincount(distinct)[development] > 1).sum()),
    )


def _count_in(values: Rows, others: Rows) -> int:
    return int(np.isin(values, others).sum())


def _number(array: Inputs) -> Rows:
    """Number rows so that equal ones, and no others, have the same number."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digest_rows(array)], dtype=np.int64)
