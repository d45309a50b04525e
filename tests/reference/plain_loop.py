"""One fit in plain PyTorch: no Lightning, no stacking, no code of the training package.

It shares with the package what defines a fit: the split, the network's initial weights and the names of the random
streams. All else is written out the long way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    network: nn.Module


def _ends_with_weight(name: str) -> bool:
    return name.endswith("weight")


def fit(
    network: nn.Module,
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
    is_weight: Callable[[str], bool] = _ends_with_weight,
    scale: bool = True,
) -> Fit:
    """Train one network.

    Args:
        network: Initial weights; `nn.Dropout` layers get their masks from the fit's own stream.
        x: All rows of the source.
        y: All targets of the source.
        fold: Which rows to train and validate on.
        loss: Logits and targets to one loss for each row.
        optimizer: Called with (weights, other parameters).
        seed: Of the fit.
        epochs: The horizon.
        steps: Optimizer steps of an epoch.
        widest: Rows of the largest batch of the split.
        dtype: Of all arithmetic.
        penalty: Of the weights, added to the loss.
        is_weight: Which parameters are weights, by their names.
        scale: Whether inputs are scaled.
    """
    network = network.to(dtype)
    scaler = StandardScaler(with_mean=scale, with_std=scale).fit(x[fold.train])
    x_train, x_val = (torch.tensor(scaler.transform(x[rows]), dtype=dtype) for rows in (fold.train, fold.val))
    y_train, y_val = torch.tensor(y[fold.train]), torch.tensor(y[fold.val])
    if y_train.dtype == torch.float64:
        y_train, y_val = y_train.to(dtype), y_val.to(dtype)
    weights = [p for name, p in network.named_parameters() if is_weight(name)]
    others = [p for name, p in network.named_parameters() if not is_weight(name)]
    step = optimizer(weights, others)
    result = Fit([], [], [], network)

    def measure() -> None:
        with torch.no_grad():
            on_val = loss(network(x_val), y_val)
            result.train_loss.append(loss(network(x_train), y_train).mean().item())
            result.val_loss.append(on_val.mean().item())
            result.val_losses.append(on_val.double().numpy())

    # In eval mode torch's own dropout does nothing; the masks come from the fit's stream instead.
    network.eval()
    measure()
    rows = len(x_train)
    for epoch in range(epochs):
        order = torch.randperm(rows, generator=torch_generator("order", seed, fold.repeat, fold.fold, epoch))
        noise = torch_generator("dropout", seed, fold.repeat, fold.fold, epoch)
        for i in range(steps):
            batch = order[math.floor(i * rows / steps) : math.floor((i + 1) * rows / steps)]
            step.zero_grad()
            with _dropping(network, noise, widest):
                objective = loss(network(x_train[batch]), y_train[batch]).mean()
            if penalty is not None:
                objective = objective + penalty(weights)
            objective.backward()  # type: ignore[no-untyped-call]
            step.step()
        measure()
    return result


@contextmanager
def _dropping(network: nn.Module, noise: torch.Generator, widest: int) -> Iterator[None]:
    """Let every dropout layer drop by the fit's own stream, in the order in which they are computed."""

    def drop(layer: nn.Module, inputs: object, out: Tensor) -> Tensor:
        assert isinstance(layer, nn.Dropout)
        uniform = torch.rand(widest, *out.shape[1:], generator=noise)[: len(out)]
        return out * (uniform >= layer.p).to(out.dtype) / (1 - layer.p)

    hooks = [layer.register_forward_hook(drop) for layer in network.modules() if isinstance(layer, nn.Dropout)]
    yield
    for hook in hooks:
        hook.remove()


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
