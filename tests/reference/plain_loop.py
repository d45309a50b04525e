"""One fit in plain PyTorch: no Lightning, no stacking, no code of the training package.

It shares with the package what defines a fit: the split, the network's initial weights and the names of the random
streams. All else is written out the long way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from overfit_lab.data.split import Fold
from overfit_lab.seeding import torch_generator


@dataclass
class Fit:
    """A fit and what it showed: one value for each epoch from 0."""

    train_loss: list[float]
    val_loss: list[float]
    val_losses: list[NDArray[np.float64]]
    network: nn.Sequential


def fit(
    network: nn.Sequential,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    fold: Fold,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[list[nn.Parameter], list[nn.Parameter]], torch.optim.Optimizer],
    *,
    seed: int,
    epochs: int,
    steps: int,
    widest: int,
    dtype: torch.dtype = torch.float64,
    penalty: Callable[[list[nn.Parameter]], Tensor] | None = None,
) -> Fit:
    """Train one network.

    Args:
        network: Initial weights; `nn.Dropout` layers get their masks from the fit's own stream.
        x: All rows of the source.
        y: All targets of the source.
        fold: Which rows to train and validate on.
        loss: Logits and targets to one loss for each row.
        optimizer: Called with (weights, biases).
        seed: Of the fit.
        epochs: The horizon.
        steps: Optimizer steps of an epoch.
        widest: Rows of the largest batch of the split.
        dtype: Of all arithmetic.
        penalty: Of the weights, added to the loss.
    """
    network = network.to(dtype)
    scaler = StandardScaler().fit(x[fold.train])
    x_train, x_val = (torch.tensor(scaler.transform(x[rows]), dtype=dtype) for rows in (fold.train, fold.val))
    y_train, y_val = torch.tensor(y[fold.train]), torch.tensor(y[fold.val])
    if y_train.dtype == torch.float64:
        y_train, y_val = y_train.to(dtype), y_val.to(dtype)
    weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    step = optimizer(weights, biases)
    result = Fit([], [], [], network)

    def measure() -> None:
        with torch.no_grad():
            on_val = loss(_forward(network, x_val, None), y_val)
            result.train_loss.append(loss(_forward(network, x_train, None), y_train).mean().item())
            result.val_loss.append(on_val.mean().item())
            result.val_losses.append(on_val.double().numpy())

    measure()
    rows = len(x_train)
    for epoch in range(epochs):
        order = torch.randperm(rows, generator=torch_generator("order", seed, fold.repeat, fold.fold, epoch))
        noise = torch_generator("dropout", seed, fold.repeat, fold.fold, epoch)
        for i in range(steps):
            batch = order[math.floor(i * rows / steps) : math.floor((i + 1) * rows / steps)]
            step.zero_grad()
            objective = loss(_forward(network, x_train[batch], (noise, widest)), y_train[batch]).mean()
            if penalty is not None:
                objective = objective + penalty(weights)
            objective.backward()  # type: ignore[no-untyped-call]
            step.step()
        measure()
    return result


def _forward(network: nn.Sequential, x: Tensor, noise: tuple[torch.Generator, int] | None) -> Tensor:
    for layer in network:
        if isinstance(layer, nn.Dropout):
            if noise is not None:
                generator, widest = noise
                uniform = torch.rand(widest, x.shape[1], generator=generator)[: len(x)]
                x = x * (uniform >= layer.p).to(x.dtype) / (1 - layer.p)
        else:
            x = layer(x)
    return x


def binary(logits: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of each row."""
    p = torch.sigmoid(logits)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean(1)


def multiclass(logits: Tensor, y: Tensor) -> Tensor:
    """Categorical cross-entropy of each row."""
    return F.cross_entropy(logits, y, reduction="none")


def regression(logits: Tensor, y: Tensor) -> Tensor:
    """Squared error of each row."""
    return ((logits - y) ** 2).mean(1)


def unit_regression(logits: Tensor, y: Tensor) -> Tensor:
    """Squared error of each row after a sigmoid."""
    return ((torch.sigmoid(logits) - y) ** 2).mean(1)
