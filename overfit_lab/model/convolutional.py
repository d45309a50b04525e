"""Convolutional networks for rows that have a shape: sequences (channels, length), images (channels, height, width).

In a cohort, `vmap` turns the convolutions of all members into grouped ones, which are faster than products of unfolded
images (`scripts/bench convolutions`). So these are plain modules of plain layers.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from torch import Tensor, nn

from overfit_lab.config import Activation
from overfit_lab.errors import UserError
from overfit_lab.model.networks import ACTIVATIONS

Shape: TypeAlias = tuple[int, ...] | None

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
_MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


class CNN(nn.Sequential):
    """A plain convolutional network: `depth` blocks of convolution, activation and max pooling, and a linear layer.

    Each block halves the sides, as long as they are 2 or more, and doubles the channels [as the plain network of
    Nakkiran et al. 2020, Deep double descent, without its batch normalisation].

    Args:
        inputs: Number of features, the product of `shape`.
        outputs: Number of logits.
        shape: Of a row: (channels, length) or (channels, height, width).
        channels: Filters of the first block.
        depth: Number of blocks.
        kernel: Side of a filter, odd; borders are padded with zeros.
        activation: What follows each convolution.
        dropout: Probability with which an element is dropped after each block in training.

    Raises:
        UserError: The rows have no such shape.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shape: Shape,
        *,
        channels: int,
        depth: int,
        kernel: int,
        activation: Activation,
        dropout: float,
    ) -> None:
        before, *sides = _image("cnn", shape)
        convolution, pool = _CONVOLUTIONS[len(sides)], _MAX_POOLS[len(sides)]
        layers: list[nn.Module] = [nn.Unflatten(1, (before, *sides))]
        for block in range(depth):
            after = channels * 2**block
            halves = tuple(min(side, 2) for side in sides)
            layers += [
                convolution(before, after, kernel, padding=kernel // 2),
                ACTIVATIONS[activation](),
                pool(halves),
                nn.Dropout(dropout),
            ]
            before, sides = after, [side // half for side, half in zip(sides, halves, strict=True)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(before * math.prod(sides), outputs))


class ResNet(nn.Sequential):
    """A pre-activation residual network of width k: stages of k, 2k, 4k, ... channels [He et al. 2016b].

    With 4 stages of 2 blocks it is the ResNet-18 of width k of the double-descent paper [Nakkiran et al. 2020, section
    4 and its appendix B], but for the normalisation: batch normalisation mixes the rows of a batch, so that fits could
    not be stacked and folds of different size would differ. Here it is group normalisation with a single group [Wu and
    He 2018]: over all channels and places of a row. The number of groups must not depend on the width, or a sweep over
    width would change two things; and a group of a single channel would be nothing but zeros once a side is 1.

    Args:
        inputs: Number of features, the product of `shape`.
        outputs: Number of logits.
        shape: Of a row: (channels, length) or (channels, height, width).
        width: Channels of the first stage.
        stages: Number of stages; each but the first halves the sides.
        blocks: Residual blocks of a stage.

    Raises:
        UserError: The rows have no such shape.
    """

    def __init__(self, inputs: int, outputs: int, shape: Shape, *, width: int, stages: int, blocks: int) -> None:
        before, *sides = _image("resnet", shape)
        dimensions = len(sides)
        stem = _CONVOLUTIONS[dimensions](before, width, 3, padding=1, bias=False)
        layers: list[nn.Module] = [nn.Unflatten(1, (before, *sides)), stem]
        before = width
        for stage in range(stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Residual(dimensions, before, width * 2**stage, stride))
                before = width * 2**stage
        super().__init__(*layers, _MeanOverPlaces(), nn.Linear(before, outputs))


class _Residual(nn.Module):
    """Normalisation, ReLU and convolution, twice, added to what came in."""

    def __init__(self, dimensions: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[dimensions]
        self.norm1 = nn.GroupNorm(1, before)
        self.conv1 = convolution(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(1, after)
        self.conv2 = convolution(after, after, 3, padding=1, bias=False)
        changes = stride > 1 or before != after
        self.shortcut = convolution(before, after, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x).relu()
        kept = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = kept + self.conv2(self.norm2(self.conv1(h)).relu())
        return out


class _MeanOverPlaces(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def _image(model: str, shape: Shape) -> tuple[int, ...]:
    if shape is None or len(shape) not in (2, 3):
        said = "no shape" if shape is None else f"the shape {shape}"
        raise UserError(
            f"model={model}: the rows of the data have {said}; allowed is (channels, length) or (channels, height, "
            "width), which a source says by shape=..."
        )
    return shape
