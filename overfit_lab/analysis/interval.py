"""Confidence intervals of what is measured on a test set, by drawing its rows anew."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Method = Literal["bca", "percentile", "wilson"]

LEVEL = 0.95
REPLICATES = 2000
BCA_ROWS = 2000
"""Up to this many rows the interval is corrected for bias and skewness. It leaves out each row once, which costs
rows^2, and on more rows the correction is small."""

BATCH = 10**7
"""Row numbers that are drawn at once."""

ROUNDING = 1e-12
"""Replicates that differ by less than this fraction are the same."""

# SciPy 1.15 has renamed the argument.
_RNG = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower end.
        high: upper end.
        method: bca, a bootstrap corrected for bias and skewness; percentile, the plain bootstrap; or wilson.
    """

    low: float
    high: float
    method: Method


def bootstrap_interval(
    statistic: Callable[[Index], ArrayLike],
    rows: int,
    *,
    clusters: ArrayLike | None = None,
    seed: int = 0,
    level: float = LEVEL,
    replicates: int = REPLICATES,
) -> Interval:
    """Find the confidence interval of a statistic of the rows of a test set, by a bootstrap of the rows.

    BCa [Efron 1987, Better bootstrap confidence intervals] for up to 2000 rows, where it can be computed, and
    percentiles otherwise. With clusters, whole clusters are drawn and percentiles taken [Davison and Hinkley 1997,
    Bootstrap methods and their application, section 3.8]. A replicate in which the statistic is not a number, such as
    the area under the ROC curve where a single class was drawn, is left out; where all are, the ends are not numbers
    either. Where all replicates are the same, the interval is that one number: of a proportion, see
    `proportion_interval`.

    Args:
        statistic: takes row numbers, [samples, drawn rows], and returns its value on each sample, [samples].
        rows: number of rows.
        clusters: label of the cluster of each row, [rows], where rows are not independent: of a patient or a document.
        seed: of the bootstrap.
        level: of the interval.
        replicates: number of bootstrap samples.

    Raises:
        ValueError: if there are fewer than two rows or clusters, an array has the wrong shape, the level is not between
            0 and 1, or no replicate is asked for.
    """
    _check_level(level)
    if rows < 2:
        raise ValueError(f"rows is {rows}; a bootstrap needs at least 2")
    if replicates < 1:
        raise ValueError(f"replicates is {replicates}; it must be 1 or more")
    rng = np.random.default_rng(seed)
    if clusters is not None:
        return _percentile(_cluster_replicates(statistic, _cluster_rows(clusters, rows), replicates, rng), level)

    def along_axis(data: NDArray[Any], axis: int) -> Array:
        return _values(statistic, data.reshape(-1, data.shape[-1])).reshape(data.shape[:-1])

    with warnings.catch_warnings():
        # BCa is not defined for all statistics; its warnings say so, and so does a result that is not a number.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap(
            (np.arange(rows),),
            along_axis,
            n_resamples=replicates,
            batch=max(1, BATCH // rows),
            vectorized=True,
            axis=-1,
            confidence_level=level,
            method="bca" if rows <= BCA_ROWS else "percentile",
            **{_RNG: rng},
        )
    plain = _percentile(result.bootstrap_distribution, level)
    low, high = (float(end) for end in result.confidence_interval)
    if rows > BCA_ROWS or plain.low == plain.high or not np.isfinite([low, high]).all():
        return plain
    return Interval(low, high, "bca")


def proportion_interval(successes: int, rows: int, level: float = LEVEL) -> Interval:
    """Find the confidence interval of a proportion such as accuracy [Wilson 1927, Probable inference].

    A bootstrap of a proportion of 0 or 1 would have no width.

    Args:
        successes: rows that count.
        rows: of the test set.
        level: of the interval.

    Raises:
        ValueError: if there is no row, the successes are not from 0 to rows, or the level is not between 0 and 1.
    """
    _check_level(level)
    if rows < 1:
        raise ValueError(f"rows is {rows}; it must be 1 or more")
    if not 0 <= successes <= rows:
        raise ValueError(f"successes is {successes}; it must be from 0 to rows, {rows}")
    interval = stats.binomtest(successes, rows).proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high), "wilson")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")


def _values(statistic: Callable[[Index], ArrayLike], index: NDArray[Any]) -> Array:
    values = np.asarray(statistic(index.astype(np.intp, copy=False)), dtype=np.float64)
    if values.shape != index.shape[:1]:
        raise ValueError(f"statistic gave shape {values.shape} for {index.shape}; it must be {index.shape[:1]}")
    return values


def _cluster_rows(clusters: ArrayLike, rows: int) -> list[Index]:
    labels = np.asarray(clusters)
    if labels.shape != (rows,):
        raise ValueError(f"clusters has shape {labels.shape}; it must be ({rows},), one for each row")
    _, of_row, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError("clusters holds one label; a bootstrap needs at least 2")
    return np.split(np.argsort(of_row.reshape(-1), kind="stable"), np.cumsum(counts)[:-1])


def _cluster_replicates(
    statistic: Callable[[Index], ArrayLike], members: list[Index], replicates: int, rng: np.random.Generator
) -> Array:
    # One at a time: samples differ in length.
    draws = rng.integers(len(members), size=(replicates, len(members)))
    samples = (np.concatenate([members[cluster] for cluster in draw]) for draw in draws)
    return np.concatenate([_values(statistic, sample[None]) for sample in samples])


def _percentile(replicates: Array, level: float) -> Interval:
    values = replicates[~np.isnan(replicates)]
    if not len(values):
        return Interval(float("nan"), float("nan"), "percentile")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest or highest - lowest <= ROUNDING * abs(highest):
        return Interval(lowest, lowest, "percentile")
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), "percentile")
