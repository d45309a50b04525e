"""The general form: `torch.func.vmap` over any network without control flow that depends on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.model.parameters import count_pass
from overfit_lab.training.stack.network import NO_NOISE, Noise, Objective, StackedNetwork

Tensors: TypeAlias = Mapping[str, Tensor]


class VmappedNetwork(StackedNetwork):
    """Computes by nested `vmap`.

    Over streams outside, where every member has its own rows, and over configurations inside, where they share them.
    """

    def kept_per_row(self, features: int) -> int:
        """Count the numbers that a pass of one row keeps in one member, see `count_pass`."""
        if features not in self._kept:
            self._kept[features] = count_pass(self.skeleton[0], features).kept
        return self._kept[features]

    def _lay_out(self) -> None:
        self._kept: dict[int, int] = {}
        # Leaves of their own, which share values and gradients with the flat parameter: backward fills it in place.
        self._leaves = {name: value.requires_grad_() for name, value in self._values.items()}
        for name, leaf in self._leaves.items():
            leaf.grad = self._gradients[name]

    def forward(self, x: StackedInputs, noise: Noise = NO_NOISE, sizes: Sequence[int] | None = None) -> Tensor:
        """Compute every member's logits; see `StackedNetwork.forward`."""
        assert isinstance(x, Tensor)
        self.bind()
        own = {name: value for name, value in noise.layers.items() if value.shape[1] > 1}
        shared = {name: value[:, 0] for name, value in noise.layers.items() if value.shape[1] == 1}
        skeleton = self.skeleton[0]

        def one(
            values: dict[str, Tensor],
            constants: dict[str, Tensor],
            own: dict[str, Tensor],
            shared: dict[str, Tensor],
            x: Tensor,
        ) -> Tensor:
            logits: Tensor = functional_call(skeleton, {**values, **constants, **own, **shared}, (x,))
            return logits

        configurations = vmap(one, in_dims=(0, 0, 0, None, None))
        return vmap(configurations)(self._leaves, self.stacked_constants(), own, shared, x)

    def differentiate(self, x: StackedInputs, noise: Noise, objective: Objective, sizes: Sequence[int]) -> Tensor:
        """Compute losses and gradients by autograd; see `StackedNetwork.differentiate`."""
        self.bind()
        self._gradient.zero_()
        with torch.enable_grad():
            # Under mixed precision the network computes in bfloat16; the loss must not, nor round its targets.
            logits = self(x, noise).to(x.dtype)
        losses, gradient = objective(logits.detach())
        torch.autograd.backward(logits, gradient)
        return losses
