"""The onset of overfitting, with an error bar: a paired bootstrap of the trend of the validation loss.

The onset is the first local minimum of the trend that is followed by a rise which is statistically
significant and at least ``min_rise``, while the train loss is not rising too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from overfit_lab.analysis.smoothing import (
    BANDWIDTHS,
    PHI,
    ar1_correlation,
    estimate_phi,
    find_spikes,
    jitter_sd,
    select_smoother,
)

Array = NDArray[np.float64]
Verdict = Literal["overfit", "not_reached", "underfit", "diverged", "too_short"]

MIN_EPOCHS = 8
MIN_RISE = 0.01
LEVEL = 0.05
REPLICATES = 300
PLATEAU = 2.0
"""A fall of fewer standard errors than this, down to the last epoch, may as well be a plateau."""

LATE = 0.95
STILL_FALLING = 0.01
"""Underfit: the best epoch comes this late, as a fraction of the horizon, and over the last tenth the train loss falls
by this fraction of the validation loss there."""

EXPLOSION = 1e6
LARGEST = 1e100
"""A loss this many times that of the first epoch, or this large, is treated as not finite."""


@dataclass(frozen=True)
class Onset:
    """Where overfitting begins, or why there is no such epoch. Epochs count completed passes.

    Attributes:
        verdict: overfit; not_reached within the horizon; underfit, as not_reached but still learning at the
            horizon; diverged, where the loss explodes or the train loss rises too; too_short for a test.
        epoch: the onset, where the verdict is overfit.
        ci: confidence interval of the onset, 95 % unless asked otherwise, both ends included. An onset that is seen at
            a measured epoch may lie anywhere between the epochs measured before and after it [interval censoring,
            Turnbull 1976]: the ends lie next to those, which changes nothing where every epoch is measured.
        detected_at: the first epoch at which the rise is proven.
        best_epoch: the minimum of the trend over all epochs, for selection.
        p_value: of the hypothesis that the trend never rises.
        second_descent: whether the loss falls again, equally significantly, after its peak.
        spikes: epochs that were set aside, as if they had not been measured: there training slipped and recovered,
            see `find_spikes`.
    """

    verdict: Verdict
    epoch: int | None = None
    ci: tuple[int, int] | None = None
    detected_at: int | None = None
    best_epoch: int | None = None
    p_value: float | None = None
    second_descent: bool = False
    spikes: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words: `overfit from epoch 25 [20, 31]`, or why there is no onset."""
        if self.epoch is None or self.ci is None:
            return self.verdict.replace("_", " ")
        return f"overfit from epoch {self.epoch} [{self.ci[0]}, {self.ci[1]}]"


def estimate_onset(
    val_losses: ArrayLike,
    train_loss: ArrayLike | None = None,
    *,
    epochs: ArrayLike | None = None,
    seed: int = 0,
    min_rise: float = MIN_RISE,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    bandwidths: Sequence[float] = BANDWIDTHS,
    phi: float = PHI,
) -> Onset:
    """Estimate the epoch where overfitting begins.

    The trend is a local-linear smooth in log epoch. Its rise is tested as monotonicity by bootstrap [after Bowman,
    Jones and Gijbels 1998, Testing monotonicity of regression], under noise curves in which the examples of the
    validation set stay paired across epochs. The statistic is the largest rise between any two epochs, in units of its
    standard error plus the median one [after Tusher, Tibshirani and Chu 2001, Significance analysis of microarrays]:
    a rise that lasts is hardly weighed down by the many short ones that chance makes.

    Epochs at which training slipped and recovered are set aside first (`find_spikes`).

    Where no rise is proven, the curve is underfit if the trend is lowest within the last twentieth of the epochs
    and the train loss still fell over the last tenth, by more than 1 % of the validation loss at the best epoch.

    Args:
        val_losses: validation loss of every example, or of every block of examples, [epochs, examples]; the
            same examples in the same order every epoch.
        train_loss: mean train loss, [epochs]; without it no curve is called underfit, no train loss is
            seen to rise, and no epoch is set aside.
        epochs: completed passes at every row, [epochs]; 1, 2, 3... if not given.
        seed: of the bootstrap.
        min_rise: smallest rise that counts, as a fraction of the loss it starts from.
        level: of the test for a rise, and of the confidence interval.
        replicates: number of bootstrap curves.
        bandwidths: candidates for the smoother, in log epoch.
        phi: smallest autocorrelation of the epoch-to-epoch jitter that is assumed.

    Raises:
        ValueError: if an array has the wrong shape, the epochs do not increase from above zero, or the
            replicates are too few for the level.
    """
    if int(level * (replicates + 1)) < 1:
        raise ValueError(f"replicates is {replicates}; a test at level {level} needs at least 1 / level - 1")
    losses, train, passes = _checked(val_losses, train_loss, epochs)
    horizon = _sound_epochs(losses, train)
    diverged = horizon < len(losses)
    losses, passes = losses[:horizon], passes[:horizon]
    loss = losses.mean(axis=1)
    spikes: tuple[int, ...] = ()
    if train is not None:
        train = train[:horizon]
        marked = find_spikes(loss, train)
        spikes = tuple(map(int, passes[marked]))
        losses, loss, train, passes = (values[~marked] for values in (losses, loss, train, passes))
    if len(passes) < MIN_EPOCHS:
        lowest = int(passes[loss.argmin()]) if len(passes) else None
        return Onset("diverged" if diverged else "too_short", best_epoch=lowest, spikes=spikes)

    smoother = select_smoother(passes, loss, bandwidths)
    trend = smoother @ loss
    train_trend = None if train is None else smoother @ train
    best_epoch = int(passes[trend.argmin()])

    covariance = _sampling_covariance(losses) + _jitter_covariance(passes, loss, smoother, phi)
    noise = _draw(covariance, replicates, np.random.default_rng(seed)) @ smoother.T
    se = _standard_errors(trend, smoother @ covariance @ smoother.T)
    scale = _moderated(se)
    null = _largest_rise(_never_rising(trend, se) + noise, scale)
    p_value = float((1 + np.sum(null >= _largest_rise(trend[None], scale))) / (replicates + 1))
    # A rise has p <= level if and only if it is larger than this.
    critical = float(np.sort(null)[-int(level * (replicates + 1))])

    proven = _proven(trend, scale, critical, min_rise)
    if not proven.any():
        late = best_epoch >= LATE * passes[-1]
        verdict: Verdict = "not_reached"
        if diverged:
            verdict = "diverged"
        elif late and train_trend is not None:
            before = train_trend[np.searchsorted(passes, 0.9 * passes[-1])]
            # Measured on the validation loss, as below its rise is.
            if before - train_trend[-1] > STILL_FALLING * abs(trend.min()):
                verdict = "underfit"
        return Onset(verdict, best_epoch=best_epoch, p_value=p_value, spikes=spikes)

    detected = int(proven.any(axis=0).argmax())
    onset = int(trend[: detected + 1].argmin())
    peak, second_descent = _peak(trend, onset, detected, _proven(-trend, scale, critical, min_rise))
    # What counts as a rise of the train loss is measured on the validation loss: near zero, it doubles without meaning.
    if train_trend is not None and train_trend[peak] - train_trend[onset] >= min_rise * abs(trend[onset]):
        return Onset("diverged", best_epoch=best_epoch, p_value=p_value, spikes=spikes)

    minima = passes[(trend + noise)[:, : peak + 1].argmin(axis=1)]
    low, high = np.quantile(minima, [level / 2, 1 - level / 2], method="inverted_cdf")
    # The estimate is an epoch that the data favour; a skewed bootstrap must not shut it out.
    ends = min(low, passes[onset]), max(high, passes[onset])
    return Onset(
        "overfit",
        epoch=int(passes[onset]),
        ci=_between_measured(passes, *ends),
        detected_at=int(passes[detected]),
        best_epoch=best_epoch,
        p_value=p_value,
        second_descent=second_descent,
        spikes=spikes,
    )


def _checked(
    val_losses: ArrayLike, train_loss: ArrayLike | None, epochs: ArrayLike | None
) -> tuple[Array, Array | None, Array]:
    losses = np.asarray(val_losses, dtype=np.float64)
    if losses.ndim != 2 or losses.shape[1] == 0:
        raise ValueError(f"val_losses has shape {losses.shape}; it must be [epochs, examples >= 1]")
    rows = losses.shape[:1]
    train = None if train_loss is None else np.asarray(train_loss, dtype=np.float64)
    if train is not None and train.shape != rows:
        raise ValueError(f"train_loss has shape {train.shape}; it must be {rows}, as many as val_losses has rows")
    passes = np.arange(1.0, len(losses) + 1) if epochs is None else np.asarray(epochs, dtype=np.float64)
    if passes.shape != rows:
        raise ValueError(f"epochs has shape {passes.shape}; it must be {rows}, as many as val_losses has rows")
    if not np.all(np.diff(passes, prepend=0) > 0):
        raise ValueError(f"epochs is {passes.tolist()}; it must be positive and strictly increasing")
    return losses, train, passes


def _sound_epochs(losses: Array, train: Array | None) -> int:
    # A loss that explodes is as lost as one that is not finite, and its scale would hide all that came before.
    first = float(np.abs(losses[:1]).max(initial=0))
    ceiling = min(EXPLOSION * first, LARGEST) if first else LARGEST
    sound: NDArray[np.bool_] = np.abs(losses).max(axis=1) < ceiling
    if train is not None:
        sound = sound & (np.abs(train) < LARGEST)
    broken = np.flatnonzero(~sound)
    return int(broken[0]) if len(broken) else len(losses)


def _sampling_covariance(losses: Array) -> Array:
    # Of the mean over examples, between epochs: another sample of examples moves the whole curve, not its
    # points one by one. A single example tells nothing of it.
    n = losses.shape[1]
    centred = losses - losses.mean(axis=1, keepdims=True)
    covariance: Array = centred @ centred.T / max(n * (n - 1), 1)
    return covariance


def _jitter_covariance(passes: Array, loss: Array, smoother: Array, least_phi: float) -> Array:
    phi = estimate_phi(passes, loss, smoother, least_phi)
    sd = jitter_sd(passes, loss, phi)
    return sd[:, None] * ar1_correlation(passes, phi) * sd


def _draw(covariance: Array, replicates: int, rng: np.random.Generator) -> Array:
    # One normal multiplier per example and AR(1) jitter on top is a Gaussian vector with this covariance,
    # so it is drawn from T numbers instead of n. As a correlation: an explosion late in a curve must not
    # drown its early epochs in rounding errors.
    sd = np.sqrt(np.diag(covariance))
    scale = np.where(sd > 0, sd, 1)
    correlation = covariance / scale[:, None] / scale
    return sd * rng.multivariate_normal(
        np.zeros(len(sd)), correlation, size=replicates, check_valid="ignore", method="eigh"
    )


def _standard_errors(trend: Array, covariance: Array) -> Array:
    variance = np.diag(covariance)
    of_difference = np.sqrt(np.clip(variance[:, None] + variance - 2 * covariance, 0, None))
    # In a curve without noise, rounding errors must not look significant.
    rounding = 1e-9 * np.maximum(np.abs(trend)[:, None], np.abs(trend)) + np.finfo(np.float64).tiny
    se: Array = of_difference + rounding
    return se


def _moderated(se: Array) -> Array:
    # In plain standard errors a rise between two neighbouring epochs counts as much as one that lasts, and there are
    # far more of the former: the critical value pays for them, and a loss that triples through a few confidently wrong
    # examples, with a z of 3, passes for chance. With the constant added, a short rise has to be large too. It is the
    # median because an explosion late in a curve moves any mean.
    # Rejected: comparing each epoch with the lowest before it alone does not leave the short rises out; a penalty
    # sqrt(2 log(range / distance)) [Duembgen and Spokoiny 2001] is as hard on a rise from epoch 10 to 100 as the
    # critical value was; the plain difference is lost in the noise of the most variable epochs.
    scale: Array = se + np.median(se[np.triu_indices_from(se, k=1)])
    return scale


def _largest_rise(curves: Array, scale: Array) -> Array:
    # Over all pairs of epochs s < t. One s at a time stays in the cache.
    starts = range(len(scale) - 1)
    rises = [((curves[:, s + 1 :] - curves[:, s, None]) / scale[s, s + 1 :]).max(axis=1) for s in starts]
    largest: Array = np.max(rises, axis=0)
    return largest


def _never_rising(trend: Array, se: Array) -> Array:
    # Isotonic regression turns the noise of a plateau into small steps down, on which fewer false rises
    # appear than on the plateau itself. What lies within the noise of its last value is therefore made level.
    fit: Array = isotonic_regression(trend, increasing=False).x
    return np.where(fit - fit[-1] < PLATEAU * se[:, -1], fit[-1], fit)


def _proven(trend: Array, scale: Array, critical: float, min_rise: float) -> NDArray[np.bool_]:
    # [from, to]: is the rise from one epoch to a later one significant and large enough?
    rise = trend - trend[:, None]
    large = rise >= min_rise * np.abs(trend)[:, None]
    proven: NDArray[np.bool_] = np.triu(large & (rise > critical * scale), k=1)
    return proven


def _between_measured(passes: Array, low: float, high: float) -> tuple[int, int]:
    """Widen an interval whose ends were measured to all epochs of which they are the measured ones nearest by."""
    before, after = np.searchsorted(passes, low) - 1, np.searchsorted(passes, high) + 1
    earliest = passes[before] + 1 if before >= 0 else 1
    latest = passes[after] - 1 if after < len(passes) else high
    return int(min(low, earliest)), int(max(high, latest))


def _peak(trend: Array, onset: int, detected: int, falls: NDArray[np.bool_]) -> tuple[int, bool]:
    peak = onset + int(trend[onset : detected + 1].argmax())
    for epoch in range(detected + 1, len(trend)):
        if trend[epoch] > trend[peak]:
            peak = epoch
        elif falls[peak, epoch]:
            return peak, True
    return peak, False
