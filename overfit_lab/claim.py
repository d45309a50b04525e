"""Claims: who works on what, so that no two processes do the same work, on one machine or on many.

A claim on `PATH` is a file `PATH.claim-N` that its owner keeps fresh. Files are made by `link`, which is atomic on
local disks and on NFS alike; kernel locks are not there on every cluster's file system, and do not say who holds them.

Nobody ever takes a claim away: whoever finds the highest number N abandoned makes N + 1, which only one can do, and an
owner that was merely asleep sees the higher number and knows that it has lost. Abandoned is a claim that was released,
whose process is gone (where that can be seen: on the same machine), or that was not kept fresh for `STALE_SECONDS`, by
the clock of the file system.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
# Owners have one size, so that one is overwritten in place by a single write.
_SIZE = 1024


@dataclass(frozen=True)
class Owner:
    """Who has a claim, and how far the work is.

    Args:
        host: The machine's name.
        machine: Tells whether a process number means anything here: one boot of one machine, and one view of its
            processes.
        process: The process number.
        born: When that process began, by the clock of that machine; numbers are used again.
        job: The batch job, as the batch system names it, or None.
        restarts: How often that job was queued again before.
        since: When the claim was made, in seconds of the epoch by the owner's clock.
        begun_at: The epoch from which the owner went on.
        epoch: The epoch that it has reached, with a fraction within one.
        horizon: The epoch with which it is done.
        released: Whether the owner has let go.
    """

    host: str
    machine: str
    process: int
    born: float
    job: str | None
    since: float
    begun_at: float = 0.0
    epoch: float = 0.0
    horizon: float = 0.0
    released: bool = False
    restarts: int = 0

    @property
    def place(self) -> str:
        """Where the owner is, for a person."""
        return f"{self.host}, process {self.process}"


class Claim:
    """A claim that this process holds; made by `acquire`.

    Args:
        path: What is claimed.
        number: Its number.
        owner: This process.
    """

    def __init__(self, path: Path, number: int, owner: Owner) -> None:
        self.path, self.number, self.owner = path, number, owner
        self._file = os.open(_file(path, number), os.O_WRONLY)
        self._lost = False
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"claim on {path.name}", daemon=True)
        self._beating.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken this one for dead and gone on with the work, or is done with it."""
        return self._lost

    def begin(self, epoch: float, horizon: float) -> None:
        """Write down from where the work goes on, and where it ends."""
        self._note(replace(self.owner, begun_at=epoch, epoch=epoch, horizon=horizon))

    def note(self, epoch: float) -> None:
        """Write down how far the work is. It costs microseconds, wherever the file lies."""
        self._note(replace(self.owner, epoch=epoch))

    def _note(self, owner: Owner) -> None:
        # For whoever looks on: that it cannot be written is no reason to stop.
        with contextlib.suppress(OSError):
            self._write(owner)

    def check(self) -> bool:
        """Look whether the claim still holds: its mark is there, and is the last one.

        Whoever has gone on with the work, and is done with it, has removed all marks.
        """
        with contextlib.suppress(OSError):
            self._lost = self._lost or max(_numbers(self.path), default=0) != self.number
        return not self._lost

    def release(self) -> None:
        """Let go; a second time changes nothing."""
        if not self._ended.is_set():
            self._ended.set()
            self._beating.join()
            with contextlib.suppress(OSError):
                self._write(replace(self.owner, released=True))
            os.close(self._file)

    def _write(self, owner: Owner) -> None:
        self.owner = owner
        os.pwrite(self._file, _encode(owner), 0)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A file system that does not answer for a while is not the end; that others may think so shows in `check`.
            with contextlib.suppress(OSError):
                os.fsync(self._file)
                os.utime(_file(self.path, self.number))
            self.check()


def acquire(path: Path, *, job: str | None = None, restarts: int = 0) -> Claim | None:
    """Claim a piece of work, if nobody who is alive has claimed it.

    Args:
        path: What is claimed; its folder is made where it is not there.
        job: The batch job that this process belongs to. What it has claimed before it was queued again is abandoned: a
            batch system ends a job before it starts it anew.
        restarts: How often it was queued again.

    Returns:
        The claim, or None where somebody else has it.
    """
    number = max(_numbers(path), default=0)
    me = _me(job, restarts)
    if number and not _was_me(_read(_file(path, number)), me) and is_alive(path):
        return None
    if not _make(_file(path, number + 1), _encode(me)):
        return None
    if max(_numbers(path), default=0) > number + 1:
        # What was seen at first was older than all that is there now.
        _file(path, number + 1).unlink(missing_ok=True)
        return None
    try:
        return Claim(path, number + 1, me)
    except FileNotFoundError:
        # Whoever had it before was done with it just now, and has removed what belonged to it.
        return None


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a claim for a moment; wait while another process has it. The marks of earlier ones are removed."""
    while (claim := acquire(path)) is None:
        time.sleep(0.02)
    try:
        for number in _numbers(path):
            if number < claim.number:
                _file(path, number).unlink(missing_ok=True)
        yield
    finally:
        claim.release()


def owners(path: Path) -> list[Owner]:
    """Read all that have claimed a piece of work, one after another; the last one may be at work."""
    found = (_read(_file(path, number)) for number in sorted(_numbers(path)))
    return [owner for owner in found if owner is not None]


def is_alive(path: Path) -> bool:
    """Say whether somebody works on it, as far as can be seen from here."""
    number = max(_numbers(path), default=0)
    if not number:
        return False
    file = _file(path, number)
    owner = _read(file)
    if owner is not None and owner.released:
        return False
    if owner is not None and owner.machine == _machine():
        return _is_running(owner)
    return _age(file) < STALE_SECONDS


def wait_while_alive(path: Path, *, job: str | None = None, restarts: int = 0) -> None:
    """Wait until whoever works on it is done or dead; `job` and `restarts` as for `acquire`."""
    while is_alive(path):
        last = owners(path)[-1:]
        if last and _was_me(last[0], _me(job, restarts)):
            return
        time.sleep(1)


def _file(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.claim-{number}")


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.claim-([1-9][0-9]*)")
    try:
        names = [file.name for file in path.parent.iterdir()]
    except FileNotFoundError:
        return []
    return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]


def _make(file: Path, content: bytes) -> bool:
    """Make a file with its content, unless it is there; of several that try, one succeeds."""
    descriptor, name = _temporary(file)
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            temporary.write(content)
            temporary.flush()
            # A temporary file is its maker's alone; whoever shares the study must see whose it is.
            os.fchmod(temporary.fileno(), 0o644)
            os.fsync(temporary.fileno())
        try:
            file.hardlink_to(made)
        except FileExistsError:
            # Over NFS an answer may get lost and the call be repeated: two names mean that the first was heard.
            return made.stat().st_nlink == 2
        except OSError:
            return _make_without_links(file, content)
        return True
    finally:
        made.unlink(missing_ok=True)


def _temporary(file: Path) -> tuple[int, str]:
    while True:
        # Whoever is done with all that lies there removes the folder.
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)


def _make_without_links(file: Path, content: bytes) -> bool:
    # Some file systems have no links; NFS has had exclusive creation since version 3.
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as created:
        created.write(content)
    return True


def _encode(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode().ljust(_SIZE)


# Strict: what only looks like an owner is none.
_OWNER = TypeAdapter(Owner)


def _read(file: Path) -> Owner | None:
    """Read an owner; None where there is none that can be read."""
    # It may be read while it is overwritten.
    for _ in range(3):
        try:
            return _OWNER.validate_json(file.read_bytes(), strict=True)
        except OSError:
            return None
        except ValidationError:
            time.sleep(0.01)
    return None


def _age(file: Path) -> float:
    """Seconds since a file was kept fresh, by the clock of the file system: those of machines differ."""
    try:
        # Opened, as NFS looks a file's times up anew only then.
        with file.open("rb") as opened:
            fresh = os.fstat(opened.fileno()).st_mtime
    except FileNotFoundError:
        return STALE_SECONDS
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            probe.write(b"now")
            probe.flush()
            return os.fstat(probe.fileno()).st_mtime - fresh
    except OSError:
        # Whoever may only look has no better clock than his own.
        return time.time() - fresh


def _me(job: str | None, restarts: int) -> Owner:
    own = _born(os.getpid())
    return Owner(socket.gethostname(), _machine(), os.getpid(), own, job, time.time(), restarts=restarts)


def _was_me(owner: Owner | None, me: Owner) -> bool:
    return owner is not None and owner.job is not None and owner.job == me.job and owner.restarts < me.restarts


@functools.cache
def _machine() -> str:
    def read(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text().strip()
        return ""

    boot = read("/proc/sys/kernel/random/boot_id") or str(psutil.boot_time())
    try:
        # Containers of one machine do not see one another's processes.
        view = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        view = ""
    return f"{socket.gethostname()} {boot} {view}".strip()


def _is_running(owner: Owner) -> bool:
    try:
        process = psutil.Process(owner.process)
        return process.status() != psutil.STATUS_ZOMBIE and _born(owner.process) == owner.born
    except (psutil.Error, OSError, ValueError):
        return False


def _born(process: int) -> float:
    stat = Path(f"/proc/{process}/stat")
    if stat.exists():
        # In ticks since the machine began: unlike a time of day it never changes. The name before it may hold blanks.
        return float(stat.read_text().rpartition(")")[2].split()[19])
    return float(round(psutil.Process(process).create_time()))
