"""Signals and claims in real processes: a training stops between two steps, and then whoever was asked before is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overfit_lab.claim import Claim, acquire, owners
from overfit_lab.launch.supervise import STOPPING, ClaimSupervision, StopFlag, batch_job, heeding_signals
from overfit_lab.training.supervision import Stopped

# Works inside the block until it is asked to stop, and on until it may leave: nothing may end it there.
WORKER = """
import signal, sys, time
from overfit_lab.launch.supervise import heeding_signals

def handle(number, frame):
    print("handler", number, flush=True)

def leave(number, frame):
    print("handler", number, flush=True)
    raise SystemExit(7)

before = {"default": signal.SIG_DFL, "ignore": signal.SIG_IGN, "handle": handle, "leave": leave}[sys.argv[1]]
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
    if sys.argv[1] != "default" or number != signal.SIGINT:
        signal.signal(number, before)
try:
    with heeding_signals() as flag:
        print("inside", flush=True)
        while not flag.is_set:
            time.sleep(0.005)
        print("asked", int(flag.signal), flush=True)
        if len(sys.argv) > 2:
            time.sleep(600)
        sys.stdin.readline()
        for _ in range(3):
            time.sleep(0.01)
        print("saved", flush=True)
except KeyboardInterrupt:
    print("interrupt", flush=True)
    raise
finally:
    restored = [signal.getsignal(n) is before for n in (signal.SIGTERM, signal.SIGUSR2)]
    print("restored", all(restored), flush=True)
print("after", flush=True)
"""

Work = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def work() -> Iterator[Work]:
    """Start processes that are inside the block; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        assert line(process) == "inside"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """Let it leave, and return what else it says before it ends."""
    return process.communicate(timeout=60)[0].split("\n")[:-1]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_waits_for_the_end_of_the_block(work: Work, number: int) -> None:
    """Then it does what it would have done: the default action, which tells whoever waits what has ended it."""
    process = work("default")
    process.send_signal(number)
    said = rest(process)
    assert said[:2] == [f"asked {int(number)}", "saved"]
    if number == signal.SIGINT:
        # Python's own handler raises; the interpreter then ends by the signal, too.
        assert said[2:] == ["interrupt", "restored True"]
    else:
        assert said[2:] == []
    assert process.returncode == -number


@pytest.mark.parametrize("number", STOPPING)
def test_whoever_handled_it_before_hears_of_it_once(work: Work, number: int) -> None:
    process = work("handle")
    process.send_signal(number)
    assert rest(process) == [f"asked {int(number)}", "saved", f"handler {int(number)}", "restored True"]
    # The handler has returned: nobody may take what was stopped for finished.
    assert process.returncode == 128 + number


def test_a_handler_may_end_the_process_in_its_own_way(work: Work) -> None:
    """As submitit's does, when it has had the job queued again."""
    process = work("leave")
    process.send_signal(signal.SIGUSR2)
    assert rest(process) == [f"asked {int(signal.SIGUSR2)}", "saved", f"handler {int(signal.SIGUSR2)}", "restored True"]
    assert process.returncode == 7


def test_where_it_was_ignored_the_process_ends_all_the_same(work: Work) -> None:
    """It has stopped in the middle of its work."""
    process = work("ignore")
    process.send_signal(signal.SIGTERM)
    assert rest(process) == [f"asked {int(signal.SIGTERM)}", "saved", "restored True"]
    assert process.returncode == 128 + signal.SIGTERM


def test_several_signals_are_no_more_than_one(work: Work) -> None:
    """A batch system sends SIGTERM after its warning, and again to every process of the group."""
    process = work("handle")
    process.send_signal(signal.SIGUSR2)
    assert line(process) == f"asked {int(signal.SIGUSR2)}"
    process.send_signal(signal.SIGUSR2)
    said = rest(process)
    assert said == ["saved", f"handler {int(signal.SIGUSR2)}", "restored True"]
    assert process.returncode == 128 + signal.SIGUSR2


@pytest.mark.parametrize("first", STOPPING)
def test_ctrl_c_does_not_wait_where_a_stop_was_asked_for(work: Work, first: int) -> None:
    process = work("default", "slowly")
    process.send_signal(first)
    assert line(process) == f"asked {int(first)}"
    process.send_signal(signal.SIGINT)
    said = rest(process)
    assert "saved" not in said
    assert process.returncode in (-first, -signal.SIGINT)


# A second Ctrl-C once more: with the handlers that were there, KeyboardInterrupt itself arrives.
TWICE = """
import os, signal
from overfit_lab.launch.supervise import heeding_signals
signal.signal(signal.SIGINT, lambda number, frame: print("handler", flush=True))
try:
    with heeding_signals():
        os.kill(os.getpid(), signal.SIGINT)
        print("once", flush=True)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            print("twice", flush=True)
        except KeyboardInterrupt:
            print("at once", flush=True)
            raise
except BaseException as error:
    print(type(error).__name__, type(error.__context__).__name__, flush=True)
"""


def test_a_second_ctrl_c_is_a_keyboard_interrupt() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["once", "at once"]
    assert "twice" not in done.stdout
    assert "KeyboardInterrupt" in done.stdout


def test_without_a_signal_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with heeding_signals() as flag:
        assert all(signal.getsignal(number) not in before for number in STOPPING)
    assert [signal.getsignal(number) for number in STOPPING] == before
    assert not flag.is_set
    with pytest.raises(ZeroDivisionError), heeding_signals():
        _ = 1 / 0
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_stop_that_no_signal_has_asked_for_ends_nothing() -> None:
    with heeding_signals() as flag:
        flag.set()
    assert (flag.is_set, flag.signal) == (True, None)


def stop_inside() -> None:
    with heeding_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
        raise Stopped


def test_the_signal_goes_on_where_the_block_has_raised() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(SystemExit) as caught:
            stop_inside()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]
    assert caught.value.code == 128 + signal.SIGUSR2


def stop_twice_inside(heard: list[int]) -> None:
    with heeding_signals() as outer:
        with pytest.raises(SystemExit):
            stop_inside()
        assert (outer.is_set, outer.signal, heard) == (True, signal.SIGUSR2, [])


def test_blocks_may_stand_inside_one_another() -> None:
    """A task heeds signals around a training that does so, too."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(SystemExit):
            stop_twice_inside(heard)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]


def test_another_thread_leaves_signals_alone() -> None:
    """Python lets the main thread alone set handlers."""
    before = [signal.getsignal(number) for number in STOPPING]
    seen: list[Any] = []

    def run() -> None:
        with heeding_signals() as flag:
            seen.append([signal.getsignal(number) for number in STOPPING])
            flag.set(signal.SIGTERM)
        seen.append("out")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, "out"]


def history(path: Path, *parts: tuple[float, float]) -> None:
    """Make up that some have had a claim, and from which epoch to which each of them has come."""
    for begun_at, epoch in parts:
        claim = acquire(path)
        assert claim is not None
        claim.begin(begun_at, 10)
        claim.note(epoch)
        claim.release()


@pytest.fixture
def claimed(tmp_path: Path) -> Iterator[Callable[..., Claim]]:
    held: list[Claim] = []

    def make(*parts: tuple[float, float]) -> Claim:
        history(tmp_path / "work", *parts)
        claim = acquire(tmp_path / "work")
        assert claim is not None
        held.append(claim)
        return claim

    yield make
    for claim in held:
        claim.release()


@pytest.mark.parametrize(
    ("parts", "begun_at", "interruptions", "repeated"),
    [
        # From the start, without interruption.
        ((), 0.0, 0, 0.0),
        # Stopped at 4.5 with its checkpoint saved there: nothing is lost.
        (((0, 4.5),), 4.5, 1, 0.0),
        # Killed at 4.5; the last checkpoint was of 3: 1.5 epochs again.
        (((0, 4.5),), 3.0, 1, 1.5),
        # Killed at 4 and begun from scratch: all 4 again.
        (((0, 4),), 0.0, 1, 4.0),
        # 0 to 5, 3 to 6, now from 5.5: computed were 5 + 3 = 8, of which 5.5 count.
        (((0, 5), (3, 6)), 5.5, 2, 2.5),
        # 0 to 2, 2 to 2 (killed before its first step), 1 to 7.25, now from 7: 2 + 0 + 6.25 - 7.
        (((0, 2), (2, 2), (1, 7.25)), 7.0, 3, 1.25),
        # One that died before it noted anything says 0 to 0.
        (((0, 3), (0, 0)), 3.0, 2, 0.0),
        # It was not noted how far it was when the last checkpoint was saved: no less than nothing.
        (((0, 2.9),), 3.0, 1, 0.0),
    ],
)
def test_interruptions_and_epochs_that_were_repeated(
    claimed: Callable[..., Claim],
    parts: tuple[tuple[float, float], ...],
    begun_at: float,
    interruptions: int,
    repeated: float,
) -> None:
    supervision = ClaimSupervision(claimed(*parts), StopFlag(), 10)
    supervision.reached(begun_at)
    supervision.reached(begun_at + 1)
    assert (supervision.interruptions, supervision.epochs_repeated) == (interruptions, repeated)


def test_what_a_training_reaches_is_written_down(
    claimed: Callable[..., Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed()
    supervision = ClaimSupervision(claim, StopFlag(), 30)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    supervision.reached(2.5)

    def noted() -> tuple[float, float, float]:
        (owner,) = owners(claim.path)
        return owner.begun_at, owner.epoch, owner.horizon

    assert noted() == (2.5, 2.5, 30)
    # Not every batch is written down: some take microseconds.
    supervision.reached(2.75)
    assert noted() == (2.5, 2.5, 30)
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    supervision.reached(3.0)
    assert noted() == (2.5, 3.0, 30)


def test_a_training_stops_when_it_is_told_or_has_lost_its_claim(claimed: Callable[..., Claim]) -> None:
    claim, flag = claimed(), StopFlag()
    supervision = ClaimSupervision(claim, flag, 10)
    assert not supervision.stop_requested
    supervision.check()
    flag.set(signal.SIGTERM)
    assert supervision.stop_requested
    # To be told to stop is no reason not to save.
    supervision.check()

    other = ClaimSupervision(claim, StopFlag(), 10)
    assert not other.stop_requested
    mark = claim.path.with_name(f"{claim.path.name}.claim-1")
    mark.with_name(f"{claim.path.name}.claim-2").write_bytes(
        json.dumps({**vars(claim.owner), "process": 1}).encode().ljust(1024)
    )
    with pytest.raises(Stopped):
        other.check()
    assert other.stop_requested


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, "12"),
        # Of an array, each task has a number of its own, by which nobody names it.
        ({"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}, "12_0"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12"}, "12"),
    ],
)
def test_the_batch_job(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str | None) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert batch_job() == (job, 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert batch_job() == (job, 2)
