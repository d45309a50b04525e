"""Checkpoints of a cohort: tensors and plain values, whole or not there, and read only if they are what was written.

A checkpoint may stand anywhere in an epoch, between two steps. It holds nothing of Lightning's: whoever goes on trains
the epochs that are left.

What training changes, weights and the optimizer's state, is written anew each time. The history only grows, and in a
long training outgrows all else: it is appended to, in a file beside the checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from overfit_lab.errors import first_line
from overfit_lab.files import write_atomically
from overfit_lab.training.history import NOTHING
from overfit_lab.training.module import CohortModule
from overfit_lab.training.supervision import Stopped, Supervision

SHARE = 0.018
"""Of the time, so much at most is spent on saving, however slow the disk is."""

_HEAD = b"overfit_lab checkpoint 2\n"
_DIGEST_SIZE = hashlib.sha256().digest_size
_COUNT_SIZE = 8


class CohortCheckpoint(Checkpoint):
    """Saves the cohort between two steps: when enough time has passed since the last time, and when it is to stop.

    As a `Checkpoint` it is called after the module's own hook: the epoch that has just ended is measured by then.

    Args:
        file: Where.
        seconds: Least time between two checkpoints; 0 saves after every chunk of steps, whatever that costs.
        supervision: Who may stop the training, and hears how far it is.
        before: Epochs that the cohort has trained in its earlier parts.
    """

    def __init__(self, file: CheckpointFile, seconds: float, supervision: Supervision, before: int = 0) -> None:
        self.file, self.seconds = file, seconds
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
            # Whoever has been asleep, and was taken for dead, must not save over what others have gone on with.
            self.supervision.check()
            begun = time.monotonic()
            self.file.save(module)
            now = time.monotonic()
            self._next = now + (max(self.seconds, (now - begun) / SHARE) if self.seconds else 0)
        if stop:
            raise Stopped


class Piece(NamedTuple):
    """What belongs to a checkpoint of a file that holds a part of the history.

    Args:
        file: Its name; it lies beside the checkpoint.
        size: Bytes from its beginning; what stands behind them belongs to no checkpoint.
        digest: SHA-256 of these.
    """

    file: str
    size: int
    digest: str


class CheckpointFile:
    """The checkpoint of one part of a cohort, and the pieces of its history beside it.

    Each process that trains the cohort appends to a piece of its own, `NAME.TOKEN.history`, which nobody else writes
    to. The checkpoint says how much of each piece belongs to it: where a process is killed between the two, or was
    thought dead and goes on writing, what it has appended is not read.

    Args:
        path: The checkpoint. Its name says whose it is, and is written into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._earlier: tuple[Piece, ...] = ()
        self._own = path.with_suffix(f".{secrets.token_hex(4)}.history")
        self._size, self._digest = 0, hashlib.sha256()
        self._saved = NOTHING

    def save(self, module: CohortModule) -> None:
        """Write a checkpoint, as a whole or not at all."""
        content = _content(module.history.state(self._saved))
        size, digest = self._append(len(content).to_bytes(_COUNT_SIZE), content)
        pieces = [*self._earlier, Piece(self._own.name, size, digest.hexdigest())]
        whole = _content({"name": self.path.name, "state": module.state(), "history": [tuple(p) for p in pieces]})
        write_atomically(self.path, _HEAD, hashlib.sha256(whole).digest(), whole)
        self._size, self._digest, self._saved = size, digest, module.history.length

    def _append(self, *parts: bytes | memoryview) -> tuple[int, hashlib._Hash]:
        """Write behind what belongs to the last checkpoint; return size and digest of the piece with it."""
        digest = self._digest.copy()
        with self._own.open("r+b" if self._size else "wb") as file:
            file.seek(self._size)
            for part in parts:
                file.write(part)
                digest.update(part)
            size = file.tell()
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return size, digest

    def load(self, module: CohortModule) -> None:
        """Let a module go on from the checkpoint, where there is one.

        A file that is not what was written under this name is never trusted, nor unpickled: it is named, set aside
        under another name, and the cohort is trained from scratch.

        Args:
            module: As it is before training; what is read must have the same form.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        try:
            state, pieces = _read(content, self.path.name, module.state())
            parts = [part for piece in pieces for part in _read_piece(self.path.parent, piece)]
        except Exception as error:  # whatever torch makes of a strange file
            fault = first_line(error)
        else:
            module.resume(state)
            for part in parts:
                module.history.extend(part)
            self._earlier, self._saved = pieces, module.history.length
            return
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        # Not by logging, which Hydra switches off: a person must hear of it.
        what = f"{self.path} cannot be read as a checkpoint ({fault}): set aside as {aside.name}, training from scratch"
        print(f"overfit-lab: {what}", file=sys.stderr)


def _content(value: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getbuffer()


def _read(content: bytes, name: str, like: dict[str, Any]) -> tuple[dict[str, Any], tuple[Piece, ...]]:
    rest = memoryview(content)
    head, digest = bytes(rest[: len(_HEAD)]), bytes(rest[len(_HEAD) :][:_DIGEST_SIZE])
    rest = rest[len(_HEAD) + _DIGEST_SIZE :]
    if head != _HEAD:
        raise ValueError("it is none, or of another version")
    if hashlib.sha256(rest).digest() != digest:
        raise ValueError("it is truncated or was edited")
    found = _values(rest)
    if found["name"] != name:
        raise ValueError(f"it was written as {found['name']}")
    state: dict[str, Any] = found["state"]
    if _form(state["network"]) != _form(like["network"]) or state.keys() != like.keys():
        raise ValueError("it is of another network")
    return state, tuple(Piece(*piece) for piece in found["history"])


def _read_piece(folder: Path, piece: Piece) -> Iterator[dict[str, Any]]:
    """Read the parts of the history that one process has appended."""
    if Path(piece.file).name != piece.file:
        raise ValueError(f"its history {piece.file} does not lie beside it")
    rest = memoryview((folder / piece.file).read_bytes())[: piece.size]
    if hashlib.sha256(rest).hexdigest() != piece.digest:
        raise ValueError(f"its history {piece.file} is truncated or was edited")
    while rest:
        size = int.from_bytes(rest[:_COUNT_SIZE])
        yield _values(rest[_COUNT_SIZE:][:size])
        rest = rest[_COUNT_SIZE + size :]


def _values(content: memoryview) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds something else than tensors and plain values") from error
    return found


def _form(values: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in values.items()}
