"""Processes that train cohorts: one for each GPU, or several on the cores of this machine.

A process of its own for each keeps what one of them does from the others: a cohort that the system kills for want of
memory is cut in halves and trained again, and nothing else is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config
from overfit_lab.errors import UserError
from overfit_lab.launch.grouping import Machine, threads_for
from overfit_lab.launch.job import Outcome, fail
from overfit_lab.launch.machine import cores
from overfit_lab.launch.processes import process_context
from overfit_lab.plan import prepare


class Progress(NamedTuple):
    """A cohort has been measured at an epoch."""

    cohort: Cohort
    epoch: int


class Finished(NamedTuple):
    """A cohort is done; there is an outcome for each of its runs."""

    cohort: Cohort
    outcomes: list[Outcome]


@dataclass(frozen=True)
class _Request:
    """A cohort as it travels to a process, which prepares its runs anew."""

    configs: tuple[Config, ...]
    max_fits: int | None
    overrides: Mapping[str, Sequence[str]]
    command: str
    threads: int


def train_in_workers(
    cohorts: Sequence[Cohort],
    overrides: Mapping[str, Sequence[str]],
    command: str,
    *,
    devices: Sequence[str],
    machine: Machine,
) -> Iterator[Progress | Finished]:
    """Train cohorts, the first ones first, on as many processes as there are to be.

    Args:
        cohorts: What to train.
        overrides: For each run by its id, what the command line changed.
        command: The whole command line.
        devices: The GPUs, one for each process in turn; none for the CPU.
        machine: How many processes, at most, and what a cohort costs.

    Raises:
        UserError: A run's study has become another one meanwhile.

    Yields:
        What happens, as it happens. A process that dies takes none of its runs with it: its cohort is cut in halves.
    """
    waiting = deque(cohorts)
    count = min(machine.workers, len(cohorts))
    most_threads = max(1, cores() // max(1, count))
    with ExitStack() as stack:

        def start(device: str | None) -> _Worker:
            worker = _Worker(device)
            stack.callback(worker.stop)
            return worker

        idle = [start(devices[i % len(devices)] if devices else None) for i in range(count)]
        busy: dict[Connection, tuple[_Worker, Cohort]] = {}
        while waiting or busy:
            while waiting and idle:
                cohort, worker = waiting[0], idle.pop()
                request = _Request(
                    tuple(plan.config for plan in cohort.plans),
                    cohort.max_fits,
                    {plan.run_id: overrides[plan.run_id] for plan in cohort.plans},
                    command,
                    threads_for(cohort.plans, machine, most_threads),
                )
                try:
                    worker.connection.send(request)
                except OSError:
                    # It has died while it had nothing to do.
                    worker.stop()
                    idle.append(start(worker.device))
                    continue
                busy[worker.connection] = worker, waiting.popleft()
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                worker, cohort = busy[ready]
                try:
                    message = ready.recv()
                except (EOFError, ConnectionError):
                    del busy[ready]
                    worker.stop()
                    idle.append(start(worker.device))
                    cohort.end()
                    halves = cohort.halves(smaller=True)
                    waiting.extendleft(reversed(halves))
                    if not halves:
                        error = MemoryError("its process was killed, as the system does when memory runs out")
                        yield Finished(cohort, [fail(plan, overrides[plan.run_id], error) for plan in cohort.plans])
                    continue
                if isinstance(message, int):
                    yield Progress(cohort, message)
                    continue
                del busy[ready]
                idle.append(worker)
                if isinstance(message, BaseException):
                    raise message
                yield Finished(cohort, message)


class _Worker:
    """A process, and the line to it."""

    def __init__(self, device: str | None) -> None:
        context: Any = process_context()
        self.device = device
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process, whatever it is doing: what is finished is on disk as a whole, the rest is not."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(line: Connection, device: str | None) -> None:
    """Train what comes along the line until it is closed."""
    # Ctrl-C reaches every process of a terminal; the one that leads us ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    while True:
        try:
            request: _Request = line.recv()
        except EOFError:
            return
        line.send(_answer(request, line))


def _answer(request: _Request, line: Connection) -> list[Outcome] | BaseException:
    # Imported before this process was forked; the one that leads it does without, as Lightning takes seconds.
    from overfit_lab.launch.training import train_runs

    torch.set_num_threads(request.threads)
    try:
        with threadpool_limits(request.threads):
            cohort = Cohort(tuple(prepare(config) for config in request.configs), request.max_fits)
            return train_runs(cohort, request.overrides, request.command, [lambda history: line.send(history.epochs)])
    except (UserError, OSError) as error:
        return error


def _end_with_parent() -> None:
    """Leave when the process that leads us is gone: its runs belong to whoever starts next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
