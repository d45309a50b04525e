"""The layered form for inputs that are mostly 0: its first layer computes with the others alone.

A row of a bag of words has one word of a hundred: products with all of them cost 20 to 40 times as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overfit_lab.data.inputs import Inputs
from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.training.stack.layered import Affine, LayeredNetwork


class SparseNetwork(LayeredNetwork):
    """Computes from sparse rows a plain sequence of layers that begins with a linear one; see `begins_linearly`.

    The first layer's weight lies in memory as `inputs x outputs` of each member: what one input is multiplied with
    stands side by side. Everybody else sees it as `outputs x inputs`, as in any form.
    """

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        views = super()._views(flat)
        name = f"{self._first_name()}.weight".lstrip(".")
        streams, configurations, outputs, inputs = views[name].shape
        return views | {name: views[name].view(streams, configurations, inputs, outputs).transpose(-1, -2)}

    def _first_name(self) -> str:
        return next(name for name, layer in self.layers() if isinstance(layer, nn.Linear))

    def _linear(self, name: str, layer: nn.Module) -> Affine:
        if name != self._first_name():
            return super()._linear(name, layer)
        weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        return _First(self._values[weight], self._gradients[weight], self._values.get(bias), self._gradients.get(bias))

    def take(self, x: StackedInputs) -> StackedInputs:
        """Take sparse rows as they are."""
        return x

    @property
    def widest(self) -> int:
        """Numbers that a layer hands to the next for a row of one member, at most: the inputs are not among them."""
        return max(shape[0] for shape in self.shapes.values())


class _First(Affine):
    """The first layer, which is fed with `SparseRows`; its weights are laid out `inputs x outputs`."""

    def __init__(
        self, weight: Tensor, weight_gradient: Tensor, bias: Tensor | None, bias_gradient: Tensor | None
    ) -> None:
        self.weight, self.weight_gradient = weight.transpose(-1, -2), weight_gradient.transpose(-1, -2)
        self.bias, self.bias_gradient = bias, bias_gradient

    def forward(self, h: Any, noise: Mapping[str, Tensor]) -> Tensor:  # noqa: ANN401 - sparse, where others take tensors
        """Compute the layer."""
        streams, configurations, _, outputs = self.weight.shape
        products = [
            _multiply(rows, weight)
            for matrix, own in zip(h.matrices, self.weight, strict=True)
            for rows in [_take(matrix, own)]
            for weight in own
        ]
        out = torch.stack(products).view(streams, configurations, -1, outputs)
        if self.bias is not None:
            out += self.bias[:, :, None]
        return out.flatten(0, 1).transpose(1, 2)

    def backward_into_parameters(self, d: Tensor, h: Any) -> None:  # noqa: ANN401
        """Write the gradients of weight and bias."""
        streams, configurations, _, outputs = self.weight.shape
        d = d.view(streams, configurations, outputs, -1)
        if self.bias_gradient is not None:
            torch.sum(d, 3, out=self.bias_gradient)
        for matrix, gradients, own in zip(h.matrices, self.weight_gradient, d.transpose(-1, -2), strict=True):
            # Of each input, the rows that have it.
            columns = _take(matrix.T.tocsr(), own)
            for gradient, behind in zip(gradients, own, strict=True):
                gradient.copy_(_multiply(columns, behind.contiguous()))


class _Compressed(NamedTuple):
    """A matrix in compressed rows, beside what it is multiplied with."""

    starts: Tensor
    columns: Tensor
    values: Tensor


def _take(matrix: Inputs, beside: Tensor) -> _Compressed:
    return _Compressed(*(torch.from_numpy(a).to(beside.device) for a in (matrix.indptr, matrix.indices, matrix.data)))


def _multiply(matrix: _Compressed, dense: Tensor) -> Tensor:
    """Multiply a sparse matrix with a dense one, whose rows are gathered and summed: torch calls that a bag."""
    return F.embedding_bag(
        matrix.columns,
        dense,
        matrix.starts,
        mode="sum",
        per_sample_weights=matrix.values,
        include_last_offset=True,
    )
