"""The history of a cohort: its curves, at each measured epoch, from epoch 0 (before any step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from overfit_lab.data.development import Stream
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
        blocks: For each fold, by (repeat, fold), the block of each validation row, or None where rows are kept one by
            one.
    """

    epochs: tuple[int, ...]
    blocks: Mapping[tuple[int, int], NDArray[np.int64] | None]

    def reduce(self, losses: Tensor, fold: tuple[int, int]) -> Tensor:
        """Average `... x rows` over the blocks of a fold, as float32 on the CPU."""
        blocks = self.blocks[fold]
        if blocks is None:
            return losses.float().cpu()
        index = torch.from_numpy(blocks).to(losses.device)
        counts = torch.bincount(index)
        sums = losses.new_zeros(*losses.shape[:-1], len(counts)).index_add_(-1, index, losses)
        return (sums / counts).float().cpu()


def is_measured(epoch: int, epochs: int, every: int) -> bool:
    """Say whether curves have a point at an epoch: at 0, at every `every`-th, and at the last one."""
    return epoch % every == 0 or epoch == epochs


def plan_storage(
    epochs: int, names: Sequence[tuple[int, int]], val_sizes: Sequence[int], eval_every: int = 1
) -> LossStorage:
    """Plan which validation losses to keep.

    Args:
        epochs: The horizon.
        names: (repeat, fold) of each fold, which seed its blocks.
        val_sizes: Validation rows of each fold; if one is too large, all are kept as blocks.
        eval_every: Epochs from one measured epoch to the next.
    """
    kept = np.array([epoch for epoch in range(1, epochs + 1) if is_measured(epoch, epochs, eval_every)])
    if len(kept) > MAX_EPOCHS:
        # Log-spaced, each moved to the nearest measured epoch.
        spaced = (np.geomspace(kept[0], epochs, MAX_EPOCHS) / eval_every).round().astype(np.int64) * eval_every
        kept = np.unique([*spaced[spaced < epochs], epochs])
    whole = len(kept) * max(val_sizes) <= MAX_VALUES
    blocks = {
        name: None if whole else numpy_generator("blocks", *name).permutation(np.arange(size) % min(BLOCKS, size))
        for name, size in zip(names, val_sizes, strict=True)
    }
    return LossStorage((0, *kept.tolist()), blocks)


class Length(NamedTuple):
    """How much a history holds.

    Args:
        curves: Values of each curve.
        kept: Epochs whose validation losses are kept.
        measured: Measured epochs.
    """

    curves: Mapping[tuple[str, str], int] = MappingProxyType({})
    kept: int = 0
    measured: int = 0


NOTHING = Length()


@dataclass
class History:
    """What a cohort has shown so far. Members lie along `streams x configurations`.

    Args:
        curves: For each (split, metric), one tensor `streams x configurations` for each measured epoch; what begins
            later, as `running_loss` at the first after epoch 0, ends with the others.
        val_losses: For each kept epoch, for each stream, `configurations x rows` (or blocks).
        diverged_at: `streams x configurations`, the first measured epoch with a value that is not finite, or -1.
        measured: The measured epochs, from 0.
    """

    curves: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    val_losses: list[list[Tensor]] = field(default_factory=list)
    diverged_at: Tensor | None = None
    measured: list[int] = field(default_factory=list)
    _stacked: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @property
    def epochs(self) -> int:
        """Completed passes when it was measured last; -1 before epoch 0 was."""
        return self.measured[-1] if self.measured else -1

    def begin(self, epoch: int) -> None:
        """Begin to measure an epoch: what is added from here on belongs to it."""
        self.measured.append(epoch)

    def append(self, split: str, metric: str, values: Tensor) -> None:
        """Add the value of a curve at the epoch that is being measured."""
        self.curves.setdefault((split, metric), []).append(values.double().cpu())

    def note_divergence(self, healthy: Tensor) -> None:
        """Note which members have just been seen with a value that is not finite, for the first time."""
        if self.diverged_at is None:
            self.diverged_at = torch.full(healthy.shape, -1)
        self.diverged_at[(self.diverged_at < 0) & ~healthy.cpu()] = self.epochs

    def curve(self, split: str, metric: str) -> NDArray[np.float64]:
        """Return a curve as `streams x configurations x measured epochs`."""
        values = self.curves[split, metric]
        # Every run of a cohort asks for its part of the same array.
        if (split, metric) not in self._stacked or self._stacked[split, metric].shape[-1] != len(values):
            self._stacked[split, metric] = torch.stack(values, dim=-1).numpy()
        return self._stacked[split, metric]

    def tag(self, split: str, metric: str) -> str:
        """Name a curve for a logger: `loss/val`, and `training/...` for what is of training itself and has no val."""
        return f"{metric}/{split}" if ("val", metric) in self.curves else f"training/{metric}"

    def first_divergence(self, stream: int, configuration: int) -> int | None:
        """Return the first epoch at which a member was not finite, or None."""
        if self.diverged_at is None or self.diverged_at[stream, configuration] < 0:
            return None
        return int(self.diverged_at[stream, configuration])

    def curves_frame(self, fits: Mapping[int, Stream], configuration: int) -> pl.DataFrame:
        """Lay the curves of some fits out in long form: repeat, fold, epoch, split, metric, value.

        Args:
            fits: Along the stream axis, which fits, and what each is.
            configuration: Their configuration.
        """
        parts = []
        for split, metric in self.curves:
            curve = self.curve(split, metric)[list(fits), configuration]
            count = curve.shape[1]
            epochs = self.measured[len(self.measured) - count :]
            columns = {
                "repeat": np.repeat([stream.repeat for stream in fits.values()], count),
                "fold": np.repeat([stream.fold for stream in fits.values()], count),
                "epoch": np.tile(epochs, len(fits)),
                "split": pl.repeat(split, curve.size, eager=True),
                "metric": pl.repeat(metric, curve.size, eager=True),
                "value": curve.ravel(),
            }
            parts.append(pl.DataFrame(columns).cast(CURVE_SCHEMA))
        return pl.concat(parts)

    def epoch_by_epoch(self) -> Iterator[History]:
        """Yield the history as it was at each measured epoch, from 0; without the validation losses."""
        for count in range(1, len(self.measured) + 1):
            # A curve that begins later is shorter.
            missing = len(self.measured) - count
            curves = {name: values[: max(0, len(values) - missing)] for name, values in self.curves.items()}
            yield History(curves, measured=self.measured[:count])

    @property
    def length(self) -> Length:
        """How much there is: what is there already never changes, but for where members have diverged."""
        curves = {name: len(values) for name, values in self.curves.items()}
        return Length(curves, len(self.val_losses), len(self.measured))

    def state(self, since: Length = NOTHING) -> dict[str, Any]:
        """Return what a checkpoint needs, of tensors and plain values.

        Args:
            since: Leave out what was there then.
        """
        curves = {name: values[since.curves.get(name, 0) :] for name, values in self.curves.items()}
        kept = self.val_losses[since.kept :]
        return {
            "curves": {
                f"{split}/{metric}": torch.stack(values) for (split, metric), values in curves.items() if values
            },
            # A tensor for each stream: what is saved costs by the tensor, and there are many epochs.
            "val_losses": [torch.stack(epochs) for epochs in zip(*kept, strict=True)],
            "diverged_at": self.diverged_at,
            "measured": self.measured[since.measured :],
        }

    def extend(self, state: dict[str, Any]) -> None:
        """Add what a checkpoint held, behind what is there."""
        for name, values in state["curves"].items():
            split, metric = name.split("/")
            self.curves.setdefault((split, metric), []).extend(values)
        streams = [values.unbind() for values in state["val_losses"]]
        self.val_losses.extend([list(epoch) for epoch in zip(*streams, strict=True)])
        self.diverged_at = state["diverged_at"]
        self.measured.extend(state["measured"])


Listener = Callable[[History], None]


def join(histories: Sequence[History]) -> History:
    """Join the histories of parts that have trained one after another: streams of the first part come first."""
    if len(histories) == 1:
        return histories[0]
    first = histories[0]
    return History(
        curves={
            name: [torch.cat(epoch) for epoch in zip(*(h.curves[name] for h in histories), strict=True)]
            for name in first.curves
        },
        val_losses=[
            [losses for part in epoch for losses in part]
            for epoch in zip(*(h.val_losses for h in histories), strict=True)
        ],
        diverged_at=torch.cat([h.diverged_at for h in histories if h.diverged_at is not None]),
        measured=first.measured,
    )
