"""Stopping rules that read one curve as it comes, for comparison with the estimator of the onset.

GL, PQ and UP are those of Prechelt 1998, Early stopping - but when?, section 2. Row t of a curve is the epoch after
t + 1 completed passes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

STRIP = 5
"""Epochs in one of Prechelt's training strips."""


@dataclass(frozen=True)
class Stop:
    """What a rule makes of a curve. Epochs count completed passes.

    Attributes:
        stopped_at: the epoch at which the rule fires; None if it never does.
        epoch: the best epoch up to there.
    """

    stopped_at: int | None = None
    epoch: int | None = None


class Rule(Protocol):
    """A stopping rule with a name to stand in tables."""

    @property
    def name(self) -> str:
        """Name as in the literature, parameter included."""

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops.

        Args:
            val_loss: mean validation loss, [epochs]; a value that is not finite counts as infinitely bad.
            train_loss: mean train loss, [epochs], for the rules that need it.
        """


@dataclass(frozen=True)
class ArgMin:
    """Train to the horizon, then go back to the lowest loss; does not fire where that is the last epoch."""

    @property
    def name(self) -> str:
        """Name in tables."""
        return "argmin"

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops."""
        val = _curve(val_loss)
        last = len(val) - 1
        return _stop(val, last if val.argmin() < last else None)


@dataclass(frozen=True)
class GeneralisationLoss:
    """GL_alpha: stop once the loss is more than alpha percent above the lowest so far."""

    alpha: float = 5.0

    @property
    def name(self) -> str:
        """Name as in the literature, parameter included."""
        return f"GL{self.alpha:g}"

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops."""
        val = _curve(val_loss)
        lowest = np.minimum.accumulate(val)
        fires = np.flatnonzero(val > lowest + self.alpha / 100 * np.abs(lowest))
        return _stop(val, int(fires[0]) if len(fires) else None)


@dataclass(frozen=True)
class ProgressQuotient:
    """PQ_alpha: stop at the end of a strip once GL exceeds alpha times the progress of training.

    GL is the excess over the lowest loss so far in percent, progress is 1000 (mean / min - 1) of the train loss over
    the strip: while training still gains much, a rising validation loss is forgiven.
    """

    alpha: float = 0.75
    strip: int = STRIP

    @property
    def name(self) -> str:
        """Name as in the literature, parameter included."""
        return f"PQ{self.alpha:g}"

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops.

        Raises:
            ValueError: if train_loss is missing or not as long as val_loss.
        """
        val = _curve(val_loss)
        if train_loss is None:
            raise ValueError(f"train_loss is None; {self.name} needs it, [epochs]")
        train = _curve(train_loss)
        if len(train) != len(val):
            raise ValueError(f"train_loss has {len(train)} epochs; it must have {len(val)}, as val_loss has")
        for end in range(self.strip, len(val) + 1, self.strip):
            strip = train[end - self.strip : end].tolist()
            lowest, current = min(val[:end].tolist()), float(val[end - 1])
            # GL > alpha progress, multiplied out: a train loss that stands still has no progress to divide by.
            excess = 100 * (current - lowest) * min(strip)
            progress = 1000 * (sum(strip) / len(strip) - min(strip)) * lowest
            if excess > self.alpha * progress:
                return _stop(val, end - 1)
        return Stop()


@dataclass(frozen=True)
class Up:
    """UP_s: stop once the loss at the end of a strip has risen s strips in succession."""

    s: int = 3
    strip: int = STRIP

    @property
    def name(self) -> str:
        """Name as in the literature, parameter included."""
        return f"UP{self.s}"

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops."""
        val = _curve(val_loss)
        ends = np.arange(self.strip - 1, len(val), self.strip)
        risen = val[ends[1:]] > val[ends[:-1]]
        fires = (int(ends[i]) for i in range(self.s, len(ends)) if risen[i - self.s : i].all())
        return _stop(val, next(fires, None))


@dataclass(frozen=True)
class Patience:
    """Stop once the loss has not improved on its lowest value for a number of epochs."""

    epochs: int = 10

    @property
    def name(self) -> str:
        """Name in tables, parameter included."""
        return f"patience{self.epochs}"

    def stop(self, val_loss: ArrayLike, train_loss: ArrayLike | None = None) -> Stop:
        """Find where training stops."""
        val = _curve(val_loss)
        best = 0
        for row, loss in enumerate(val):
            if loss < val[best]:
                best = row
            elif row - best >= self.epochs:
                return _stop(val, row)
        return Stop()


DEFAULT_RULES: tuple[Rule, ...] = (ArgMin(), GeneralisationLoss(), ProgressQuotient(), Up(), Patience())


def _curve(loss: ArrayLike) -> NDArray[np.float64]:
    curve = np.asarray(loss, dtype=np.float64)
    if curve.ndim != 1 or len(curve) == 0:
        raise ValueError(f"the loss has shape {curve.shape}; it must be [epochs] with one epoch or more")
    return np.where(np.isfinite(curve), curve, np.inf)


def _stop(val: NDArray[np.float64], at: int | None) -> Stop:
    return Stop() if at is None else Stop(stopped_at=at + 1, epoch=int(val[: at + 1].argmin()) + 1)
