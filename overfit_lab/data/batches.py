"""Batches for streams that train side by side, in chunks of several optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.seeding import torch_generator

# Elements of inputs in one chunk: large enough to pay Lightning's cost per training_step once for many steps,
# small enough to stay in a processor's cache (8 MB in float32).
CHUNK_ELEMENTS = 2_000_000


class Batch(NamedTuple):
    """The rows of one optimizer step.

    Args:
        x: `streams x rows x features`, sparse where the source is.
        y: `streams x rows [x targets]`.
        weight: `streams x rows`, one over the stream's batch size; 0 for padding, which stands at the end.
        sizes: `streams`, how many rows are real.
    """

    x: StackedInputs
    y: Tensor
    weight: Tensor
    sizes: Sequence[int]


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
        begin: The epoch and the step to begin with, both from 0; the epochs of the sampler count from there.
    """

    def __init__(
        self,
        x: StackedInputs,
        y: Tensor,
        *,
        sizes: Sequence[int],
        folds: Sequence[int],
        names: Sequence[tuple[int, int, int]],
        steps: int,
        begin: tuple[int, int] = (0, 0),
    ) -> None:
        self.x, self.y = x, y
        self.sizes, self.names = list(sizes), list(names)
        self.folds = torch.tensor(list(folds), device=y.device)
        self.steps = steps
        self.first_epoch, self.first_step = begin
        self.sampler = RowOrder()
        # What is the same in every epoch: batch sizes, `streams x steps`, and places in the order and weights of the
        # rows, `streams x steps x widest`.
        starts = torch.tensor([[i * size // steps for i in range(steps + 1)] for size in sizes])
        counts = starts.diff(dim=1)
        self.batch_sizes = counts.T.tolist()
        self.widest = int(counts.max())
        real = torch.arange(self.widest) < counts[:, :, None]
        # A padded place repeats the first row of its batch, with weight 0.
        self.places = torch.where(real, starts[:, :-1, None] + torch.arange(self.widest), starts[:, :-1, None])
        self.weights = (real.to(torch.float64) / counts[:, :, None]).to(y.device, x.dtype).unbind(1)
        per_row = x.shape[2] if isinstance(x, Tensor) else x.entries_per_row
        per_step = per_row * len(sizes) * self.widest
        self.steps_per_chunk = max(1, min(steps, CHUNK_ELEMENTS // per_step))

    def __len__(self) -> int:
        """The number of chunks of a whole epoch."""
        return math.ceil(self.steps / self.steps_per_chunk)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield the epoch's chunks, each a list of batches."""
        rows = self._shuffle()
        begin = self.first_step if self.sampler.epoch == 0 else 0
        for first in range(begin, self.steps, self.steps_per_chunk):
            steps = slice(first, first + self.steps_per_chunk)
            picked = rows[:, steps]
            folds = self.folds[:, None, None].expand_as(picked)
            x, y = self._pick(folds, picked), self.y[folds, picked].unbind(1)
            batches = zip(x, y, self.weights[steps], self.batch_sizes[steps], strict=True)
            yield [
                # A slice costs as much as a small product: only where it takes anything away.
                Batch(x, y, weight, sizes)
                if (rows_here := max(sizes)) == self.widest
                else Batch(x[:, :rows_here], y[:, :rows_here], weight[:, :rows_here], sizes)
                for x, y, weight, sizes in batches
            ]

    def _pick(self, folds: Tensor, rows: Tensor) -> Sequence[StackedInputs]:
        """Take rows, `streams x steps x widest`: of each step `streams x widest x features`."""
        if isinstance(self.x, Tensor):
            return self.x[folds, rows].unbind(1)
        own = self.folds.tolist()
        return [self.x.pick(own, step) for step in rows.transpose(0, 1).cpu().numpy()]

    def _shuffle(self) -> Tensor:
        """Order the rows anew: row numbers, `streams x steps x widest`."""
        epoch = self.first_epoch + self.sampler.epoch
        orders = torch.zeros(len(self.sizes), max(self.sizes), dtype=torch.int64)
        for order, size, name in zip(orders, self.sizes, self.names, strict=True):
            order[:size] = torch.randperm(size, generator=torch_generator("order", *name, epoch))
        return torch.take_along_dim(orders[:, None], self.places, dim=2).to(self.y.device)
