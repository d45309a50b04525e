"""The generalisation gap: how much larger the validation loss is than the train loss."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def generalisation_gap(val_loss: ArrayLike, train_loss: ArrayLike) -> NDArray[np.float64]:
    """Subtract the train loss from the validation loss, epoch by epoch.

    Args:
        val_loss: mean validation loss, [epochs].
        train_loss: mean train loss of the same epochs, [epochs], measured on the same weights.

    Returns:
        [epochs], in units of the loss.

    Raises:
        ValueError: if the two do not have the same shape.
    """
    val, train = np.asarray(val_loss, dtype=np.float64), np.asarray(train_loss, dtype=np.float64)
    if val.shape != train.shape or val.ndim != 1:
        raise ValueError(f"val_loss is {val.shape} and train_loss {train.shape}; both must be the same [epochs]")
    return val - train


def gap_at(val_loss: ArrayLike, train_loss: ArrayLike, epoch: int) -> float:
    """Give the generalisation gap after a number of completed passes.

    Args:
        val_loss: mean validation loss, [epochs]; row t after t + 1 passes.
        train_loss: mean train loss of the same epochs, [epochs].
        epoch: completed passes, from 1 to the horizon.

    Raises:
        ValueError: if the two differ in shape, or the epoch lies outside the curve.
    """
    gap = generalisation_gap(val_loss, train_loss)
    if not 1 <= epoch <= len(gap):
        raise ValueError(f"epoch is {epoch}; it must lie from 1 to {len(gap)}")
    return float(gap[epoch - 1])
