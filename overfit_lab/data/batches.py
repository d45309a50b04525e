"""Batches for streams that train side by side, in chunks of several optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from overfit_lab.seeding import torch_generator

# Elements of inputs in one chunk: large enough to pay Lightning's cost per training_step once for many steps,
# small enough to stay in cache-friendly memory (32 MB in float32).
CHUNK_ELEMENTS = 8_000_000


class Batch(NamedTuple):
    """The rows of one optimizer step.

    Args:
        x: `streams x rows x features`.
        y: `streams x rows [x targets]`.
        weight: `streams x rows`, one over the stream's batch size; 0 for padding.
    """

    x: Tensor
    y: Tensor
    weight: Tensor


class RowOrder:
    """The epoch that is being shuffled. Lightning calls `set_epoch` before each, as it does for any sampler."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0."""
        self.epoch = epoch


class BatchLoader:
    """Iterates over the chunks of one epoch; every row of a stream comes exactly once.

    The rows of an epoch are cut into `steps` batches whose sizes differ by one row at most, so streams of slightly
    different length take the same number of steps and no small remainder gets the weight of a full batch.

    Args:
        x: `folds x rows x features`.
        y: `folds x rows [x targets]`.
        sizes: `streams`, how many rows each stream has.
        folds: `streams`, which fold each stream trains on.
        names: `streams`, what each stream's order is seeded by.
        steps: Optimizer steps of an epoch, the same for every stream; at most the smallest of `sizes`.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        sizes: Sequence[int],
        folds: Sequence[int],
        names: Sequence[tuple[int, int, int]],
        steps: int,
    ) -> None:
        self.x, self.y = x, y
        self.sizes, self.names = list(sizes), list(names)
        self.folds = torch.tensor(list(folds), device=x.device)
        self.steps = steps
        per_step = x.shape[2:].numel() * sum(math.ceil(size / steps) for size in sizes)
        self.steps_per_chunk = max(1, min(self.steps, CHUNK_ELEMENTS // per_step))
        self.sampler = RowOrder()

    def __len__(self) -> int:
        """The number of chunks."""
        return math.ceil(self.steps / self.steps_per_chunk)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield the epoch's chunks, each a list of batches."""
        widths, rows, weight = self._plan()
        for first in range(0, self.steps, self.steps_per_chunk):
            last = min(first + self.steps_per_chunk, self.steps)
            picked = rows[:, first:last]
            folds = self.folds[:, None, None].expand_as(picked)
            x, y = self.x[folds, picked], self.y[folds, picked]
            yield [
                Batch(x[:, i, :width], y[:, i, :width], weight[:, first + i, :width])
                for i, width in enumerate(widths[first:last])
            ]

    def _plan(self) -> tuple[list[int], Tensor, Tensor]:
        """Lay out an epoch: the width of each step, and row numbers and weights as `streams x steps x width`."""
        starts = torch.tensor([[i * size // self.steps for i in range(self.steps + 1)] for size in self.sizes])
        counts = starts.diff(dim=1)
        widest = int(counts.max())
        position = starts[:, :-1, None] + torch.arange(widest)
        real = torch.arange(widest) < counts[:, :, None]
        orders = torch.zeros(len(self.sizes), max(self.sizes), dtype=torch.int64)
        for order, size, name in zip(orders, self.sizes, self.names, strict=True):
            order[:size] = torch.randperm(size, generator=torch_generator("order", *name, self.sampler.epoch))
        # A padded place repeats the first row of its batch, with weight 0.
        position = torch.where(real, position, starts[:, :-1, None])
        rows = torch.take_along_dim(orders[:, None], position, dim=2)
        weight = real.to(torch.float64) / counts[:, :, None]
        widths = counts.max(dim=0).values.tolist()
        return widths, rows.to(self.x.device), weight.to(self.x)
