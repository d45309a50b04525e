"""How far a study is: what is finished, running, waiting, failed or lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from overfit_lab.claim import is_alive, owners
from overfit_lab.records import CohortRecord, StudyFiles

State = Literal["running", "waiting", "lost"]


class Job(Protocol):
    """What a batch system says of a job that waits or runs."""

    @property
    def state(self) -> str:
        """In its own words."""

    @property
    def left(self) -> str:
        """Time to its end, as the batch system writes it."""

    @property
    def why(self) -> str:
        """Where it runs, or why it waits."""


@dataclass(frozen=True)
class CohortStatus:
    """A cohort that is not done.

    Args:
        name: Its name, as its files in `cohorts/` have it.
        runs: How many of its runs are not saved yet.
        state: `running`; `waiting` for whoever has written it down, or in a queue; `lost`: nobody is going to train it,
            and the command that began it would go on from its checkpoint.
        job: Its batch job, or None.
        place: Where it runs, or was running; or why it waits.
        epoch: The epoch that it has reached, None before it was begun.
        horizon: The epoch with which it is done.
        seconds_left: A guess how long it still trains, from how fast it was; None where there is nothing to guess from.
        job_left: Time to the end of its batch job, as the batch system writes it.
        begun: How often it was begun.
    """

    name: str
    runs: int
    state: State
    job: str | None
    place: str
    epoch: float | None
    horizon: float | None
    seconds_left: float | None
    job_left: str | None
    begun: int


@dataclass(frozen=True)
class StudyStatus:
    """The runs of a study, counted.

    Args:
        lost: Runs that were begun and that nobody trains any more.
        cohorts: What the runs that are not done belong to, those that run first.
    """

    finished: int
    running: int
    waiting: int
    failed: int
    lost: int
    cohorts: tuple[CohortStatus, ...]


def study_status(files: StudyFiles, jobs: Mapping[str, Job], *, now: float | None = None) -> StudyStatus:
    """Look how far a study is; nothing is written.

    Args:
        files: The study.
        jobs: The batch jobs of its cohorts that wait or run, by their ids.
        now: Seconds of the epoch; the present if not given.

    Raises:
        UserError: The directory is no study, or was written by a newer version.
    """
    files.load()
    now = time.time() if now is None else now
    cohorts, states = [], dict[str, State]()
    for name, record in files.cohorts.load_all(set_aside=False).items():
        missing = [run_id for run_id in record.runs if not files.run(run_id).record.is_file()]
        if missing:
            cohort = _cohort(files, name, record, len(missing), jobs, now)
            cohorts.append(cohort)
            states |= dict.fromkeys(missing, cohort.state)
    finished = failed = 0
    for directory in files.runs.glob("[!.]*"):
        run = files.run(directory.name)
        if run.record.is_file():
            finished += 1
            # It may have been saved since the cohorts were read.
            states.pop(directory.name, None)
        elif directory.name in states:
            continue
        elif run.failure.is_file():
            failed += 1
        elif directory.is_dir():
            states[directory.name] = "lost"
    counts = {state: list(states.values()).count(state) for state in ("running", "waiting", "lost")}
    order = ("running", "waiting", "lost")
    cohorts.sort(key=lambda cohort: (order.index(cohort.state), cohort.name))
    return StudyStatus(finished=finished, failed=failed, cohorts=tuple(cohorts), **counts)


def _cohort(
    files: StudyFiles, name: str, record: CohortRecord, runs: int, jobs: Mapping[str, Job], now: float
) -> CohortStatus:
    claim = files.cohorts.claim(name)
    claims = owners(claim)
    owner = claims[-1] if claims else None
    known = files.cohorts.job(name)
    job = None if known is None else jobs.get(known)
    state: State = "lost"
    if is_alive(claim):
        state = "running"
    elif files.cohorts.is_in_hands(name, record, jobs):
        state = "waiting"
    place = "" if owner is None else owner.place
    if job is not None and state == "waiting":
        place = f"{job.state.lower()} {job.why}"
    begun = owner is not None and owner.horizon > 0
    return CohortStatus(
        name=name,
        runs=runs,
        state=state,
        job=known if owner is None or owner.job is None else owner.job,
        place=place,
        epoch=owner.epoch if owner is not None and begun else None,
        horizon=owner.horizon if owner is not None and begun else None,
        seconds_left=_seconds_left(owner.since, owner.begun_at, owner.epoch, owner.horizon, now)
        if owner is not None and state == "running"
        else None,
        job_left=None if job is None else job.left,
        begun=len(claims),
    )


def _seconds_left(since: float, begun_at: float, epoch: float, horizon: float, now: float) -> float | None:
    if epoch <= begun_at or now <= since:
        return None
    return (horizon - epoch) * (now - since) / (epoch - begun_at)
