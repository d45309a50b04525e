"""The development rows of a split as tensors, fold by fold, and the batches that a cohort trains on.

The DataModule is built from `DevelopmentRows`, which holds no test row: there is no way through it to the test set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from overfit_lab.data.batches import Batch, BatchLoader
from overfit_lab.data.development import DevelopmentFold, DevelopmentRows, LabelledRows, Stream
from overfit_lab.data.inputs import Inputs, is_sparse
from overfit_lab.data.preparation import Steps, fit_inputs
from overfit_lab.data.scaling import Scaling, fit_scaling, no_scaling
from overfit_lab.data.sparse_rows import SparseRows, StackedInputs
from overfit_lab.data.split import Rows
from overfit_lab.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class StackedRows:
    """The same part of several folds, stacked; shorter ones are padded at the end with copies of their first row.

    Args:
        x: `folds x rows x features`, prepared and scaled; sparse where the source is.
        y: `folds x rows [x targets]`, scaled where the config says so.
        sizes: `folds`, how many rows are real.
        clean: As `y`, with the right labels where some of it were made wrong; None where none were.
    """

    x: StackedInputs
    y: Tensor
    sizes: tuple[int, ...]
    clean: Tensor | None = None

    def to(self, device: torch.device) -> StackedRows:
        """Move the tensors to a device."""
        clean = None if self.clean is None else self.clean.to(device)
        return StackedRows(self.x.to(device), self.y.to(device), self.sizes, clean)


class CohortDataModule(L.LightningDataModule):
    """Batches and measured rows for the streams of a cohort.

    A batch is a slice of tensors that are in memory (and on the device) already; no row is collated on its own. Sparse
    rows are cut on the CPU.

    Args:
        development: The rows, without the test rows.
        streams: Which (seed, repeat, fold) to train on; either all of their folds have validation rows or none has.
        batch_size: Rows for one optimizer step, at most.
        max_train_rows_measured: More train rows than this are measured on a subset.
        scale_inputs: Whether inputs get mean 0 and deviation 1 on the train rows of each fold.
        scale_targets: The same for real targets.
        dtype: Floating-point type of inputs and real targets.
    """

    def __init__(
        self,
        development: DevelopmentRows,
        streams: Sequence[Stream],
        *,
        batch_size: int,
        max_train_rows_measured: int,
        scale_inputs: bool,
        scale_targets: bool,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.streams = tuple(streams)
        number = {(f.repeat, f.fold): f for f in development.folds}
        names = list(dict.fromkeys((s.repeat, s.fold) for s in streams))
        self.folds = [number[name] for name in names]
        # For every stream, which of the folds it trains on.
        self.fold_of_stream = [names.index((s.repeat, s.fold)) for s in streams]
        # From the whole split, not from these folds: steps and batch sizes must not depend on the company. Where a
        # batch holds a single row, the shorter folds of a split set the number of steps.
        train_sizes = [len(f.train) for f in development.folds]
        self.steps = min(math.ceil(max(train_sizes) / batch_size), min(train_sizes))
        self.widest_batch = math.ceil(max(train_sizes) / self.steps)

        self._fitted = [_fit(development, f, scale_inputs, scale_targets) for f in self.folds]
        self.target_scalings = [fitted.targets for fitted in self._fitted]
        self._dtype = dtype
        # Once for each fold: to prepare may cost more than to train.
        whole, clean = self._apply(development), self._clean(development)
        measured = [_measured_rows(development, f, max_train_rows_measured) for f in self.folds]
        self.train = _stack(whole, [f.train for f in self.folds], clean)
        # A final training holds nothing back.
        validated = any(len(f.val) for f in self.folds)
        self.val = _stack(whole, [f.val for f in self.folds], clean) if validated else None
        all_measured = all(len(rows) == len(f.train) for rows, f in zip(measured, self.folds, strict=True))
        self.train_measured = self.train if all_measured else _stack(whole, measured, clean)
        self._resumed_at = 0, 0

    def resume(self, epoch: int, step: int) -> None:
        """Go on in the middle: the batches begin with a step of an epoch, both from 0."""
        self._resumed_at = epoch, step

    def setup(self, stage: str) -> None:
        """Move the rows to the device that the Trainer runs on, once."""
        if self.trainer is None:
            return
        self._move(self.trainer.strategy.root_device)

    def teardown(self, stage: str) -> None:
        """Move the rows back to the CPU, as Lightning does with the module: other cohorts may follow."""
        self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        whole = self.train_measured is self.train
        self.train, self.val = self.train.to(device), None if self.val is None else self.val.to(device)
        self.train_measured = self.train if whole else self.train_measured.to(device)

    def transfer_batch_to_device(self, batch: list[Batch], device: torch.device, dataloader_idx: int) -> list[Batch]:
        """Return the batch: it is cut from rows that are on the device already."""
        return batch

    def prepare(self, rows: LabelledRows) -> StackedRows:
        """Prepare rows from elsewhere, all of them, as those of each fold were: nothing is fitted on them."""
        return _stack(self._apply(rows), [np.arange(len(rows.y))] * len(self.folds))

    def _apply(self, rows: LabelledRows) -> list[tuple[Inputs, Tensor]]:
        """Prepare rows, for each fold by what was fitted on its train rows: inputs of NumPy or SciPy, and targets."""
        # Class indices are neither scaled nor of a floating-point type.
        indices = rows.problem == "multiclass"
        dtype = np.float64 if self._dtype == torch.float64 else np.float32
        # What is too large for the type becomes infinite, and the fit diverges.
        with np.errstate(over="ignore"):
            return [
                (
                    fitted.inputs.apply(rows.x).astype(dtype, copy=False),
                    torch.from_numpy(rows.y)
                    if indices
                    else torch.from_numpy(fitted.targets.apply(rows.y)).to(self._dtype),
                )
                for fitted in self._fitted
            ]

    def _clean(self, rows: DevelopmentRows) -> Tensor | None:
        """Make a tensor of the right labels, which are never scaled."""
        if rows.clean is None:
            return None
        return torch.from_numpy(rows.clean).to(torch.int64 if rows.problem == "multiclass" else self._dtype)

    def train_dataloader(self) -> BatchLoader:
        """Return the batches of an epoch, shuffled anew in each, in chunks of several steps."""
        return BatchLoader(
            self.train.x,
            self.train.y,
            sizes=[self.train.sizes[f] for f in self.fold_of_stream],
            folds=self.fold_of_stream,
            names=self.streams,
            steps=self.steps,
            begin=self._resumed_at,
        )


class _Fitted(NamedTuple):
    """What was fitted on the train rows of a fold."""

    inputs: Steps
    targets: Scaling


def _fit(rows: DevelopmentRows, fold: DevelopmentFold, inputs: bool, targets: bool) -> _Fitted:
    y = rows.y[fold.train].reshape(len(fold.train), -1)
    return _Fitted(
        fit_inputs(rows.x[fold.train], rows.preparation, scale=inputs),
        fit_scaling(y) if targets else no_scaling(y.shape[1]),
    )


def _measured_rows(rows: DevelopmentRows, fold: DevelopmentFold, limit: int) -> Rows:
    """Train rows on which the train curve is measured: all, or where they are many a fixed subset.

    It is as large as the validation set, or where there is none, as the limit.
    """
    count = len(fold.val) or limit
    if len(fold.train) <= max(limit, count):
        return fold.train
    labels = rows.y[fold.train].reshape(-1) if rows.problem in ("binary", "multiclass") else None
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        if counts.min() < 2 or len(counts) > min(count, len(fold.train) - count):
            labels = None  # not every class can be on both sides
    seed = derive_seed("measured", fold.repeat, fold.fold, bits=32)
    subset, _ = train_test_split(fold.train, train_size=count, random_state=seed, stratify=labels)
    return np.sort(subset)


def _stack(whole: Sequence[tuple[Inputs, Tensor]], parts: Sequence[Rows], clean: Tensor | None = None) -> StackedRows:
    """Stack a part of each fold's rows."""
    longest = max(len(part) for part in parts)
    padded = [np.concatenate([part, np.repeat(part[:1], longest - len(part))]) for part in parts]
    xs, ys = zip(*((x[own], y[torch.from_numpy(own)]) for (x, y), own in zip(whole, padded, strict=True)), strict=True)
    x = SparseRows(xs) if is_sparse(xs[0]) else torch.stack([torch.from_numpy(own) for own in xs])
    right = None if clean is None else torch.stack([clean[torch.from_numpy(own)] for own in padded])
    return StackedRows(x, torch.stack(ys), tuple(len(part) for part in parts), right)
