"""Checkpoints of a cohort: written atomically at the end of an epoch, read as plain tensors only."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from overfit_lab.errors import UserError


class CohortCheckpoint(Checkpoint):
    """Saves the cohort when enough time has passed since the last time.

    As a `Checkpoint` it is called after the module's own hook: the epoch that has just ended is measured by then.

    Args:
        path: The one file that is written, each time replaced as a whole.
        seconds: Least time between two checkpoints.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, if it is time."""
        if time.monotonic() - self._last < self.seconds:
            return
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._last = time.monotonic()


def resumable(path: Path) -> Path | None:
    """Return the checkpoint to go on from, or None where there is none.

    Raises:
        UserError: There is one, but it is not a file of tensors and plain values. It is never unpickled.
    """
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint; remove it to train this run from scratch") from error
    return path
