"""Columns of a table as inputs: numbers, of which some may be missing, and categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from overfit_lab.data.inputs import Inputs


@dataclass(frozen=True)
class ColumnPreparation:
    """Numbers get the median of the train rows where one is missing; a category becomes a vector with a single one.

    Of a category that no train row has, nothing is known: its rows have zeros for the whole column. Its place is kept,
    so that an input means the same in every fold.

    Args:
        categories: `columns`, how many categories each column has, which are the numbers from 0; None where it holds
            numbers, of which NaN is a missing one.
    """

    categories: tuple[int | None, ...]

    @property
    def features(self) -> int:
        """How many inputs come out, column by column."""
        return sum(count or 1 for count in self.categories)

    def fit(self, train: Inputs) -> FittedColumns:
        """Fit medians and known categories on train rows, `rows x columns`."""
        numbers = [j for j, count in enumerate(self.categories) if count is None]
        others = [j for j, count in enumerate(self.categories) if count is not None]
        # A column without any value on the train rows is kept, as zeros.
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        return FittedColumns(
            self,
            imputer.fit(train[:, numbers]) if numbers else None,
            encoder.fit(train[:, others]) if others else None,
        )


@dataclass(frozen=True)
class FittedColumns:
    """What was fitted on train rows.

    Args:
        preparation: How.
        imputer: Of the columns of numbers, if there are any.
        encoder: Of the columns of categories, if there are any.
    """

    preparation: ColumnPreparation
    imputer: SimpleImputer | None
    encoder: OneHotEncoder | None

    def apply(self, rows: Inputs) -> NDArray[np.float64]:
        """Prepare `rows x columns`: `rows x features`."""
        categories = self.preparation.categories
        first = np.cumsum([0, *(count or 1 for count in categories)])[:-1]
        values: NDArray[Any] = np.zeros((len(rows), self.preparation.features))
        numbers = [j for j, count in enumerate(categories) if count is None]
        others = [j for j, count in enumerate(categories) if count is not None]
        if self.imputer is not None:
            values[:, first[numbers]] = self.imputer.transform(rows[:, numbers])
        if self.encoder is not None:
            known = [first[j] + own.astype(int) for j, own in zip(others, self.encoder.categories_, strict=True)]
            values[:, np.concatenate(known)] = self.encoder.transform(rows[:, others])
        return values
