"""Processes on this machine that train cohorts by themselves, and go on when the command that started them ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from overfit_lab.claim import is_alive, owners
from overfit_lab.cohort import Cohort
from overfit_lab.records import StudyFiles

_LOOK_SECONDS = 0.05


class _Started(NamedTuple):
    """A process that was started.

    Args:
        process: It.
        log: What it prints.
        expected: The cohorts that it was given and nobody trained at that time, each with the number of those who had
            claimed it before. While there are no more, the process has not come to it yet: it may take long to start.
    """

    process: subprocess.Popen[bytes]
    log: Path
    expected: dict[str, int]

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None


class LocalPlace:
    """Starts processes; see `overfit_lab.launch.follow.Place`.

    Args:
        study: The study that the cohorts belong to.
        token: The sweep's.
        workers: How many processes train at the same time.
        devices: The GPUs, one for each process in turn; none for the CPU.
    """

    patience = 2.0

    def __init__(self, study: StudyFiles, token: str, workers: int, devices: Sequence[str]) -> None:
        self.study, self.token, self.workers, self.devices = study, token, workers, devices
        self._started: list[_Started] = []

    def start(self, cohorts: Sequence[Cohort]) -> None:
        """Start processes, each of which trains one cohort after another that no other has claimed.

        When this returns, others can see that the cohorts are in somebody's hands, also if the command ends at once.
        """
        free = self.workers - sum(not one.ended for one in self._started)
        claims = {cohort.name: cohort.study.cohorts.claim(cohort.name) for cohort in cohorts}
        expected = {name: len(owners(claim)) for name, claim in claims.items() if not is_alive(claim)}
        tokens: list[tuple[_Started, Path]] = []
        for i in range(min(max(1, free), len(cohorts))):
            names = [cohort.name for cohort in (*cohorts[i:], *cohorts[:i])]
            log = self.study.tasks / f"local-{int(time.time())}-{os.getpid()}-{len(self._started)}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            environment = dict(os.environ)
            if self.devices:
                environment["CUDA_VISIBLE_DEVICES"] = self.devices[len(self._started) % len(self.devices)]
            token = f"{self.token}-{len(self._started) + 1}"
            arguments = [Path.cwd(), self.study.cohorts.directory, token, *names]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "overfit_lab.launch.task", *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    # Not of our group: what a terminal sends when it closes, or on Ctrl-C, does not reach it.
                    start_new_session=True,
                )
            self._started.append(_Started(process, log, expected))
            tokens.append((self._started[-1], self.study.cohorts.sweep(token)))
        while any(not one.ended and not owners(token) for one, token in tokens):
            time.sleep(_LOOK_SECONDS)

    def has(self, cohort: Cohort) -> bool:
        """Whether a process that was started is going to come to it; who has claimed it since, has it himself."""
        claimed = len(owners(cohort.study.cohorts.claim(cohort.name)))
        return any(not one.ended and one.expected.get(cohort.name) == claimed for one in self._started)

    def out_of_memory(self, cohort: Cohort) -> bool | None:
        """It is this machine's memory: whoever counts deaths looks by himself."""
        return None

    def obituary(self, cohort: Cohort) -> str:
        """Name the log of the process that has ended."""
        ended = [one for one in self._started if one.ended]
        claimed = owners(cohort.study.cohorts.claim(cohort.name))
        own = [one.log for one in ended if claimed and one.process.pid == claimed[-1].process]
        logs = own or [one.log for one in ended[-1:]]
        return f"the process of cohort {cohort.name} has ended" + "".join(f", see {log}" for log in logs)
