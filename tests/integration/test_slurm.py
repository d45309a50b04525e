"""Sweeps on a real Slurm: arrays, preemption, time that is over, refusals, tasks that die."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overfit_lab.claim import is_alive, owners
from overfit_lab.cohort import cohort_of
from overfit_lab.launch.settings import SlurmSettings
from overfit_lab.launch.slurm import SlurmPlace, largest_array, queued
from overfit_lab.records import RunFiles, StudyFiles
from overfit_lab.study import load_study
from tests.integration.conftest import Holding, Launch, Result, run_command
from tests.integration.holding import NETWORK
from tests.integration.slurm import ROOT, private_slurm, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

SLURM = (
    *("hydra/launcher=cohort_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"),
    "hydra.launcher.array_parallelism=2",
)
SWEEP = (
    *("train", "-m", "data=iris", "split.folds=3", "model.depth=1", "study.name=s", "study.report=false"),
    *("trainer.accelerator=cpu", "model.dropout=0.1"),
)
HELD = ("train", "-m", *NETWORK, "study.name=s", "trainer.accelerator=cpu")


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Start a Slurm for all tests of this process."""
    with private_slurm() as environment:
        yield environment


@pytest.fixture
def slurm(cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Give Slurm's commands; afterwards nothing is in the queue."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Tables are read line by line.
    monkeypatch.setenv("COLUMNS", "200")

    def give(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    yield give
    give("scancel", "--user=root")
    wait_for(lambda: not give("squeue", "--noheader"), "an empty queue")


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def study_in(folder: Path) -> StudyFiles:
    return StudyFiles(folder / "studies" / "s")


def finished(folder: Path) -> list[RunFiles]:
    return [RunFiles(path.parent) for path in sorted(study_in(folder).runs.glob("*/run.json"))]


def cohort_names(folder: Path) -> list[str]:
    return [path.stem for path in sorted(study_in(folder).cohorts.directory.glob("*.json"))]


def training(folder: Path, least: float = 0.0) -> list[str]:
    """The cohorts that train and have got so far."""
    files = study_in(folder).cohorts
    alive = [name for name in cohort_names(folder) if is_alive(files.claim(name))]
    # What is done in between has no owner any more.
    last = [(name, owner) for name in alive for owner in owners(files.claim(name))[-1:]]
    return [name for name, owner in last if owner.horizon and owner.epoch > least]


def states(slurm: Callable[..., str]) -> dict[str, str]:
    return dict(line.split("|") for line in slurm("squeue", "--noheader", "--array", "--format=%i|%T").splitlines())


def wait_until_queued_again(slurm: Callable[..., str], job: str) -> None:
    wait_for(lambda: states(slurm).get(job) == "PENDING", f"{job} to be queued again")
    # Slurm needs a little of the two minutes that it has it wait: else it gets the blame for its first end.
    time.sleep(3)


def released(slurm: Callable[..., str]) -> bool:
    """What was queued again would wait for two minutes: let it start now."""
    for job, state in states(slurm).items():
        if state == "PENDING":
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)
    return True


def final_state(slurm: Callable[..., str], job: str) -> dict[str, str]:
    shown = slurm("scontrol", "--oneliner", "show", "job", job)
    return {key: value for key, _, value in (word.partition("=") for word in shown.split())}


def assert_identical(folder: Path, other: Path) -> None:
    ours, theirs = ({run.directory.name: run for run in finished(one)} for one in (folder, other))
    assert list(ours) == list(theirs)
    assert ours
    for name, run in ours.items():
        assert run.curves.read_bytes() == theirs[name].curves.read_bytes()
        assert run.val_losses.read_bytes() == theirs[name].val_losses.read_bytes()
        run.verify()


def folders(tmp_path: Path) -> tuple[Path, Path]:
    pair = tmp_path / "slurm", tmp_path / "here"
    for folder in pair:
        folder.mkdir()
    return pair


def undisturbed(folder: Path, *words: str) -> None:
    """The same sweep in processes of the command, in cohorts that are cut alike."""
    assert run_command(folder, *words).code == 0


def test_an_array_longer_than_the_cluster_takes(slurm: Callable[..., str], tmp_path: Path) -> None:
    """Eight cohorts of one run, where an array has six tasks at most; each task is told of one cohort."""
    remote, here = folders(tmp_path)
    assert largest_array() == 6
    words = ("model.width=3,4,5,6", "seed=0,1", "training.epochs=3", "hydra.launcher.max_fits=3")
    result = run_command(remote, *SWEEP, *words, *SLURM)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 8
    assert all(re.search(r" s\)$", line) for line in result.out.splitlines())
    undisturbed(here, *SWEEP, *words)
    assert_identical(remote, here)
    assert not study_in(remote).cohorts.directory.exists()
    tasks = [path.name for path in study_in(remote).tasks.glob("[0-9]*_*") if path.is_dir()]
    assert len(tasks) == 8
    assert sorted(len([t for t in tasks if t.startswith(f"{a}_")]) for a in {t.partition("_")[0] for t in tasks}) == [
        2,
        6,
    ]
    assert all(final_state(slurm, task)["JobState"] == "COMPLETED" for task in tasks)
    # Nothing of it is Slurm's alone: the records say what was trained, and by which command.
    records = [run.load() for run in finished(remote)]
    assert all("hydra/launcher=cohort_slurm" in record.environment.command for record in records)
    assert {record.config["model"]["width"] for record in records} == {3, 4, 5, 6}


def test_submitted_and_left_alone(slurm: Callable[..., str], tmp_path: Path) -> None:
    """wait=false: the command returns; status and report work meanwhile."""
    words = (*SWEEP, "model.width=3,4", "training.epochs=100000", "hydra.launcher.max_fits=3", *SLURM)
    result = run_command(tmp_path, *words, "hydra.launcher.wait=false")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.partition(": ")[2] for line in lines[:2]] == ["submitted", "submitted"]
    assert lines[2] == "watch: overfit-lab status studies/s --watch; results so far: overfit-lab report studies/s"
    jobs = set(states(slurm))
    assert len(jobs) == 2
    # The same again submits nothing more, as the tasks are in the queue.
    assert run_command(tmp_path, *words, "hydra.launcher.wait=false").code == 0
    assert set(states(slurm)) == jobs
    wait_for(lambda: len(training(tmp_path)) == 2, "both tasks")
    shown = run_command(tmp_path, "status", "studies/s").out
    assert "2 runs: 0 finished, 2 running, 0 waiting, 0 failed, 0 lost" in shown
    rows = [line for line in shown.splitlines() if "running" in line and "of 100000" in line]
    assert {job for job in jobs for row in rows if job in row} == jobs
    # Both times: what is left to train, and what is left of the hour that a task has.
    assert all(re.search(r" \d+:[0-5]\d(:[0-5]\d)? .* 5\d:[0-5]\d ", row) for row in rows)
    assert run_command(tmp_path, "report", "studies/s").code == 0
    for job in jobs:
        slurm("scancel", job)
    wait_for(lambda: not states(slurm), "the end of the tasks")
    # What is cancelled saves its state, and is queued by nobody: the command that began it goes on with it.
    shown = run_command(tmp_path, "status", "studies/s", "--watch").out
    assert "0 finished, 0 running, 0 waiting, 0 failed, 2 lost; the command that began them" in shown
    assert len(list(study_in(tmp_path).cohorts.directory.glob("*.ckpt"))) == 2


def _preempt_one(slurm: Callable[..., str], folder: Path) -> None:
    wait_for(lambda: training(folder, least=3), "a task that trains")
    claim = study_in(folder).cohorts.claim(training(folder, least=3)[0])
    job, before = owners(claim)[-1].job, len(owners(claim))
    assert job is not None
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: not is_alive(claim), "the end of the task")
    stopped = owners(claim)[-1]
    assert stopped.released
    wait_until_queued_again(slurm, job)
    # The very same task, by its id, goes on.
    wait_for(lambda: released(slurm) and len(owners(claim)) > before, "its second start")
    wait_for(lambda: owners(claim)[-1].horizon > 0, "its second training")
    assert owners(claim)[-1].job == job
    assert owners(claim)[-1].begun_at == pytest.approx(stopped.epoch, abs=1)


def test_preempted_and_queued_again(slurm: Callable[..., str], launch: Launch, holding: Holding) -> None:
    """SIGUSR2: saved at the next batch boundary, queued again, and gone on from that very step."""
    remote, here = holding("slurm", "slowly"), holding("here", None)
    words = (*HELD, "+model.hidden=3,4", "hydra.launcher.max_fits=3")
    process = launch(remote, *words, *SLURM)
    for _ in range(2):
        _preempt_one(slurm, remote)
    (remote / "hold").unlink()
    wait_for(lambda: released(slurm) and process.poll() is not None, "the end")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b""), out
    undisturbed(here, *words)
    assert_identical(remote, here)
    records = [run.load() for run in finished(remote)]
    assert sum(record.interruptions for record in records) == 2
    # Less than an epoch is lost: not a single step is, but what was noted is a little older.
    assert all(record.epochs_repeated < 1 for record in records)


def test_killed_tasks_go_on(slurm: Callable[..., str], launch: Launch, holding: Holding) -> None:
    """With -9, as when a node fails: the launcher starts it again. Then by `scontrol requeue`."""
    remote, here = holding("slurm", "slowly"), holding("here", None)
    words = (*HELD, "+model.hidden=3,4", "hydra.launcher.max_fits=3", "training.checkpoint_seconds=0")
    process = launch(remote, *words, *SLURM)
    wait_for(lambda: training(remote, least=3), "a task that trains")
    (name, *_) = training(remote, least=3)
    owner = owners(study_in(remote).cohorts.claim(name))[-1]
    os.kill(owner.process, 9)
    assert owner.job is not None
    wait_for(lambda: final_state(slurm, owner.job or "")["JobState"] == "FAILED", "Slurm to hear of it")
    wait_for(lambda: len(owners(study_in(remote).cohorts.claim(name))) > 1, "its second start")
    assert owners(study_in(remote).cohorts.claim(name))[-1].job != owner.job
    # A requeue by the administrator sends SIGTERM and then SIGKILL.
    wait_for(lambda: training(remote, least=0), "a task that trains")
    (name, *_) = training(remote, least=0)
    claim = study_in(remote).cohorts.claim(name)
    job, before = owners(claim)[-1].job, len(owners(claim))
    assert job is not None
    slurm("scontrol", "requeue", job)
    wait_for(lambda: released(slurm) and len(owners(claim)) > before, "its next start")
    (remote / "hold").unlink()
    wait_for(lambda: released(slurm) and process.poll() is not None, "the end")
    out, err = process.communicate()
    assert process.returncode == 0, out
    assert f"Slurm task {owner.job} of cohort" in err.decode()
    assert "it goes on from its checkpoint" in err.decode()
    undisturbed(here, *words)
    assert_identical(remote, here)
    assert sum(run.load().interruptions for run in finished(remote)) >= 1


def test_a_launcher_that_is_killed_loses_nothing(
    slurm: Callable[..., str], launch: Launch, holding: Holding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks go on; the same command finds them in the queue, and submits nothing twice."""
    folder, words = holding("slurm", ""), (*HELD, "+model.hidden=3,4", "hydra.launcher.max_fits=3", *SLURM)
    process = launch(folder, *words)
    wait_for(lambda: len(list(folder.glob("held-*"))) == 2, "two tasks")
    process.kill()
    process.communicate()
    jobs = set(states(slurm))
    # They hold until the queue has been looked at.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/squeue").write_text(
        f'#!/bin/sh\n{shutil.which("squeue")} "$@"\ncode=$?\ntouch {tmp_path}/asked\nexit $code\n'
    )
    (tmp_path / "bin/squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    again = launch(folder, *words)
    wait_for((tmp_path / "asked").exists, "a look at the queue")
    (folder / "hold").unlink()
    out, err = again.communicate(timeout=240)
    assert (again.returncode, err) == (0, b""), out
    assert len(finished(folder)) == 2
    assert {path.name for path in study_in(folder).tasks.glob("[0-9]*_*")} == jobs
    assert all(run.load().interruptions == 0 for run in finished(folder))


def test_a_run_that_fails_fails_alone_and_slurm_hears_of_it(slurm: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, inputs, outputs, bad):\n"
        "        super().__init__()\n        self.layer, self.bad = nn.Linear(inputs, outputs), bad\n\n"
        "    def forward(self, x):\n        if self.bad and self.training and len(x) > 2:\n"
        '            raise RuntimeError("as it should")\n        return self.layer(x)\n'
    )
    words = ("model=custom", "model._target_=mine.Net", "+model.bad=true,false", "training.epochs=2")
    result = run_command(tmp_path, *(w for w in SWEEP if "depth" not in w and "dropout" not in w), *words, *SLURM)
    assert result.code == 1
    (record,) = [run.load() for run in finished(tmp_path)]
    assert record.config["model"]["bad"] is False
    (failed,) = load_study(study_in(tmp_path).directory).failed
    assert failed.error == "RuntimeError: as it should"
    assert result.err == f"overfit-lab: run {failed.run_id} failed: RuntimeError: as it should\n"
    tasks = [path.name for path in study_in(tmp_path).tasks.glob("[0-9]*_*") if path.is_dir()]
    wait_for(lambda: not states(slurm), "an empty queue")
    assert sorted(final_state(slurm, task)["JobState"] for task in tasks) == ["COMPLETED", "FAILED"]
    codes = {final_state(slurm, task)["JobState"]: final_state(slurm, task)["ExitCode"] for task in tasks}
    assert codes == {"COMPLETED": "0:0", "FAILED": "1:0"}


@pytest.mark.parametrize(
    ("words", "said", "key"),
    [
        (["hydra.launcher.partition=nowhere"], "invalid partition specified: nowhere", "partition (now nowhere)"),
        (["hydra.launcher.mem_gb=100000"], "Memory specification can not be satisfied", "mem_gb (now 100000.0)"),
        (["hydra.launcher.gres=gpu:1"], "Invalid generic resource (gres) specification", "gres"),
        (["+hydra.launcher.additional_parameters.nonsense=3"], "unrecognized option", "additional_parameters"),
    ],
)
def test_what_the_scheduler_refuses(
    slurm: Callable[..., str], tmp_path: Path, words: list[str], said: str, key: str
) -> None:
    """In its own words, and what to change; nothing is left behind but the folder of the study."""
    result = run_command(tmp_path, *SWEEP, "model.width=3,4", *SLURM, *words)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: Slurm refuses: ")
    assert said.lower() in line.lower()
    assert f"change hydra.launcher.{key}" in line or key in line
    assert not study_in(tmp_path).cohorts.directory.exists()
    assert not finished(tmp_path)
    assert not states(slurm)


def test_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_command(tmp_path, *SWEEP, "model.width=3,4", *SLURM)
    assert result.code == 2
    assert result.err == (
        "overfit-lab: hydra/launcher=cohort_slurm: there is no sbatch here; give the command on a login node of a "
        "cluster, or train on this machine with hydra/launcher=cohort\n"
    )
    assert not study_in(tmp_path).cohorts.directory.exists()


def test_what_was_begun_is_kept_where_it_cannot_be_submitted(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of training do not end because nobody takes a job just now, nor because the queue says nothing of it."""
    words = (*SWEEP, "model.width=3,4", "training.epochs=100000", "training.checkpoint_seconds=0")
    process = launch(tmp_path, *words)
    files = study_in(tmp_path).cohorts
    wait_for(lambda: list(files.directory.glob("*.ckpt")), "a checkpoint")
    process.kill()
    process.communicate()
    wait_for(lambda: not training(tmp_path), "the end of its workers")
    begun = {path.name: path.read_bytes() for path in files.directory.glob("*.ckpt")}
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        result = run_command(tmp_path, *words, *SLURM)
    assert result.code == 2
    assert "there is no sbatch here" in result.err
    assert {path.name: path.read_bytes() for path in files.directory.glob("*.ckpt")} == begun

    [name] = cohort_names(tmp_path)
    files.note_job(name, "17_0")
    monkeypatch.chdir(tmp_path)
    cohort = cohort_of(files.load(name))
    unanswered = tmp_path / "slurm.conf"
    unanswered.write_text("ClusterName=none\nSlurmctldHost=localhost\nNodeName=localhost\n")
    monkeypatch.setenv("SLURM_CONF", str(unanswered))
    settings = SlurmSettings.model_validate({"place": "cohort_slurm"})
    assert SlurmPlace(cohort.study, settings, gpu=False).has(cohort)
    # Where there is no Slurm at all, nobody has it.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not SlurmPlace(cohort.study, settings, gpu=False).has(cohort)


def test_a_queue_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is taken for lost."""
    (tmp_path / "slurm.conf").write_text("ClusterName=none\nSlurmctldHost=localhost\nNodeName=localhost\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(Exception, match="squeue: "):
        queued(["1_0"])


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_hydras_own_launchers_give_the_same_records(slurm: Callable[..., str], tmp_path: Path, launcher: str) -> None:
    """Run by run, as `basic` trains them, to the last bit."""
    remote, here = folders(tmp_path)
    words = ("model.width=3,4", "training.epochs=4")
    more = ["hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1"] if launcher == "submitit_slurm" else []
    result = run_command(remote, *SWEEP, *words, f"hydra/launcher={launcher}", *more)
    # submitit warns where a cluster keeps no accounts.
    assert (result.code, "overfit-lab: " in result.err, "Traceback" in result.err) == (0, False, False)
    assert run_command(here, *SWEEP, *words, "hydra/launcher=basic").code == 0
    assert_identical(remote, here)

    def said(folder: Path) -> list[dict[str, Any]]:
        records = [json.loads(run.record.read_text()) for run in finished(folder)]
        making = ("seconds", "environment", "digest", "config")
        return [{key: value for key, value in record.items() if key not in making} for record in records]

    assert said(remote) == said(here)
    again: Result = run_command(remote, *SWEEP, *words, f"hydra/launcher={launcher}", *more)
    assert (again.code, "overfit-lab: " in again.err) == (0, False)


def test_hydras_own_slurm_launcher_is_preempted(slurm: Callable[..., str], launch: Launch, holding: Holding) -> None:
    """submitit's handler queues the job again once the checkpoint is on disk."""
    remote, here = holding("slurm", "slowly"), holding("here", None)
    words = (*HELD, "+model.hidden=3")
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1")
    process = launch(remote, *words, *launcher)
    wait_for(lambda: training(remote, least=3), "a task that trains")
    (name,) = training(remote, least=3)
    claim = study_in(remote).cohorts.claim(name)
    job = owners(claim)[-1].job
    assert job is not None
    slurm("scancel", "--signal=USR2", job)
    wait_until_queued_again(slurm, job)
    wait_for(lambda: released(slurm) and len(owners(claim)) > 1, "its second start")
    (remote / "hold").unlink()
    out, err = process.communicate(timeout=240)
    assert (process.returncode, b"overfit-lab: " in err) == (0, False), out
    undisturbed(here, *words, "hydra/launcher=basic")
    assert_identical(remote, here)
    (record,) = [run.load() for run in finished(remote)]
    assert record.interruptions == 1
    assert record.epochs_repeated < 1


def test_the_example_for_people_who_submit_by_hand(slurm: Callable[..., str], holding: Holding) -> None:
    """Preempted, it saves, has itself queued again, and goes on."""
    remote, here = holding("slurm", "slowly"), holding("here", None)
    script = Path(sys.executable).with_name("overfit-lab")
    if not script.exists():
        pytest.skip("overfit-lab is not installed as a command")
    (remote / ".venv" / "bin").mkdir(parents=True)
    (remote / ".venv" / "bin" / "overfit-lab").symlink_to(script)
    words = (*HELD, "+model.hidden=3", "seed=0,1", "hydra.launcher.workers=1")
    options = (f"--chdir={remote}", "--cpus-per-task=1", "--mem=2G", f"--output={remote}/log")
    example = str(ROOT / "scripts/slurm/sweep.sbatch")
    said = subprocess.run(
        ["sbatch", *options, example, *words], capture_output=True, text=True, check=True, cwd=remote
    ).stdout
    job = said.split()[-1]
    wait_for(lambda: training(remote, least=3), "the sweep")
    slurm("scancel", "--signal=USR2", "--batch", job)
    wait_until_queued_again(slurm, job)
    assert not training(remote)
    (remote / "hold").unlink()
    wait_for(lambda: released(slurm) and not states(slurm), "the end")
    assert final_state(slurm, job)["JobState"] == "COMPLETED", (remote / "log").read_text()
    undisturbed(here, *words)
    assert_identical(remote, here)
    assert all(run.load().interruptions == 1 and run.load().epochs_repeated < 1 for run in finished(remote))
