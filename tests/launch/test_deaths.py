"""What becomes of a cohort whose process has died: it goes on, or in halves, or it has failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from overfit_lab.claim import acquire
from overfit_lab.cohort import Cohort, cohort_of
from overfit_lab.config import Config
from overfit_lab.launch import deaths as module
from overfit_lab.launch.deaths import MOST_DEATHS, Deaths, fail_cohort
from overfit_lab.plan import Plan
from tests.launch.plans import grid, ids

Configure = Callable[..., Config]


@pytest.fixture
def plans(config: Configure) -> list[Plan]:
    small = config("data=iris", "split.folds=4", "model=linear", "training.epochs=2", "trainer.accelerator=cpu")
    return grid(small, seed=[0, 1, 2, 3])


def written(plans: list[Plan], max_fits: int | None = None) -> Cohort:
    """Write a cohort down, with a checkpoint of its first part."""
    cohort = Cohort(tuple(plans), max_fits)
    overrides = {plan.run_id: [f"seed={plan.config.seed}"] for plan in plans}
    told = {"command": "command", "folder": "/folder", "sweep": "token", "threads": 3}
    cohort.study.cohorts.save(cohort.name, cohort.record(overrides, **told))
    cohort.study.cohorts.note_job(cohort.name, "17_0")
    cohort.study.cohorts.checkpoint(cohort.name, 0).write_bytes(b"x")
    return cohort


def advance(path: Path) -> None:
    """Let a checkpoint look as if it was saved once more."""
    then = path.stat().st_mtime_ns + 1
    os.utime(path, ns=(then, then))


def names(cohort: Cohort) -> set[str]:
    """The names of cohorts that have files."""
    folder = cohort.study.cohorts.directory
    return {path.name.partition(".")[0] for path in folder.iterdir()} if folder.exists() else set()


def test_a_cohort_that_dies_goes_on_until_it_has_died_too_often(plans: list[Plan]) -> None:
    cohort, deaths = written(plans), Deaths()
    for _ in range(MOST_DEATHS - 1):
        deaths.watch(cohort)
        again, _ = deaths.after_death(cohort, out_of_memory=False)
        assert again == (cohort,)
        assert cohort.study.cohorts.checkpoint(cohort.name, 0).exists()
    deaths.watch(cohort)
    halves, error = deaths.after_death(cohort, out_of_memory=False)
    assert [ids(half.plans) for half in halves] == [ids(plans[:2]), ids(plans[2:])]
    assert type(error) is RuntimeError
    assert str(error) == "its process was killed 3 times before it got any further"
    assert names(cohort) == {half.name for half in halves}


def test_the_halves_are_written_down_in_its_place(plans: list[Plan]) -> None:
    cohort, deaths = written(plans, 6), Deaths()
    claim = acquire(cohort.study.cohorts.claim(cohort.name))
    assert claim is not None
    claim.release()
    (cohort.study.cohorts.directory / f".{cohort.name}.0.ckpt.7.partial").write_bytes(b"half")
    before = cohort.study.cohorts.load(cohort.name)
    deaths.watch(cohort)
    halves, _ = deaths.after_death(cohort, out_of_memory=True)
    # Nothing is left of the whole: neither checkpoints nor claims, nor what was half written.
    files = cohort.study.cohorts
    assert {path.name for path in files.directory.iterdir()} == {
        f"{half.name}.{ending}" for half in halves for ending in ("json", "job")
    }
    assert {files.job(half.name) for half in halves} == {"17_0"}
    for half, own in zip(halves, (plans[:2], plans[2:]), strict=True):
        record = files.load(half.name)
        assert record == before.model_copy(
            update={
                "runs": ids(own),
                "configs": {plan.run_id: before.configs[plan.run_id] for plan in own},
                "overrides": {plan.run_id: [f"seed={plan.config.seed}"] for plan in own},
            }
        )
        assert (record.command, record.folder, record.sweep, record.threads) == ("command", "/folder", "token", 3)
        assert (record.max_fits, cohort_of(record).name) == (6, half.name)


def test_whoever_gets_further_may_die_again(plans: list[Plan]) -> None:
    """Each checkpoint is a new beginning, and each run that is saved."""
    cohort, deaths = written(plans, 4), Deaths()
    files = cohort.study.cohorts

    def save_first_part() -> None:
        advance(files.checkpoint(cohort.name, 0))

    def save_second_part() -> None:
        files.checkpoint(cohort.name, 1).write_bytes(b"x")

    def save_run() -> None:
        plans[0].files.directory.mkdir(parents=True)
        plans[0].files.record.write_text("{}")

    def die(meanwhile: Callable[[], None] = lambda: None) -> int:
        """Die; return in how many pieces it goes on."""
        deaths.watch(cohort)
        meanwhile()
        again, _ = deaths.after_death(cohort, out_of_memory=False)
        assert len(again) == 2 or again == (cohort,)
        return len(again)

    assert len(cohort.parts) == 4
    assert [die(), die()] == [1, 1]
    for further in (save_first_part, save_second_part, save_run):
        # This would be the third death; as it got further it is the first one, and the next one the second.
        assert [die(further), die()] == [1, 1]
    assert die() == 2


def test_deaths_of_others_do_not_count(plans: list[Plan]) -> None:
    first, second, deaths = written(plans[:2]), written(plans[2:]), Deaths()
    for _ in range(MOST_DEATHS - 1):
        for cohort in (first, second):
            deaths.watch(cohort)
            assert deaths.after_death(cohort, out_of_memory=False)[0] == (cohort,)
    deaths.watch(first)
    assert len(deaths.after_death(first, out_of_memory=False)[0]) == 2
    assert second.name in names(second)


def test_where_memory_runs_out_it_is_halved_at_once_down_to_single_fits(plans: list[Plan]) -> None:
    deaths, sizes, waiting = Deaths(), [], [written(plans)]
    failed = []
    while waiting:
        cohort = waiting.pop(0)
        sizes.append((len(cohort.plans), len(cohort.parts[0]) * len(cohort.configurations)))
        deaths.watch(cohort)
        halves, error = deaths.after_death(cohort, out_of_memory=True)
        assert isinstance(error, MemoryError)
        assert "memory runs out" in str(error)
        if not halves:
            failed.append(cohort)
        waiting += halves
    # Four runs of four fits; then a run trains its fits in parts.
    expected = [(4, 16), (2, 8), (2, 8), *[(1, 4)] * 4, *[(1, 2)] * 4, *[(1, 1)] * 4]
    assert sizes == expected
    assert sorted(ids([plan for cohort in failed for plan in cohort.plans])) == sorted(ids(plans))
    # What has failed is given up: the next command begins from scratch.
    for cohort in failed:
        assert cohort.study.cohorts.record(cohort.name).exists()
        fail_cohort(cohort, {}, error)
    assert all(plan.files.failure.exists() for plan in plans)
    assert not failed[0].study.cohorts.directory.exists()


def test_a_single_fit_that_dies_too_often_has_failed(plans: list[Plan]) -> None:
    cohort, deaths = written(plans[:1], 1), Deaths()
    for _ in range(MOST_DEATHS - 1):
        deaths.watch(cohort)
        assert deaths.after_death(cohort, out_of_memory=False)[0] == (cohort,)
    deaths.watch(cohort)
    halves, error = deaths.after_death(cohort, out_of_memory=False)
    assert halves == ()
    assert "killed 3 times" in str(error)
    (outcome,) = fail_cohort(cohort, {}, error)
    assert outcome.status == "failed"
    assert names(cohort) == set()


@pytest.mark.parametrize("killed", [0, 1])
def test_where_nobody_has_told_the_machine_is_asked(
    plans: list[Plan], monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    """What counts is whether it has killed for memory since the cohort was begun, not ever."""
    count = 7
    monkeypatch.setattr(module, "_killed_for_memory", lambda: count)
    cohort, deaths = written(plans), Deaths()
    deaths.watch(cohort)
    count += killed
    halves, error = deaths.after_death(cohort)
    assert (len(halves), isinstance(error, MemoryError)) == ((2, True) if killed else (1, False))


def test_the_machine_counts_whom_it_has_killed() -> None:
    """Read from wherever it stands here; of a machine that says nothing, it is nobody."""
    count = module._killed_for_memory()
    assert isinstance(count, int)
    assert count >= 0
    assert module._killed_for_memory() >= count


def test_files_of_a_cohort_that_others_have_ended_are_not_made_anew(plans: list[Plan]) -> None:
    """There is nothing to write the halves down from; whoever asks for the runs groups them anew."""
    cohort, deaths = written(plans), Deaths()
    deaths.watch(cohort)
    cohort.study.cohorts.end(cohort.name)
    halves, _ = deaths.after_death(cohort, out_of_memory=True)
    assert len(halves) == 2
    assert names(cohort) == set()
