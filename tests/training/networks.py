"""Networks as a user may bring them: four features to three outputs, and what they may do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tied(nn.Sequential):
    """Two layers that share their weights."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        first, second = nn.Linear(inputs, inputs), nn.Linear(inputs, inputs)
        second.weight = first.weight
        super().__init__(first, nn.Tanh(), second, nn.Linear(inputs, outputs))


class Buffered(nn.Module):
    """Has buffers, one of them called noise, and a parameter that is not trained."""

    offset: Tensor
    noise: Tensor

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, outputs)
        self.frozen = nn.Parameter(torch.randn(outputs), requires_grad=False)
        self.register_buffer("offset", torch.randn(outputs))
        self.register_buffer("noise", torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.map(x) * self.frozen + self.offset * self.noise
        return mapped


class Normalised(nn.Module):
    """Keeps statistics, in layers and by itself."""

    seen: Tensor

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, outputs))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)
        logits: Tensor = self.body(x)
        return logits


class Branching(nn.Module):
    """Computes one thing or the other, as the data says."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.left(x) if self.left(x).sum() > 0 else self.right(x)
        return logits


class DrawsItself(nn.Module):
    """Drops by torch's own generator."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(inputs, 6), nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(self.hidden(x).tanh(), 0.4, self.training))
        return logits


class Everything(nn.Module):
    """Drops by torch's own generator and by a layer, and keeps statistics."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.draws = DrawsItself(inputs, 6)
        self.drop = nn.Dropout(0.3)
        self.norm = Normalised(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.norm(self.drop(self.draws(x)))
        return logits


class DropsTwice(nn.Module):
    """Calls its one dropout layer twice."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.hidden, self.head, self.drop = nn.Linear(inputs, 6), nn.Linear(6, outputs), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.hidden(self.drop(x))))
        return logits


class Unbiased(nn.Sequential):
    """Its logits are a product with nothing added: under mixed precision, of the lower one."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs, bias=False))


class Centred(nn.Module):
    """Subtracts the mean over the rows of a batch, in a layer that torch does not know."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.map(x)
        return mapped - mapped.mean(0)


class Embedded(nn.Module):
    """Looks its inputs up: they are the numbers of four tokens."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(4, 5), nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(x.long()).mean(1))
        return logits


def convolution() -> nn.Module:
    """Build a convolution with a normalisation that keeps rows apart."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.PReLU(), nn.Flatten(), nn.Linear(12, 3)
    )
