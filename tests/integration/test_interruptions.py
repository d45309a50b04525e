"""Real processes, killed and interrupted: what is finished stays, and the same command goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from overfit_lab.records import RunFiles
from tests.integration.conftest import run_command, start

LONG = ("train", "training.epochs=120", "model.width=8", "model.dropout=0.1", "study.report=false")

# Networks that wait as long as there is a file `hold`: where it is empty all after 10 steps, else those of
# hidden size 5 from the start.
HOLDING = """
import time
from pathlib import Path
from torch import nn

class Holding(nn.Module):
    steps = 0

    def __init__(self, inputs, outputs, hidden):
        super().__init__()
        self.hidden = hidden
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Dropout(0.2), nn.Linear(hidden, outputs))

    def forward(self, x):
        # Two rows are no training yet, but a try whether the network can be stacked.
        if self.training and len(x) > 2:
            Holding.steps += 1
            while self.held():
                time.sleep(0.01)
        return self.layers(x)

    def held(self):
        try:
            return self.hidden == 5 if Path("hold").read_text() else Holding.steps > 10
        except FileNotFoundError:
            return False
"""
# 3 folds of 3 steps; each hidden size is a cohort of two runs.
SWEEP = (
    *("train", "-m", "model=custom", "model._target_=holding.Holding", "+model.hidden=3,5", "seed=0,1", "data=iris"),
    *("split.folds=3", "training.epochs=6", "training.checkpoint_seconds=0", "study.report=false"),
    "hydra.launcher.workers=2",
)


Launch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start commands; whatever happens, none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
        started.append(start(folder, *arguments))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def _folder(tmp_path: Path, name: str, hold: str | None) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "holding.py").write_text(HOLDING)
    if hold is not None:
        (folder / "hold").write_text(hold)
    return folder


def _runs(folder: Path) -> dict[str, RunFiles]:
    return {path.name: RunFiles(path) for path in sorted(folder.glob("studies/*/runs/*"))}


def _finished(folder: Path) -> list[RunFiles]:
    return [files for files in _runs(folder).values() if files.record.exists()]


def _processes(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and all that it has started, its workers among them."""
    leader = psutil.Process(process.pid)
    return [leader, *leader.children(recursive=True)]


def _wait_for_the_end_of(processes: list[psutil.Process]) -> None:
    def gone(process: psutil.Process) -> bool:
        try:
            # In a container without an init, what has ended and was adopted may stay as a zombie.
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    _wait_for(lambda: all(map(gone, processes)), f"the end of {processes}", seconds=10)


def _first_epochs(files: RunFiles) -> list[int]:
    """The first epoch that each event file shows, in the order in which they were written."""
    firsts = []
    for path in sorted(files.directory.glob("events.*")):
        events = LegacyEventFileLoader(str(path)).Load()
        firsts.append(min(e.step for e in events if any(v.tag == "loss/val" for v in e.summary.value)))
    return firsts


def _assert_identical(folder: Path, other: Path) -> None:
    ours, theirs = _runs(folder), _runs(other)
    assert list(ours) == list(theirs)
    for name, files in ours.items():
        assert files.record.exists()
        assert files.curves.read_bytes() == theirs[name].curves.read_bytes()
        assert files.val_losses.read_bytes() == theirs[name].val_losses.read_bytes()


def test_killed_with_9_and_resumed_is_bit_identical(launch: Launch, tmp_path: Path) -> None:
    """A single run, which no process of its own trains."""
    command = (*LONG, "training.checkpoint_seconds=0")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    process = launch(killed, *command)
    _wait_for(lambda: bool(list(killed.glob("studies/*/cohorts/*.ckpt"))), "a checkpoint")
    time.sleep(0.3)
    process.kill()
    process.communicate()
    (checkpoint,) = killed.glob("studies/*/cohorts/*.ckpt")
    assert not _finished(killed)

    resumed = run_command(killed, *command)
    assert (resumed.code, resumed.err) == (0, "")
    assert not checkpoint.exists()
    assert run_command(whole, *command).code == 0
    _assert_identical(killed, whole)
    (files,) = _runs(killed).values()
    assert _first_epochs(files)[-1] > 0


def test_a_sweep_that_is_killed_with_9_goes_on_in_the_same_cohorts(launch: Launch, tmp_path: Path) -> None:
    killed, whole = _folder(tmp_path, "killed", ""), _folder(tmp_path, "whole", None)
    process = launch(killed, *SWEEP)
    # Both cohorts have trained three epochs, and hold in the fourth.
    _wait_for(lambda: len(list(killed.glob("studies/*/cohorts/*.ckpt"))) == 2, "two checkpoints")
    time.sleep(1)
    everyone = _processes(process)
    assert len(everyone) >= 4
    process.kill()
    process.communicate()
    _wait_for_the_end_of(everyone)
    cohorts = sorted(killed.glob("studies/*/cohorts/*.json"))
    assert sorted(len(json.loads(path.read_text())["runs"]) for path in cohorts) == [2, 2]
    assert len(list(killed.glob("studies/*/cohorts/*.ckpt"))) == 2
    assert not _finished(killed)

    # Whether it is the same cohorts that go on is seen while they hold once more.
    written = [path.stat().st_mtime_ns for path in cohorts]
    again = launch(killed, *SWEEP)
    _wait_for(
        lambda: all(path.stat().st_mtime_ns > then for path, then in zip(cohorts, written, strict=True)),
        "both cohorts to be begun again",
    )
    assert sorted(killed.glob("studies/*/cohorts/*.json")) == cohorts
    (killed / "hold").unlink()
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, b"")
    assert out.count(b" s)") == 4
    assert not list(killed.glob("studies/*/cohorts/*"))

    assert run_command(whole, *SWEEP).code == 0
    _assert_identical(killed, whole)
    assert not list(whole.glob("studies/*/cohorts"))
    # The first time from the untrained networks, the second from where the checkpoint was.
    for files in _runs(killed).values():
        assert _first_epochs(files)[-1] == 4


@pytest.mark.parametrize("reaches", ["every process", "the leading process"])
def test_ctrl_c_in_a_sweep_keeps_what_is_finished(launch: Launch, tmp_path: Path, reaches: str) -> None:
    folder = _folder(tmp_path, "folder", "5")
    process = launch(folder, *SWEEP)
    _wait_for(lambda: len(_finished(folder)) == 2, "two finished runs")
    _wait_for(lambda: len(list(folder.glob("studies/*/cohorts/*.json"))) == 1, "one cohort at work")
    there = [path for files in _finished(folder) for path in files.directory.iterdir() if path.is_file()]
    before = {path: path.read_bytes() for path in there}
    everyone = _processes(process)
    time.sleep(0.5)
    if reaches == "every process":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = err.decode().splitlines()
    assert line == "overfit-lab: interrupted; what is finished is kept, and the same command goes on from there"
    _wait_for_the_end_of(everyone)
    assert len(_finished(folder)) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert not list(folder.glob("studies/*/runs/*/failure.json"))

    (folder / "hold").unlink()
    again = run_command(folder, *SWEEP)
    assert (again.code, again.err) == (0, "")
    assert ["finished before" in line for line in again.out.splitlines()] == [True, True, False, False]
    assert len(_finished(folder)) == 4
    assert {path: path.read_bytes() for path in before} == before
    assert not list(folder.glob("studies/*/cohorts"))


def test_ctrl_c_at_once(launch: Launch, tmp_path: Path) -> None:
    """While everything is still being imported, here and in the process that workers are to be forked from."""
    process = launch(tmp_path, "train", "-m", "model.width=4,8")
    _wait_for(lambda: any("forkserver" in " ".join(p.cmdline()) for p in _processes(process)), "the fork server")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
