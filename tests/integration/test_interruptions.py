"""Real processes, killed and interrupted: what is finished stays, and the same command goes on from there."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.integration.conftest import run_command, start

LONG = ("train", "training.epochs=120", "model.width=8", "model.dropout=0.1", "study.report=false")


def _wait_for(folder: Path, pattern: str, *, seconds: float = 120) -> Path:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path in folder.glob(pattern):
            return path
        time.sleep(0.02)
    raise TimeoutError(f"no {pattern} appeared in {folder}")


def test_killed_with_9_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    command = (*LONG, "training.checkpoint_seconds=0")
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    process = start(tmp_path / "killed", *command)
    checkpoint = _wait_for(tmp_path / "killed", "studies/*/cohorts/*.ckpt")
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.exists()
    assert not list((tmp_path / "killed").glob("studies/*/runs/*/run.json"))

    resumed = run_command(tmp_path / "killed", *command)
    assert (resumed.code, resumed.err) == (0, "")
    assert not checkpoint.exists()
    assert run_command(tmp_path / "whole", *command).code == 0
    for name in ("curves.parquet", "val_losses.npz"):
        (ours,) = (tmp_path / "killed").glob(f"studies/*/runs/*/{name}")
        (theirs,) = (tmp_path / "whole").glob(f"studies/*/runs/*/{name}")
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_ctrl_c_in_a_sweep_keeps_what_is_finished(tmp_path: Path) -> None:
    sweep = ("train", "-m", "model.width=4,8", "study.report=false", "training.epochs=2,3000")
    process = start(tmp_path, *sweep)
    finished = _wait_for(tmp_path, "studies/*/runs/*/run.json")
    before = finished.read_bytes()
    # Only then is the second one, which would take minutes, under way.
    _wait_for(tmp_path, "studies/*/runs/*/events*")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().splitlines()[-1].startswith("overfit-lab: interrupted; what is finished is kept")
    assert "Traceback" not in err.decode()
    assert finished.read_bytes() == before
    assert len(list(tmp_path.glob("studies/*/runs/*/run.json"))) == 1
