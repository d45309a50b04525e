"""The form of last resort: one member after another, for networks that `vmap` does not take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.training.stack.network import NO_NOISE, Noise, Objective, StackedNetwork


class LoopedNetwork(StackedNetwork):
    """Computes each member on its own: control flow may depend on data, and the rows of a batch may mix.

    Only real rows are seen, never those that pad a batch; statistics that a layer keeps are each member's own.
    """

    def _lay_out(self) -> None:
        self._members = []
        for s in range(self.streams):
            for c in range(self.configurations):
                leaves = {name: value[s, c].detach().requires_grad_() for name, value in self._values.items()}
                for name, leaf in leaves.items():
                    leaf.grad = self._gradients[name][s, c]
                self._members.append((s, c, leaves))

    def take(self, x: StackedInputs) -> StackedInputs:
        """Take sparse rows as they are: their zeros are filled in for one member at a time."""
        return x

    def forward(self, x: StackedInputs, noise: Noise = NO_NOISE, sizes: Sequence[int] | None = None) -> Tensor:
        """Compute every member's logits; see `StackedNetwork.forward`."""
        self.bind()
        return self._stack(self._each(x, noise, sizes or [x.shape[1]] * self.streams), x)

    def differentiate(self, x: StackedInputs, noise: Noise, objective: Objective, sizes: Sequence[int]) -> Tensor:
        """Compute losses and gradients by autograd, member by member; see `StackedNetwork.differentiate`."""
        self.bind()
        self._gradient.zero_()
        with torch.enable_grad():
            logits = self._each(x, noise, sizes)
        losses, gradient = objective(self._stack([own.detach() for own in logits], x))
        for own, d in zip(logits, gradient.flatten(0, 1), strict=True):
            torch.autograd.backward(own, d[: len(own)].to(own.dtype))
        return losses

    def _each(self, x: StackedInputs, noise: Noise, sizes: Sequence[int]) -> list[Tensor]:
        device = self.flat.device
        return [
            self._one(
                *(s, c, leaves),
                x[s, : sizes[s]] if isinstance(x, Tensor) else x.dense_stream(s, sizes[s], device),
                noise,
            )
            for s, c, leaves in self._members
        ]

    def _stack(self, members: Sequence[Tensor], x: StackedInputs) -> Tensor:
        """Stack the members' logits, padded with 0 to the rows of x and of its type."""
        rows = x.shape[1]
        stacked = torch.stack([F.pad(own, (0, 0, 0, rows - len(own))).to(x.dtype) for own in members])
        return stacked.view(self.streams, self.configurations, *stacked.shape[1:])

    def _one(self, s: int, c: int, leaves: dict[str, Tensor], x: Tensor, noise: Noise) -> Tensor:
        constants = {name: value[s, c] for name, value in self.stacked_constants().items()}
        own = {name: value[s, c if value.shape[1] > 1 else 0, : len(x)] for name, value in noise.layers.items()}
        with torch.random.fork_rng(enabled=len(noise.seeds) > 0):
            if noise.seeds:
                # A network that draws random numbers by itself: the same, whoever is trained beside it.
                torch.manual_seed(noise.seeds[s])
            logits: Tensor = functional_call(self.skeleton[0], {**leaves, **constants, **own}, (x,))
        return logits
