"""Dropout whose noise is handed in, so that each fit draws it from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from overfit_lab.errors import UserError


class SeededDropout(nn.Module):
    """Dropout that compares its buffer `noise` with its buffer `rate`.

    `nn.Dropout` draws from the global generator: a fit's masks would depend on the fits beside it. Here the caller
    replaces `noise` (uniform in [0, 1), shaped like the input) through `torch.func.functional_call`.

    Args:
        rate: Probability with which an element is dropped in training.
    """

    noise: Tensor
    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate, dtype=torch.float64))
        self.register_buffer("noise", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x and scale up the rest; in eval mode, return x."""
        if not self.training:
            return x
        # At a rate of 1 nothing is kept, and nothing must be divided by 0.
        kept = (self.noise >= self.rate) / (1 - self.rate).clamp_min(1e-12)
        return x * kept.to(x.dtype)


def with_seeded_dropout(network: nn.Module) -> nn.Module:
    """Replace every `nn.Dropout` inside a network, in place, and return the network.

    A layer that stands at several places becomes a layer of its own at each.
    """
    if isinstance(network, nn.Dropout):
        return SeededDropout(network.p).train(network.training)
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Dropout):
            network.set_submodule(name, SeededDropout(module.p).train(module.training))
    return network


def dropout_shapes(network: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Find what shape of noise each dropout layer needs, by one forward pass in eval mode.

    Args:
        network: A network with seeded dropout.
        example: `rows x features`.

    Raises:
        UserError: A layer is called more than once in a pass; its masks would be the same.

    Returns:
        The name of each layer's noise buffer and the shape of its input without the rows.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, SeededDropout):

            def note(_: nn.Module, inputs: tuple[Tensor], key: str = f"{name}.noise".lstrip(".")) -> None:
                if key in shapes:
                    layer = key.removesuffix(".noise")
                    raise UserError(
                        f"the network calls its dropout layer {layer} more than once in a pass; "
                        "give each place a layer of its own"
                    )
                shapes[key] = tuple(inputs[0].shape[1:])

            hooks.append(module.register_forward_pre_hook(note))
    training = network.training
    network.eval()
    with torch.no_grad():
        network(example)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return shapes
