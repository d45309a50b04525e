"""From a config to an ordinary torch optimizer over stacked parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from overfit_lab.config import SGD, Adam, AdamW, Momentum, RMSprop


def make_optimizer(
    config: SGD | Momentum | Adam | AdamW | RMSprop,
    parameters: Mapping[str, nn.Parameter],
    weights: Iterable[str],
) -> torch.optim.Optimizer:
    """Build an optimizer. Its own weight decay is used for nothing but AdamW's decoupled one, on weights alone.

    Every update is elementwise, so members of a cohort do not touch one another. Fused where torch offers it: one
    pass over the parameters instead of several.

    Args:
        config: Kind and settings.
        parameters: Stacked parameters by name.
        weights: Names of those that decay.
    """
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    match config:
        case SGD(lr=lr):
            return torch.optim.SGD(trained.values(), lr=lr, fused=True)
        case Momentum(lr=lr, momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(trained.values(), lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
        case RMSprop(lr=lr, smoothing=smoothing, eps=eps):
            return torch.optim.RMSprop(trained.values(), lr=lr, alpha=smoothing, eps=eps)
        case Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps):
            return torch.optim.Adam(trained.values(), lr=lr, betas=(beta1, beta2), eps=eps, fused=True)
        case AdamW(lr=lr, beta1=beta1, beta2=beta2, eps=eps, decoupled_decay=decay):
            decaying = set(weights)
            groups = [
                {"params": [p for name, p in trained.items() if name in decaying], "weight_decay": decay},
                {"params": [p for name, p in trained.items() if name not in decaying], "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(
                [g for g in groups if g["params"]], lr=lr, betas=(beta1, beta2), eps=eps, fused=True
            )
