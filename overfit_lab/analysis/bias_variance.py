"""Bias and variance of models that were trained on disjoint rows, from their predictions on one common set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]

NORMALISED = 1e-3
"""Probabilities that were computed in float32 sum to one within this."""


@dataclass(frozen=True)
class Decomposition:
    """The expected loss of one model, split in two; all three are means over rows, in units of the loss.

    Attributes:
        error: mean loss of the models; bias + variance.
        bias: loss of the average of infinitely many models, noise of the targets included. An estimate: it may come out
            below zero where there is none.
        variance: how far one model is from that average.
    """

    error: float
    bias: float
    variance: float


def decompose_squared_error(predictions: ArrayLike, targets: ArrayLike) -> Decomposition:
    """Split the mean squared error into variance, unbiased over models, and squared bias plus noise.

    Error and variance are unbiased, hence their difference is [Geman, Bienenstock and Doursat 1992, Neural networks and
    the bias/variance dilemma, section 3]. The squared error of the mean prediction is not: it holds variance / models.
    Models that share train rows, as folds do, have a between-fold variance, which is smaller.

    Args:
        predictions: after the last-layer activation, [models, rows] or [models, rows, outputs].
        targets: [rows] or [rows, outputs].

    Raises:
        ValueError: if the shapes do not fit, there are fewer than two models or no rows, or a number is not finite.
    """
    predicted = _models(predictions, "predictions", dimensions=(2, 3))
    wanted = np.asarray(targets, dtype=np.float64)
    if wanted.shape != predicted.shape[1:]:
        raise ValueError(f"targets has shape {wanted.shape}; it must be {predicted.shape[1:]}, as predictions has")
    if not np.isfinite(wanted).all():
        raise ValueError("targets hold a number that is not finite")
    error = float(np.mean((predicted - wanted) ** 2))
    variance = float(predicted.var(axis=0, ddof=1).mean())
    return Decomposition(error=error, bias=error - variance, variance=variance)


def decompose_cross_entropy(log_probabilities: ArrayLike, classes: ArrayLike) -> Decomposition:
    """Split the cross-entropy into variance, mean KL(average || model), and bias, that of the average model.

    The average that makes the two add up is the normalised geometric mean: log mean = mean log p - logsumexp [Yang, Yu,
    You, Steinhardt and Ma 2020, Rethinking bias-variance trade-off for generalization of neural networks, section 2].
    With the average of N models, error = CE(y, average) + mean KL(average || model) holds exactly, but such an average
    holds variance / N of its own, which is missing from the divergences. The variance is therefore multiplied by
    N / (N - 1), and the bias is the error less the variance, not the cross-entropy of the average. The rest is of
    higher order in the spread of the logits.

    Args:
        log_probabilities: of all classes, [models, rows, classes]; the log-softmax of the logits.
        classes: index of the true one, [rows].

    Raises:
        ValueError: if the shapes do not fit, there are fewer than two models or no rows, a number is not finite or no
            class, or the probabilities of a row do not sum to one.
    """
    log_p = _models(log_probabilities, "log_probabilities", dimensions=(3,))
    if np.abs(logsumexp(log_p, axis=2)).max() > NORMALISED:
        raise ValueError(
            "log_probabilities hold a row that does not sum to one; it must be the log-softmax of the logits"
        )
    models, rows, count = log_p.shape
    true = np.asarray(classes)
    if true.shape != (rows,):
        raise ValueError(f"classes has shape {true.shape}; it must be ({rows},), as many as log_probabilities has rows")
    if not np.issubdtype(true.dtype, np.integer) or true.min() < 0 or true.max() >= count:
        raise ValueError(f"classes must be whole numbers from 0 to {count - 1}")
    average = log_p.mean(axis=0)
    average = average - logsumexp(average, axis=1, keepdims=True)
    divergence = float(np.mean(np.sum(np.exp(average) * (average - log_p), axis=2)))
    error = float(-log_p[:, np.arange(rows), true].mean())
    variance = divergence * models / (models - 1)
    return Decomposition(error=error, bias=error - variance, variance=variance)


def _models(values: ArrayLike, name: str, dimensions: tuple[int, ...]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in dimensions or array.size == 0 or len(array) < 2:
        last = {2: "", 3: ", classes" if dimensions == (3,) else "(, outputs)"}[max(dimensions)]
        raise ValueError(f"{name} has shape {array.shape}; it must be [models >= 2, rows >= 1{last}]")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold a number that is not finite")
    return array
