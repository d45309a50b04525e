"""What becomes of a cohort whose process has died: it goes on, or in halves, or it has failed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from overfit_lab.cohort import Cohort, divide
from overfit_lab.launch.job import Outcome, fail_all

MOST_DEATHS = 3
"""So often may the process of a cohort die without having got any further."""


class Deaths:
    """Keeps count of the deaths of processes, by the cohorts that they were training."""

    def __init__(self) -> None:
        self._marks: dict[str, Hashable] = {}
        self._counts: dict[str, int] = {}
        self._killed_for_memory: dict[str, int] = {}

    def watch(self, cohort: Cohort) -> None:
        """Note where a cohort is before a process trains it."""
        self._marks[cohort.name] = _mark(cohort)
        self._killed_for_memory[cohort.name] = _killed_for_memory()

    def after_death(self, cohort: Cohort, *, out_of_memory: bool | None = None) -> tuple[tuple[Cohort, ...], Exception]:
        """Say how to go on.

        Args:
            cohort: Whose process has died.
            out_of_memory: Whether memory ran out; None to look whether this machine has killed for it meanwhile.

        Returns:
            The cohorts to train in its place, and where there are none, why its runs have failed: that is written
            down before the cohort is ended, see `fail_cohort`.
        """
        name = cohort.name
        if out_of_memory is None:
            out_of_memory = _killed_for_memory() > self._killed_for_memory[name]
        if out_of_memory:
            error: Exception = MemoryError("its process was killed, as the system does when memory runs out")
        else:
            further = _mark(cohort) != self._marks[name]
            self._counts[name] = 1 if further else self._counts.get(name, 0) + 1
            if self._counts[name] < MOST_DEATHS:
                return (cohort,), RuntimeError()
            error = RuntimeError(f"its process was killed {MOST_DEATHS} times before it got any further")
        halves = cohort.halves(smaller=True)
        if halves:
            divide(cohort, halves)
        return halves, error


def fail_cohort(cohort: Cohort, overrides: Mapping[str, Sequence[str]], error: Exception) -> list[Outcome]:
    """Write down that the runs of a cohort have failed, then end it: whoever looks in between finds either of both."""
    outcomes = fail_all(cohort.missing, overrides, error)
    cohort.study.cohorts.end(cohort.name)
    return outcomes


def _mark(cohort: Cohort) -> Hashable:
    """Sum up how far a cohort is: what is saved of it changes this."""
    files = cohort.study.cohorts
    times = []
    for part in range(len(cohort.parts)):
        try:
            times.append(files.checkpoint(cohort.name, part).stat().st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    return len(cohort.missing), *times


def _killed_for_memory() -> int:
    """How many processes the system has killed for want of memory, in our part of the machine or in all of it."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
