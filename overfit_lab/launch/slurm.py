"""Cohorts as tasks of Slurm arrays, through submitit; and what the queue says of them."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from overfit_lab.claim import owners
from overfit_lab.cohort import Cohort
from overfit_lab.errors import UserError
from overfit_lab.launch.settings import SlurmSettings
from overfit_lab.launch.task import SlurmTask
from overfit_lab.records import StudyFiles

LEAST_SECONDS = 120.0
"""A task is worth its start, and its place in the queue, if it has at least so much to do."""

_QUEUE_SECONDS = 5.0
_DEFAULT_ARRAY = 1001


@dataclass(frozen=True)
class QueuedTask:
    """What the queue says of a task.

    Args:
        state: In Slurm's words, such as PENDING or RUNNING.
        left: Time to its end, as Slurm writes it.
        why: The node that it runs on, or why it waits.
    """

    state: str
    left: str
    why: str


def queued(jobs: Iterable[str]) -> dict[str, QueuedTask]:
    """Ask Slurm which of some jobs wait or run.

    Args:
        jobs: Their ids, those of array tasks as ARRAY_TASK.

    Raises:
        UserError: Slurm does not answer, in its own words.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    parents = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    command = ["squeue", "--noheader", "--array", f"--jobs={parents}", "--format=%i|%T|%L|%R"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"squeue: {error}; Slurm cannot be asked about its jobs from here") from error
    if answer.returncode:
        if "Invalid job id" in answer.stderr:
            return {}  # of jobs that are long over it knows nothing
        raise UserError(f"squeue: {answer.stderr.strip() or 'it failed'}; Slurm cannot be asked about its jobs")
    found = {}
    for line in answer.stdout.splitlines():
        job, state, left, why = line.split("|", 3)
        if job in wanted and state not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"):
            found[job] = QueuedTask(state, left, why)
    return found


def living_jobs(study: StudyFiles) -> set[str]:
    """Return the jobs of a study's cohorts that wait or run; all of them, where Slurm cannot be asked."""
    jobs = study.cohorts.jobs()
    try:
        return set(queued(jobs))
    except UserError:
        return jobs


def largest_array() -> int:
    """Ask Slurm how many tasks an array may have."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
        if found := re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE):
            return max(1, int(found[1]))
    return _DEFAULT_ARRAY


def spread(seconds: float, settings: SlurmSettings) -> int:
    """Say over how many tasks to spread so many seconds of work."""
    return settings.tasks or max(1, min(settings.array_parallelism, math.floor(seconds / LEAST_SECONDS)))


class SlurmPlace:
    """Submits arrays; see `overfit_lab.launch.follow.Place`.

    Args:
        study: The study that the cohorts belong to.
        settings: What the tasks are given.
        gpu: Whether each needs a GPU.
    """

    # The queue may be slow to show what was queued again.
    patience = 15.0

    def __init__(self, study: StudyFiles, settings: SlurmSettings, *, gpu: bool) -> None:
        self.study, self.settings, self.gpu = study, settings, gpu
        self._jobs: dict[str, str] = {}
        self._seen: set[str] = set()
        self._asked: dict[str, float] = {}

    def start(self, cohorts: Sequence[Cohort]) -> None:
        """Submit cohorts, in arrays as long as the cluster takes.

        Raises:
            UserError: Slurm is not here, or refuses, in its own words. What was not submitted, and never begun, is
                forgotten again.
        """
        if not cohorts:
            return
        longest = largest_array()
        for first in range(0, len(cohorts), longest):
            part = cohorts[first : first + longest]
            try:
                jobs = self._submit(part)
            except UserError as error:
                for cohort in cohorts[first:]:
                    # What was begun before is lost for now; the same command goes on with it from its checkpoint.
                    if not owners(self.study.cohorts.claim(cohort.name)):
                        self.study.cohorts.end(cohort.name)
                before = f"; {first} of {len(cohorts)} tasks were submitted before" if first else ""
                raise UserError(f"{error}{before}") from error
            for cohort, job in zip(part, jobs, strict=True):
                self.study.cohorts.note_job(cohort.name, job)
                self._jobs[cohort.name] = job

    def _submit(self, cohorts: Sequence[Cohort]) -> list[str]:
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=cohort_slurm: there is no sbatch here; give the command on a login node of a cluster, "
                "or train on this machine with hydra/launcher=cohort"
            )
        import submitit

        settings = self.settings
        given = {
            f"slurm_{key}": value
            for key in ("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude")
            if (value := getattr(settings, key)) is not None
        }
        gpus = settings.gpus_per_node
        if gpus is None and self.gpu and settings.gres is None:
            gpus = 1
        if gpus:
            given["slurm_gpus_per_node"] = gpus
        folder = self.study.tasks.resolve()
        if "%" in str(folder):
            raise UserError(f"{folder}: Slurm takes a % in the name of a log for a pattern; give another study.name")
        words = io.StringIO()
        try:
            # submitit prints what sbatch says, and then raises it.
            with contextlib.redirect_stderr(words), contextlib.redirect_stdout(words):
                executor = submitit.AutoExecutor(
                    folder / "%j", cluster="slurm", slurm_max_num_timeout=settings.max_num_timeout
                )
                executor.update_parameters(
                    name=settings.name,
                    timeout_min=settings.timeout_min,
                    mem_gb=settings.mem_gb,
                    cpus_per_task=settings.cpus_per_task,
                    stderr_to_stdout=settings.stderr_to_stdout,
                    slurm_setup=settings.setup or None,
                    slurm_additional_parameters={"requeue": True, **settings.additional_parameters},
                    slurm_array_parallelism=settings.array_parallelism,
                    slurm_signal_delay_s=settings.signal_delay_s,
                    **given,
                )
                here, cohorts_folder = os.getcwd(), str(self.study.cohorts.directory.resolve())  # noqa: PTH109
                jobs = executor.submit_array([SlurmTask(here, cohorts_folder, cohort.name) for cohort in cohorts])
        except (RuntimeError, ValueError, TypeError, subprocess.SubprocessError) as error:
            raise UserError(f"Slurm refuses: {_words(error)}; {_advice(str(error), settings)}") from error
        return [job.job_id for job in jobs]

    def has(self, cohort: Cohort) -> bool:
        """Whether its job waits or runs, as the queue has shown it a moment ago."""
        job = self._jobs.get(cohort.name)
        if job is None:
            job = self._jobs[cohort.name] = self.study.cohorts.job(cohort.name) or ""
        if job and (job not in self._asked or time.monotonic() - self._asked[job] > _QUEUE_SECONDS):
            jobs = [one for one in self._jobs.values() if one]
            try:
                self._seen = set(queued(jobs))
            except UserError:
                # A controller that does not answer for a while is no reason to take tasks for dead.
                self._seen = set(jobs) if shutil.which("squeue") else set()
            self._asked = dict.fromkeys(jobs, time.monotonic())
        return job in self._seen

    def out_of_memory(self, cohort: Cohort) -> bool:
        """Whether Slurm, which remembers jobs for some minutes, says so."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            command = ["scontrol", "--oneliner", "show", "job", self._jobs.get(cohort.name, "")]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
            return "JobState=OUT_OF_MEMORY" in answer.stdout
        return False

    def obituary(self, cohort: Cohort) -> str:
        """Name the job and its log."""
        job = self._jobs.get(cohort.name, "")
        return f"Slurm task {job} of cohort {cohort.name} has ended, see {self.study.tasks / job}"


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line.removeprefix("sbatch: error: ").removeprefix("sbatch: ") for line in lines)


_ADVICE = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "feature": "constraint",
    "constraint": "constraint",
    "gres": "gpus_per_node or gres",
    "memory": "mem_gb",
    "cpu": "cpus_per_task",
    "time limit": "timeout_min",
    "node configuration": "mem_gb, cpus_per_task, gpus_per_node or constraint",
}


def _advice(words: str, settings: SlurmSettings) -> str:
    """Say which key to change."""
    said = words.lower()
    for word, keys in _ADVICE.items():
        if word in said:
            given = getattr(settings, keys, None)
            now = f" (now {given})" if given is not None else ""
            return f"change hydra.launcher.{keys}{now}"
    return "change what it names under hydra.launcher, or hydra.launcher.additional_parameters"
