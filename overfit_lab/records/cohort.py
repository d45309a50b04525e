"""What a study holds of the cohorts that are to train, or are training: enough for any process to train them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field

from overfit_lab.claim import is_alive
from overfit_lab.files import write_atomically
from overfit_lab.records.schema import Damaged, Record, read_record, write_record


class CohortRecord(Record):
    """`cohorts/NAME.json`: a cohort that is written down before it trains, until all of its runs are saved.

    Stacked arithmetic may round differently in other company, so what was begun together goes on together.

    Args:
        runs: Their ids.
        max_fits: How many fits train at once, if not all.
        configs: The resolved configuration of each run; none where an older version wrote it.
        overrides: For each run, what the command line changed.
        command: The whole command line.
        folder: Where it was given: relative paths and a user's own modules are seen from there.
        sweep: The command that wrote it down, as `CohortFiles.sweep` names it.
        threads: How many threads its arithmetic has; sums of another number of threads may round differently.
    """

    schema_version: int
    runs: list[str]
    max_fits: int | None
    configs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    overrides: dict[str, list[str]] = Field(default_factory=dict)
    command: str = ""
    folder: str = "."
    sweep: str | None = None
    threads: int = 1


class CohortFiles:
    """The files of the cohorts of a study.

    Args:
        directory: `STUDY/cohorts`; it is there while there is a cohort.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def record(self, name: str) -> Path:
        """Name the file of a cohort's record."""
        return self.directory / f"{name}.json"

    def checkpoint(self, name: str, part: int) -> Path:
        """Name the checkpoint of one part of a cohort."""
        return self.directory / f"{name}.{part}.ckpt"

    def claim(self, name: str) -> Path:
        """Name what whoever trains a cohort claims, see `overfit_lab.claim`."""
        return self.directory / name

    def sweep(self, token: str) -> Path:
        """Name what the command that leads a sweep claims while it runs; what it leaves behind claims TOKEN-1, ..."""
        return self.directory / f"sweep-{token}"

    def save(self, name: str, record: CohortRecord) -> None:
        """Write a cohort down."""
        while True:
            # Whoever is done with the last cohort removes the folder.
            self.directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                write_record(self.record(name), record)
                return

    def note_job(self, name: str, job: str) -> None:
        """Write down which batch job is to train a cohort, as the batch system names it.

        In a file of its own: that job may be about to remove the record, which must not come back.
        """
        path = self.directory / f"{name}.job"
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, job.encode())
        if not self.record(name).exists():
            self.end(name)

    def job(self, name: str) -> str | None:
        """Read which batch job is to train a cohort, if one is."""
        try:
            return (self.directory / f"{name}.job").read_text()
        except FileNotFoundError:
            return None

    def jobs(self) -> set[str]:
        """Read the batch jobs of all cohorts."""
        found = (self.job(path.stem) for path in self.directory.glob("*.job"))
        return {job for job in found if job is not None}

    def load(self, name: str) -> CohortRecord:
        """Read a cohort.

        Raises:
            UserError: It is not there, damaged, or written by a newer version.
        """
        return read_record(self.record(name), CohortRecord)

    def find(self, name: str) -> CohortRecord | None:
        """Read a cohort, if it is not done; raises as `load`."""
        try:
            return self.load(name)
        except Damaged:
            if self.record(name).exists():
                raise
            return None

    def load_all(self, *, set_aside: bool = True) -> dict[str, CohortRecord]:
        """Read all cohorts by their names. A damaged one is named.

        Args:
            set_aside: Whether to give a damaged one another name, too: what is left of it then begins afresh.

        Raises:
            UserError: One was written by a newer version.
        """
        records = {}
        for path in sorted(self.directory.glob("*.json")):
            try:
                if (record := self.find(path.stem)) is not None:
                    records[path.stem] = record
            except Damaged as error:
                if not set_aside:
                    print(f"overfit-lab: {error}", file=sys.stderr)
                    continue
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                print(f"overfit-lab: {error}; set aside as {aside.name}", file=sys.stderr)
        return records

    def is_in_hands(self, name: str, record: CohortRecord, living_jobs: Collection[str] = ()) -> bool:
        """Say whether somebody trains a cohort, or is going to.

        Args:
            name: The cohort's.
            record: Its record.
            living_jobs: Batch jobs that wait or run.
        """
        return (
            is_alive(self.claim(name))
            or (record.sweep is not None and self._is_led(record.sweep))
            or self.job(name) in living_jobs
        )

    def _is_led(self, token: str) -> bool:
        """Say whether the command of a sweep, or one of the processes that it has left behind, is alive."""
        first = self.sweep(token)
        paths = {self.directory / path.name.rpartition(".claim-")[0] for path in self.directory.glob(f"{first.name}*")}
        return any(is_alive(path) for path in paths if path == first or path.name.startswith(f"{first.name}-"))

    def end(self, name: str) -> None:
        """Remove all that is kept of a cohort, the record first: what has none is no cohort."""
        self.record(name).unlink(missing_ok=True)
        # What a kill leaves of a file that was being written begins with a dot.
        for pattern in (f"{name}.*", f".{name}.*"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
        self.tidy()

    def clean(self) -> None:
        """Remove what commands and processes have left that were killed: their claims, and files of no cohort."""
        for path in self.directory.glob("*"):
            # What is being written begins with a dot.
            name = path.name.removeprefix(".").partition(".")[0]
            if path.suffix != ".damaged" and not self.record(name).exists() and not is_alive(self.directory / name):
                path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the folder where nothing is left in it."""
        with contextlib.suppress(OSError):
            self.directory.rmdir()
