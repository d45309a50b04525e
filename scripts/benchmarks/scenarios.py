"""Loss curves with a known onset: validation losses per example, and a train loss, fresh for every seed.

The trend of the population is known exactly, and the true onset is its first minimum. A drawn curve has the two kinds
of noise of a real one: a finite sample of unlike examples, which shifts it coherently across epochs, and the jitter of
the weights from one epoch to the next, which all examples share.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One drawn curve.

    Attributes:
        epochs: completed passes at every row, [rows].
        val_losses: [rows, examples].
        train_loss: [rows].
    """

    epochs: Array
    val_losses: Array
    train_loss: Array


@dataclass(frozen=True, eq=False)
class Scenario:
    """A population of examples whose losses fall, and perhaps rise again.

    Attributes:
        name: as in the table.
        onset: true onset in completed passes; None where overfitting does not begin.
        floor: population mean of the part of the loss that cannot be learned.
        fall: population mean of the part that is learned, [epochs].
        rise: population mean of what overfitting adds, [epochs].
        jitter: standard deviation of the jitter of the weights, relative to the loss.
        phi: its autocorrelation from one epoch to the next.
        drift: standard deviation of the slow wandering of the logarithm of one example's loss.
        examples: size of the validation set.
        spread: of the loss over the examples: about this fraction of them makes most of the loss, and half of it
            most of what overfitting adds. Small for the cross-entropy of a classifier that is nearly always right.
        every: epochs from one measured epoch to the next.
        spikes: epochs at which training slips and is back at the next: train and validation loss rise together.
    """

    name: str
    onset: int | None
    floor: float
    fall: Array
    rise: Array
    jitter: float
    phi: float = 0.3
    drift: float = 0.1
    examples: int = 300
    spread: float = 1.0
    every: int = 1
    spikes: int = 0

    @property
    def trend(self) -> Array:
        """Validation loss of the population without noise, [epochs]."""
        return self.floor + self.fall + self.rise

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a validation set and a training run.

        Args:
            rng: where all randomness comes from.
        """
        n, epochs = self.examples, len(self.fall)
        # Gains and harms differ widely between examples, and independently: a few that are confidently wrong make
        # most of the rise. Every factor has mean one, so that the population's trend is as stated.
        k = self.spread
        stays, gain, harm = rng.gamma(k, 1 / k, n), rng.gamma(2.0, 0.5, n), rng.gamma(k / 2, 2 / k, n)
        losses = self.floor * stays + np.outer(self.fall, gain) + np.outer(self.rise, harm)
        wandering = np.exp(self.drift * ar1(n, epochs, np.exp(-3 / epochs), rng).T - self.drift**2 / 2)
        own = rng.standard_normal((epochs, n))
        jitter = self.jitter * ar1(1, epochs, self.phi, rng).T
        exposure = rng.gamma(4.0, 0.25, n)
        losses *= wandering * (1 + 0.05 * own + jitter * exposure)
        passes = np.arange(1.0, epochs + 1)
        train = self.trend[0] * passes**-0.5 * (1 + jitter[:, 0])
        # The first and the last two epochs are left out: there nobody can tell a spike from what follows.
        slips = 2 + rng.choice(epochs - 4, self.spikes, replace=False)
        heights = self.trend[0] * (0.5 + rng.exponential(1, self.spikes))
        losses[slips] += np.outer(heights, exposure)
        train[slips] += heights
        measured = slice(self.every - 1, None, self.every)
        return Sample(passes[measured], losses[measured], train[measured])


def ar1(series: int, epochs: int, phi: float, rng: np.random.Generator) -> Array:
    """Draw stationary AR(1) series of unit variance, [series, epochs]."""
    shocks = np.sqrt(1 - phi**2) * rng.standard_normal((series, epochs))
    shocks[:, 0] /= np.sqrt(1 - phi**2)
    drawn: Array = lfilter([1.0], [1.0, -phi], shocks, axis=1)
    return drawn


def u_shape(onset: int, epochs: int, fall: tuple[float, float], power: float) -> tuple[Array, Array]:
    """Build the two parts of a U, a t^-b and c t^power, with c such that the minimum is the onset.

    Args:
        onset: minimum of the sum, in completed passes.
        epochs: length of the curve.
        fall: a and b.
        power: of the rise.
    """
    t = np.arange(1.0, epochs + 1)
    a, b = fall
    return a * t**-b, a * b / power * onset ** (-b - power) * t**power


def _u(name: str, onset: int, epochs: int, fall: tuple[float, float], power: float, jitter: float) -> Scenario:
    learned, harm = u_shape(onset, epochs, fall, power)
    return Scenario(name, onset, 0.25, learned, harm, jitter)


def _confidently_wrong(name: str, onset: int | None, floor: float, parts: tuple[Array, Array]) -> Scenario:
    # As the pooled breast_cancer: of 455 rows, ten carry most of the loss, and the rise has a z of two to three.
    return Scenario(name, onset, floor, *parts, jitter=0.01, drift=1.0, examples=455, spread=0.05)


def _sigmoid(t: Array, centre: float, width: float) -> Array:
    return 1 / (1 + np.exp(-(t - centre) / width))


_T = np.arange(1.0, 101)
_FLAT = np.zeros(100)
_DESCENT = 0.6 * np.exp(-(_T - 1) / 6)
_SLOW_DESCENT = 0.8 * _T**-0.5
# Around epoch 27 some examples are spoilt, around epoch 68 they recover and others are learned at last.
_RECOVERY = _sigmoid(_T, 68, 6)
_LEARNED_IN_TURN = 0.9 * _T**-1.1 + 0.15 * (1 - _RECOVERY)
_SPOILT = 0.2 * (_sigmoid(_T, 27, 4) - _RECOVERY)

_CLEAR = _u("clear U", 24, 100, (0.9, 0.8), 2.2, 0.01)
_EARLY = _u("early, T=20", 5, 20, (0.6, 1.2), 1.3, 0.01)
_PLATEAU = Scenario("plateau", None, 0.3, _DESCENT, _FLAT, 0.008)

OVERFITTING = (
    _CLEAR,
    replace(_CLEAR, name="clear U, every 5th epoch", every=5),
    _u("shallow U", 50, 100, (0.9, 0.8), 1.5, 0.01),
    _EARLY,
    Scenario("epoch-wise double descent", 16, 0.25, _LEARNED_IN_TURN, _SPOILT, 0.01),
    replace(_CLEAR, name="clear U, 3 spikes", spikes=3),
    replace(_EARLY, name="early, T=20, 1 spike", spikes=1),
    _u("heavy jitter", 24, 100, (0.9, 0.8), 1.6, 0.05),
    _confidently_wrong("heavy-tailed U", 20, 0.04, u_shape(20, 100, (0.6, 1.0), 1.6)),
)
NULLS = (
    _PLATEAU,
    replace(_PLATEAU, name="plateau, every 5th epoch", every=5),
    replace(_PLATEAU, name="plateau, 3 spikes", spikes=3),
    Scenario("plateau, 5 % jitter", None, 0.3, _DESCENT, _FLAT, 0.05),
    Scenario("still falling", None, 0.2, _SLOW_DESCENT, _FLAT, 0.01),
    Scenario("falling with drift", None, 0.2, _SLOW_DESCENT, _FLAT, 0.01, drift=0.4),
    Scenario("AR(.5) jitter", None, 0.3, _DESCENT, _FLAT, 0.03, phi=0.5),
    _confidently_wrong("heavy-tailed plateau", None, 0.09, (_DESCENT, _FLAT)),
)
SCENARIOS = OVERFITTING + NULLS
