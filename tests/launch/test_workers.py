"""Processes that train cohorts: real ones, really killed."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config
from overfit_lab.errors import UserError
from overfit_lab.launch.events import Finished, Progress
from overfit_lab.launch.job import Outcome
from overfit_lab.launch.processes import process_context
from overfit_lab.launch.training import train_runs
from overfit_lab.launch.workers import train_in_workers
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import RunRecord
from overfit_lab.run import execute
from tests.launch.plans import grid, ids

Configure = Callable[..., Config]
Event = Progress | Finished


def small(config: Configure, *overrides: str) -> Config:
    return config(
        "data=iris", "split.folds=3", "model.depth=1", "model.width=4", "training.epochs=3", "study.report=false",
        "trainer.accelerator=cpu", "optimizer.lr=0.01", *overrides,
    )  # fmt: skip


def own(config: Configure, name: str, *overrides: str) -> Config:
    return config(
        "data=iris", "split.folds=3", "training.epochs=3", "study.report=false", "trainer.accelerator=cpu",
        "model=custom", f"model._target_=tests.launch.plans.{name}", *overrides,
    )  # fmt: skip


def overrides_of(plans: Sequence[Plan]) -> dict[str, list[str]]:
    return {plan.run_id: [f"seed={plan.config.seed}"] for plan in plans}


def written(cohort: Cohort) -> Cohort:
    """Write a cohort down, as it is before it trains."""
    record = cohort.record(overrides_of(cohort.plans), command="overfit-lab train -m")
    cohort.study.cohorts.save(cohort.name, record)
    return cohort


def train(cohorts: Sequence[Cohort], *, workers: int = 1) -> Iterator[Event]:
    overrides = overrides_of([plan for cohort in cohorts for plan in cohort.plans])
    return train_in_workers([written(cohort) for cohort in cohorts], overrides, devices=[], workers=workers)


def outcomes_of(events: Sequence[Event]) -> dict[str, Outcome]:
    outcomes = [outcome for event in events if isinstance(event, Finished) for outcome in event.outcomes]
    by_id = {outcome.run_id: outcome for outcome in outcomes}
    assert len(by_id) == len(outcomes)
    return by_id


def curves(plan: Plan) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return plan.files.load_curves()["value"].to_numpy()


def comparable(record: RunRecord | None) -> RunRecord:
    assert record is not None
    # A process asks git once; this one may have done so for an earlier test, in another folder.
    environment = record.environment.model_copy(update={"command": "", "git": None})
    return record.model_copy(update={"seconds": 0.0, "environment": environment, "files": None, "digest": None})


def test_outcomes_are_those_of_this_process(config: Configure) -> None:
    plans, same = (
        grid(small(config, f"study.name={name}"), penalty__alpha=[0.0, 0.1], seed=[0, 1])
        for name in ("workers", "here")
    )
    cohorts = [Cohort(tuple(plans[:2])), Cohort(tuple(plans[2:]), 2), *(Cohort((p,)) for p in plans[4:])]
    events = list(train(cohorts, workers=2))
    assert multiprocessing.active_children() == []

    # Each cohort shows its epochs in turn, and then what became of it.
    for cohort in cohorts:
        shown = [event for event in events if event.cohort is cohort]
        assert [event.epoch for event in shown if isinstance(event, Progress)] == [0, 1, 2, 3]
        assert isinstance(shown[-1], Finished)
        assert [outcome.run_id for outcome in shown[-1].outcomes] == ids(cohort.plans)

    here = [
        *execute(Cohort(tuple(same[:2])), overrides=overrides_of(same), command=""),
        *execute(Cohort(tuple(same[2:]), 2), overrides=overrides_of(same), command=""),
    ]
    outcomes = outcomes_of(events)
    for plan, twin, record in zip(plans, same, here, strict=True):
        outcome = outcomes[plan.run_id]
        assert (outcome.status, outcome.error, outcome.overrides) == ("trained", None, (f"seed={plan.config.seed}",))
        assert (outcome.study, outcome.report) == (plan.study.directory, False)
        assert outcome.record == plan.files.load()
        ours, theirs = (comparable(r).model_dump(exclude={"config": {"study"}}) for r in (outcome.record, record))
        assert ours == theirs
        np.testing.assert_allclose(curves(plan), curves(twin), rtol=1e-6)
        for kept, again in zip(plan.files.load_val_losses(), twin.files.load_val_losses(), strict=True):
            np.testing.assert_allclose(kept[1], again[1], rtol=1e-5)
    assert not plans[0].study.cohorts.directory.exists()


def test_more_workers_than_cohorts_and_none_at_all(config: Configure) -> None:
    assert list(train([], workers=2)) == []
    (plan,) = grid(small(config, "training.epochs=1"), seed=[0])
    events = train([Cohort((plan,))], workers=8)
    next(events)
    assert len(multiprocessing.active_children()) == 1
    assert list(outcomes_of(list(events))) == [plan.run_id]


def test_the_first_come_first(config: Configure) -> None:
    plans = grid(small(config, "training.epochs=1"), seed=[3, 1, 2])
    finished = [e.cohort.plans[0].config.seed for e in train([Cohort((p,)) for p in plans]) if isinstance(e, Finished)]
    assert finished == [3, 1, 2]


def test_a_process_that_is_killed_costs_no_run(config: Configure, tmp_path: Path) -> None:
    """Its cohort goes on from its checkpoint, and gives what it would have given, to the last bit."""
    marks = tmp_path / "marks"
    marks.mkdir()
    plans, same = (
        grid(
            own(
                config, "Mortal", f"+model.folder={marks}", "training.epochs=60", "training.checkpoint_seconds=0",
                "optimizer.lr=0.01", f"study.name={name}",
            ),
            penalty__alpha=[0.0, 0.1, 0.2],
            seed=[0, 1],
        )
        for name in ("killed", "undisturbed")
    )  # fmt: skip
    events = list(train([Cohort(tuple(plans))]))
    assert len(list(marks.iterdir())) == 3
    assert [len(event.cohort.plans) for event in events if isinstance(event, Finished)] == [6]
    assert {outcome.record.interruptions for outcome in outcomes_of(events).values() if outcome.record} == {3}
    assert {outcome.status for outcome in outcomes_of(events).values()} == {"trained"}
    assert sorted(outcomes_of(events)) == sorted(ids(plans))
    # With all its marks there, none dies any more.
    execute(Cohort(tuple(same)), overrides=overrides_of(same), command="")
    for plan, twin in zip(plans, same, strict=True):
        assert plan.files.curves.read_bytes() == twin.files.curves.read_bytes()
        assert plan.files.val_losses.read_bytes() == twin.files.val_losses.read_bytes()
    assert not plans[0].study.cohorts.directory.exists()


def test_a_process_that_is_killed_while_it_waits(config: Configure, tmp_path: Path) -> None:
    """So is the one that is still training."""
    go = tmp_path / "go"
    long = grid(own(config, "Waiting", f"+model.file={go}"), seed=[0, 1])
    (short,) = grid(small(config, "training.epochs=1"), seed=[2])
    events: list[Event] = []
    for event in train([Cohort(tuple(long)), Cohort((short,))], workers=2):
        events.append(event)
        if not go.exists() and short.run_id in outcomes_of(events):
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            for worker in workers:
                worker.kill()
                worker.join()
            go.touch()
    assert {outcome.status for outcome in outcomes_of(events).values()} == {"trained"}
    assert sorted(outcomes_of(events)) == sorted(ids([*long, short]))


def test_a_run_that_kills_its_process_fails_alone(config: Configure) -> None:
    plans = grid(own(config, "Dying"), seed=[0, 1, 2])
    other = grid(small(config), seed=[0])
    outcomes = outcomes_of(list(train([Cohort(tuple(plans)), Cohort(tuple(other))])))
    assert [outcomes[name].status for name in ids([*plans, *other])] == ["failed", "trained", "trained", "trained"]
    error = outcomes[plans[0].run_id].error
    assert error == "RuntimeError: its process was killed 3 times before it got any further"
    assert plans[0].files.load_failure().error == error
    assert not plans[0].files.record.exists()
    assert all(plan.files.load().status == "finished" for plan in [*plans[1:], *other])
    assert not plans[0].study.cohorts.directory.exists()


def test_a_run_that_raises_fails_alone(config: Configure) -> None:
    plans = grid(own(config, "Failing"), seed=[0, 1, 2, 3], penalty__alpha=[0.0, 0.1])
    assert {plan.form.form for plan in plans} == {"vmapped"}
    events = list(train([Cohort(tuple(plans))]))
    # One process deals with it: nothing was lost.
    assert len([event for event in events if isinstance(event, Finished)]) == 1
    outcomes = outcomes_of(events)
    for plan in plans:
        outcome = outcomes[plan.run_id]
        if plan.config.seed > 0:
            assert (outcome.status, outcome.error) == ("trained", None)
            assert not plan.files.failure.exists()
            continue
        assert (outcome.status, outcome.error) == ("failed", "RuntimeError: seed 0 fails")
        failure = plan.files.load_failure()
        assert failure.error == outcome.error
        assert "in fail" in failure.traceback
        assert failure.config["seed"] == 0
        assert not plan.files.record.exists()
    assert not plans[0].study.cohorts.directory.exists()


def test_a_study_that_has_become_another_ends_it_all(config: Configure) -> None:
    (plan,) = grid(small(config), seed=[0])
    (other,) = grid(small(config, "split.seed=5"), seed=[1])
    with pytest.raises(UserError, match=r"split\.seed="):
        list(train([Cohort((plan,)), Cohort((other,))]))
    assert multiprocessing.active_children() == []


def test_a_folder_that_cannot_be_written_ends_it_all(config: Configure, tmp_path: Path) -> None:
    (plan,) = grid(small(config, f"study.root={tmp_path}/file"), seed=[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        list(train([Cohort((plan,))]))


def test_who_stops_listening_ends_the_processes(config: Configure) -> None:
    plans = grid(small(config, "training.epochs=100000"), seed=[0, 1])
    events = train([Cohort((plan,)) for plan in plans], workers=2)
    next(events)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    events.close()  # type: ignore[attr-defined]
    assert not any(worker.is_alive() for worker in workers)


def within(headroom: int, configs: Sequence[Config], line: Connection) -> None:
    """Train one cohort in a process that may use only so many bytes more than it does once it has trained."""
    plans = [prepare(config) for config in configs]
    (warm,) = grid(configs[0], seed=[9])
    train_runs(written(Cohort((warm,))), overrides_of([warm]), "")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom, resource.RLIM_INFINITY))
    sizes: list[int] = []
    outcomes = train_runs(
        written(Cohort(tuple(plans))),
        overrides_of(plans),
        "",
        [lambda history: sizes.append(history.curves["val", "loss"][0].numel())],
    )
    line.send(([outcome.error for outcome in outcomes], sizes))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads how much memory is used, as Linux shows it")
def test_out_of_memory_ends_in_smaller_cohorts(config: Configure) -> None:
    """The address space is limited to less than the values, gradients and averages of all fits, really."""
    plans = grid(own(config, "Ballast", "training.epochs=1"), seed=[0, 1], penalty__alpha=[0.0, 0.1])
    values, fits, headroom = sum(p.numel() for p in plans[0].network.parameters()), 12, 100_000_000
    assert 4 * 4 * values * fits > headroom > 2 * 4 * 4 * values
    line, theirs = multiprocessing.Pipe()
    process = process_context().Process(target=within, args=(headroom, [plan.config for plan in plans], theirs))
    process.start()
    theirs.close()
    errors, sizes = line.recv()
    process.join()
    assert errors == [None] * 4
    # The whole may have got as far as epoch 0; what has trained is less.
    assert 0 < sizes[-1] < fits


def lead(configs: Sequence[Config], line: Connection) -> None:
    """Train endlessly, and tell by which processes."""
    cohorts = [Cohort((prepare(config),)) for config in configs]
    for event in train(cohorts, workers=2):
        if isinstance(event, Progress) and event.epoch == 1:
            line.send([worker.pid for worker in multiprocessing.active_children()])


def test_no_process_outlives_the_one_that_leads_it(config: Configure) -> None:
    plans = grid(small(config, "training.epochs=100000"), seed=[0, 1])
    line, theirs = multiprocessing.Pipe()
    leader = process_context().Process(target=lead, args=([plan.config for plan in plans], theirs))
    leader.start()
    theirs.close()
    workers = [psutil.Process(pid) for pid in line.recv()]
    # What they are forked from, too.
    everyone = {*workers, *psutil.Process(leader.pid).children(recursive=True)}
    assert len(workers) == 2
    leader.kill()
    leader.join()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(_runs, everyone)):
        time.sleep(0.05)
    assert not [process for process in everyone if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    # In a container without an init, what has ended and was adopted may stay as a zombie.
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_halves_in_this_process(config: Configure) -> None:
    """`train_runs` as the launcher `basic` calls it: a failure is an outcome, and no exception."""
    (plan,) = grid(own(config, "Failing"), seed=[0])
    (outcome,) = train_runs(written(Cohort((plan,))), overrides_of([plan]), "")
    assert (outcome.status, outcome.error) == ("failed", "RuntimeError: seed 0 fails")
