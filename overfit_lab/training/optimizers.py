"""From configs to an ordinary torch optimizer over stacked parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from overfit_lab.config import SGD, Adam, AdamW, CustomOptimizer, Momentum, OptimizerConfig, RMSprop
from overfit_lab.training.custom_optimizer import make_custom
from overfit_lab.training.leaves import leaves_of, runs_of_equals
from overfit_lab.training.stack import StackedNetwork


def make_optimizer(
    configs: Sequence[OptimizerConfig], network: StackedNetwork, weights: Collection[str]
) -> torch.optim.Optimizer:
    """Build an optimizer. Its own weight decay is used for nothing but AdamW's decoupled one, on weights alone.

    Every update is elementwise, so members of a cohort do not touch one another; for those of users, which may be
    others, see `custom_optimizer`. Fused where torch offers it: one pass over the parameters instead of several.

    Args:
        configs: `configurations`, settings of one kind of optimizer; fastest where they are all the same.
        network: The members; their gradients are where `differentiate` writes them.
        weights: Names of the parameters that decay.
    """
    own = [config for config in configs if isinstance(config, CustomOptimizer)]
    if own:
        return make_custom(own, network, weights)
    if len(set(configs)) == 1 and not isinstance(configs[0], AdamW):
        groups = [_group(configs[0], [network.flat], decays=False)]
    else:
        decaying = set(weights)
        groups = [
            _group(config, leaves_of(network, names, first, last), decays=decays)
            for config, first, last in runs_of_equals(configs)
            for decays, names in (
                (True, [name for name in network.shapes if name in decaying]),
                (False, [name for name in network.shapes if name not in decaying]),
            )
            if names
        ]
    match configs[0]:
        case SGD() | Momentum():
            return torch.optim.SGD(groups, fused=True)
        case RMSprop():
            return _rmsprop(groups)
        case Adam():
            return torch.optim.Adam(groups, fused=True)
        case AdamW():
            return torch.optim.AdamW(groups, fused=True)
    raise TypeError(f"{configs[0]} is no optimizer")


# As the number of steps that Adam has taken: no power of a smoothing is left of the bias that it corrects.
_MANY = 1e30


def _rmsprop(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build RMSprop: Adam that keeps no average of gradients, and has long ceased to correct the bias of their squares.

    torch's own RMSprop has no fused form, and three times the cost.
    """
    optimizer = torch.optim.Adam(groups, fused=True)
    for group in optimizer.param_groups:
        for leaf in group["params"]:
            step = torch.tensor(_MANY, dtype=torch.float32, device=leaf.device)
            zeros = torch.zeros_like(leaf), torch.zeros_like(leaf)
            optimizer.state[leaf] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *zeros), strict=True))
    return optimizer


def _group(config: OptimizerConfig, leaves: list[Tensor], *, decays: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"params": leaves, "lr": config.lr}
    match config:
        case Momentum(momentum=momentum, nesterov=nesterov):
            settings |= {"momentum": momentum, "nesterov": nesterov}
        case RMSprop(smoothing=smoothing, eps=eps):
            settings |= {"betas": (0.0, smoothing), "eps": eps}
        case Adam(beta1=beta1, beta2=beta2, eps=eps):
            settings |= {"betas": (beta1, beta2), "eps": eps}
        case AdamW(beta1=beta1, beta2=beta2, eps=eps, decoupled_decay=decay):
            settings |= {"betas": (beta1, beta2), "eps": eps, "weight_decay": decay if decays else 0.0}
    return settings
