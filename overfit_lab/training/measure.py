"""Matched measurement: train and val on the same weights, in eval mode, without penalty, without random numbers."""

from __future__ import annotations

import itertools
from collections import defaultdict
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
from overfit_lab.training.stack.looped import LoopedNetwork
from overfit_lab.training.stack.sparse import SparseNetwork
from overfit_lab.training.stack.vmapped import VmappedNetwork

# Elements of the widest layer in one forward pass, over all members. On a processor what one layer hands to the next
# should stay in its cache: 2 MB in float32. A GPU wants large passes, and this bounds their memory.
CHUNK_ELEMENTS = {"cpu": 500_000, "cuda": 50_000_000}
# Fewer rows than this are not worth a pass.
MIN_CHUNK_ROWS = 128
# How curves end that are measured against the right labels, where others were made wrong.
CLEAN = "clean"


@dataclass(frozen=True, eq=False)
class Measurement:
    """One part (train or val) of the folds, measured at one epoch.

    Args:
        losses: For each stream, `configurations x rows`.
        metrics: For each metric, `streams x configurations`; without the loss. Where labels were made wrong, loss and
            metrics against the right ones, too, as `loss_clean`.
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
    logits = predict(network, rows, fold_of_stream)
    losses: list[Tensor] = []
    metrics: dict[str, list[Tensor]] = defaultdict(list)
    sizes = [rows.sizes[fold] for fold in fold_of_stream]
    # Neighbours of one size are measured by one call; the folds of a split have two sizes at most.
    for size, run in itertools.groupby(range(len(sizes)), key=sizes.__getitem__):
        streams = list(run)
        folds = [fold_of_stream[stream] for stream in streams]
        own, targets = logits[streams[0] : streams[-1] + 1, :, :size], rows.y[folds, None, :size]
        losses += task.loss(own, targets)
        if task.problem == "regression":
            scalings = [target_scalings[fold] for fold in folds]
            own, targets = unscale(own, scalings), unscale(targets, scalings)
        for name, values in measure_members(task.metrics, task.problem, own, targets).items():
            metrics[name].append(values)
        if rows.clean is not None:
            right = rows.clean[folds, None, :size]
            clean = {"loss": task.loss(own, right).mean(-1, dtype=torch.float64)}
            for name, values in (clean | measure_members(task.metrics, task.problem, own, right)).items():
                metrics[f"{name}_{CLEAN}"].append(values)
    return Measurement(losses, {name: torch.cat(parts) for name, parts in metrics.items()})


@torch.no_grad()
def predict(network: StackedNetwork, rows: StackedRows, fold_of_stream: Sequence[int]) -> Tensor:
    """Compute every member's logits in eval mode, in passes of bounded size.

    Args:
        network: The members; left in the mode in which it was.
        rows: Stacked over folds.
        fold_of_stream: `streams`, the fold that each stream reads.

    Returns:
        `streams x configurations x rows x outputs`.
    """
    was_training = network.training
    network.eval()
    logits = _forward(network, rows, fold_of_stream)
    network.train(was_training)
    return logits


def _forward(network: StackedNetwork, rows: StackedRows, fold_of_stream: Sequence[int]) -> Tensor:
    x, folds = rows.x, list(fold_of_stream)
    if isinstance(network, LoopedNetwork):
        # It may mix rows: all of them at once, and none that only pads.
        return network.forward(x[folds], sizes=[rows.sizes[fold] for fold in folds])
    members = network.streams * network.configurations
    # Sparse rows that stay so are hardly there.
    inputs = x.shape[2:].numel() if isinstance(x, Tensor) or not isinstance(network, SparseNetwork) else 0
    widest = max(inputs, network.widest)
    if isinstance(network, VmappedNetwork):
        # Weights that are used at many places leave more behind than there are parameters.
        widest = max(widest, network.kept_per_row(x.shape[2]))
    step = max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS[rows.y.device.type] // (members * widest))
    parts: list[Tensor] = []
    for first in range(0, x.shape[1], step):
        own = x[:, first : first + step]
        # Where every fold is one stream, its rows need not be copied.
        parts.append(network(network.take(own if folds == list(range(x.shape[0])) else own[folds])))
    if len(parts) == 1:
        return parts[0]
    # Outputs before rows, as a layered network computes them: a sum over outputs then runs along memory.
    return torch.cat([part.transpose(-1, -2) for part in parts], dim=-1).transpose(-1, -2)


def unscale(values: Tensor, scalings: Sequence[Scaling]) -> Tensor:
    """Undo each stream's scaling of its targets, in `streams x (configurations or 1) x rows x targets`."""
    scale, mean = (
        torch.from_numpy(np.stack(columns)).to(values.device)[:, None, None]
        for columns in ([s.scale for s in scalings], [s.mean for s in scalings])
    )
    # In double precision: what is large and varies little would lose its digits here.
    return values.double() * scale + mean
