"""Penalties on weights, one value for each member of a cohort.

The convention is the textbook's: J~ = J + alpha / 2 * sum of squared weights, so that a step of plain gradient
descent is w <- (1 - eps alpha) w - eps grad J [Goodfellow, Bengio, Courville 2016, section 7.1.1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from overfit_lab.config import ElasticNetPenalty, L1Penalty, L2Penalty, NoPenalty


@dataclass(frozen=True)
class Penalty:
    """The penalty `l1 * ||w||_1 + l2 / 2 * ||w||^2`.

    Args:
        l1: Strength of the absolute values.
        l2: Strength of the squares, alpha in the textbook.
    """

    l1: float
    l2: float


def make_penalty(config: NoPenalty | L2Penalty | L1Penalty | ElasticNetPenalty) -> Penalty:
    """Read the strengths from a config; elastic net divides alpha as scikit-learn does."""
    if isinstance(config, NoPenalty):
        return Penalty(0.0, 0.0)
    ratio = {"l1": 1.0, "l2": 0.0}[config.kind] if not isinstance(config, ElasticNetPenalty) else config.l1_ratio
    return Penalty(l1=config.alpha * ratio, l2=config.alpha * (1 - ratio))


def penalty_per_member(weights: Iterable[Tensor], l1: Tensor | None, l2: Tensor | None) -> Tensor:
    """Compute each member's penalty.

    Args:
        weights: Stacked weights, each `streams x configurations x ...`.
        l1: `configurations`, strength of the absolute values; None where it is 0 for all.
        l2: `configurations`, strength of the squares; None where it is 0 for all.

    Returns:
        `streams x configurations`, or a single 0 where nothing is penalised.
    """
    total = torch.zeros(())
    for weight in weights:
        # Flat, because for a scalar parameter a sum over "the other dimensions" would be a sum over members.
        values = weight.flatten(2) if weight.ndim > 2 else weight[..., None]
        if l2 is not None:
            total = total + l2 / 2 * values.square().sum(-1)
        if l1 is not None:
            total = total + l1 * values.abs().sum(-1)
    return total


def add_penalty_gradient(
    weights: Iterable[Tensor], gradients: Iterable[Tensor], l1: Tensor | None, l2: Tensor | None
) -> None:
    """Add each member's penalty to the gradient of its loss, in place.

    Args:
        weights: Stacked weights, each `streams x configurations x ...`.
        gradients: Theirs, in the same order.
        l1: As in `penalty_per_member`.
        l2: As in `penalty_per_member`.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        shape = -1, *(1 for _ in weight.shape[2:])
        if l2 is not None:
            gradient.addcmul_(weight, l2.view(shape))
        if l1 is not None:
            gradient.addcmul_(weight.sign(), l1.view(shape))


def stack_strengths(values: Iterable[float]) -> Tensor | None:
    """Stack one strength of each configuration; None where it is 0 for all, so that no step computes it."""
    strengths = torch.tensor(list(values), dtype=torch.float64)
    return strengths if bool(strengths.any()) else None
