"""Processes on this machine that train cohorts by themselves, and go on when the command that started them ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from overfit_lab.claim import owners
from overfit_lab.cohort import Cohort
from overfit_lab.records import StudyFiles


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
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, cohorts: Sequence[Cohort]) -> None:
        """Start processes, each of which trains one cohort after another that no other has claimed."""
        free = self.workers - sum(process.poll() is None for process, _ in self._processes)
        for i in range(min(max(1, free), len(cohorts))):
            names = [cohort.name for cohort in (*cohorts[i:], *cohorts[:i])]
            log = self.study.tasks / f"local-{int(time.time())}-{os.getpid()}-{len(self._processes)}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            environment = dict(os.environ)
            if self.devices:
                environment["CUDA_VISIBLE_DEVICES"] = self.devices[len(self._processes) % len(self.devices)]
            token = f"{self.token}-{len(self._processes) + 1}"
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
            self._processes.append((process, log))

    def has(self, cohort: Cohort) -> bool:
        """Whoever was started takes what nobody has claimed; what was claimed is that process's."""
        claimed = owners(cohort.study.cohorts.claim(cohort.name))
        return not claimed and any(process.poll() is None for process, _ in self._processes)

    def out_of_memory(self, cohort: Cohort) -> bool | None:
        """It is this machine's memory: whoever counts deaths looks by himself."""
        return None

    def obituary(self, cohort: Cohort) -> str:
        """Name the log of the process that has ended."""
        ended = [(process, log) for process, log in self._processes if process.poll() is not None]
        claimed = owners(cohort.study.cohorts.claim(cohort.name))
        own = [log for process, log in ended if claimed and process.pid == claimed[-1].process]
        logs = own or [log for _, log in ended[-1:]]
        return f"the process of cohort {cohort.name} has ended" + "".join(f", see {log}" for log in logs)
