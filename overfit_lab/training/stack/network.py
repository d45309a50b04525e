"""What all forms of a stacked network share: where the values, the gradients and the constants of members lie."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.model.dropout import SeededDropout, dropout_shapes, with_seeded_dropout

# From all members' logits, `streams x configurations x rows x outputs`, to each member's loss, `streams x
# configurations`, and its gradient with respect to the logits.
Objective: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step.

    Args:
        layers: For each dropout layer, uniform numbers `streams x (configurations or 1) x rows x ...`; empty where no
            member drops anything.
        seeds: `streams`, seeds of torch's own generator, for networks that draw from it; empty where none does.
    """

    layers: Mapping[str, Tensor] = field(default_factory=dict)
    seeds: Sequence[int] = ()


NO_NOISE = Noise()


class StackedNetwork(nn.Module, ABC):
    """Members that are trained together; member (s, c) is configuration c on stream s.

    Trainable values lie in one flat parameter, name after name, and so do their gradients: an optimizer updates all
    members of all layers in one pass. A member that is smaller than the widest one is padded with zeros; whether that
    is exact is for the caller to know, see `overfit_lab.model.stackable_shape`.

    Args:
        networks: One row of networks for each stream, one column for each configuration; alike but for their sizes.
            Configurations may share a network object where they start from the same values.
    """

    def __init__(self, networks: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.streams, self.configurations = len(networks), len(networks[0])
        members = [[with_seeded_dropout(network) for network in row] for row in networks]
        # One skeleton for each size. It gives the computation and the shapes; its values are never used. In a tuple,
        # so that it is no submodule.
        sizes = [tuple(p.shape for p in network.parameters()) for network in members[0]]
        distinct = list(dict.fromkeys(sizes))
        self.size_of_configuration = [distinct.index(own) for own in sizes]
        self._skeletons = tuple(copy.deepcopy(members[0][sizes.index(size)]) for size in distinct)
        self.skeleton = (max(self._skeletons, key=lambda network: sum(p.numel() for p in network.parameters())),)

        trained = {name: p for name, p in self.skeleton[0].named_parameters() if p.requires_grad}
        self.shapes = {name: tuple(p.shape) for name, p in trained.items()}
        total = sum(map(math.prod, self.shapes.values())) * self.streams * self.configurations
        self.flat = nn.Parameter(torch.zeros(total, dtype=next(iter(trained.values())).dtype))
        self._fill(self.stacked_parameters(), members)
        # Names hold dots, which nn.ParameterDict does not take: the values stand in a list beside their names.
        constants = {
            name: value.new_zeros(self.streams, self.configurations, *value.shape)
            for name, value in _constants(self.skeleton[0]).items()
        }
        self._fill(constants, members)
        self.constant_names = tuple(constants)
        self.constants = nn.ParameterList(nn.Parameter(value, requires_grad=False) for value in constants.values())
        rates = [value for name, value in constants.items() if name in self._rate_names()]
        self.drops = any(bool(rate.any()) for rate in rates)
        self._bound_to = -1
        self.train()

    def _rate_names(self) -> set[str]:
        layers = self.skeleton[0].named_modules()
        return {f"{name}.rate".lstrip(".") for name, layer in layers if isinstance(layer, SeededDropout)}

    def _fill(self, stacked: Mapping[str, Tensor], members: Sequence[Sequence[nn.Module]]) -> None:
        with torch.no_grad():
            for s, row in enumerate(members):
                for c, network in enumerate(row):
                    own = dict(network.named_parameters()) | dict(network.named_buffers())
                    for name, value in stacked.items():
                        value[s, c][tuple(slice(n) for n in own[name].shape)] = own[name]

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        members = self.streams * self.configurations
        parts = torch.split(flat, [members * math.prod(shape) for shape in self.shapes.values()])
        return {
            name: part.view(self.streams, self.configurations, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def stacked_parameters(self) -> dict[str, Tensor]:
        """Return the trainable values by their names in a single network, each `streams x configurations x ...`.

        They are views: what is written into them is written into the members.
        """
        return self._views(self.flat.detach())

    def stacked_constants(self) -> dict[str, Tensor]:
        """Return what is not trained, buffers and frozen parameters, in the same way."""
        return dict(zip(self.constant_names, self.constants, strict=True))

    @property
    def gradients(self) -> dict[str, Tensor]:
        """What `differentiate` has written last, like `stacked_parameters`."""
        self.bind()
        return self._gradients

    def bind(self) -> None:
        """Lay out views of values and gradients, anew where Lightning has moved the module or changed its type."""
        if self.flat.data_ptr() != self._bound_to:
            self._bound_to = self.flat.data_ptr()
            self._gradient = torch.zeros_like(self.flat, requires_grad=False)
            self._values, self._gradients = self.stacked_parameters(), self._views(self._gradient)
            self._lay_out()
        if self.flat.grad is None:
            # The first time, and where Lightning has reset it to none.
            self.flat.grad = self._gradient

    def _lay_out(self) -> None:
        """Prepare what a form needs of the views."""

    def train(self, mode: bool = True) -> StackedNetwork:
        """Switch the members, too, between training and eval mode."""
        super().train(mode)
        for module in self.skeleton[0].modules():
            # Where no member drops anything, no noise is drawn.
            module.training = mode and (self.drops or not isinstance(module, SeededDropout))
        return self

    def shapes_of(self, configuration: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the trainable parameters of a configuration's network, without what pads it."""
        own = dict(self._skeletons[self.size_of_configuration[configuration]].named_parameters())
        return {name: tuple(own[name].shape) for name in self.shapes}

    def noise_shapes(self, features: Sequence[int]) -> list[dict[str, tuple[int, ...]]]:
        """Find for each size of network the shape of each dropout layer's noise, without the rows.

        Args:
            features: The shape of a row.
        """
        return [dropout_shapes(skeleton, torch.zeros(1, *features)) for skeleton in self._skeletons]

    def take(self, x: StackedInputs) -> StackedInputs:
        """Make of the inputs of a pass what this form takes: the zeros of sparse rows are filled in, for these rows."""
        return x if isinstance(x, Tensor) else x.dense(self.flat.device)

    @property
    def widest(self) -> int:
        """Numbers that a layer hands to the next for a row of one member, at most; a guess, without the inputs."""
        # A network of width w has about w^2 parameters.
        return math.isqrt(self.flat.numel() // (self.streams * self.configurations))

    @abstractmethod
    def forward(self, x: StackedInputs, noise: Noise = NO_NOISE, sizes: Sequence[int] | None = None) -> Tensor:
        """Compute every member's logits.

        Args:
            x: `streams x rows x features`, as `take` returns it.
            noise: Needed in training mode only.
            sizes: `streams`, how many rows are real, if not all; what is computed of the others is of no meaning.

        Returns:
            `streams x configurations x rows x outputs`.
        """

    @abstractmethod
    def differentiate(self, x: StackedInputs, noise: Noise, objective: Objective, sizes: Sequence[int]) -> Tensor:
        """Compute every member's loss, and write its gradient into `gradients`.

        Args:
            x: `streams x rows x features`, as `take` returns it.
            noise: As in `forward`.
            objective: From the logits to the losses and their gradient.
            sizes: `streams`, how many rows are real; the others pad the batch, and the objective gives them no weight.

        Returns:
            `streams x configurations`.
        """


def _constants(network: nn.Module) -> dict[str, Tensor]:
    """Name what is not trained, without the noise, which every step brings along."""
    noise = {f"{n}.noise".lstrip(".") for n, layer in network.named_modules() if isinstance(layer, SeededDropout)}
    frozen = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    return frozen | {name: b for name, b in network.named_buffers() if name not in noise}
