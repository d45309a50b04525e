"""The test ledger: what it says is there before the rows are opened, and what is done to it is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from overfit_lab.errors import UserError
from overfit_lab.records import SCHEMA_VERSION, LedgerLine, SourceRecord, StudyFiles, StudyRecord
from overfit_lab.study.ledger import opened_elsewhere, read_ledger, refuse_opened, sole_opener, write_opening


def _study(directory: Path) -> StudyFiles:
    files = StudyFiles(directory)
    source = SourceRecord(name="coins", problem="binary", rows=9, features=3, outputs=1, fingerprint="f")
    files.create(StudyRecord(schema_version=SCHEMA_VERSION, name="s", source=source, split={}), pl.DataFrame())
    return files


def _line(reason: str | None = None, **changes: object) -> LedgerLine:
    line = LedgerLine(
        schema_version=SCHEMA_VERSION,
        number=1,
        time="2020-01-01T00:00:00+00:00",
        study="s",
        source="f",
        test_rows="t",
        rows=2,
        config_id="c",
        config={"seed": 0, "text": "two\nlines\r\u2028"},
        epochs=3,
        command="finalize",
        git=None,
        reason=reason,
        intact=True,
        previous="",
    )
    return line.model_copy(update=changes)


@pytest.fixture
def opened(tmp_path: Path) -> StudyFiles:
    """Three openings."""
    files = _study(tmp_path / "study")
    for reason in (None, "first", "second"):
        write_opening(files, _line(reason))
    return files


def test_openings_are_numbered_and_chained(opened: StudyFiles) -> None:
    raw = opened.ledger.read_bytes()
    first, second, _ = raw.splitlines(keepends=True)
    state = read_ledger(opened)
    assert [line.number for line in state.lines] == [1, 2, 3]
    assert [line.reason for line in state.lines] == [None, "first", "second"]
    assert [line.intact for line in state.lines] == [True] * 3
    assert [line.previous for line in state.lines] == [
        hashlib.sha256(before).hexdigest() for before in (b"", first, first + second)
    ]
    assert (state.openings, state.fault, state.digest) == (3, None, hashlib.sha256(raw).hexdigest())
    use = opened.load().test_use
    assert use is not None
    assert (use.openings, use.size, use.ledger) == (3, len(raw), state.digest)


def test_the_line_is_synced_before_anything_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _study(tmp_path / "study")
    synced: list[tuple[int, bytes, bool]] = []
    real = os.fsync

    def fsync(number: int) -> None:
        real(number)
        known = files.load().test_use is not None
        synced.append((os.fstat(number).st_ino, files.ledger.read_bytes(), known))

    monkeypatch.setattr(os, "fsync", fsync)
    write_opening(files, _line())
    line = files.ledger.read_bytes()
    # The line, the name of its file, and only then what the study knows of it.
    assert synced[:2] == [(path.stat().st_ino, line, False) for path in (files.ledger, files.directory)]
    assert line.endswith(b"\n")
    assert files.load().test_use is not None


def test_a_second_opening_needs_a_reason(tmp_path: Path) -> None:
    files = _study(tmp_path / "study")
    assert refuse_opened(files, None).openings == 0
    with pytest.raises(UserError, match=r"--again: the test rows of .* were not opened yet; leave it out"):
        refuse_opened(files, "because")
    with pytest.raises(UserError, match="not opened yet"):
        write_opening(files, _line("because"))
    assert not files.ledger.exists()
    write_opening(files, _line())
    for number, times in ((2, "once"), (3, "2 times")):
        with pytest.raises(UserError, match=f"were opened {times}, last on 2020-.* for configuration c; allowed is"):
            write_opening(files, _line())
        write_opening(files, _line("because"))
        assert len(read_ledger(files).lines) == number


def _last_line_removed(raw: bytes) -> bytes:
    return b"".join(raw.splitlines(keepends=True)[:-1])


def _middle_line_removed(raw: bytes) -> bytes:
    lines = raw.splitlines(keepends=True)
    return lines[0] + lines[2]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "edited first": (lambda raw: raw.replace(b'"epochs":3', b'"epochs":4', 1), "was edited"),
    "edited last": (lambda raw: raw.replace(b'"reason":"second"', b'"reason":"harmless"'), "was edited"),
    "last line removed": (_last_line_removed, "was edited"),
    "middle line removed": (_middle_line_removed, "was edited"),
    "lines swapped": (lambda raw: b"".join(reversed(raw.splitlines(keepends=True))), "was edited"),
    "cut off": (lambda raw: raw[:-20], "was edited"),
    "last end of line cut off": (lambda raw: raw[:-1], "was edited"),
    "garbage": (lambda raw: raw + b"\x00\xff garbage", "was edited"),
    "a line of garbage": (lambda raw: raw + b"{}\n", "was edited"),
    "a line twice": (lambda raw: raw + raw.splitlines(keepends=True)[-1], "was edited"),
    "emptied": (lambda raw: b"", "was removed"),
    "removed": (lambda raw: None, "was removed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_done_to_the_ledger_is_noticed(opened: StudyFiles, damage: str) -> None:
    change, fault = DAMAGES[damage]
    changed = change(opened.ledger.read_bytes())
    if changed is None:
        opened.ledger.unlink()
    else:
        opened.ledger.write_bytes(changed)
    with pytest.raises(UserError, match=rf"test_ledger\.jsonl {fault}: the test rows were opened \d times or more"):
        refuse_opened(opened, None)
    openings = read_ledger(opened).openings
    assert openings >= 3
    # With a reason it goes on, and every later reader sees that something was wrong.
    write_opening(opened, _line("a fresh start"))
    last = read_ledger(opened).lines[-1]
    assert (last.number, last.intact, last.reason) == (openings + 1, False, "a fresh start")
    with pytest.raises(UserError, match=f"were opened {openings + 1} times"):
        refuse_opened(opened, None)


def test_a_line_that_the_study_does_not_know_of_yet_counts(tmp_path: Path) -> None:
    """A kill came between the line and the note of it in study.json."""
    files = _study(tmp_path / "study")
    record = files.record.read_bytes()
    write_opening(files, _line())
    files.record.write_bytes(record)
    state = read_ledger(files)
    assert (state.openings, state.fault) == (1, None)
    with pytest.raises(UserError, match="were opened once, last on"):
        refuse_opened(files, None)
    write_opening(files, _line("it was killed"))
    assert (read_ledger(files).openings, read_ledger(files).fault) == (2, None)


@pytest.mark.parametrize("left", [1, 100])
def test_a_first_line_that_is_half_written_counts_as_an_opening(tmp_path: Path, left: int) -> None:
    files = _study(tmp_path / "study")
    record = files.record.read_bytes()
    write_opening(files, _line())
    files.record.write_bytes(record)
    files.ledger.write_bytes(files.ledger.read_bytes()[:left])
    with pytest.raises(UserError, match="was edited: the test rows were opened once or more"):
        refuse_opened(files, None)
    write_opening(files, _line("it was killed"))
    state = read_ledger(files)
    assert [(line.number, line.intact) for line in state.lines] == [(2, False)]


def test_one_process_opens_at_a_time(tmp_path: Path) -> None:
    files = _study(tmp_path / "study")
    refused = pytest.raises(UserError, match="another process is finalizing it at this moment")
    with FileLock(files.ledger_lock), refused, sole_opener(files, None):
        pytest.fail("it was let in")
    with sole_opener(files, None):
        write_opening(files, _line())
    # Whoever comes later has passed its first look before the line was written.
    with pytest.raises(UserError, match="were opened once"), sole_opener(files, None):
        pytest.fail("it was let in")


def test_studies_beside_it_that_have_opened_the_same_rows(tmp_path: Path) -> None:
    ours, same, other = (_study(tmp_path / name) for name in ("ours", "same", "other"))
    write_opening(ours, _line())
    write_opening(same, _line())
    write_opening(other, _line(test_rows="u"))
    (tmp_path / "no study").mkdir()
    (tmp_path / "no study" / "test_ledger.jsonl").write_bytes(b"\xff")
    (tmp_path / "folder" / "test_ledger.jsonl").mkdir(parents=True)
    assert opened_elsewhere(ours, _line()) == ["same"]
    assert opened_elsewhere(other, _line(test_rows="u")) == []
