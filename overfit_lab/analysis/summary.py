"""The onset of a curve, and the epoch to select it at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overfit_lab.analysis.onset import Onset, estimate_onset


def summarise(
    losses: NDArray[Any], train_loss: NDArray[np.float64] | None, epochs: NDArray[np.int64]
) -> tuple[Onset, int | None]:
    """Estimate the onset and the best epoch: where the trend is lowest, or the curve if it is too short for a trend.

    Args:
        losses: Validation losses, `epochs x rows`, without epoch 0: the first pass over the data is no trend of its
            own.
        train_loss: `epochs`, as in `estimate_onset`.
        epochs: `epochs`, completed passes.

    Returns:
        The onset, and the best epoch; None where no loss is finite.
    """
    # One row has no sampling error: what it shows is proof of nothing.
    enough = losses.shape[1] > 1
    onset = estimate_onset(losses, train_loss, epochs=epochs) if enough else Onset("too_short")
    curve = losses.mean(1, dtype=np.float64)
    if onset.best_epoch is None and np.isfinite(curve).any():
        return onset, int(epochs[np.nanargmin(curve)])
    return onset, onset.best_epoch
