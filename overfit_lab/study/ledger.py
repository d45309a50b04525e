"""The test ledger: one line for each opening of the test rows, written and synced before they are opened.

Each line holds a hash of all before it, and `study.json` one of the whole ledger. So a line that was changed or taken
out is noticed, and so is a ledger that was removed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock, Timeout
from pydantic import ValidationError

from overfit_lab.errors import UserError
from overfit_lab.records import LedgerLine, StudyFiles, TestUse


@dataclass(frozen=True)
class LedgerState:
    """What the ledger shows.

    Args:
        lines: The openings, as far as they can be read.
        openings: How many there were: lines, readable or not, or more where lines are known to be missing.
        fault: What is wrong with it, or None.
        digest: SHA-256 of the file.
    """

    lines: tuple[LedgerLine, ...]
    openings: int
    fault: str | None
    digest: str


def read_ledger(files: StudyFiles) -> LedgerState:
    """Read a study's ledger, and compare it with what the study knows of it."""
    content = files.ledger.read_bytes() if files.ledger.is_file() else b""
    known = files.load().test_use or TestUse(openings=0, size=0, ledger=_digest(b""))
    final = files.load_final()
    least = max(known.openings, final.openings if final else 0)
    lines, count, fault = _parse(content)
    if least and not content:
        fault = "was removed"
    elif least > count or known.ledger != _digest(content[: known.size]):
        fault = "was edited"
    return LedgerState(lines, max(count, least), fault, _digest(content))


def refuse_opened(files: StudyFiles, reason: str | None) -> LedgerState:
    """Return the ledger's state if the test rows may be opened.

    Args:
        files: The study.
        reason: Why they are to be opened again, or None if they are not to be.

    Raises:
        UserError: They were opened before, or the ledger is not what was written, and no reason is given; or a reason
            is given and they were never opened; or `final.json` is damaged.
    """
    state = read_ledger(files)
    if reason is not None:
        if not state.openings and state.fault is None:
            raise UserError(f"--again: the test rows of {files.directory} were not opened yet; leave it out")
        return state
    again = 'allowed is --again --reason "...", which is written down'
    if state.fault is not None:
        raise UserError(
            f"{files.ledger} {state.fault}: the test rows were opened {_times(state.openings)} or more; {again}"
        )
    if state.lines:
        last = state.lines[-1]
        raise UserError(
            f"{files.directory}: the test rows were opened {_times(state.openings)}, last on {last.time} for "
            f"configuration {last.config_id}; {again}"
        )
    return state


@contextmanager
def sole_opener(files: StudyFiles, reason: str | None) -> Iterator[None]:
    """Keep every other process from opening the test rows, from before the retraining until the result is written.

    Raises:
        UserError: As `refuse_opened`, or another process is about to open them.
    """
    try:
        lock = FileLock(files.ledger_lock).acquire(timeout=0)
    except Timeout:
        raise UserError(f"{files.directory}: another process is finalizing it at this moment") from None
    with lock:
        # Another process may have been faster.
        refuse_opened(files, reason)
        yield


def write_opening(files: StudyFiles, line: LedgerLine) -> None:
    """Append an opening to the ledger and sync it; what the ledger itself knows of a line is filled in.

    Args:
        files: The study, of which this process is the `sole_opener`.
        line: The opening.

    Raises:
        UserError: As `refuse_opened`.
    """
    state = refuse_opened(files, line.reason)
    before = files.ledger.read_bytes() if files.ledger.is_file() else b""
    # A line that was left half written ends here, and counts as a fault.
    glue = b"\n" if before and not before.endswith(b"\n") else b""
    line = line.model_copy(
        update={"number": state.openings + 1, "intact": state.fault is None, "previous": _digest(before + glue)}
    )
    text = glue + line.model_dump_json().encode() + b"\n"
    with files.ledger.open("ab") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(files)
    after = before + text
    files.note_test_use(TestUse(openings=line.number, size=len(after), ledger=_digest(after)))


def opened_elsewhere(files: StudyFiles, line: LedgerLine) -> list[str]:
    """Name the studies beside this one that have opened the same test rows, as far as their ledgers can be read."""
    names = []
    for path in sorted(files.directory.resolve().parent.glob(f"*/{files.ledger.name}")):
        if path.parent != files.directory.resolve():
            try:
                lines, _, _ = _parse(path.read_bytes())
            except OSError:
                continue
            if any((own.source, own.test_rows) == (line.source, line.test_rows) for own in lines):
                names.append(path.parent.name)
    return names


def _parse(content: bytes) -> tuple[tuple[LedgerLine, ...], int, str | None]:
    """Read the lines and count them, those too that cannot be read; say where one does not follow from the others."""
    lines: list[LedgerLine] = []
    fault = None if not content or content.endswith(b"\n") else "was edited"
    position = 0
    raws = content.splitlines(keepends=True)
    for raw in raws:
        try:
            line = LedgerLine.model_validate_json(raw)
        except ValidationError:
            fault = "was edited"
        else:
            lines.append(line)
            if line.previous != _digest(content[:position]):
                fault = "was edited"
        position += len(raw)
    return tuple(lines), len(raws), fault


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _times(openings: int) -> str:
    return "once" if openings == 1 else f"{openings} times"


def _sync_folder(files: StudyFiles) -> None:
    # The name of a new file is the folder's content.
    folder = os.open(files.directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
