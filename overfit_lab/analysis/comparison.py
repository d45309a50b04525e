"""Whether one configuration is better than another, from losses on the same splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The difference between two configurations, and how likely one as large would be if there were none.

    Attributes:
        mean: of the differences, in units of the loss.
        se: its standard error, corrected for train rows that the splits share.
        t: mean / se; infinite where the differences are all the same and not zero, and zero where they are zero.
        df: degrees of freedom, differences less one.
        p_value: two-sided.
    """

    mean: float
    se: float
    t: float
    df: int
    p_value: float


def corrected_t_test(differences: ArrayLike, *, val_train_ratio: float) -> Comparison:
    """Test whether the expected difference between two configurations is zero.

    The corrected resampled t-test: t = mean(d) / sqrt((1/J + n_val/n_train) s^2) with J - 1 degrees of freedom [Nadeau
    and Bengio 2003, Inference for the generalization error, section 3]. Splits share train rows, so that their
    differences are correlated, and without the second term chance would pass for a difference.

    Args:
        differences: of the validation losses of two configurations, one for each of the J splits; any shape.
        val_train_ratio: validation rows per train row of a split: 1 / (K - 1) for K folds. With 0 it is the paired
            t-test of independent splits.

    Raises:
        ValueError: if there are fewer than two differences, one is not finite, or the ratio is negative or not finite.
    """
    d = _differences(differences)
    if not (np.isfinite(val_train_ratio) and val_train_ratio >= 0):
        raise ValueError(f"val_train_ratio is {val_train_ratio}; it must be a finite number from 0")
    mean, df = float(d.mean()), len(d) - 1
    if np.ptp(d) == 0:
        # Rounding errors must not pass for a standard deviation. Without one, any difference is beyond chance.
        t = 0.0 if d[0] == 0 else float(np.copysign(np.inf, d[0]))
        return Comparison(mean=float(d[0]), se=0.0, t=t, df=df, p_value=float(t == 0))
    se = float(np.sqrt((1 / len(d) + val_train_ratio) * d.var(ddof=1)))
    t = mean / se
    return Comparison(mean=mean, se=se, t=t, df=df, p_value=float(2 * stats.t.sf(abs(t), df)))


def holm(p_values: ArrayLike) -> Array:
    """Adjust p-values for how many tests were made: below .05 in any of them is then a chance of .05 in all.

    Args:
        p_values: of the tests, [tests]; none is allowed.

    Returns:
        Adjusted p-values in the same order, [tests] [Holm 1979, A simple sequentially rejective multiple test
        procedure].

    Raises:
        ValueError: if a p-value is not within 0 and 1, or the array has more dimensions than one.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p_values is {p.tolist()}; it must be [tests], each from 0 to 1")
    if not len(p):
        return p
    from statsmodels.stats.multitest import multipletests

    adjusted: Array = multipletests(p, method="holm")[1]
    return adjusted


def within_one_standard_error(differences: ArrayLike, *, folds: int) -> bool:
    """Tell whether a candidate is as good as the best, as far as the data can tell: mean(d) <= sd(d) / sqrt(folds).

    The one-standard-error rule on paired differences, which leave out what is hard for both [after Breiman, Friedman,
    Olshen and Stone 1984, Classification and regression trees, section 3.4.3]. Repeats of the folds are not counted:
    they hold the same rows, and tell little new.

    Args:
        differences: loss of the candidate less that of the best, for every repeat and fold, any shape; or for every row
            of a hold-out.
        folds: number of folds of one repeat; of rows, for a hold-out.

    Raises:
        ValueError: if there are fewer than two differences or fewer differences than folds, one is not finite, or folds
            is not positive.
    """
    d = _differences(differences)
    if not 1 <= folds <= len(d):
        raise ValueError(f"folds is {folds}; it must be from 1 to the number of differences, {len(d)}")
    return bool(d.mean() <= d.std(ddof=1) / np.sqrt(folds))


def _differences(differences: ArrayLike) -> Array:
    d = np.asarray(differences, dtype=np.float64).reshape(-1)
    if len(d) < 2:
        raise ValueError(f"there is {len(d)} difference; at least 2 are needed" if len(d) else "differences is empty")
    if not np.isfinite(d).all():
        raise ValueError("differences hold a number that is not finite")
    return d
