"""How far a study is, for made-up ones: whatever can be the matter with a run is counted once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from overfit_lab.claim import STALE_SECONDS, Claim, Owner, acquire, owners
from overfit_lab.errors import UserError
from overfit_lab.records import SCHEMA_VERSION, CohortRecord, StudyFiles
from overfit_lab.study import status as module
from overfit_lab.study.status import CohortStatus, StudyStatus, study_status
from tests.report.made_up import make_study


@dataclass(frozen=True)
class Queued:
    """What a batch system says of a job."""

    state: str
    left: str = "0:00"
    why: str = "(Priority)"


@pytest.fixture
def study(tmp_path: Path) -> StudyFiles:
    return make_study(tmp_path)


Hold = Callable[[Path], Claim]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Claim things until the end of the test."""
    held: list[Claim] = []

    def claim(path: Path) -> Claim:
        own = acquire(path)
        assert own is not None
        held.append(own)
        return own

    yield claim
    for own in held:
        own.release()


def cohort(study: StudyFiles, name: str, *runs: str, sweep: str | None = None, job: str | None = None) -> None:
    """Write down that some runs train together."""
    record = CohortRecord(schema_version=SCHEMA_VERSION, runs=list(runs), max_fits=None, sweep=sweep)
    study.cohorts.save(name, record)
    if job is not None:
        study.cohorts.note_job(name, job)


def begin(study: StudyFiles, *runs: str) -> None:
    for run in runs:
        study.run(run).directory.mkdir()


def finish(study: StudyFiles, *runs: str) -> None:
    begin(study, *runs)
    for run in runs:
        study.run(run).record.write_text("{}")


def counts(status: StudyStatus) -> tuple[int, int, int, int, int]:
    return status.finished, status.running, status.waiting, status.failed, status.lost


def states(status: StudyStatus) -> list[tuple[str, str, int]]:
    return [(own.name, own.state, own.runs) for own in status.cohorts]


def test_what_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a study: it holds no study\.json"):
        study_status(StudyFiles(tmp_path / "none"), {})


def test_a_study_without_runs(study: StudyFiles) -> None:
    assert study_status(study, {}) == StudyStatus(0, 0, 0, 0, 0, ())
    study.runs.rmdir()
    assert study_status(study, {}) == StudyStatus(0, 0, 0, 0, 0, ())


def test_every_run_is_counted_once(study: StudyFiles, hold: Hold) -> None:
    finish(study, "f1", "f2", "f3", "r1", "w1")
    begin(study, "r2", "l1", "x1", "x2")
    cohort(study, "run", "r1", "r2", "r3", "r4", "r5")
    hold(study.cohorts.claim("run"))
    cohort(study, "wait", "w1", "w2", "w3", sweep="token")
    hold(study.cohorts.sweep("token"))
    cohort(study, "queue", "q1", job="17_3")
    cohort(study, "lose", "l1", "l2", sweep="gone", job="17_4")
    # All of it is saved, and nobody has removed it yet.
    cohort(study, "done", "f1", "f2")
    # Failed runs; one of them is being tried again, one has been trained since.
    for run in ("e1", "w2", "f4"):
        study.run(run).save_failure(run, {}, ValueError("x"))
    study.run("f4").record.write_text("{}")
    # Neither a run of this study.
    (study.runs / ".hidden").mkdir()
    (study.runs / "notes.txt").write_text("x")

    status = study_status(study, {"17_3": Queued("PENDING"), "99": Queued("RUNNING")})
    # Lost are l1 and l2, and x1 and x2, which were begun and are in no cohort.
    assert counts(status) == (3 + 2 + 1, 4, 2 + 1, 1, 2 + 2)
    assert states(status) == [
        ("run", "running", 4),
        ("queue", "waiting", 1),
        ("wait", "waiting", 2),
        ("lose", "lost", 2),
    ]


def test_a_run_that_is_saved_while_one_looks_is_counted_once(
    study: StudyFiles, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(study, "r1", "r2")
    cohort(study, "run", "r1", "r2")
    hold(study.cohorts.claim("run"))

    def look(path: Path) -> list[Owner]:
        study.run("r1").record.write_text("{}")
        return owners(path)

    monkeypatch.setattr(module, "owners", look)
    assert counts(study_status(study, {})) == (1, 1, 0, 0, 0)


def test_a_run_that_is_being_trained(study: StudyFiles, hold: Hold) -> None:
    """4 of the epochs from 2 to 10 took 20 seconds: the 4 that are left take as long."""
    cohort(study, "c", "a", "b")
    claim = hold(study.cohorts.claim("c"))
    claim.begin(2.0, 10)
    claim.note(6.0)
    (own,) = study_status(study, {}, now=claim.owner.since + 20).cohorts
    assert own.seconds_left == pytest.approx(20.0)
    assert own == CohortStatus(
        name="c",
        runs=2,
        state="running",
        job=None,
        place=f"{claim.owner.host}, process {os.getpid()}",
        epoch=6.0,
        horizon=10.0,
        seconds_left=own.seconds_left,
        job_left=None,
        begun=1,
    )


@pytest.mark.parametrize(
    ("begun_at", "epoch", "horizon", "passed", "left"),
    [
        (0.0, 1.0, 100.0, 3.0, 297.0),
        # Within an epoch, and not from its start: 0.25 of one in 10 s, 1.25 are left.
        (8.5, 8.75, 10.0, 10.0, 50.0),
        (0.0, 10.0, 10.0, 60.0, 0.0),
        # Nothing is done yet, or the clocks differ: there is nothing to guess from.
        (3.0, 3.0, 10.0, 60.0, None),
        (0.0, 5.0, 10.0, 0.0, None),
        (0.0, 5.0, 10.0, -7.0, None),
    ],
)
def test_how_long_it_still_trains(
    study: StudyFiles,
    hold: Hold,
    begun_at: float,
    epoch: float,
    horizon: float,
    passed: float,
    left: float | None,
) -> None:
    cohort(study, "c", "a")
    claim = hold(study.cohorts.claim("c"))
    claim.begin(begun_at, horizon)
    claim.note(epoch)
    (own,) = study_status(study, {}, now=claim.owner.since + passed).cohorts
    assert own.seconds_left == (None if left is None else pytest.approx(left, abs=1e-4))


def test_the_present_is_now(study: StudyFiles, hold: Hold) -> None:
    cohort(study, "c", "a")
    claim = hold(study.cohorts.claim("c"))
    claim.begin(0.0, 10)
    claim.note(5.0)
    (own,) = study_status(study, {}).cohorts
    assert own.seconds_left is not None
    assert 0 < own.seconds_left < 60


def test_one_that_was_claimed_and_not_begun(study: StudyFiles, hold: Hold) -> None:
    """It prepares its data: that it is at epoch 0 of 0 says nothing."""
    cohort(study, "c", "a")
    hold(study.cohorts.claim("c"))
    (own,) = study_status(study, {}).cohorts
    assert (own.state, own.epoch, own.horizon, own.seconds_left, own.begun) == ("running", None, None, None, 1)


def test_one_that_is_lost_says_how_far_it_was_and_where(study: StudyFiles, hold: Hold) -> None:
    cohort(study, "c", "a", sweep="gone")
    for epoch in (3.0, 7.5):
        claim = hold(study.cohorts.claim("c"))
        claim.begin(0.0, 10)
        claim.note(epoch)
        claim.release()
    (own,) = study_status(study, {}).cohorts
    assert (own.state, own.epoch, own.horizon, own.seconds_left, own.begun) == ("lost", 7.5, 10.0, None, 2)
    assert own.place == claim.owner.place
    # Begun for a third time, that is what counts.
    hold(study.cohorts.claim("c")).begin(6.0, 10)
    (own,) = study_status(study, {}).cohorts
    assert (own.state, own.epoch, own.begun) == ("running", 6.0, 3)


def test_one_that_nobody_has_begun(study: StudyFiles, hold: Hold) -> None:
    cohort(study, "c", "a", sweep="token")
    nothing = CohortStatus("c", 1, "lost", None, "", None, None, None, None, 0)
    assert study_status(study, {}).cohorts == (nothing,)
    hold(study.cohorts.sweep("token"))
    assert study_status(study, {}).cohorts[0].state == "waiting"


def test_jobs_of_a_batch_system(study: StudyFiles, hold: Hold) -> None:
    for name, job in (("a", "17_0"), ("b", "17_1"), ("c", "17_2"), ("d", "17_3")):
        cohort(study, name, f"run {name}", job=job)
    hold(study.cohorts.claim("a"))
    before = hold(study.cohorts.claim("b"))
    before.begin(0.0, 10)
    before.note(4.0)
    before.release()
    jobs = {
        "17_0": Queued("RUNNING", "12:34", "node7"),
        "17_1": Queued("PENDING", "1:00:00", "(BeginTime)"),
        "17_2": Queued("RUNNING", "59:59", "node8"),
    }
    found = {own.name: own for own in study_status(study, jobs).cohorts}
    # Where it runs it says so itself; one that waits again says why, and how far it was.
    assert (found["a"].state, found["a"].job, found["a"].job_left) == ("running", "17_0", "12:34")
    assert f"process {os.getpid()}" in found["a"].place
    assert (found["b"].state, found["b"].place, found["b"].epoch) == ("waiting", "pending (BeginTime)", 4.0)
    assert (found["b"].job_left, found["b"].seconds_left) == ("1:00:00", None)
    # It has started, and imports.
    assert (found["c"].state, found["c"].place) == ("waiting", "running node8")
    # Slurm knows it no more.
    assert (found["d"].state, found["d"].job, found["d"].job_left) == ("lost", "17_3", None)


def test_the_job_that_runs_it_is_named_not_the_one_that_it_was_written_down_for(study: StudyFiles) -> None:
    cohort(study, "c", "a", job="17_0")
    claim = acquire(study.cohorts.claim("c"), job="23")
    assert claim is not None
    (own,) = study_status(study, {}).cohorts
    assert (own.state, own.job) == ("running", "23")
    claim.release()


def test_one_on_another_machine_runs_while_it_says_so(study: StudyFiles, hold: Hold) -> None:
    cohort(study, "c", "a")
    claim = hold(study.cohorts.claim("c"))
    mark = study.cohorts.directory / "c.claim-1"
    there = {**vars(claim.owner), "machine": "x", "host": "node7", "process": 4}
    mark.write_bytes(json.dumps(there).encode().ljust(1024))
    (own,) = study_status(study, {}).cohorts
    assert (own.state, own.place) == ("running", "node7, process 4")
    then = mark.stat().st_mtime - STALE_SECONDS - 1
    os.utime(mark, (then, then))
    assert counts(study_status(study, {})) == (0, 0, 0, 0, 1)


def files_of(study: StudyFiles) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in study.directory.rglob("*") if path.is_file()}


def test_looking_changes_nothing(study: StudyFiles, hold: Hold) -> None:
    finish(study, "f")
    cohort(study, "done", "f")
    cohort(study, "run", "a")
    hold(study.cohorts.claim("run"))
    cohort(study, "lose", "b")
    before = files_of(study)
    study_status(study, {})
    assert files_of(study) == before


def test_looking_changes_nothing_of_what_is_damaged(study: StudyFiles, capsys: pytest.CaptureFixture[str]) -> None:
    """To set it aside is for whoever trains."""
    cohort(study, "whole", "a")
    study.cohorts.record("torn").write_text("{")
    before = files_of(study)
    assert states(study_status(study, {})) == [("whole", "lost", 1)]
    assert files_of(study) == before
    assert "torn.json is damaged" in capsys.readouterr().err


def test_one_of_a_newer_version_is_not_guessed_at(study: StudyFiles) -> None:
    study.cohorts.directory.mkdir()
    study.cohorts.record("new").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match="upgrade it"):
        study_status(study, {})
