"""Losses for each row, from logits. Any leading dimensions: a cohort's streams and configurations among them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy after a sigmoid, as the mean over outputs.

    Args:
        logits: `... x rows x outputs`.
        targets: Broadcast to the same shape, in [0, 1].

    Returns:
        `... x rows`, in nats.
    """
    targets = targets.to(logits).expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def categorical_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Categorical cross-entropy after a softmax.

    Args:
        logits: `... x rows x classes`.
        targets: Class indices, broadcast to `... x rows`.

    Returns:
        `... x rows`, in nats.
    """
    index = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    # As log_softmax does it, but without its cost for every class; the shift leaves the gradient as it is.
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted.exp().sum(-1).log() - shifted.gather(-1, index).squeeze(-1)


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared error, as the mean over outputs.

    Args:
        logits: `... x rows x outputs`, predictions as they are.
        targets: Broadcast to the same shape.

    Returns:
        `... x rows`, in squared units of the target.
    """
    return (logits - targets.to(logits)).square().mean(-1)


def sigmoid_mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared error after a sigmoid, as the mean over outputs; shapes as in `mean_squared_error`."""
    return mean_squared_error(logits.sigmoid(), targets)
