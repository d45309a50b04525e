"""The random numbers of a training step: dropout noise for each stream, and seeds for networks that draw themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from overfit_lab.data.development import Stream
from overfit_lab.seeding import derive_seed, torch_generator
from overfit_lab.training.stack import Noise, StackedNetwork


class NoiseSource:
    """Draws the noise of each step, by generators that are keyed by stream and epoch.

    A stream's numbers depend neither on the other streams nor on their batch sizes, and a network's not on the sizes
    of the networks beside it.

    Args:
        network: Whose noise it is.
        streams: The network's streams.
        features: The shape of a row.
        widest: Rows of the largest batch of the split.
        seeded: Whether to give seeds, too.
    """

    def __init__(
        self, network: StackedNetwork, streams: Sequence[Stream], features: Sequence[int], widest: int, *, seeded: bool
    ) -> None:
        self.streams, self.widest, self.seeded = tuple(streams), widest, seeded
        self.sizes = network.size_of_configuration
        self.shapes = network.noise_shapes(features) if network.drops else [{}]
        self.start(0)

    def start(self, epoch: int) -> None:
        """Begin an epoch, from 0."""
        self.epoch, self.step = epoch, 0
        self.generators = [
            [torch_generator("dropout", *s, epoch) for s in self.streams] if shapes else [] for shapes in self.shapes
        ]

    def state(self) -> list[Any]:
        """Return where within the epoch the numbers are, as tensors and plain values."""
        return [self.step, [[generator.get_state() for generator in own] for own in self.generators]]

    def load_state(self, state: list[Any]) -> None:
        """Go on from there; `start` has been called with the epoch."""
        self.step = state[0]
        for own, states in zip(self.generators, state[1], strict=True):
            for generator, value in zip(own, states, strict=True):
                generator.set_state(value)

    def draw(self, rows: int, device: torch.device) -> Noise:
        """Draw the noise of the next step.

        Args:
            rows: Of the batch.
            device: Where the noise is needed; it is drawn on the CPU, so that every device sees the same numbers.
        """
        self.step += 1
        seeds = [derive_seed("network", *s, self.epoch, self.step) for s in self.streams] if self.seeded else []
        drawn = [
            {
                # The type is named: the default differs with the precision, and with it the numbers would.
                name: torch.stack(
                    [torch.rand(self.widest, *shape, generator=g, dtype=torch.float32)[:rows] for g in own]
                )
                for name, shape in shapes.items()
            }
            for shapes, own in zip(self.shapes, self.generators, strict=True)
        ]
        layers = {name: self._spread([size[name] for size in drawn]).to(device) for name in self.shapes[0]}
        return Noise(layers, seeds)

    def _spread(self, drawn: Sequence[Tensor]) -> Tensor:
        """Hand each configuration the noise of its size, `streams x configurations x rows x ...`."""
        if len(drawn) == 1:
            return drawn[0][:, None]
        widest = [max(lengths) for lengths in zip(*(own.shape for own in drawn), strict=True)]
        noise = drawn[0].new_zeros(widest[0], len(self.sizes), *widest[1:])
        for configuration, size in enumerate(self.sizes):
            own = drawn[size]
            noise[:, configuration][tuple(slice(n) for n in own.shape)] = own
        return noise
