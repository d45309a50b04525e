"""Accounting: how many parameters a network has, and what a pass of one row through it costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


class Pass(NamedTuple):
    """What a forward pass of one row costs.

    Args:
        kept: Numbers that are kept for the way back, parameters aside.
        products: Multiplications; where weights are used at many places, they are more than the parameters.
    """

    kept: int
    products: int


def count_parameters(network: nn.Module) -> int:
    """Count the trainable scalars of a network; tied ones once."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_pass(network: nn.Module, inputs: int) -> Pass:
    """Count what one row costs, by a pass in eval mode; the network is left as it is.

    Args:
        network: Maps `rows x inputs` to logits.
        inputs: Number of features.
    """
    own = {p.data_ptr() for p in (*network.parameters(), *network.buffers())}
    # By where they begin: what several operations need is kept once.
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        if value.data_ptr() not in own:
            kept[value.data_ptr()] = max(kept.get(value.data_ptr(), 0), value.numel())
        return value

    training = network.training
    network.eval()
    row = torch.zeros(1, inputs, dtype=next(network.parameters()).dtype)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda value: value):
        out = network(row)
    network.train(training)
    del out
    return Pass(sum(kept.values()), counter.get_total_flops() // 2)
