"""The development rows of a split: all that anything but the final test ever sees of a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from overfit_lab.config import Problem
from overfit_lab.data.inputs import Inputs
from overfit_lab.data.preparation import Preparation
from overfit_lab.data.source import Source
from overfit_lab.data.split import Rows, Split


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
    """

    problem: Problem
    x: Inputs
    y: NDArray[Any]
    rows: Rows
    folds: tuple[DevelopmentFold, ...]
    preparation: Preparation | None = None


def seal(source: Source, split: Split) -> DevelopmentRows:
    """Copy the development rows out of a source; the test rows stay behind."""
    rows = split.development
    folds = tuple(
        DevelopmentFold(f.repeat, f.fold, np.searchsorted(rows, f.train), np.searchsorted(rows, f.val))
        for f in split.folds
    )
    return DevelopmentRows(source.problem, source.x[rows], source.y[rows], rows, folds, source.preparation)
