"""Networks of one shape, stacked into one module with two leading dimensions: streams and configurations."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from overfit_lab.model.dropout import SeededDropout, dropout_shapes, with_seeded_dropout


class StackedNetwork(nn.Module):
    """Members that are trained together; member (s, c) is configuration c on stream s.

    The forward pass is a nested `vmap`: over streams outside, where every member has its own rows, and over
    configurations inside, where they share them, so that a batch is gathered once for a stream.

    Args:
        networks: One row of networks for each stream, one column for each configuration; all of one shape.
    """

    def __init__(self, networks: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.streams, self.configurations = len(networks), len(networks[0])
        members = [with_seeded_dropout(network) for row in networks for network in row]
        parameters, buffers = stack_module_state(members)
        # Names hold dots, which nn.ParameterDict does not take: the values stand in lists beside their names.
        noise = {f"{name}.noise" for name, module in members[0].named_modules() if isinstance(module, SeededDropout)}
        self.parameter_names, self.buffer_names = tuple(parameters), tuple(b for b in buffers if b not in noise)
        self.stacked = nn.ParameterList(
            nn.Parameter(self._grid(value.detach()), requires_grad=value.requires_grad) for value in parameters.values()
        )
        self.constants = nn.ParameterList(
            nn.Parameter(self._grid(buffers[name]), requires_grad=False) for name in self.buffer_names
        )
        # The skeleton gives the computation; its own values are never used. In a tuple, so that it is no submodule.
        self._skeleton = (copy.deepcopy(members[0]),)

    def _grid(self, members: Tensor) -> Tensor:
        return members.reshape(self.streams, self.configurations, *members.shape[1:]).clone()

    def train(self, mode: bool = True) -> StackedNetwork:
        """Switch the members, too, between training and eval mode."""
        super().train(mode)
        self._skeleton[0].train(mode)
        return self

    def stacked_parameters(self) -> Mapping[str, nn.Parameter]:
        """The stacked parameters by their names in a single network, each `streams x configurations x ...`."""
        return dict(zip(self.parameter_names, self.stacked, strict=True))

    def noise_shapes(self, features: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Find the shape of each dropout layer's noise, without the rows, for rows of the given shape."""
        return dropout_shapes(self._skeleton[0], torch.zeros(1, *features))

    def forward(self, x: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """Compute every member's logits.

        Args:
            x: `streams x rows x features`.
            noise: For each dropout layer, uniform numbers `streams x rows x ...`; needed in training mode only.

        Returns:
            `streams x configurations x rows x outputs`.
        """
        values = dict(zip(self.parameter_names, self.stacked, strict=True))
        constants = dict(zip(self.buffer_names, self.constants, strict=True))

        def one(values: dict[str, Tensor], constants: dict[str, Tensor], noise: dict[str, Tensor], x: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._skeleton[0], {**values, **constants, **noise}, (x,))
            return logits

        configurations = vmap(one, in_dims=(0, 0, None, None))
        return vmap(configurations)(values, constants, dict(noise or {}), x)


def check_stackable(network: nn.Module, features: int) -> None:
    """Try a step of two members of a network, in training mode; raises what stacking or `vmap` raises.

    A network cannot be stacked if its control flow depends on data, or if it draws random numbers other than by
    `nn.Dropout`.
    """
    stacked = StackedNetwork([[copy.deepcopy(network), copy.deepcopy(network)]])
    noise = {name: torch.full((1, 2, *shape), 0.5) for name, shape in stacked.noise_shapes((features,)).items()}
    stacked.train()
    stacked(torch.zeros(1, 2, features), noise).sum().backward()
