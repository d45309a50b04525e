"""A small transformer encoder, for sequences of tokens and for rows that are read as sequences."""

from __future__ import annotations

import math

from torch import Tensor, nn

from overfit_lab.errors import UserError


class Transformer(nn.Module):
    """A transformer encoder with normalisation first [Vaswani et al. 2017; Xiong et al. 2020].

    Where inputs are token numbers, each is looked up. Other rows are cut into patches, as [Dosovitskiy et al. 2021] do
    with images, and each is mapped linearly: a row of shape (channels, length) is a sequence of `length` places with
    `channels` values, one without a shape a sequence of single values. Learned vectors tell the places apart; what
    comes out is averaged over them.

    Args:
        inputs: Number of features.
        outputs: Number of logits.
        shape: Of a row; None or (length,) for a sequence of single values.
        tokens: How many tokens there are, where inputs are token numbers.
        embedding: Size of the vector at each place.
        depth: Number of encoder blocks.
        heads: Of attention; they divide `embedding`.
        patch: Side of a patch; it divides every side of the shape.
        dropout: Probability with which an element is dropped in training, after the embedding, attention and MLP.

    Raises:
        UserError: The patches do not fit.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shape: tuple[int, ...] | None = None,
        tokens: int | None = None,
        *,
        embedding: int,
        depth: int,
        heads: int,
        patch: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed: nn.Module
        if tokens is not None:
            if patch != 1:
                raise UserError(f"model.patch={patch}: the inputs are token numbers; allowed is 1")
            places = inputs
            self.embed = nn.Embedding(tokens, embedding)
            # As small as the positions; torch's own, of deviation 1, would hide them.
            nn.init.normal_(self.embed.weight, std=0.02)
        else:
            shape = (1, inputs) if shape is None else (1, *shape) if len(shape) == 1 else shape
            if any(side % patch for side in shape[1:]):
                raise UserError(f"model.patch={patch}: must divide the sides of a row, {_sides(shape)}")
            places = math.prod(side // patch for side in shape[1:])
            size = shape[0] * patch ** (len(shape) - 1)
            self.embed = nn.Sequential(_Patches(shape, patch), nn.Linear(size, embedding))
        # An embedding layer, so that it is known as no weight.
        self.position = nn.Embedding(places, embedding)
        nn.init.normal_(self.position.weight, std=0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_Block(embedding, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(embedding)
        self.head = nn.Linear(embedding, outputs)
        self.reads_tokens = tokens is not None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of `rows x inputs`."""
        h: Tensor = self.embed(x.long() if self.reads_tokens else x)
        h = self.blocks(self.drop(h + self.position.weight))
        logits: Tensor = self.head(self.norm(h).mean(1))
        return logits


class _Patches(nn.Module):
    """Cuts rows into patches, `rows x features` to `rows x patches x values`."""

    def __init__(self, shape: tuple[int, ...], patch: int) -> None:
        super().__init__()
        channels, *sides = shape
        self.grid = (channels, *(part for side in sides for part in (side // patch, patch)))
        # Rows, the patch's place along each side, channels, the place inside the patch along each side.
        axes = 2 * len(sides)
        self.order = (0, *range(2, 2 + axes, 2), 1, *range(3, 3 + axes, 2))
        self.patches = math.prod(side // patch for side in sides)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.grid).permute(self.order).reshape(len(x), self.patches, -1)


class _Block(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(size), _Attention(size, heads), nn.Dropout(dropout))
        self.think = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        thought: Tensor = self.think(x)
        return x + thought


class _Attention(nn.Module):
    """Self-attention written out: torch's own drops by its global generator, and has other ways for train and eval."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(size, 3 * size)
        self.combine = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        rows, places, size = x.shape
        # 3 x rows x heads x places x size of a head.
        parts = self.project(x).reshape(rows, places, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = query @ key.transpose(-1, -2) / math.sqrt(size // self.heads)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows, places, size)
        combined: Tensor = self.combine(mixed)
        return combined


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))
