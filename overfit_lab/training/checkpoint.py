"""Checkpoints of a cohort: tensors and plain values, whole or not there, and read only if they are what was written.

A checkpoint may stand anywhere in an epoch, between two steps. It holds nothing of Lightning's: whoever goes on trains
the epochs that are left.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from overfit_lab.errors import first_line
from overfit_lab.files import write_atomically
from overfit_lab.training.module import CohortModule
from overfit_lab.training.supervision import Stopped, Supervision

SHARE = 0.018
"""Of the time, so much at most is spent on saving, however slow the disk is."""

_HEAD = b"overfit_lab checkpoint 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size


class CohortCheckpoint(Checkpoint):
    """Saves the cohort between two steps: when enough time has passed since the last time, and when it is to stop.

    As a `Checkpoint` it is called after the module's own hook: the epoch that has just ended is measured by then.

    Args:
        path: The one file that is written, each time replaced as a whole.
        seconds: Least time between two checkpoints; 0 saves after every chunk of steps, whatever that costs.
        supervision: Who may stop the training, and hears how far it is.
        before: Epochs that the cohort has trained in its earlier parts.
    """

    def __init__(self, path: Path, seconds: float, supervision: Supervision, before: int = 0) -> None:
        self.path, self.seconds = path, seconds
        self.supervision, self.before = supervision, before
        self._next = time.monotonic() + seconds

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Save within an epoch, if it is time; stop, if so told."""
        assert isinstance(pl_module, CohortModule)
        # Where the epoch is over, it is measured first.
        if not pl_module.epoch_is_over:
            self._after(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same after an epoch."""
        assert isinstance(pl_module, CohortModule)
        self._after(pl_module)

    def _after(self, module: CohortModule) -> None:
        self.supervision.reached(self.before + module.progress(module.data))
        stop = self.supervision.stop_requested
        if stop or time.monotonic() >= self._next:
            begun = time.monotonic()
            save(self.path, module.state())
            now = time.monotonic()
            self._next = now + (max(self.seconds, (now - begun) / SHARE) if self.seconds else 0)
        if stop:
            raise Stopped


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, as a whole or not at all.

    Args:
        path: Its name says whose it is, and is written into it.
        state: Tensors and plain values.
    """
    buffer = io.BytesIO()
    torch.save({"name": path.name, "state": state}, buffer)
    content = buffer.getbuffer()
    write_atomically(path, _HEAD, hashlib.sha256(content).digest(), content)


def load(path: Path, like: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state to go on from, or None where there is none.

    A file that is not what was written under this name is never trusted, nor unpickled: it is named, set aside under
    another name, and the cohort is trained from scratch.

    Args:
        path: The checkpoint.
        like: The state of the cohort before training; what is read must have the same form.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _read(content, path.name, like)
    except Exception as error:  # whatever torch makes of a strange file
        fault = first_line(error)
    aside = path.with_suffix(".damaged")
    path.replace(aside)
    # Not by logging, which Hydra switches off: a person must hear of it.
    what = f"{path} cannot be read as a checkpoint ({fault}): set aside as {aside.name}, training from scratch"
    print(f"overfit-lab: {what}", file=sys.stderr)
    return None


def _read(content: bytes, name: str, like: dict[str, Any]) -> dict[str, Any]:
    rest = memoryview(content)
    head, digest = bytes(rest[: len(_HEAD)]), bytes(rest[len(_HEAD) :][:_DIGEST_SIZE])
    rest = rest[len(_HEAD) + _DIGEST_SIZE :]
    if head != _HEAD:
        raise ValueError("it is none, or of another version")
    if hashlib.sha256(rest).digest() != digest:
        raise ValueError("it is truncated or was edited")
    try:
        found = torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds something else than tensors and plain values") from error
    if found["name"] != name:
        raise ValueError(f"it was written as {found['name']}")
    state: dict[str, Any] = found["state"]
    if _form(state["network"]) != _form(like["network"]) or state.keys() != like.keys():
        raise ValueError("it is of another network")
    return state


def _form(values: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in values.items()}
