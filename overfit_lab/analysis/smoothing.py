"""Trend and noise of a loss curve: a local-linear smoother in log epoch, the AR(1) jitter around it, and spikes.

A loss curve bends as fast in log epoch near epoch 3 as near epoch 80, so one bandwidth on that axis fits all.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BANDWIDTHS = (0.15, 0.25, 0.4, 0.6, 0.9)
"""Candidate half-widths of the kernel in log epoch."""

PHI = 0.3
"""Autocorrelation of the jitter from one epoch to the next that is assumed unless the curve shows more."""

MAX_PHI = 0.8
JITTER_WINDOW = 11
FOCUS = 0.3
FOCUS_EPOCHS = 8
MAX_LEVERAGE = 0.3
PHI_EPOCHS = 20
SPIKE_REACH = 2
SPIKE_SDS = 3.0
SPIKE_LEAP = 0.1


def local_linear(epochs: Array, bandwidth: float) -> Array:
    """Build the matrix S of a local-linear tricube smoother in log epoch: the trend of a curve L is S @ L.

    Args:
        epochs: [epochs], positive and strictly increasing.
        bandwidth: half-width of the kernel in log epoch; wider where the grid is too coarse for it.

    Returns:
        S, [epochs, epochs]; its rows sum to one, and S @ (a + b * log(epochs)) is that line itself.
    """
    x = np.log(epochs)
    offset = x - x[:, None]
    distance = np.abs(offset)
    # A line needs two points beside the one left out: epochs 1 to 5 would otherwise be their own trend at the smaller
    # bandwidths. Half as far again as the second gives it a weight.
    reach = np.maximum(bandwidth, 1.5 * np.sort(distance, axis=1)[:, 2])
    weight = np.clip(1 - (distance / reach[:, None]) ** 3, 0, None) ** 3
    s0, s1, s2 = (np.sum(weight * offset**k, axis=1, keepdims=True) for k in range(3))
    smoother: Array = weight * (s2 - s1 * offset) / (s0 * s2 - s1**2)
    return smoother


def focus(loss: Array) -> NDArray[np.bool_]:
    """Mark the epochs that matter for the onset: past most of the first descent, eight at the least.

    Args:
        loss: [epochs].
    """
    lowest = loss.min()
    eighth = np.sort(loss)[min(FOCUS_EPOCHS, len(loss)) - 1]
    marked: NDArray[np.bool_] = loss <= max(lowest + FOCUS * (loss[0] - lowest), eighth)
    return marked


def select_smoother(epochs: Array, loss: Array, bandwidths: Sequence[float] = BANDWIDTHS) -> Array:
    """Choose the smoother of a curve by leave-one-out cross-validation over its focus.

    Args:
        epochs: [epochs], positive and strictly increasing.
        loss: [epochs].
        bandwidths: candidates, in log epoch.

    Returns:
        The matrix of the smoother, [epochs, epochs].
    """
    near = focus(loss)

    def error(smoother: Array) -> float:
        # For this smoother, what the other epochs predict at one follows from the fit to all of them.
        left_out = (loss - smoother @ loss) / (1 - np.diag(smoother))
        return float(np.mean(left_out[near] ** 2))

    return min(_smoothers(epochs.astype(np.float64).tobytes(), tuple(bandwidths)), key=error)


@functools.lru_cache(maxsize=8)
def _smoothers(epochs: bytes, bandwidths: tuple[float, ...]) -> tuple[Array, ...]:
    # Every curve of a study is measured at the same epochs.
    return tuple(local_linear(np.frombuffer(epochs), bandwidth) for bandwidth in bandwidths)


def ar1_correlation(epochs: Array, phi: float) -> Array:
    """Correlation phi ** |gap| of AR(1) noise between epochs that lie gap passes apart, [epochs, epochs]."""
    correlation: Array = phi ** np.abs(epochs - epochs[:, None])
    return correlation


def estimate_phi(epochs: Array, loss: Array, smoother: Array, floor: float = PHI) -> float:
    """Estimate the autocorrelation of the jitter from what a smoother leaves over.

    Smoothing takes autocorrelation away, so the lag-1 autocorrelation of the residuals is matched to the
    one that AR(1) noise would have after the same smoother, rather than read off as it is.

    Args:
        epochs: [epochs], positive and strictly increasing.
        loss: [epochs].
        smoother: of this curve, [epochs, epochs].
        floor: smallest value returned; a curve too short to tell gets it too.

    Returns:
        phi, in [floor, .8]: assuming too little would call wandering jitter a trend.
    """
    # The residuals are smoothed and taken off once more [twicing, Tukey 1977]: the bend of a steep U, left
    # in them after the first pass, would pass for strong autocorrelation.
    once = np.eye(len(epochs)) - smoother
    remove_trend = once @ once
    residual = remove_trend @ loss
    usable = focus(loss) & (np.diag(smoother) < MAX_LEVERAGE)
    pair = usable[1:] & usable[:-1] & (np.diff(epochs) == 1)
    if np.count_nonzero(pair) < PHI_EPOCHS or not residual[1:][pair].any():
        return floor

    def lag_one(covariance: Array) -> float:
        variance = np.diag(covariance)
        between = (variance[1:] + variance[:-1]) / 2
        return float(np.diag(covariance, 1)[pair].sum() / between[pair].sum())

    def expected(phi: float) -> float:
        return lag_one(remove_trend @ ar1_correlation(epochs, phi) @ remove_trend.T)

    observed = lag_one(np.outer(residual, residual))
    # More autocorrelation before the smoother leaves more behind it, so most curves need one comparison.
    if observed <= expected(floor):
        return floor
    grid = np.linspace(0, MAX_PHI, 17)
    return max(floor, float(np.interp(observed, [expected(phi) for phi in grid], grid)))


def jitter_sd(epochs: Array, loss: Array, phi: float = PHI) -> Array:
    """Estimate the standard deviation of the epoch-to-epoch jitter, free of the trend.

    Each epoch is compared with the line between its two neighbours, here in log epoch as the curve bends
    less there; the squares are averaged over 11 epochs. For evenly spaced epochs that is (L[t-1] - 2 L[t] +
    L[t+1])^2 / 6 and the factor 3 / (3 - 4 phi + phi^2). Gasser, Sroka and Jennen-Steinmetz 1986, Residual
    variance and residual pattern.

    Args:
        epochs: [epochs], positive and strictly increasing, three or more.
        loss: [epochs].
        phi: autocorrelation of the jitter from one epoch to the next.

    Returns:
        [epochs], in units of the loss.
    """
    x = np.log(epochs)
    left = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    right = 1 - left
    contrast = left * loss[:-2] - loss[1:-1] + right * loss[2:]
    near, far = phi ** np.diff(epochs), phi ** (epochs[2:] - epochs[:-2])
    expected = 1 + left**2 + right**2 - 2 * (left * near[:-1] + right * near[1:]) + 2 * left * right * far
    variance = np.pad(contrast**2 / expected, 1, mode="edge")

    window = _nearby(len(variance))
    sd: Array = np.sqrt(window @ variance / window.sum(axis=1))
    return sd


def _nearby(rows: int) -> NDArray[np.bool_]:
    """Mark for each row the 11 around it, [rows, rows]."""
    row = np.arange(rows)
    nearby: NDArray[np.bool_] = np.abs(row - row[:, None]) <= JITTER_WINDOW // 2
    return nearby


def find_spikes(loss: Array, train_loss: Array) -> NDArray[np.bool_]:
    """Mark the epochs at which training slipped and recovered: both losses leap, and come back within two epochs.

    Such a spike of the optimiser's is no overfitting, in which the train loss falls; and as one large square it would
    pass for jitter of all epochs around it. An epoch is marked where the validation loss lies above the median of the
    five epochs around it by more than three times what is usual nearby, in robust standard deviations [Hampel 1974,
    The influence curve and its role in robust estimation], and both losses lie above their medians by a tenth of the
    validation loss. A rise that lasts is its own median and is never marked, nor are the first and the last two
    epochs: of these nobody knows yet whether they come back.

    Args:
        loss: validation loss, [epochs].
        train_loss: [epochs].

    Returns:
        [epochs].
    """
    spikes = np.zeros(len(loss), dtype=np.bool_)
    if len(loss) <= 2 * SPIKE_REACH:
        return spikes
    inner = slice(SPIKE_REACH, -SPIKE_REACH)
    level, train_level = (
        np.median(np.lib.stride_tricks.sliding_window_view(curve, 2 * SPIKE_REACH + 1), axis=1)
        for curve in (loss, train_loss)
    )
    leap, train_leap = loss[inner] - level, train_loss[inner] - train_level
    # .6745 is the median of a standard normal deviate without its sign.
    usual = np.nanmedian(np.where(_nearby(len(leap)), np.abs(leap), np.nan), axis=1) / 0.6745
    large = SPIKE_LEAP * np.abs(level)
    spikes[inner] = (leap > np.maximum(SPIKE_SDS * usual, large)) & (train_leap > large)
    return spikes
