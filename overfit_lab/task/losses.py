"""Losses for each row, from logits. Any leading dimensions: a cohort's streams and configurations among them.

A cohort's logits are laid out with the rows adjacent in memory, not the outputs. Nothing here copies them into another
layout: torch's own softmax over the outputs, or cross-entropy, costs 20 times as much there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

# The losses, and what computes their gradient; it may overwrite what it shares with them.
Parts: TypeAlias = tuple[Tensor, Callable[[], Tensor]]


@dataclass(frozen=True)
class Loss:
    """A loss for each row, differentiable, and its gradient in closed form.

    Args:
        parts: Logits and targets to the losses and, called, their gradient.
    """

    parts: Callable[[Tensor, Tensor], Parts]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the losses.

        Args:
            logits: `... x rows x outputs`.
            targets: Broadcast to `... x rows x outputs`, or class indices to `... x rows`.

        Returns:
            `... x rows`.
        """
        return self.parts(logits, targets)[0]

    @torch.no_grad()
    def with_gradient(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the losses and their gradient, without autograd.

        Args:
            logits: `... x rows x outputs`.
            targets: Broadcast to `... x rows x outputs`, or class indices to `... x rows`.

        Returns:
            `... x rows`, and each row's derivative by its own logits, `... x rows x outputs`, laid out as the logits.
        """
        losses, gradient = self.parts(logits, targets)
        return losses, gradient()


def _binary_cross_entropy(logits: Tensor, targets: Tensor) -> Parts:
    """After a sigmoid, in nats, as the mean over outputs; targets in [0, 1]."""
    targets = targets.to(logits).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    # A second exponential is cheaper than the elementwise steps by which both would follow from one.
    return losses, lambda: logits.sigmoid().sub_(targets).div_(logits.shape[-1])


def _categorical_cross_entropy(logits: Tensor, targets: Tensor) -> Parts:
    """After a softmax, in nats; targets are class indices."""
    index = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    # The shift leaves the gradient as it is.
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    exponentials = shifted.exp()
    total = exponentials.sum(-1, keepdim=True)
    log_probability = shifted.gather(-1, index) - total.log()
    # softmax - one-hot: the target's own entry is p - 1.
    return -log_probability.squeeze(-1), lambda: exponentials.div_(total).scatter_(-1, index, log_probability.expm1())


def _mean_squared_error(logits: Tensor, targets: Tensor) -> Parts:
    """In squared units of the target, as the mean over outputs; the logits are the predictions."""
    error = logits - targets.to(logits)
    return error.square().mean(-1), lambda: error.mul_(2 / logits.shape[-1])


def _one_hot_mean_squared_error(logits: Tensor, targets: Tensor) -> Parts:
    """Against 1 for the target's class and 0 for the others, as the mean over outputs; targets are class indices."""
    index = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    # A clone is laid out as the logits; what scatter_add makes by itself is not.
    error = logits.clone().scatter_add_(-1, index, -torch.ones_like(index, dtype=logits.dtype))
    return error.square().mean(-1), lambda: error.mul_(2 / logits.shape[-1])


def _sigmoid_mean_squared_error(logits: Tensor, targets: Tensor) -> Parts:
    """After a sigmoid, as the mean over outputs."""
    p = logits.sigmoid()
    losses, gradient = _mean_squared_error(p, targets)
    return losses, lambda: gradient().mul_(p).mul_(1 - p)


binary_cross_entropy = Loss(_binary_cross_entropy)
categorical_cross_entropy = Loss(_categorical_cross_entropy)
mean_squared_error = Loss(_mean_squared_error)
one_hot_mean_squared_error = Loss(_one_hot_mean_squared_error)
sigmoid_mean_squared_error = Loss(_sigmoid_mean_squared_error)
