"""Standardisation, fitted on the train rows of one fold and applied to all its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scaling:
    """An affine map per column.

    Args:
        mean: `columns`, what is subtracted.
        scale: `columns`, what is divided by; never 0.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def apply(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Scale `rows x columns`."""
        return (values - self.mean) / self.scale


def fit_scaling(train: NDArray[Any]) -> Scaling:
    """Fit mean 0 and standard deviation 1 (of the population) on `rows x columns`.

    A column that is constant on the train rows is only centred: it carries nothing to learn, and dividing by its
    deviation of 0 would turn a differing validation row into infinity.
    """
    scale = train.std(axis=0)
    constant = scale <= 1e-12 * np.abs(train).max(axis=0)
    return Scaling(train.mean(axis=0), np.where(constant, 1.0, scale))


def no_scaling(columns: int) -> Scaling:
    """Return the map that leaves every value as it is."""
    return Scaling(np.zeros(columns), np.ones(columns))
