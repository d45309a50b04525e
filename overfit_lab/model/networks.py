"""The networks that come with the package. They return logits: the last-layer activation belongs to the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from overfit_lab.config import Activation


class Quadratic(nn.Module):
    """The activation x^2, under which a network of one hidden layer can be analysed [Gromov 2023]."""

    def forward(self, x: Tensor) -> Tensor:
        """Square each element."""
        return x * x


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "quadratic": Quadratic,
}


class Linear(nn.Sequential):
    """One affine map: linear, logistic or softmax regression, by the task.

    Args:
        inputs: Number of features.
        outputs: Number of logits.
        bias: Whether there is one.
        initial: Small random weights, as torch has them, or 0.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, initial: Literal["random", "zero"] = "random"
    ) -> None:
        layer = nn.Linear(inputs, outputs, bias=bias)
        if initial == "zero":
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        super().__init__(layer)


class MLP(nn.Sequential):
    """A multilayer perceptron with `depth` hidden layers of `width` units each.

    Args:
        inputs: Number of features.
        outputs: Number of logits.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        activation: What follows each hidden layer.
        dropout: Probability with which a hidden unit is dropped in training.
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int, depth: int, activation: Activation, dropout: float
    ) -> None:
        layers: list[nn.Module] = []
        for _ in range(depth):
            # A dropout of 0 is a layer, too: then names do not depend on it, and networks of any rate can be stacked.
            layers += [nn.Linear(inputs, width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            inputs = width
        super().__init__(*layers, nn.Linear(inputs, outputs))
