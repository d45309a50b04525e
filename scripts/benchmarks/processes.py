"""Whole processes, as a user starts them: how long they take and how much memory they and their children hold."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
OVERFIT_LAB = str(Path(sys.executable).with_name("overfit-lab"))
SAMPLING_SECONDS = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Attributes:
        seconds: from start to end, imports included.
        peak: largest sum of the resident memory of the process and its descendants, in bytes; 0 where the system
            does not tell. Pages that processes share are counted for each.
    """

    seconds: float
    peak: int


def run(command: Sequence[str]) -> Measured:
    """Run a command in the repository and measure it.

    Args:
        command: its words.

    Raises:
        SystemExit: It failed; its last words are in the message.
    """
    # Modules compiled beforehand, as anywhere else: a command is not to be charged for compiling them again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        memory = _Memory(process.pid)
        memory.start()
        try:
            code = process.wait()
        finally:
            process.kill()
            memory.ended.set()
        seconds = time.perf_counter() - started
        memory.join()
        if code != 0:
            said.seek(0)
            end = said.read().decode(errors="replace").strip().splitlines()[-5:]
            raise SystemExit("\n".join([f"failed with {code}: {' '.join(command)}", *end]))
    return Measured(seconds, memory.peak)


def median(measured: Sequence[Measured]) -> Measured:
    """The median of the seconds, and the largest peak."""
    return Measured(statistics.median(one.seconds for one in measured), max(one.peak for one in measured))


class OneLineParser(argparse.ArgumentParser):
    """A command line whose mistakes are told in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text: str) -> int:
    """Read a whole number from 1 from a command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a whole number from 1")
    return int(text)


def tell(message: str) -> None:
    """Say how far a benchmark has come."""
    print(message, file=sys.stderr, flush=True)


class _Memory(threading.Thread):
    """Watches the memory of a process tree."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.ended = root, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLING_SECONDS):
            self.peak = max(self.peak, _resident(self.root))


def _resident(pid: int) -> int:
    process = Path("/proc", str(pid))
    try:
        own = int((process / "statm").read_text().split()[1]) * PAGE
        children = [word for task in (process / "task").iterdir() for word in (task / "children").read_text().split()]
    except OSError:  # it has just ended, or there is no /proc
        return 0
    return own + sum(_resident(int(child)) for child in children)
