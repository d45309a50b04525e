"""The development rows of a split: all that anything but the final test ever sees of a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from overfit_lab.config import Problem
from overfit_lab.data.inputs import Inputs
from overfit_lab.data.label_noise import with_label_noise
from overfit_lab.data.preparation import Preparation
from overfit_lab.data.source import Source
from overfit_lab.data.split import Rows, Split
from overfit_lab.data.train_size import choose_train_rows


class Stream(NamedTuple):
    """The randomness of a fit: fits of one stream see the same rows in the same order, in whatever configuration."""

    seed: int
    repeat: int
    fold: int


class LabelledRows(Protocol):
    """Rows with their targets, wherever they come from."""

    @property
    def problem(self) -> Problem:
        """The problem type."""

    @property
    def x(self) -> Inputs:
        """Inputs as they are in the source, a row for each."""

    @property
    def y(self) -> NDArray[Any]:
        """Targets, `rows` or `rows x targets`."""


@dataclass(frozen=True, eq=False)
class DevelopmentFold:
    """A fold whose row numbers count development rows, from 0."""

    repeat: int
    fold: int
    train: Rows
    val: Rows


@dataclass(frozen=True, eq=False)
class DevelopmentRows:
    """What is left of a source once its test rows are sealed away.

    Args:
        problem: The problem type.
        x: Inputs as they are in the source, a row for each.
        y: `rows` or `rows x targets`.
        rows: `rows`, their numbers in the source.
        folds: How they are cut.
        preparation: What makes numbers of the inputs; None where they are numbers.
        clean: The right targets, where labels in `y` were made wrong; None where none were.
    """

    problem: Problem
    x: Inputs
    y: NDArray[Any]
    rows: Rows
    folds: tuple[DevelopmentFold, ...]
    preparation: Preparation | None = None
    clean: NDArray[Any] | None = None


def seal(
    source: Source,
    split: Split,
    *,
    label_noise: float = 0.0,
    train_size: float | None = None,
    classes: NDArray[Any] | None = None,
    seed: int = 0,
) -> DevelopmentRows:
    """Copy the development rows out of a source; the test rows stay behind.

    Args:
        source: Where they are.
        split: Which they are, and how they are cut.
        label_noise: The share of their labels that are made wrong.
        train_size: How many train rows of each fold are kept, as for `choose_train_rows`.
        classes: The class of every row of the source where the kept rows are to keep their proportions.
        seed: Of the split: what wrong labels and kept rows are drawn from.
    """
    rows = split.development
    folds = []
    for fold in split.folds:
        train = choose_train_rows(fold.train, train_size, classes, seed, fold.repeat, fold.fold)
        own = np.searchsorted(rows, train), np.searchsorted(rows, fold.val)
        folds.append(DevelopmentFold(fold.repeat, fold.fold, *own))
    return DevelopmentRows(
        source.problem,
        source.x[rows],
        with_label_noise(source, rows, label_noise, seed),
        rows,
        tuple(folds),
        source.preparation,
        clean=source.y[rows] if label_noise else None,
    )
