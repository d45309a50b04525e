"""Real processes, killed and interrupted: what is finished stays, and the same command goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from overfit_lab.claim import Owner, is_alive, owners
from overfit_lab.records import SCHEMA_VERSION, CohortFiles, RunFiles, StudyFiles
from tests.integration.conftest import Holding, Launch, run_command
from tests.integration.holding import NETWORK

ONE = ("train", *NETWORK, "+model.hidden=3")
# Each hidden size is a cohort of two runs.
SWEEP = (
    *("train", "-m", *NETWORK[:-1], "+model.hidden=3,5", "seed=0,1", "training.epochs=6"),
    *("training.checkpoint_seconds=0", "hydra.launcher.workers=2"),
)


def _wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


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

    _wait_for(lambda: all(map(gone, processes)), f"the end of {processes}", seconds=120)


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


def test_killed_with_9_and_resumed_is_bit_identical(launch: Launch, holding: Holding) -> None:
    """A single run, which no process of its own trains."""
    command = (*ONE, "training.checkpoint_seconds=0")
    killed, whole = holding("killed", ""), holding("whole", None)
    process = launch(killed, *command)
    _wait_for(lambda: bool(list(killed.glob("studies/*/cohorts/*.ckpt"))), "a checkpoint")
    process.kill()
    process.communicate()
    (checkpoint,) = killed.glob("studies/*/cohorts/*.ckpt")
    assert not _finished(killed)

    (killed / "hold").unlink()
    resumed = run_command(killed, *command)
    assert (resumed.code, resumed.err) == (0, "")
    assert not checkpoint.exists()
    assert run_command(whole, *command).code == 0
    _assert_identical(killed, whole)
    (files,) = _runs(killed).values()
    assert _first_epochs(files)[-1] > 0


def test_a_sweep_that_is_killed_with_9_goes_on_in_the_same_cohorts(launch: Launch, holding: Holding) -> None:
    killed, whole = holding("killed", ""), holding("whole", None)
    process = launch(killed, *SWEEP)
    # Both cohorts have trained three epochs, and hold in the fourth.
    _wait_for(lambda: len(list(killed.glob("held-*"))) == 2, "both cohorts to hold")
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
def test_ctrl_c_in_a_sweep_keeps_what_is_finished(launch: Launch, holding: Holding, reaches: str) -> None:
    folder = holding("folder", "5")
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
    _, err = process.communicate(timeout=120)
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
    process = launch(tmp_path, "train", "-m", "model.width=4,8", "training.epochs=100000")
    _wait_for(lambda: any("forkserver" in " ".join(p.cmdline()) for p in _processes(process)), "the fork server")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert not _finished(tmp_path)
    assert not list(tmp_path.glob("studies/*/runs/*/failure.json"))


def _cohort_files(folder: Path) -> CohortFiles:
    (study,) = folder.glob("studies/*/study.json")
    return StudyFiles(study.parent).cohorts


def _training(folder: Path, least: float) -> list[Owner]:
    """Who trains and has got so far."""
    if not list(folder.glob("studies/*/study.json")):
        return []
    files = _cohort_files(folder)
    claims = [files.claim(path.stem) for path in sorted(files.directory.glob("*.json"))]
    # What is done in between has no owner any more.
    last = [owner for claim in claims if is_alive(claim) for owner in owners(claim)[-1:]]
    return [owner for owner in last if owner.epoch > least]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
@pytest.mark.parametrize("sweep", [(), ("-m",)], ids=["one run", "a sweep"])
def test_what_a_batch_system_sends_before_it_ends_a_job(
    launch: Launch, holding: Holding, number: signal.Signals, sweep: tuple[str, ...]
) -> None:
    """All is saved at the next step, and nothing is computed twice though no checkpoint was due."""
    folder, whole = holding("stopped", "slowly"), holding("whole", None)
    words = ("train", *sweep, *ONE[1:], "training.checkpoint_seconds=3600")
    process = launch(folder, *words)
    _wait_for(lambda: bool(_training(folder, least=3)), "training")
    everyone = _processes(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    (line,) = err.decode().splitlines()
    assert line == "overfit-lab: interrupted; what is finished is kept, and the same command goes on from there"
    _wait_for_the_end_of(everyone)
    assert len(list(folder.glob("studies/*/cohorts/*.ckpt"))) == 1
    (folder / "hold").unlink()
    again = run_command(folder, *words)
    assert (again.code, again.err) == (0, "")
    assert run_command(whole, *words).code == 0
    _assert_identical(folder, whole)
    (files,) = _finished(folder)
    record = files.load()
    assert record.interruptions == 1
    # What is noted may be a hundredth of a second old: far less than an epoch of this one.
    assert record.epochs_repeated < 1


def test_two_commands_on_one_study(launch: Launch, tmp_path: Path) -> None:
    """They share the work: each run is trained once, by one of them, and both end with all of it."""
    folder, whole = tmp_path / "shared", tmp_path / "whole"
    folder.mkdir()
    whole.mkdir()
    words = (
        *("train", "-m", "data=iris", "split.folds=3", "model.width=3,4,5,6", "training.epochs=600"),
        *("study.report=false", "hydra.launcher.workers=1", "hydra.launcher.max_fits=3"),
    )
    first = launch(folder, *words)
    _wait_for(lambda: bool(_training(folder, least=0) or _finished(folder)), "training")
    second = launch(folder, *words)
    said = [process.communicate(timeout=240) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    for out, _ in said:
        assert len(out.splitlines()) == 4
    assert len(_finished(folder)) == 4
    for files in _finished(folder):
        # One event file: it was trained by one of them.
        assert len(list(files.directory.glob("events.*"))) == 1
        assert files.load().interruptions == 0
    assert not list(folder.glob("studies/*/cohorts"))
    assert run_command(whole, *words).code == 0
    _assert_identical(folder, whole)


def test_a_command_goes_on_with_what_another_one_was_training(launch: Launch, holding: Holding) -> None:
    """It waits for it, says so, and takes it over when the other one is killed."""
    folder, words = holding("folder", ""), (*ONE, "training.checkpoint_seconds=0")
    first = launch(folder, *words)
    _wait_for((folder / "held-3").exists, "training")
    second = launch(folder, *words)
    assert second.stderr is not None
    line, who = second.stderr.readline().decode(), _training(folder, least=-1)[0].place
    assert line == f"overfit-lab: 1 run is being trained by another command ({who}); waiting for it\n"
    first.kill()
    first.communicate()
    (folder / "hold").unlink()
    second.communicate(timeout=240)
    assert second.returncode == 0
    (files,) = _finished(folder)
    assert files.load().interruptions == 1


@pytest.mark.parametrize(
    "damage", ["truncated record", "edited record", "edited curves", "no losses", "foreign record"]
)
def test_what_is_damaged_of_a_finished_run_is_computed_again(tmp_path: Path, damage: str) -> None:
    """It is named, set aside, and never trusted; the report that is made before does not trust it, either."""
    words = (
        *("train", "-m", "data=iris", "split.folds=3", "model.width=3,4", "training.epochs=3"),
        *("study.report=false", "hydra/launcher=basic"),
    )
    assert run_command(tmp_path, *words).code == 0
    first, second = _finished(tmp_path)
    before = first.curves.read_bytes(), first.val_losses.read_bytes()
    path = first.record
    if damage == "truncated record":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "edited record":
        path.write_text(path.read_text().replace('"parameters": ', '"parameters": 1'))
    elif damage == "foreign record":
        path.write_bytes(second.record.read_bytes())
    elif damage == "edited curves":
        path = first.curves
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path = first.val_losses
        path.unlink()
    study = str(first.directory.parent.parent)
    shown = run_command(tmp_path, "report", study)
    assert shown.code == 0
    assert f"{first.directory.name}" in shown.out
    again = run_command(tmp_path, *words)
    assert again.code == 0
    (line,) = again.err.splitlines()
    assert line.startswith(f"overfit-lab: {path.relative_to(tmp_path)} is ")
    assert "damaged" in line
    assert line.endswith("set aside as *.damaged, training it again")
    assert (first.curves.read_bytes(), first.val_losses.read_bytes()) == before
    first.verify()
    assert {p.name for p in first.directory.glob("*.damaged")} >= {"run.json.damaged"}
    assert again.out.count("finished before") == 1


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    words = ("train", "data=iris", "split.folds=3", "model.width=3", "training.epochs=2", "study.report=false")
    assert run_command(tmp_path, *words).code == 0
    (files,) = _finished(tmp_path)
    newer = files.record.read_text().replace(
        f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'
    )
    files.record.write_text(newer)
    again = run_command(tmp_path, *words)
    assert (again.code, again.out) == (2, "")
    assert (
        f"has schema version {SCHEMA_VERSION + 1}; this overfit_lab reads up to {SCHEMA_VERSION}: upgrade it"
        in again.err
    )
    assert files.record.read_text() == newer


def test_processes_that_go_on_when_the_command_ends(launch: Launch, holding: Holding) -> None:
    """`cohort_local`: the launcher is killed, and its processes train all the same; what dies goes on once."""
    folder, whole = holding("folder", ""), holding("whole", None)
    sweep = (*(word for word in SWEEP if not word.startswith("+model.hidden")), "+model.hidden=3,4,5")
    words = (*sweep, "hydra/launcher=cohort_local", "hydra.launcher.max_fits=6")
    process = launch(folder, *words)
    _wait_for(lambda: len(list(folder.glob("studies/*/cohorts/*.ckpt"))) == 2, "two checkpoints")
    process.kill()
    process.communicate()
    shown = run_command(folder, "status", "studies/iris-kfold").out
    assert "4 running, 2 waiting, 0 failed, 0 lost" in shown
    # A task that is killed is missed by nobody now, until the same command is given again: it goes on with it, and
    # does not take a process for dead that takes long to begin.
    victim = _training(folder, least=-1)[0]
    os.kill(victim.process, signal.SIGKILL)
    (folder / "slow").touch()
    again = launch(folder, *words)
    _wait_for(lambda: len(_finished(folder)) == 2, "the runs of the task that was killed")
    (folder / "hold").unlink()
    _, err = again.communicate(timeout=120)
    assert (again.returncode, err.decode()) == (0, "")
    assert len(_finished(folder)) == 6
    assert sorted(files.load().interruptions for files in _finished(folder)) == [0, 0, 0, 0, 1, 1]
    assert run_command(whole, *sweep).code == 0
    _assert_identical(folder, whole)
    logs = list(folder.glob("studies/*/tasks/local-*.log"))
    assert len(logs) >= 3
    assert any("6 fits" in log.read_text() for log in logs)


def test_a_full_disk(tmp_path: Path) -> None:
    """A really full one: the command ends with a line, and when there is room again it goes on."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        words = (
            "train",
            "-m",
            "model.width=8,16",
            "training.epochs=60",
            "study.report=false",
            "training.checkpoint_seconds=0",
        )
        (disk / "ballast").write_bytes(bytes(2_000_000 - 150_000))
        full = run_command(disk, *words)
        assert full.code == 2
        (line,) = full.err.splitlines()
        assert line.startswith("overfit-lab: ")
        assert line.endswith("No space left on device")
        assert not list(disk.glob("studies/*/runs/*/run.json"))
        (disk / "ballast").unlink()
        again = run_command(disk, *words)
        assert (again.code, again.err) == (0, "")
        whole = tmp_path / "whole"
        whole.mkdir()
        assert run_command(whole, *words).code == 0
        _assert_identical(disk, whole)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_a_command_leaves_behind_is_in_hands_when_it_ends(tmp_path: Path) -> None:
    """`wait=false`: from the moment that it returns, others see that its runs are going to be trained, and join."""
    words = ("train", "-m", "data=iris", "split.folds=3", "training.epochs=300", "study.report=false")
    local = ("hydra/launcher=cohort_local", "hydra.launcher.max_fits=6", "hydra.launcher.workers=1")
    left = run_command(tmp_path, *words, *local, "model.width=3,4", "hydra.launcher.wait=false")
    assert left.code == 0, left.err
    files = _cohort_files(tmp_path)
    assert all(files.is_in_hands(name, record) for name, record in files.load_all().items())
    # One of its two runs, and one more: the first two stay together.
    joined = run_command(tmp_path, *words, *local, "model.width=4,5")
    assert (joined.code, joined.err) == (0, "")
    _wait_for(lambda: len(_finished(tmp_path)) == 3, "all three runs")
