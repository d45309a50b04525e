"""The networks that come with the package. They return logits: the last-layer activation belongs to the task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
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


class FixedFeatures(nn.Module):
    """Random features relu(v x) / sqrt(features), v ~ N(0, 1 / inputs), that are drawn once and never trained.

    Args:
        inputs: Number of features of the data.
        features: Number of random features.
    """

    directions: Tensor

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        # A buffer: what is not trained is no weight to penalise either. A ReLU may be scaled before as well as after.
        self.register_buffer("directions", torch.randn(features, inputs) / math.sqrt(inputs * features))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of `rows x inputs`."""
        return nn.functional.linear(x, self.directions).relu()


class RandomFeatures(nn.Sequential):
    """A linear model on fixed random ReLU features, of which only the last layer is trained [Rahimi and Recht 2008].

    Features are scaled so that neither their kernel nor the step size that gradient descent takes depends on their
    number. The last layer begins at zero, so gradient descent on the squared error tends to the solution of least
    norm, which has the peak of double descent [Belkin et al. 2019; Mei and Montanari 2022].

    Args:
        inputs: Number of features of the data.
        outputs: Number of logits.
        features: Number of random features.
    """

    def __init__(self, inputs: int, outputs: int, *, features: int) -> None:
        last = nn.Linear(features, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(FixedFeatures(inputs, features), last)


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
