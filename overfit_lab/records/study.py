"""What the runs of a study share on disk."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.errors import UserError
from overfit_lab.files import write_atomically
from overfit_lab.records.cohort import CohortFiles
from overfit_lab.records.final import FinalRecord
from overfit_lab.records.run import RunFiles
from overfit_lab.records.schema import Record, read_frame, read_record, write_frame, write_record


class SourceRecord(Record):
    """What a study knows of its source; the Bayes risk in its own units, None where it is not known."""

    name: str
    problem: str
    rows: int
    features: int
    outputs: int
    fingerprint: str
    bayes_risk: float | None = None
    # Whether rows that were published to test on are validated on.
    validates_on_test: bool = False

    def has_rows_of(self, other: SourceRecord) -> bool:
        """Say whether two are of the same rows; how a run prepares them, and so the number of features, may differ."""
        return self.model_copy(update={"features": other.features}) == other


class TestUse(Record):
    """What a study knows of its test ledger, so that an edited or a removed one is noticed.

    Args:
        openings: How often the test rows were opened.
        size: Bytes of the ledger then.
        ledger: Their SHA-256.
    """

    __test__ = False  # for pytest, which takes it for a test

    openings: int
    size: int
    ledger: str


class DuplicatesRecord(Record):
    """How many rows have a twin; what is counted says `overfit_lab.data.duplicates.Duplicates`."""

    rows: int
    across_test: int
    across_folds: int
    conflicting: int

    def sentences(self) -> list[str]:
        """Say what a reader of the results should know of, a sentence for each."""
        texts = (
            (self.across_test, "stands", "stand", "among the test rows, too"),
            (
                self.across_folds,
                "is validated while a row with equal inputs is",
                "are validated while rows with equal inputs are",
                "trained on",
            ),
            (self.conflicting, "has", "have", "the inputs of another one but not its target"),
        )
        return [
            f"{count} development row{'' if count == 1 else 's'} {one if count == 1 else many} {rest}"
            for count, one, many, rest in texts
            if count
        ]


class StudyRecord(Record):
    """`study.json`: the one source and the one split that all runs of a study share."""

    schema_version: int
    name: str
    source: SourceRecord
    split: dict[str, Any]
    # None where an older version wrote it.
    duplicates: DuplicatesRecord | None = None
    test_use: TestUse | None = None
    # What was inferred from a file or done to it.
    said: list[str] = Field(default_factory=list)

    def caveats(self) -> list[str]:
        """Say what of its rows a reader of the results should know, a sentence for each."""
        lines = [] if self.duplicates is None else self.duplicates.sentences()
        if self.source.validates_on_test:
            lines.append(
                f"the rows that {self.source.name} was published with to test on are validated on: what is chosen by "
                "these losses has no test left"
            )
        if (group := self.split.get("group")) is not None:
            lines.append(
                f"rows of one {group} are not independent, but the standard errors of validation losses and the "
                "intervals of onsets count rows: they are too narrow; those of the test's loss and metrics count groups"
            )
        return lines


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
        self.cohorts = CohortFiles(directory / "cohorts")
        self.tasks = directory / "tasks"
        self.final = directory / "final.json"
        self.ledger = directory / "test_ledger.jsonl"
        self.ledger_lock = directory / ".test_ledger.lock"

    @property
    def planning(self) -> Path:
        """What a command claims while it writes down which runs train together."""
        return self.directory / ".cohorts"

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
        if not present.source.has_rows_of(record.source):
            theirs, ours = present.source, record.source
            what = f"{theirs.name}" if theirs.name != ours.name else f"other rows of {theirs.name}"
            raise UserError(f"{self.directory} belongs to {what}, not to {ours.name}; give another study.name")
        # A key that the study does not know is younger than it: it was split as the schema's default says.
        fields = {**HoldoutSplit.model_fields, **KFoldSplit.model_fields}
        former = {key: field.default for key, field in fields.items() if not field.is_required()}
        # The kind comes first: kinds have keys of their own.
        for key in sorted(record.split, key=lambda key: key != "kind"):
            value = record.split[key]
            theirs = present.split.get(key, former.get(key, value))
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

    def state(self) -> tuple[tuple[str, int], ...]:
        """Sum up what a report is made of: two states are the same if nothing has ended between them."""
        paths = [self.record, self.final, self.ledger, *self.runs.glob("*/run.json"), *self.runs.glob("*/failure.json")]
        state = []
        for path in sorted(paths):
            # Another process may be replacing it.
            with contextlib.suppress(FileNotFoundError):
                state.append((str(path), path.stat().st_mtime_ns))
        return tuple(state)

    def load_split(self) -> pl.DataFrame:
        """Read `split.parquet`: row, role, repeat, fold.

        Raises:
            UserError: It is missing or damaged.
        """
        return read_frame(self.split, "row", "role", "repeat", "fold")

    def note_test_use(self, use: TestUse) -> None:
        """Write into `study.json` what the test ledger holds."""
        write_record(self.record, self.load().model_copy(update={"test_use": use}))

    def save_final(self, record: FinalRecord) -> None:
        """Write `final.json`; one of an earlier opening is kept, under the number of that opening."""
        before = self.final.read_bytes() if self.final.is_file() else None
        if before is not None:
            write_atomically(self.final.with_stem(f"final-{json.loads(before)['openings']}"), before)
        write_record(self.final, record)

    def load_final(self) -> FinalRecord | None:
        """Read `final.json`, where it is there.

        Raises:
            UserError: It is damaged, or written by a newer version.
        """
        return read_record(self.final, FinalRecord) if self.final.is_file() else None
