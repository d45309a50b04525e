"""Processes that train cohorts: one for each GPU, or several on the cores of this machine.

A process of its own for each keeps what one of them does from the others. One that is killed takes nothing with it: its
cohort goes on from its checkpoint in another process, or where it is memory that runs out, in halves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from overfit_lab.claim import is_alive
from overfit_lab.cohort import Cohort, cohort_of
from overfit_lab.errors import UserError
from overfit_lab.launch.deaths import Deaths, fail_cohort
from overfit_lab.launch.events import Finished, Progress, say_busy
from overfit_lab.launch.job import Outcome, found
from overfit_lab.launch.processes import process_context
from overfit_lab.launch.supervise import StopFlag, heeding_signals
from overfit_lab.plan import Plan
from overfit_lab.records import CohortFiles
from overfit_lab.training.history import History

GRACE_SECONDS = 30.0
"""How long processes that are told to stop may take to the next batch boundary, and to save: as long as Slurm gives."""

# How often to look whether others are done with a cohort.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class _Request:
    """A cohort that is written down, as it is named to a process."""

    cohorts: Path
    name: str


class _Busy(NamedTuple):
    """Another command is training the cohort, or has done so."""


def train_in_workers(
    cohorts: Sequence[Cohort],
    overrides: Mapping[str, Sequence[str]],
    *,
    devices: Sequence[str],
    workers: int,
    regroup: Callable[[Sequence[Plan]], Sequence[Cohort]] = lambda plans: (),
) -> Iterator[Progress | Finished]:
    """Train cohorts that are written down, the first ones first, on as many processes as there are to be.

    Cohorts that another command is training are waited for; where it gives one up, that is trained here.

    Args:
        cohorts: What to train.
        overrides: For each run by its id, what the command line changed.
        devices: The GPUs, one for each process in turn; none for the CPU.
        workers: How many processes, at most.
        regroup: Finds the cohorts that runs belong to now, where those that they were in are no more.

    Raises:
        UserError: A run's study has become another one meanwhile.
        OSError: Nothing can be written.

    Yields:
        What happens, as it happens. A process that dies takes none of its runs with it.
    """
    waiting = deque(cohorts)
    elsewhere: list[Cohort] = []
    deaths = Deaths()
    with _workers(min(workers, len(cohorts)), devices) as idle:
        busy: dict[Connection, tuple[_Worker, Cohort]] = {}
        while waiting or busy or elsewhere:
            while waiting and idle:
                cohort, worker = waiting[0], idle.pop()
                try:
                    worker.connection.send(_Request(cohort.study.cohorts.directory, cohort.name))
                except OSError:
                    # It has died while it had nothing to do.
                    idle.append(worker.replace())
                    continue
                deaths.watch(cohort)
                busy[worker.connection] = worker, waiting.popleft()
            for ready in _ready(list(busy), look=bool(elsewhere)):
                worker, cohort = busy[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):
                    # It has died, perhaps in the middle of a word.
                    del busy[ready]
                    idle.append(worker.replace())
                    again, error = deaths.after_death(cohort)
                    waiting.extendleft(reversed(again))
                    if not again:
                        yield Finished(cohort, fail_cohort(cohort, overrides, error))
                    continue
                if isinstance(message, int):
                    yield Progress(cohort, message)
                    continue
                del busy[ready]
                idle.append(worker)
                if isinstance(message, _Busy):
                    say_busy(cohort)
                    elsewhere.append(cohort)
                    continue
                if isinstance(message, BaseException):
                    raise message
                yield Finished(cohort, message)
            for cohort in list(elsewhere):
                if is_alive(cohort.study.cohorts.claim(cohort.name)):
                    continue
                elsewhere.remove(cohort)
                if cohort.study.cohorts.record(cohort.name).exists():
                    waiting.append(cohort)
                    continue
                done = {plan: found(plan, overrides.get(plan.run_id, ())) for plan in cohort.plans}
                yield Finished(cohort, [outcome for outcome in done.values() if outcome is not None])
                # Others have divided it, or given it up.
                waiting.extend(regroup([plan for plan, outcome in done.items() if outcome is None]))


def _ready(connections: list[Connection], *, look: bool) -> list[Connection]:
    """Wait until a process says something, or where there is more to look after, for a moment."""
    if not connections:
        time.sleep(_LOOK_SECONDS if look else 0)
        return []
    return [c for c in connection.wait(connections, _LOOK_SECONDS if look else None) if isinstance(c, Connection)]


@contextmanager
def _workers(count: int, devices: Sequence[str]) -> Iterator[list[_Worker]]:
    """Lend processes; at the end all of them are told to stop, and save what they are training."""
    everyone: list[_Worker] = []
    for i in range(count):
        everyone.append(_Worker(devices[i % len(devices)] if devices else None))
    try:
        yield list(everyone)
    finally:
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            for worker in everyone:
                worker.tell()
            for worker in everyone:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            # Not even for a second Ctrl-C may one be left.
            for worker in everyone:
                worker.process.kill()
                worker.process.join()


class _Worker:
    """A process, and the line to it."""

    def __init__(self, device: str | None) -> None:
        self.device = device
        self._start()

    def _start(self) -> None:
        context: Any = process_context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.device), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self) -> None:
        """Tell the process to stop: what is finished is on disk as a whole, and what is not will be saved."""
        self.connection.close()
        self.process.terminate()

    def replace(self) -> _Worker:
        """Make sure that the process is gone, and start another one."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        self._start()
        return self


def _serve(line: Connection, device: str | None) -> None:
    """Train what comes along the line until it is closed."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    with heeding_signals() as flag:
        # Ctrl-C reaches every process of a terminal; the one that leads us tells us what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_stop_with_parent, args=(flag,), daemon=True).start()
        while not flag.is_set:
            try:
                request: _Request = line.recv()
            except (EOFError, OSError):
                break
            try:
                line.send(_answer(request, line, flag))
            except (BrokenPipeError, ConnectionError):
                break
        # All is on disk: to be ended by the signal now would tell nobody anything.
        flag.signal = None


def _answer(request: _Request, line: Connection, flag: StopFlag) -> list[Outcome] | _Busy | BaseException:
    # Imported before this process was forked; the one that leads it does without, as Lightning takes seconds.
    from overfit_lab.launch.training import Busy, train_runs
    from overfit_lab.training.supervision import Stopped

    def show(history: History) -> None:
        # Whoever leads us may be about to leave, and will have us stop in order.
        with suppress(OSError):
            line.send(history.epochs)

    try:
        record = CohortFiles(request.cohorts).find(request.name)
        if record is None:
            return _Busy()
        torch.set_num_threads(record.threads)
        with threadpool_limits(record.threads):
            return train_runs(cohort_of(record), record.overrides, record.command, [show], flag)
    except Busy:
        return _Busy()
    except Stopped:
        # Told to, or another process has gone on with it.
        return _Busy()
    except (UserError, OSError) as error:
        return error


def _stop_with_parent(flag: StopFlag) -> None:
    """Stop when the process that leads us is gone: its runs belong to whoever starts next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        flag.set()
        time.sleep(GRACE_SECONDS)
        os._exit(1)
