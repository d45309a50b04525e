"""What makes numbers of a source's inputs: fitted on the train rows of each fold, applied to all rows it is given.

A vocabulary, the categories of a column, the mean that stands for a missing value: each of them knows something of the
rows that it was fitted on, as the scaling does. So a source keeps its inputs raw and says how they are prepared, and
the DataModule fits that for each fold. `Scaling` is a fitted preparation, too, and the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from overfit_lab.data.inputs import Inputs, is_sparse, values_of
from overfit_lab.data.scaling import fit_scaling
from overfit_lab.errors import UserError


class FittedPreparation(Protocol):
    """What was fitted on some train rows."""

    def apply(self, rows: Inputs) -> Inputs:
        """Prepare rows, those that it was fitted on or others.

        Returns:
            `rows x features`, finite numbers; each row as if it were alone. Sparse where the rows are.
        """


class Preparation(Protocol):
    """How raw inputs become numbers. It is pickled with its source, and equal for equal settings."""

    @property
    def features(self) -> int:
        """How many inputs of a network come out: the same whatever it is fitted on, with zeros where there is less."""

    def fit(self, train: Inputs) -> FittedPreparation:
        """Fit it on train rows, as they are in the source. It draws no random numbers."""


@dataclass(frozen=True)
class Steps:
    """Fitted preparations, one after another.

    Args:
        fitted: The first one takes rows as they are in the source.
    """

    fitted: tuple[FittedPreparation, ...]

    def apply(self, rows: Inputs) -> Inputs:
        """Prepare rows by all of them, `rows x features`."""
        for step in self.fitted:
            rows = step.apply(rows)
        return rows


@dataclass(frozen=True)
class _Checked:
    """Somebody's preparation, whose results are not taken on trust."""

    fitted: FittedPreparation
    features: int

    def apply(self, rows: Inputs) -> Inputs:
        values = self.fitted.apply(rows)
        name = type(self.fitted).__name__
        count = rows.shape[0]
        if values.shape != (count, self.features):
            raise UserError(
                f"data: {name} made shape {values.shape} of {count} rows; allowed is rows x {self.features}, "
                "as its preparation says"
            )
        if is_sparse(values) != is_sparse(rows):
            raise UserError(f"data: {name} made {type(values).__name__} of {type(rows).__name__}; allowed is the same")
        if values.dtype.kind not in "buif" or not np.isfinite(values_of(values)).all():
            raise UserError(f"data: {name} made values that are no finite numbers, of type {values.dtype}")
        return values


def fit_inputs(train: Inputs, preparation: Preparation | None, *, scale: bool) -> Steps:
    """Fit all that is done to the inputs of a fold.

    Args:
        train: Its train rows, as they are in the source.
        preparation: Of the source; None where it holds numbers.
        scale: Whether they get mean 0 and deviation 1 on the train rows at last.

    Raises:
        UserError: The preparation gives something else than it says.
    """
    fitted: list[FittedPreparation] = []
    if preparation is not None:
        fitted.append(_Checked(preparation.fit(train), preparation.features))
    if scale:
        fitted.append(fit_scaling(Steps(tuple(fitted)).apply(train)))
    return Steps(tuple(fitted))
