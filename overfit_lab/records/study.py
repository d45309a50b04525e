"""What the runs of a study share on disk."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import polars as pl

from overfit_lab.errors import UserError
from overfit_lab.records.run import RunFiles
from overfit_lab.records.schema import Record, read_record, write_frame, write_record


class SourceRecord(Record):
    """What a study knows of its source."""

    name: str
    problem: str
    rows: int
    features: int
    outputs: int
    fingerprint: str


class StudyRecord(Record):
    """`study.json`: the one source and the one split that all runs of a study share."""

    schema_version: int
    name: str
    source: SourceRecord
    split: dict[str, Any]


class CohortRecord(Record):
    """`cohorts/NAME.json`, while a cohort trains: what its checkpoint holds.

    Stacked arithmetic may round differently in other company, so what was begun together goes on together.

    Args:
        runs: Their ids.
        max_fits: How many fits train at once, if not all.
    """

    schema_version: int
    runs: list[str]
    max_fits: int | None


class StudyFiles:
    """The files of a study that its runs share.

    Args:
        directory: `STUDY`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record = directory / "study.json"
        self.split = directory / "split.parquet"
        self.runs = directory / "runs"
        self.report = directory / "report"
        self.cohorts = directory / "cohorts"

    def checkpoint(self, cohort: str, part: int) -> Path:
        """Name the checkpoint of one part of a cohort that is training."""
        return self.cohorts / f"{cohort}.{part}.ckpt"

    def begin(self, cohort: str, record: CohortRecord) -> None:
        """Write down a cohort before it trains."""
        self.cohorts.mkdir(parents=True, exist_ok=True)
        write_record(self.cohorts / f"{cohort}.json", record)

    def begun(self) -> list[CohortRecord]:
        """Read which cohorts were begun and can go on.

        One whose file is damaged is set aside, and one of which a run is finished is forgotten: what is left of either
        begins afresh.
        """
        records = []
        for path in sorted(self.cohorts.glob("*.json")):
            try:
                record = read_record(path, CohortRecord)
            except UserError as error:
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                print(f"overfit-lab: {error}; set aside as {aside.name}", file=sys.stderr)
                continue
            if any(self.run(run_id).record.is_file() for run_id in record.runs):
                self.end(path.stem)
            else:
                records.append(record)
        return records

    def end(self, cohort: str) -> None:
        """Remove what is kept of a cohort while it trains."""
        # What a kill leaves of a file that was being written begins with a dot.
        for pattern in (f"{cohort}.*", f".{cohort}.*"):
            for path in self.cohorts.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Others may be training.
            self.cohorts.rmdir()

    def run(self, run_id: str) -> RunFiles:
        """Return the files of one of its runs."""
        return RunFiles(self.runs / run_id)

    def load(self) -> StudyRecord:
        """Read `study.json`.

        Raises:
            UserError: There is none, it is damaged, or written by a newer version.
        """
        if not self.record.is_file():
            raise UserError(f"{self.directory} is not a study: it holds no study.json")
        return read_record(self.record, StudyRecord)

    def check(self, record: StudyRecord) -> None:
        """Compare with the study that lies here, if one does.

        Raises:
            UserError: It is on another source or split.
        """
        if not self.record.is_file():
            return
        present = self.load()
        if present.source != record.source:
            theirs, ours = present.source, record.source
            what = f"{theirs.name}" if theirs.name != ours.name else f"other rows of {theirs.name}"
            raise UserError(f"{self.directory} belongs to {what}, not to {ours.name}; give another study.name")
        # The kind comes first: kinds have keys of their own. A key that the study does not know is younger than it.
        for key in sorted(record.split, key=lambda key: key != "kind"):
            value, theirs = record.split[key], present.split.get(key, record.split[key])
            if theirs != value:
                raise UserError(
                    f"split.{key}={value}: {self.directory} is split with {key}={theirs}; "
                    "give the same split or another study.name"
                )

    def create(self, record: StudyRecord, split: pl.DataFrame) -> None:
        """Write the study's files where they are not there yet; raises as `check`."""
        self.check(record)
        if not self.record.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            write_frame(self.split, split)
            write_record(self.record, record)
