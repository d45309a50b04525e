"""Matched measurement: train and val on the same weights, in eval mode, without penalty, without random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from overfit_lab.data.datamodule import StackedRows
from overfit_lab.data.scaling import Scaling
from overfit_lab.task.metrics import measure_members
from overfit_lab.task.task import Task
from overfit_lab.training.stack import StackedNetwork

# Elements of the widest layer in one forward pass, over all members: it bounds the memory of a pass.
CHUNK_ELEMENTS = 4_000_000


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

    sizes = [rows.sizes[fold] for fold in fold_of_stream]
    losses: list[Tensor] = [logits.new_empty(0)] * len(sizes)
    metrics = {name: torch.empty(logits.shape[:2], device=logits.device) for name in task.metrics}
    # Streams of one size are measured by one call; the folds of a split have two sizes at most.
    for size in set(sizes):
        streams = [stream for stream, own in enumerate(sizes) if own == size]
        folds = [fold_of_stream[stream] for stream in streams]
        own, targets = logits[streams, :, :size], rows.y[folds, :size]
        for stream, values in zip(streams, task.loss(own, targets[:, None]), strict=True):
            losses[stream] = values
        predictions = task.activation(own)
        if task.problem == "regression":
            scalings = [target_scalings[fold] for fold in folds]
            predictions, targets = _unscale(predictions, scalings), _unscale(targets[:, None], scalings)[:, 0]
        members = targets[:, None].expand(-1, network.configurations, *targets.shape[1:]).flatten(0, 1)
        for name in task.metrics:
            values = measure_members(name, task.problem, predictions.flatten(0, 1), members)
            metrics[name][streams] = values.reshape(len(streams), -1)
    return Measurement(losses, metrics)


def _forward(network: StackedNetwork, x: Tensor, fold_of_stream: Sequence[int]) -> Tensor:
    streams = torch.tensor(list(fold_of_stream), device=x.device)
    members = network.streams * network.configurations
    # A network of width w has about w^2 parameters.
    widest = max(x.shape[2:].numel(), math.isqrt(sum(p.numel() for p in network.stacked) // members))
    step = max(1, CHUNK_ELEMENTS // (members * widest))
    parts = [network(x[streams, first : first + step]) for first in range(0, x.shape[1], step)]
    return torch.cat(parts, dim=2)


def _unscale(values: Tensor, scalings: Sequence[Scaling]) -> Tensor:
    """Undo each stream's scaling of its targets, in `streams x configurations x rows x targets`."""
    scale, mean = (
        torch.from_numpy(np.stack(columns)).to(values.device)[:, None, None]
        for columns in ([s.scale for s in scalings], [s.mean for s in scalings])
    )
    # In double precision: what is large and varies little would lose its digits here.
    return values.double() * scale + mean
