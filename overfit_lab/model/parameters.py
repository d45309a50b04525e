"""Accounting of parameters."""

from __future__ import annotations

from torch import nn


def count_parameters(network: nn.Module) -> int:
    """Count the trainable scalars of a network; tied ones once."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
