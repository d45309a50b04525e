"""Checkpoints of a cohort: written atomically at the end of an epoch, read as plain tensors only."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from overfit_lab.files import replacing


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
        with replacing(self.path) as partial:
            trainer.save_checkpoint(partial)
        self._last = time.monotonic()


def resumable(path: Path) -> Path | None:
    """Return the checkpoint to go on from, or None where there is none.

    A file that is no checkpoint of tensors and plain values is never unpickled: it is named, set aside under another
    name, and the cohort is trained from scratch.
    """
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        # Not by logging, which Hydra switches off: a person must hear of it.
        line = f"overfit-lab: {path} cannot be read as a checkpoint: set aside as {aside.name}, training from scratch"
        print(line, file=sys.stderr)
        return None
    return path
