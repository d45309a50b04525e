"""A cohort goes on from its checkpoint as if nothing had happened, and never unpickles what it finds."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab.data import load_source
from overfit_lab.errors import UserError
from overfit_lab.training import History
from tests.training.cohorts import Cohort, make_cohort


class Interruption(Exception):
    """Stands for whatever ends a process in the middle of its training."""


def _cohort(epochs: int = 8) -> Cohort:
    return make_cohort(load_source("wine"), dropout=0.3, epochs=epochs, checkpoint_seconds=0, precision="32-true")


def _interrupt_at(epoch: int) -> Cohort:
    cohort = _cohort()

    def interrupt(history: History) -> None:
        if history.epochs == epoch:
            raise Interruption

    cohort.module.listeners = (interrupt,)
    return cohort


@pytest.mark.parametrize("epoch", [1, 2, 8])
def test_a_resumed_cohort_is_bit_identical(epoch: int, tmp_path: Path) -> None:
    """Interrupted while an epoch is measured: the checkpoint of the epoch before is the last one."""
    undisturbed = _cohort().train(tmp_path / "a.ckpt")
    path = tmp_path / "b.ckpt"
    with pytest.raises(Interruption):
        _interrupt_at(epoch).train(path)
    assert path.exists() == (epoch > 1)

    seen: list[int] = []
    resumed_cohort = _cohort()
    resumed_cohort.module.listeners = (lambda history: seen.append(history.epochs),)
    resumed = resumed_cohort.train(path)
    assert seen == list(range(epoch, 9)) if epoch > 1 else list(range(9))
    assert undisturbed.curves.keys() == resumed.curves.keys()
    for split, metric in undisturbed.curves:
        assert np.array_equal(undisturbed.curve(split, metric), resumed.curve(split, metric)), (split, metric)
    for ours, theirs in zip(undisturbed.val_losses, resumed.val_losses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_finished_cohort_leaves_no_checkpoint(tmp_path: Path) -> None:
    _cohort(epochs=2).train(tmp_path / "c.ckpt")
    assert list(tmp_path.iterdir()) == []


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_checkpoint_that_is_no_checkpoint_is_named_and_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.ckpt"
    path.write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(UserError, match=r"c\.ckpt cannot be read as a checkpoint"):
        _cohort().train(path)
    torch.save({"state_dict": _Payload()}, path)
    with pytest.raises(UserError, match=r"c\.ckpt cannot be read as a checkpoint"):
        _cohort().train(path)
    assert not Path("owned").exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.ckpt"
    with pytest.raises(Interruption):
        _interrupt_at(3).train(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="remove it to train this run from scratch"):
        _cohort().train(path)
