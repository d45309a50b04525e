"""Claims: of all that try, exactly one has the work, whoever dies, sleeps or lets go, and whatever lies there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overfit_lab import claim as module
from overfit_lab.claim import STALE_SECONDS, Claim, Owner, acquire, exclusively, is_alive, owners

ROUNDS = 30
RIVALS = 3


def mark(path: Path, number: int = 1) -> Path:
    """The file of a claim."""
    return path.with_name(f"{path.name}.claim-{number}")


def numbers(path: Path) -> list[int]:
    return sorted(int(file.name.rpartition("-")[2]) for file in path.parent.glob(f"{path.name}.claim-*"))


def edit(file: Path, **values: Any) -> None:  # noqa: ANN401 - whatever a field may be
    """Change what a claim says of its owner; its size stays."""
    file.write_bytes(json.dumps({**json.loads(file.read_bytes()), **values}).encode().ljust(1024))


def age(file: Path, seconds: float) -> None:
    """Let a claim look as if it was kept fresh so long ago."""
    then = time.time() - seconds
    os.utime(file, (then, then))


def refuse_links(patch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(self))

    patch.setattr(Path, "hardlink_to", refuse)


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has links; here and in what `race` starts."""
    if not request.param:
        refuse_links(monkeypatch)
    return bool(request.param)


@pytest.fixture
def no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test makes of the age of a mark, no beat makes it fresh in between."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 3600.0)


def _contend(paths: Sequence[Path], links: bool, gate: Barrier, results: Any) -> None:  # noqa: ANN401 - a queue
    if not links:
        refuse_links(pytest.MonkeyPatch())
    won = []
    for path in paths:
        gate.wait(60)
        claim = acquire(path)
        if claim is not None:
            won.append((path.name, claim.number))
        # Nobody lets go before all have tried.
        gate.wait(60)
        if claim is not None:
            claim.release()
    results.put(won)


def together(target: Callable[..., None], *arguments: Any) -> list[Any]:  # noqa: ANN401 - whatever it takes
    """Run a function in several processes at once, and return what each has put into the queue."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(RIVALS), context.Queue()
    processes = [context.Process(target=target, args=(*arguments, gate, results)) for _ in range(RIVALS)]
    for process in processes:
        process.start()
    try:
        return [results.get(timeout=60) for _ in processes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
            process.join()


def race(paths: Sequence[Path], *, links: bool) -> dict[str, list[int]]:
    """Let processes race for each of some claims; return the numbers that were won."""
    won: dict[str, list[int]] = {path.name: [] for path in paths}
    for name, number in (win for own in together(_contend, paths, links) for win in own):
        won[name].append(number)
    return won


# Claims what it is told, says so, and stays. BEAT is its BEAT_SECONDS, MACHINE what it takes for its own.
HOLDER = """
import sys
from pathlib import Path
from overfit_lab import claim

beat, machine, *paths = sys.argv[1:]
claim.BEAT_SECONDS = float(beat)
if machine:
    claim._machine = lambda: machine
claims = [claim.acquire(Path(path)) for path in paths]
assert all(claims)
print("claimed", flush=True)
for line in sys.stdin:
    print(claims[0].check() if line.strip() == "check" else claims[0].lost, flush=True)
"""

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Start processes that hold claims; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*paths: Path, beat: float = 3600.0, machine: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(beat), machine, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], what: str) -> bool:
    """Ask a holder for `lost` or for what `check` says of its first claim."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    return {"True": True, "False": False}[process.stdout.readline().strip()]


def kill(process: subprocess.Popen[str]) -> None:
    """End a process without asking, and do not look: it stays as a zombie."""
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


def has(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


def test_of_all_that_race_one_wins(tmp_path: Path, hold: Hold, links: bool) -> None:
    """New work, work that was let go, and work of somebody who was killed, by turns; and one again and again."""
    fresh, released, dead = ([tmp_path / f"{kind}{i}" for i in range(ROUNDS)] for kind in ("new", "released", "dead"))
    again = [tmp_path / "again"] * ROUNDS
    for path in released:
        has(acquire(path)).release()
    kill(hold(*dead))
    won = race([path for turn in zip(fresh, released, dead, again, strict=True) for path in turn], links=links)
    assert sorted(won.pop("again")) == numbers(tmp_path / "again") == list(range(1, ROUNDS + 1))
    assert won == {
        **{path.name: [1] for path in fresh},
        **{path.name: [2] for path in released},
        **{path.name: [2] for path in dead},
    }
    # Those that tried in vain leave nothing, neither marks nor what they were made of.
    assert len(list(tmp_path.iterdir())) == 6 * ROUNDS


def test_numbers_rise_and_letting_go_removes_nothing(tmp_path: Path, links: bool) -> None:
    path = tmp_path / "work"
    for number in range(1, 13):
        claim = has(acquire(path, job=f"job {number}"))
        assert (claim.number, numbers(path)) == (number, list(range(1, number + 1)))
        claim.release()
        claim.release()
        assert not is_alive(path)
    # By number, not by name: 12 comes after 2.
    assert [owner.job for owner in owners(path)] == [f"job {number}" for number in range(1, 13)]
    assert all(owner.released for owner in owners(path))
    assert {file.stat().st_size for file in tmp_path.iterdir()} == {1024}


def test_over_nfs_an_answer_may_get_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is heard, then repeated, and what it has made is there already."""

    def link(self: Path, target: Path) -> None:
        os.link(target, self)
        raise FileExistsError(errno.EEXIST, "File exists", str(self))

    monkeypatch.setattr(Path, "hardlink_to", link)
    claim = has(acquire(tmp_path / "work"))
    assert [file.name for file in tmp_path.iterdir()] == ["work.claim-1"]
    claim.release()


def test_whoever_was_slow_takes_no_number_that_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw number 1; meanwhile others had 2, and `exclusively` removed it under 3."""
    path = tmp_path / "lock"
    has(acquire(path)).release()
    look = module._numbers
    seen = look(path)
    with exclusively(path):
        pass
    with exclusively(path):
        assert numbers(path) == [3]
        # By `acquire` and by `is_alive`, before it makes its own.
        looks = iter([seen, seen])
        monkeypatch.setattr(module, "_numbers", lambda path: next(looks, None) or look(path))
        assert acquire(path) is None
        assert numbers(path) == [3]


def test_what_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "work"
    before = time.time()
    claim = has(acquire(path, job="17_3"))
    claim.begin(2.5, 10)
    claim.note(4.25)
    (owner,) = owners(path)
    assert (owner.process, owner.job, owner.begun_at, owner.epoch, owner.horizon) == (
        os.getpid(),
        "17_3",
        2.5,
        4.25,
        10,
    )
    assert before <= owner.since <= time.time()
    assert owner.place == f"{owner.host}, process {os.getpid()}"
    assert not owner.released
    # Whoever shares the study sees whose it is.
    assert mark(path).stat().st_mode & 0o777 == 0o644
    claim.release()
    (owner,) = owners(path)
    assert (owner.epoch, owner.released) == (4.25, True)


def test_names_that_look_alike_are_not_mixed_up(tmp_path: Path) -> None:
    """`a` begins as `a.b` does, and a dot is a dot."""
    held = [has(acquire(tmp_path / name)) for name in ("a.b", "axb", "a.b.claim-1")]
    mark(tmp_path / "a", 7).with_suffix(".claim-07").write_bytes(b"")
    claim = has(acquire(tmp_path / "a"))
    assert [own.number for own in (*held, claim)] == [1, 1, 1, 1]
    assert len(owners(tmp_path / "a.b")) == 1
    for own in (*held, claim):
        own.release()


def test_whoever_is_alive_is_not_displaced(tmp_path: Path, hold: Hold) -> None:
    path = tmp_path / "work"
    process = hold(path)
    # Its process is seen, so that how old its mark is does not matter, and that it does not answer neither.
    process.send_signal(signal.SIGSTOP)
    age(mark(path), 100 * STALE_SECONDS)
    assert is_alive(path)
    assert [acquire(path) for _ in range(20)] == [None] * 20
    process.send_signal(signal.SIGCONT)
    assert ask(process, "check")
    assert numbers(path) == [1]


def test_whoever_was_killed_is_succeeded(tmp_path: Path, hold: Hold) -> None:
    paths = [tmp_path / "zombie", tmp_path / "gone"]
    process = hold(*paths)
    kill(process)
    assert not is_alive(paths[0])
    first = has(acquire(paths[0]))
    process.wait()
    assert not is_alive(paths[1])
    second = has(acquire(paths[1]))
    assert (first.number, second.number) == (2, 2)
    assert [owner.process for owner in owners(paths[0])] == [process.pid, os.getpid()]
    assert not owners(paths[0])[0].released
    first.release()
    second.release()


def test_a_process_number_that_was_used_again(tmp_path: Path) -> None:
    path = tmp_path / "work"
    claim = has(acquire(path))
    assert acquire(path) is None
    # What has this number now is not what had it then.
    edit(mark(path), born=claim.owner.born - 1)
    assert not is_alive(path)
    successor = has(acquire(path))
    assert successor.number == 2
    assert not claim.check()
    claim.release()
    successor.release()


@pytest.mark.usefixtures("links", "no_beat")
def test_another_machine_is_judged_by_how_fresh_its_mark_is(tmp_path: Path) -> None:
    path = tmp_path / "work"
    claim = has(acquire(path))
    # That there is such a process here says nothing, and that there is none neither.
    for process in (os.getpid(), 2**22 + 1):
        edit(mark(path), machine="another", process=process)
        for seconds in (0.0, STALE_SECONDS - 10, -STALE_SECONDS):
            age(mark(path), seconds)
            assert is_alive(path)
            assert acquire(path) is None
        age(mark(path), STALE_SECONDS + 0.5)
        assert not is_alive(path)
    successor = has(acquire(path))
    assert (successor.number, numbers(path)) == (2, [1, 2])
    # Let go is let go, however fresh it is.
    successor.release()
    edit(mark(path, 2), machine="another")
    assert not is_alive(path)
    claim.release()


@pytest.mark.usefixtures("no_beat")
def test_what_is_fresh_is_not_judged_by_our_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of two machines may differ by more than it takes to be given up."""
    path = tmp_path / "work"
    claim = has(acquire(path))
    edit(mark(path), machine="another", since=time.time() + 1e6)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert is_alive(path)
    age_by_disk = mark(path).stat().st_mtime - STALE_SECONDS - 1
    os.utime(mark(path), (age_by_disk, age_by_disk))
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert not is_alive(path)
    claim.release()


def test_whoever_was_asleep_sees_that_it_has_lost(tmp_path: Path, hold: Hold) -> None:
    path = tmp_path / "work"
    process = hold(path, beat=0.02, machine="another")
    # It keeps its mark fresh.
    age(mark(path), STALE_SECONDS + 1)
    wait_until(lambda: is_alive(path))
    assert not ask(process, "lost")

    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    age(mark(path), STALE_SECONDS + 1)
    claim = has(acquire(path))
    assert claim.number == 2
    process.send_signal(signal.SIGCONT)
    # By itself, without being asked to look.
    wait_until(lambda: ask(process, "lost"))
    assert not ask(process, "check")
    # What it goes on doing with its own mark does not touch the claim of the other.
    assert claim.check()
    assert not claim.lost
    claim.release()


def test_whoever_asks_sees_at_once_that_it_has_lost(tmp_path: Path, hold: Hold) -> None:
    """Before anything is saved: a beat may be some seconds ahead."""
    path = tmp_path / "work"
    process = hold(path, machine="another")
    age(mark(path), STALE_SECONDS + 1)
    claim = has(acquire(path))
    assert not ask(process, "lost")
    assert not ask(process, "check")
    assert ask(process, "lost")
    claim.release()


def test_the_beat_ends_with_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.005)
    path = tmp_path / "work"
    claim = has(acquire(path))
    age(mark(path), 1000)
    wait_until(lambda: mark(path).stat().st_mtime > time.time() - 500)
    claim.release()
    age(mark(path), 1000)
    time.sleep(0.05)
    assert mark(path).stat().st_mtime < time.time() - 500
    # A mark that is gone means that others have gone on with it and are done; whoever has not heard is not disturbed.
    claim = has(acquire(path))
    for file in tmp_path.iterdir():
        file.unlink()
    wait_until(lambda: claim.lost)
    claim.note(1.0)
    assert not claim.check()
    claim.release()
    assert list(tmp_path.iterdir()) == []


def owner_of(tmp_path: Path) -> dict[str, Any]:
    claim = has(acquire(tmp_path / "model"))
    claim.release()
    return dict(json.loads(mark(tmp_path / "model").read_bytes()))


def check_distrusted(path: Path, content: bytes) -> None:
    """It may be somebody's who is about to write it, so it is alive while it is fresh, and then given up."""
    mark(path).write_bytes(content)
    assert owners(path) == []
    assert is_alive(path)
    assert acquire(path) is None
    age(mark(path), STALE_SECONDS + 1)
    claim = has(acquire(path))
    assert (claim.number, [owner.process for owner in owners(path)]) == (2, [os.getpid()])
    claim.release()
    for number in numbers(path):
        mark(path, number).unlink()


FOREIGN = [b"", b"{", b"null", b"[]", b"7", b'"x"', b"{}", b"\xff\xfe", b"\0" * 1024, b'{"host": "a"}', b"NaN"]


@pytest.mark.parametrize("content", FOREIGN)
def test_what_is_no_owner_is_neither_fatal_nor_trusted(tmp_path: Path, content: bytes) -> None:
    check_distrusted(tmp_path / "work", content)


def test_a_torn_mark_is_neither_fatal_nor_trusted(tmp_path: Path) -> None:
    whole = json.dumps(owner_of(tmp_path)).encode()
    for length in range(1, len(whole) - 1, 60):
        check_distrusted(tmp_path / "work", whole[:length])


WRONG: list[dict[str, Any]] = [
    *({key: "x"} for key in ("process", "born", "epoch", "horizon", "begun_at", "since", "released")),
    *({"process": 1.5}, {"process": None}, {"horizon": []}, {"machine": 3}, {"host": None}, {"job": 7}),
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_values_of_another_kind_are_neither_fatal_nor_trusted(tmp_path: Path, values: dict[str, Any]) -> None:
    """Whoever looks on reckons with them."""
    check_distrusted(tmp_path / "work", json.dumps({**owner_of(tmp_path), "released": False, **values}).encode())


@pytest.mark.parametrize("process", [-1, 0, 2**22 + 1, 10**30])
def test_numbers_that_no_process_has(tmp_path: Path, process: int) -> None:
    path = tmp_path / "work"
    mark(path).write_bytes(json.dumps({**owner_of(tmp_path), "released": False, "process": process}).encode())
    assert not is_alive(path)
    has(acquire(path)).release()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64), number=st.integers(1, 10**12))
def test_any_bytes(tmp_path: Path, content: bytes, number: int) -> None:
    path = tmp_path / "work"
    for file in tmp_path.iterdir():
        file.unlink()
    mark(path, number).write_bytes(content)
    age(mark(path, number), STALE_SECONDS + 1)
    assert owners(path) == []
    claim = has(acquire(path))
    assert claim.number == number + 1
    claim.release()


def test_fields_of_a_later_version_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "work"
    claim = has(acquire(path))
    edit(mark(path), colour="blue")
    assert owners(path) == [claim.owner]
    assert acquire(path) is None
    claim.release()


def test_a_mark_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    """It is overwritten in place while others look."""
    path = tmp_path / "work"
    claim = has(acquire(path))
    seen = set()
    for i in range(300):
        claim.note(10.0 ** (i % 9))
        (owner,) = owners(path)
        seen.add(owner.epoch)
        assert mark(path).stat().st_size == 1024
    assert seen == {10.0**i for i in range(9)}
    claim.release()


# A disk that takes nothing more: no file may get any bytes.
UNWRITABLE = """
import resource, sys
from pathlib import Path
from overfit_lab import claim

path = Path(sys.argv[1])
held = claim.acquire(path)
held.begin(0, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
held.begin(1, 10)
held.note(5)
assert held.check()
held.release()
print(held.owner.epoch)
"""


def test_a_mark_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "work"
    said = subprocess.run([sys.executable, "-c", UNWRITABLE, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout == "5\n"
    (owner,) = owners(path)
    assert (owner.epoch, owner.horizon, owner.released) == (0.0, 10.0, False)
    # That it was let go could not be said, but its process is gone.
    assert not is_alive(path)


def test_nobody_has_what_was_never_claimed(tmp_path: Path) -> None:
    for path in (tmp_path / "work", tmp_path / "no folder" / "work"):
        assert not is_alive(path)
        assert owners(path) == []


def _count(folder: Path, turns: int, gate: Barrier, results: Any) -> None:  # noqa: ANN401 - a queue
    counter = folder / "counter"
    gate.wait(60)
    for _ in range(turns):
        with exclusively(folder / ".lock"):
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))
    results.put(None)


def test_only_one_is_inside(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    together(_count, tmp_path, 15)
    assert (tmp_path / "counter").read_text() == str(15 * RIVALS)
    # Of all that were inside, one mark is left.
    left = Counter(file.name.startswith(".lock.claim-") for file in tmp_path.iterdir())
    assert left[True] <= 2
    assert left[False] == 1


def test_whoever_dies_inside_keeps_nobody_out(tmp_path: Path, hold: Hold) -> None:
    path = tmp_path / "lock"
    kill(hold(path))
    with exclusively(path):
        assert numbers(path) == [2]
        assert acquire(path) is None
    with pytest.raises(ZeroDivisionError), exclusively(path):
        _ = 1 / 0
    assert not is_alive(path)
    assert numbers(path) == [3]


def test_owners_have_one_size(tmp_path: Path) -> None:
    """Of a long host, too: what is overwritten must not leave an end of what was longer."""
    path = tmp_path / "work"
    claim = has(acquire(path, job="1234567_1000"))
    long = Owner(**{**vars(claim.owner), "host": "h" * 64, "machine": f"{'h' * 64} {'b' * 36} pid:[4026531836]"})
    file = mark(path)
    file.write_bytes(json.dumps(vars(long)).encode().ljust(1024))
    assert (file.stat().st_size, owners(path)) == (1024, [long])
    claim.release()


def test_what_a_batch_job_has_claimed_before_it_was_queued_again(tmp_path: Path) -> None:
    """On another node, perhaps, and fresh: but its batch system has ended it. Beside it, it is alive."""
    path = tmp_path / "work"
    first = acquire(path, job="7_3")
    assert first is not None
    assert acquire(path, job="7_3") is None
    assert acquire(path, job="7_4", restarts=1) is None
    assert acquire(path, restarts=1) is None
    again = acquire(path, job="7_3", restarts=1)
    assert again is not None
    assert again.number == 2
    assert not first.check()
    again.release()
    first.release()
