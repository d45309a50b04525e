"""A cohort goes on from its checkpoint as if nothing had happened, and never unpickles what it finds."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab.data import load_source
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


def _is_set_aside(path: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Train with a damaged file in place of the checkpoint: as from scratch, and the file is named and kept."""
    damaged = path.read_bytes()
    found = _cohort().train(path).curve("val", "loss")
    assert np.array_equal(found, _cohort().train(path.with_name("fresh.ckpt")).curve("val", "loss"))
    assert (
        f"{path} cannot be read as a checkpoint: set aside as c.damaged, training from scratch"
        in capsys.readouterr().err
    )
    return path.with_suffix(".damaged").read_bytes() == damaged


def test_a_checkpoint_that_is_no_checkpoint_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.ckpt"
    path.write_bytes(pickle.dumps(_Payload()))
    assert _is_set_aside(path, capsys)
    torch.save({"state_dict": _Payload()}, path)
    assert _is_set_aside(path, capsys)
    assert not Path("owned").exists()


def test_a_truncated_checkpoint_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.ckpt"
    with pytest.raises(Interruption):
        _interrupt_at(3).train(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert _is_set_aside(path, capsys)


def test_a_clusters_environment_and_checkpoints_of_lightnings_own_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = _cohort(epochs=2).train(tmp_path / "a.ckpt").curve("val", "loss")
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "job")
    torch.save({"foreign": 1}, tmp_path / "hpc_ckpt_1.ckpt")
    (tmp_path / "run").mkdir()
    assert np.array_equal(alone, _cohort(epochs=2).train(tmp_path / "run" / "a.ckpt").curve("val", "loss"))
