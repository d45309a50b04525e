"""Matched measurement: train and val on the same weights, in eval mode, without penalty, without random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overfit_lab.data.datamodule import StackedRows
from overfit_lab.data.scaling import Scaling
from overfit_lab.task.metrics import measure_members
from overfit_lab.task.task import Task
from overfit_lab.training.stack import StackedNetwork

# Logits of one forward pass, over all members: bounds the memory of a pass, hidden layers included.
CHUNK_ROWS = 4_000_000


@dataclass(frozen=True, eq=False)
class Measurement:
    """One part (train or val) of the folds, measured at one epoch.

    Args:
        losses: For each stream, `configurations x rows`.
        metrics: For each metric, `streams x configurations`; without the loss.
    """

    losses: list[Tensor]
    metrics: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The mean over rows, `streams x configurations`."""
        return torch.stack([rows.mean(-1, dtype=torch.float64) for rows in self.losses])


@torch.no_grad()
def measure(
    network: StackedNetwork,
    task: Task,
    rows: StackedRows,
    fold_of_stream: Sequence[int],
    target_scalings: Sequence[Scaling],
) -> Measurement:
    """Measure loss and metrics of every member.

    Args:
        network: The members; left in the mode in which it was.
        task: What loss and which metrics.
        rows: What to measure on, stacked over folds.
        fold_of_stream: `streams`, the fold that each stream is measured on.
        target_scalings: For each fold, how its targets were scaled: metrics are in the target's own units.
    """
    was_training = network.training
    network.eval()
    logits = _forward(network, rows.x, fold_of_stream)
    network.train(was_training)

    losses, values = [], {name: [] for name in task.metrics}  # type: tuple[list[Tensor], dict[str, list[Tensor]]]
    for stream, fold in enumerate(fold_of_stream):
        size = rows.sizes[fold]
        own, targets = logits[stream, :, :size], rows.y[fold, :size]
        losses.append(task.loss(own, targets))
        predictions = task.activation(own)
        if task.problem == "regression":
            predictions, targets = (_unscale(v, target_scalings[fold]) for v in (predictions, targets))
        for name in task.metrics:
            values[name].append(measure_members(name, task.problem, predictions, targets))
    return Measurement(losses, {name: torch.stack(v) for name, v in values.items()})


def _forward(network: StackedNetwork, x: Tensor, fold_of_stream: Sequence[int]) -> Tensor:
    streams = torch.tensor(list(fold_of_stream), device=x.device)
    step = max(1, CHUNK_ROWS // (network.streams * network.configurations * x.shape[2:].numel()))
    parts = [network(x[streams, first : first + step]) for first in range(0, x.shape[1], step)]
    return torch.cat(parts, dim=2)


def _unscale(values: Tensor, scaling: Scaling) -> Tensor:
    return values * torch.from_numpy(scaling.scale).to(values) + torch.from_numpy(scaling.mean).to(values)
