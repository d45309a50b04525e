"""Signals and claims: what makes a training stop between two steps, and what it writes down on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from overfit_lab.claim import Claim, owners
from overfit_lab.training.supervision import Stopped, Supervision

STOPPING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""What batch systems send before they end a job or take its machine away, and Ctrl-C."""

# How often it is written down how far a training is, at most.
_NOTE_SECONDS = 0.01


class StopFlag:
    """Set by a signal or by a thread: the training is to stop at the next batch boundary."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_set = False

    def set(self, number: int | None = None) -> None:
        """Ask for the stop."""
        self.signal, self.is_set = number, True


@contextmanager
def heeding_signals() -> Iterator[StopFlag]:
    """Have signals ask for a stop, instead of ending the process in the middle of a step.

    When the training has stopped, its checkpoint on disk, the signal goes to whoever has handled it before: submitit's
    handler, for one, has the job queued again. A second Ctrl-C does not wait.

    Raises:
        SystemExit: With 128 and the number of the signal, where that did not end the process.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and flag.is_set:
            raise KeyboardInterrupt
        flag.set(number)

    before = {number: signal.signal(number, ask) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            # One that was not set from Python is told as None, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if flag.signal is not None:
            signal.raise_signal(flag.signal)
            # Whoever has handled it before has done nothing about it.
            raise SystemExit(128 + flag.signal)


class ClaimSupervision(Supervision):
    """Stops a training when it is asked for or the claim is lost, and notes in the claim how far it is.

    Args:
        claim: The claim on the cohort.
        flag: Who asks for a stop.
        horizon: The epochs of all parts of the cohort.
    """

    def __init__(self, claim: Claim, flag: StopFlag, horizon: int) -> None:
        self.claim, self.flag, self.horizon = claim, flag, horizon
        self._before = owners(claim.path)[:-1]
        self._noted: float | None = None

    @property
    def stop_requested(self) -> bool:
        """Whether to stop at the next batch boundary."""
        return self.flag.is_set or self.claim.lost

    def reached(self, epoch: float) -> None:
        """Note how far it is."""
        now = time.monotonic()
        if self._noted is None:
            self.claim.begin(epoch, self.horizon)
        elif now - self._noted < _NOTE_SECONDS and not self.stop_requested:
            return
        else:
            self.claim.note(epoch)
        self._noted = now

    def check(self) -> None:
        """Make sure that the claim still holds."""
        if not self.claim.check():
            raise Stopped

    @property
    def interruptions(self) -> int:
        """How many have had the claim before."""
        return len(self._before)

    @property
    def epochs_repeated(self) -> float:
        """How many of the epochs that were computed before had to be computed again."""
        done = self.claim.owner.begun_at
        return max(0.0, round(sum(owner.epoch - owner.begun_at for owner in self._before) - done, 3))


class BatchJob(NamedTuple):
    """The batch job that this process belongs to.

    Args:
        job: As Slurm names it, or None.
        restarts: How often it was queued again.
    """

    job: str | None
    restarts: int


def batch_job() -> BatchJob:
    """Look what batch job this process belongs to."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return BatchJob(job, int(restarts) if restarts.isdecimal() else 0)
