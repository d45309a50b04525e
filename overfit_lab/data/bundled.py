"""Real data sets that come with scikit-learn: nothing is downloaded.

Where scikit-learn offers a scaled copy, the raw one is taken: scaling is fitted later, on train rows only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from overfit_lab.config import Problem

Arrays: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


def _breast_cancer() -> Arrays:
    return datasets.load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]


def _wine() -> Arrays:
    return datasets.load_wine(return_X_y=True)  # type: ignore[no-any-return]


def _iris() -> Arrays:
    return datasets.load_iris(return_X_y=True)  # type: ignore[no-any-return]


def _digits() -> Arrays:
    return datasets.load_digits(return_X_y=True)  # type: ignore[no-any-return]


def _diabetes() -> Arrays:
    return datasets.load_diabetes(return_X_y=True, scaled=False)  # type: ignore[no-any-return]


def _linnerud() -> Arrays:
    return datasets.load_linnerud(return_X_y=True)  # type: ignore[no-any-return]


def _digits_traits() -> Arrays:
    """Four labels of each handwritten digit: even, prime, five or more, has a closed loop."""
    x, digit = _digits()
    traits = [digit % 2 == 0, np.isin(digit, (2, 3, 5, 7)), digit >= 5, np.isin(digit, (0, 6, 8, 9))]
    return x, np.stack(traits, axis=1).astype(np.float64)


def _digits_ink() -> Arrays:
    """From the upper half of a handwritten digit, how much of the lower half is covered with ink, from 0 to 1."""
    x, _ = _digits()
    upper, lower = x[:, :32], x[:, 32:]
    return upper, lower.mean(axis=1) / 16  # a pixel counts ink from 0 to 16


BUNDLED: dict[str, tuple[Problem, Callable[[], Arrays]]] = {
    "breast_cancer": ("binary", _breast_cancer),
    "digits": ("multiclass", _digits),
    "wine": ("multiclass", _wine),
    "iris": ("multiclass", _iris),
    "diabetes": ("regression", _diabetes),
    "linnerud": ("regression", _linnerud),
    "digits_traits": ("multilabel", _digits_traits),
    "digits_ink": ("unit_regression", _digits_ink),
}

SHAPES: dict[str, tuple[int, ...]] = {
    "digits": (1, 8, 8),
    "digits_traits": (1, 8, 8),
    "digits_ink": (1, 4, 8),
}
"""Of those whose rows are images: channels, height, width."""
