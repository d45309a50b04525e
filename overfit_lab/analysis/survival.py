"""The median onset over independent seeds, of which some have not overfitted before training ended."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ROUNDING = 1e-9
"""The curve is a product of fractions: it may miss one half by this much where it is one half."""


@dataclass(frozen=True)
class MedianOnset:
    """The epoch by which half of all seeds overfit.

    Attributes:
        median: in completed passes; None where fewer than half are known to overfit.
        ci: confidence interval, both ends included; None for an end that the data leave open.
    """

    median: int | None
    ci: tuple[int | None, int | None]


def median_onset(epochs: ArrayLike, observed: ArrayLike, *, level: float = 0.95) -> MedianOnset:
    """Estimate the median onset over independent seeds.

    The Kaplan-Meier curve S(t) counts a fit that has not overfitted as one that may do so any time after its horizon.
    The median is the first epoch with S(t) <= 1/2. The interval holds the epochs at which S(t) = 1/2 is not rejected
    [Brookmeyer and Crowley 1982, A confidence interval for the median survival time], by the pointwise log-log interval
    of S, up to the first onset that rejects it.

    Args:
        epochs: onset of every fit, or its horizon where it has none, in completed passes, [fits].
        observed: whether the fit has an onset, [fits].
        level: of the confidence interval.

    Raises:
        ValueError: if the arrays are empty or their shapes differ, an epoch is not a whole number from 0, or the level
            is not between 0 and 1.
    """
    passes = np.asarray(epochs, dtype=np.float64)
    seen = np.asarray(observed, dtype=np.bool_)
    if passes.ndim != 1 or len(passes) == 0 or passes.shape != seen.shape:
        raise ValueError(f"epochs has shape {passes.shape} and observed {seen.shape}; both must be [fits], 1 or more")
    if not np.all(np.isfinite(passes) & (passes >= 0) & (passes == np.round(passes))):
        raise ValueError(f"epochs is {passes.tolist()}; it must hold whole numbers from 0")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    curve = stats.ecdf(stats.CensoredData.right_censored(passes, ~seen)).sf
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        interval = curve.confidence_interval(level, method="log-log")
    # The formula divides by zero where all or none of the fits are left; there the curve has no error.
    low, high = (
        np.where(np.isnan(end.probabilities), curve.probabilities, end.probabilities)
        for end in (interval.low, interval.high)
    )

    def first(reached: NDArray[np.bool_]) -> int | None:
        return int(curve.quantiles[reached.argmax()]) if reached.any() else None

    return MedianOnset(
        median=first(curve.probabilities <= 0.5 + ROUNDING),
        ci=(first(low <= 0.5 + ROUNDING), first(high < 0.5 - ROUNDING)),
    )
