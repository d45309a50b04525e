"""Rows whose inputs are mostly 0: what a tensor of stacked rows would be, in compressed rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from overfit_lab.data.inputs import Inputs


class SparseRows:
    """`streams x rows x features`, or `folds x ...`. It is indexed as a tensor would be, as far as anybody needs it.

    It stays on the CPU, where SciPy cuts it ten times as fast as torch would; a network takes what it multiplies to its
    own device.

    Args:
        matrices: For each stream `rows x features` in compressed rows, of one shape and type.
    """

    # No dataclass: Lightning would take it apart.

    def __init__(self, matrices: tuple[Inputs, ...]) -> None:
        self.matrices = matrices

    @property
    def shape(self) -> torch.Size:
        """Streams, rows, features."""
        return torch.Size((len(self.matrices), *self.matrices[0].shape))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return torch.float64 if self.matrices[0].dtype == np.float64 else torch.float32

    @property
    def entries_per_row(self) -> int:
        """How many values a row has on average, rounded up; at least 1."""
        return 1 + int(sum(matrix.nnz for matrix in self.matrices)) // max(1, self.shape[0] * self.shape[1])

    def to(self, device: torch.device) -> SparseRows:
        """Return the rows as they are, wherever a tensor would go."""
        return self

    def __getitem__(self, index: Any) -> SparseRows:  # noqa: ANN401 - as a tensor's
        """Take streams by a list of their numbers, or by `[:, first:last]` rows of each."""
        if isinstance(index, list):
            return SparseRows(tuple(self.matrices[stream] for stream in index))
        streams, rows = index
        return SparseRows(tuple(matrix[rows] for matrix in self.matrices[streams]))

    def pick(self, streams: Sequence[int], rows: Sequence[Any]) -> SparseRows:
        """Take for each of some streams rows by their numbers, as many of each."""
        return SparseRows(tuple(self.matrices[stream][own] for stream, own in zip(streams, rows, strict=True)))

    def dense(self, device: torch.device) -> Tensor:
        """Fill in the zeros, `streams x rows x features`."""
        return torch.stack([self.dense_stream(stream, self.shape[1], device) for stream in range(len(self.matrices))])

    def dense_stream(self, stream: int, rows: int, device: torch.device) -> Tensor:
        """Fill in the zeros of the first rows of one stream, `rows x features`."""
        return torch.from_numpy(self.matrices[stream][:rows].toarray()).to(device)

    def dense_rows(self, stream: int, rows: Tensor) -> Tensor:
        """Fill in the zeros of some rows of one stream by their numbers, `rows x features`."""
        return torch.from_numpy(self.matrices[stream][rows.numpy()].toarray())


# What stacked rows and batches hold: `streams x rows x features`.
StackedInputs: TypeAlias = Tensor | SparseRows
