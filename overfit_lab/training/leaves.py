"""Leaves for optimizers: tensors that share values and gradients with a stacked network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from overfit_lab.training.stack import StackedNetwork

Config = TypeVar("Config")


def runs_of_equals(configs: Sequence[Config]) -> Iterator[tuple[Config, int, int]]:
    """Cut configurations into runs of equal settings: (settings, first, last + 1)."""
    first = 0
    for config, run in itertools.groupby(configs):
        last = first + len(list(run))
        yield config, first, last
        first = last


def leaves_of(network: StackedNetwork, names: Iterable[str], first: int, last: int) -> list[Tensor]:
    """Make flat leaves of some parameters of neighbouring configurations, all streams."""
    leaves = []
    for name in names:
        value, gradient = network.stacked_parameters()[name], network.gradients[name]
        # Fused updates run along memory: where other configurations lie between streams, each stream is a leaf.
        whole = last - first == network.configurations
        for part in [slice(None)] if whole else range(network.streams):
            index = (part, slice(first, last))
            leaves.append(_leaf(_along_memory(value[index]), _along_memory(gradient[index])))
    return leaves


def leaves_of_member(network: StackedNetwork, stream: int, configuration: int) -> dict[str, Tensor]:
    """Make leaves of all parameters of one member by their names, in the shapes that they have alone."""
    values, gradients, place = network.stacked_parameters(), network.gradients, (stream, configuration)
    own = {name: tuple(slice(side) for side in shape) for name, shape in network.shapes_of(configuration).items()}
    return {name: _leaf(values[name][place][part], gradients[name][place][part]) for name, part in own.items()}


def _along_memory(value: Tensor) -> Tensor:
    """View numbers flat, in the order in which they lie: weights may lie there the other way round."""
    return value.permute(sorted(range(value.ndim), key=value.stride, reverse=True)).view(-1)


def _leaf(value: Tensor, gradient: Tensor) -> Tensor:
    leaf = value.requires_grad_()
    leaf.grad = gradient
    return leaf
