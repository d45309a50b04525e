"""The history of a cohort: its curves, epoch by epoch, from epoch 0 (before any step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from overfit_lab.data.datamodule import Stream
from overfit_lab.seeding import numpy_generator

# More values than this for one member are kept as block means, and more epochs than this log-spaced.
MAX_VALUES = 10_000_000
MAX_EPOCHS = 128
BLOCKS = 128

CURVE_SCHEMA = pl.Schema(
    {
        "repeat": pl.Int32,
        "fold": pl.Int32,
        "epoch": pl.Int32,
        "split": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    }
)


@dataclass(frozen=True)
class LossStorage:
    """Which validation losses are kept, decided before training from sizes alone.

    Args:
        epochs: Epochs whose losses are kept, from 0.
        blocks: For each fold, the block of each validation row, or None where rows are kept one by one.
    """

    epochs: tuple[int, ...]
    blocks: tuple[NDArray[np.int64] | None, ...]

    def reduce(self, losses: Tensor, fold: int) -> Tensor:
        """Average `... x rows` over the blocks of a fold, as float32 on the CPU."""
        blocks = self.blocks[fold]
        if blocks is None:
            return losses.float().cpu()
        index = torch.from_numpy(blocks).to(losses.device)
        counts = torch.bincount(index)
        sums = losses.new_zeros(*losses.shape[:-1], len(counts)).index_add_(-1, index, losses)
        return (sums / counts).float().cpu()


def plan_storage(epochs: int, names: Sequence[tuple[int, int]], val_sizes: Sequence[int]) -> LossStorage:
    """Plan which validation losses to keep.

    Args:
        epochs: The horizon.
        names: (repeat, fold) of each fold, which seed its blocks.
        val_sizes: Validation rows of each fold; if one is too large, all are kept as blocks.
    """
    kept = np.arange(1, epochs + 1)
    if epochs > MAX_EPOCHS:
        kept = np.unique(np.geomspace(1, epochs, MAX_EPOCHS).round().astype(np.int64))
    whole = len(kept) * max(val_sizes) <= MAX_VALUES
    blocks = tuple(
        None if whole else numpy_generator("blocks", *name).permutation(np.arange(size) % min(BLOCKS, size))
        for name, size in zip(names, val_sizes, strict=True)
    )
    return LossStorage((0, *kept.tolist()), blocks)


@dataclass
class History:
    """What a cohort has shown so far. Members lie along `streams x configurations`.

    Args:
        curves: For each (split, metric), one tensor `streams x configurations` for each epoch from 0; metrics that
            belong to training itself (`running_loss`, `penalty`) start at epoch 1.
        val_losses: For each kept epoch, for each stream, `configurations x rows` (or blocks).
        diverged_at: `streams x configurations`, the first epoch with a value that is not finite, or -1.
    """

    curves: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    val_losses: list[list[Tensor]] = field(default_factory=list)
    diverged_at: Tensor | None = None

    @property
    def epochs(self) -> int:
        """Completed passes; -1 before epoch 0 was measured."""
        return len(self.curves.get(("val", "loss"), ())) - 1

    def append(self, split: str, metric: str, values: Tensor) -> None:
        """Add the next epoch of a curve."""
        self.curves.setdefault((split, metric), []).append(values.double().cpu())

    def note_divergence(self, healthy: Tensor) -> None:
        """Note which members have just been seen with a value that is not finite, for the first time."""
        if self.diverged_at is None:
            self.diverged_at = torch.full(healthy.shape, -1)
        self.diverged_at[(self.diverged_at < 0) & ~healthy.cpu()] = self.epochs

    def curve(self, split: str, metric: str) -> NDArray[np.float64]:
        """Return a curve as `streams x configurations x epochs`."""
        values: NDArray[np.float64] = torch.stack(self.curves[split, metric], dim=-1).numpy()
        return values

    def first_divergence(self, stream: int, configuration: int) -> int | None:
        """Return the first epoch at which a member was not finite, or None."""
        if self.diverged_at is None or self.diverged_at[stream, configuration] < 0:
            return None
        return int(self.diverged_at[stream, configuration])

    def curves_frame(self, streams: Sequence[Stream], configuration: int) -> pl.DataFrame:
        """Lay one configuration's curves out in long form: repeat, fold, epoch, split, metric, value."""
        parts = []
        for split, metric in self.curves:
            curve = self.curve(split, metric)[:, configuration]
            count = curve.shape[1]
            epochs = np.arange(self.epochs + 1 - count, self.epochs + 1, dtype=np.int32)
            for stream, values in zip(streams, curve, strict=True):
                columns = {"repeat": stream.repeat, "fold": stream.fold, "split": split, "metric": metric}
                frame = pl.DataFrame({"epoch": epochs, "value": values})
                parts.append(frame.with_columns(**{name: pl.lit(value) for name, value in columns.items()}))
        return pl.concat(parts).select(CURVE_SCHEMA.names()).cast(CURVE_SCHEMA)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs, of tensors and plain values."""
        return {
            "curves": {f"{split}/{metric}": torch.stack(v) for (split, metric), v in self.curves.items()},
            "val_losses": self.val_losses,
            "diverged_at": self.diverged_at,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint held."""
        keys = {tuple(name.split("/")): value for name, value in state["curves"].items()}
        self.curves = {(split, metric): list(value) for (split, metric), value in keys.items()}
        self.val_losses, self.diverged_at = state["val_losses"], state["diverged_at"]
