"""What is written down before anything trains: the same runs are the same cohorts again, whoever asks, and for whom."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from overfit_lab.claim import acquire
from overfit_lab.cohort import Cohort, cohort_of, divide
from overfit_lab.config import Config, parse
from overfit_lab.launch.planning import write_down
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import SCHEMA_VERSION, CohortRecord, StudyFiles
from tests.launch.plans import grid, ids

Configure = Callable[..., Config]


def small(config: Configure, *overrides: str) -> Config:
    return config(
        "data=iris", "split.folds=3", "model=linear", "training.epochs=2", "trainer.accelerator=cpu", *overrides
    )


def pairs(plans: Sequence[Plan]) -> list[Cohort]:
    """Group runs by twos, as they come."""
    return [Cohort(tuple(plans[i : i + 2])) for i in range(0, len(plans), 2)]


def alone(plans: Sequence[Plan]) -> list[Cohort]:
    return [Cohort((plan,)) for plan in plans]


def never(plans: Sequence[Plan]) -> list[Cohort]:
    """Nothing is to be formed."""
    raise AssertionError(ids(plans))


def planned(
    plans: Sequence[Plan],
    form: Callable[[Sequence[Plan]], list[Cohort]] = pairs,
    *,
    sweep: str | None = None,
    living_jobs: Sequence[str] = (),
) -> list[set[str]]:
    """Write cohorts down; return the runs of each."""
    overrides = {plan.run_id: [f"seed={plan.config.seed}"] for plan in plans}
    cohorts = write_down(
        plans, overrides, form, lambda cohort, count: 1, command="command", sweep=sweep, living_jobs=living_jobs
    )
    study = plans[0].study
    for cohort in cohorts:
        assert study.cohorts.load(cohort.name).runs == ids(cohort.plans)
    return [set(ids(cohort.plans)) for cohort in cohorts]


def finish(plan: Plan) -> None:
    """That there is a record says that a run is finished."""
    plan.files.directory.mkdir(parents=True, exist_ok=True)
    plan.files.record.write_text("{}")


def on_disk(study: StudyFiles) -> list[set[str]]:
    return [set(record.runs) for record in study.cohorts.load_all().values()]


def sets(*groups: Sequence[Plan]) -> list[set[str]]:
    return [set(ids(group)) for group in groups]


def same(ours: Sequence[set[str]], theirs: Sequence[set[str]]) -> bool:
    return sorted(map(sorted, ours)) == sorted(map(sorted, theirs))


@pytest.fixture
def plans(config: Configure) -> list[Plan]:
    return grid(small(config), seed=[0, 1, 2, 3])


def test_what_any_process_needs_is_written_down(config: Configure) -> None:
    plans = grid(small(config), penalty__alpha=[0.0, 0.1], seed=[0, 1])
    overrides = {plan.run_id: [f"seed={plan.config.seed}", "x=ü"] for plan in plans}
    asked = []

    def threads(cohort: Cohort, count: int) -> int:
        asked.append(count)
        return 2 + len(cohort.plans)

    cohorts = write_down(
        plans, overrides, lambda fresh: [Cohort(tuple(fresh[:2]), 2), *alone(fresh[2:])], threads,
        command="overfit-lab train -m", sweep="token",
    )  # fmt: skip
    study = plans[0].study
    # Of all that is to train, the share of one is reckoned.
    assert asked == [3, 3, 3]
    assert same(on_disk(study), sets(plans[:2], plans[2:3], plans[3:]))
    record = study.cohorts.load(cohorts[0].name)
    assert record == CohortRecord(
        schema_version=SCHEMA_VERSION,
        runs=ids(plans[:2]),
        max_fits=2,
        configs={plan.run_id: plan.config.model_dump(by_alias=True, mode="json") for plan in plans[:2]},
        overrides={plan.run_id: overrides[plan.run_id] for plan in plans[:2]},
        command="overfit-lab train -m",
        folder=str(Path.cwd()),
        sweep="token",
        threads=4,
    )
    assert study.cohorts.load(cohorts[1].name).threads == 3
    # From that alone the cohort is the same again.
    again = cohort_of(record)
    assert (again.name, ids(again.plans), again.fits) == (cohorts[0].name, ids(plans[:2]), cohorts[0].fits)
    assert [plan.config for plan in again.plans] == [plan.config for plan in plans[:2]]


def test_the_same_runs_are_the_same_cohorts_again(plans: list[Plan]) -> None:
    first = planned(plans)
    assert same(first, sets(plans[:2], plans[2:]))
    assert same(planned(plans, never), first)
    assert same(planned(plans[::-1], never), first)
    # In parts, too: some of it is saved by now, and trains along all the same.
    finish(plans[0])
    assert same(planned(plans, never), first)
    # Another run joins, and changes nothing.
    more = grid(plans[0].config, seed=[4])
    assert same(planned([*more, *plans], alone), [*first, *sets(more)])


def test_what_is_finished_has_ended(plans: list[Plan]) -> None:
    planned(plans)
    study = plans[0].study
    names = {frozenset(record.runs): name for name, record in study.cohorts.load_all().items()}
    done = names[frozenset(ids(plans[:2]))]
    study.cohorts.checkpoint(done, 0).write_bytes(b"x")
    for plan in plans[:2]:
        finish(plan)
    assert same(planned(plans, never), sets(plans[2:]))
    assert not list(study.cohorts.directory.glob(f"{done}*"))
    for plan in plans[2:]:
        finish(plan)
    assert planned(plans, never) == []
    assert not study.cohorts.directory.exists()


def test_what_is_finished_is_grouped_no_more(plans: list[Plan]) -> None:
    finish(plans[1])
    seen: list[list[str]] = []

    def form(fresh: Sequence[Plan]) -> list[Cohort]:
        seen.append(ids(fresh))
        return alone(fresh)

    planned(plans, form)
    assert seen == [[plan.run_id for plan in plans if plan is not plans[1]]]


def test_what_was_given_up_is_grouped_anew_where_part_of_it_is_asked_for(plans: list[Plan]) -> None:
    planned(plans, lambda fresh: [Cohort(tuple(fresh))])
    study = plans[0].study
    (name,) = study.cohorts.load_all()
    study.cohorts.checkpoint(name, 0).write_bytes(b"of other company")
    assert planned(plans[:3]) == sets(plans[:2], plans[2:3])
    # The fourth belongs to nobody, and what the four had computed together is of no use.
    assert same(on_disk(study), sets(plans[:2], plans[2:3]))
    assert not study.cohorts.checkpoint(name, 0).exists()
    assert same(planned(plans), sets(plans[:2], plans[2:3], plans[3:]))


def test_cohorts_of_other_runs_are_left_alone(plans: list[Plan]) -> None:
    """What was given up of them can still go on, when it is asked for."""
    planned(plans[:2])
    study = plans[0].study
    (name,) = study.cohorts.load_all()
    study.cohorts.checkpoint(name, 0).write_bytes(b"x")
    assert planned(plans[2:]) == sets(plans[2:])
    # Nor where what is asked for of it is finished, and something else of it is missing.
    finish(plans[0])
    assert same(planned([plans[0], *plans[2:]], never), sets(plans[2:]))
    assert study.cohorts.checkpoint(name, 0).read_bytes() == b"x"
    assert same(on_disk(study), sets(plans[:2], plans[2:]))


@pytest.mark.parametrize("by", ["claim", "sweep", "job"])
def test_what_is_in_somebodys_hands_is_adopted_whole(plans: list[Plan], by: str) -> None:
    """It is being trained, or going to be: whoever asks for a part of it waits for that."""
    study = plans[0].study
    planned(plans, lambda fresh: [Cohort(tuple(fresh), 3)], sweep="token")
    (name,) = study.cohorts.load_all()
    study.cohorts.note_job(name, "17_2")
    claim = (
        None if by == "job" else acquire(study.cohorts.claim(name) if by == "claim" else study.cohorts.sweep("token"))
    )
    jobs = ["17_1", "17_2"] if by == "job" else ["17_1"]
    cohorts = write_down(plans[1:2], {}, never, lambda cohort, count: 1, command="other", living_jobs=jobs)
    assert [(cohort.name, ids(cohort.plans), cohort.max_fits) for cohort in cohorts] == [(name, ids(plans), 3)]
    # It stays as it was written down.
    assert (study.cohorts.load(name).command, study.cohorts.load(name).sweep) == ("command", "token")
    # Once it is given up, what is asked for is grouped anew.
    if claim is not None:
        claim.release()
    assert planned(plans[1:2], living_jobs=["17_1"]) == sets(plans[1:2])
    assert on_disk(study) == sets(plans[1:2])


def test_what_goes_on_is_in_the_hands_of_whoever_goes_on(plans: list[Plan]) -> None:
    """The command that began it is gone; the one that goes on with it may not have come to it yet."""
    study = plans[0].study
    planned(plans, lambda fresh: [Cohort(tuple(fresh))], sweep="first")
    leading = acquire(study.cohorts.sweep("second"))
    assert leading is not None
    assert planned(plans, never, sweep="second") == sets(plans)
    assert planned(plans[:1], sweep="third") == sets(plans)
    leading.release()


def test_what_is_written_down_anew_has_not_failed(plans: list[Plan]) -> None:
    """Whoever waits for a run must not take what an earlier command left for what has become of it now."""
    for plan in plans:
        plan.files.save_failure(plan.run_id, {}, ValueError("of an earlier command"))
    planned(plans[:2], alone, sweep="first")
    assert [plan.files.failure.exists() for plan in plans] == [False, False, *[True] * (len(plans) - 2)]
    # One that was left behind, and one that somebody else has: whether that has failed is for him to say.
    leading = acquire(plans[0].study.cohorts.sweep("first"))
    assert leading is not None
    plans[0].files.save_failure(plans[0].run_id, {}, ValueError("just now"))
    planned(plans[:1], never, sweep="second")
    assert plans[0].files.failure.exists()
    leading.release()
    planned(plans[:1], never, sweep="second")
    assert not plans[0].files.failure.exists()


def test_no_job_is_no_living_one(plans: list[Plan]) -> None:
    """A cohort without a job is not in the hands of jobs."""
    planned(plans, lambda fresh: [Cohort(tuple(fresh))])
    assert planned(plans[:1], living_jobs=["1", "2"]) == sets(plans[:1])


def test_what_others_have_divided_is_found_in_its_halves(plans: list[Plan]) -> None:
    planned(plans, lambda fresh: [Cohort(tuple(fresh))], sweep="token")
    (record,) = plans[0].study.cohorts.load_all().values()
    whole = cohort_of(record)
    divide(whole, whole.halves(smaller=False))
    assert same(planned(plans, never), sets(plans[:2], plans[2:]))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 3}', '{"schema_version": 3, "runs": 7}'])
def test_damaged_records_are_set_aside(plans: list[Plan], capsys: pytest.CaptureFixture[str], content: str) -> None:
    study = plans[0].study
    first = planned(plans)
    name, other = study.cohorts.load_all()
    lost = set(study.cohorts.load(name).runs)
    study.cohorts.record(name).write_text(content)
    assert same(planned(plans), first)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"overfit-lab: {study.cohorts.record(name)} is damaged: ")
    assert line.endswith(f"; set aside as {name}.damaged")
    assert (study.cohorts.directory / f"{name}.damaged").read_text() == content
    assert set(study.cohorts.load(name).runs) == lost
    assert study.cohorts.record(other).exists()


def old_record(study: StudyFiles, cohort: Cohort) -> Path:
    """Write a cohort down as version 2 did."""
    study.cohorts.directory.mkdir(parents=True, exist_ok=True)
    path = study.cohorts.record(cohort.name)
    path.write_text(json.dumps({"schema_version": 2, "runs": ids(cohort.plans), "max_fits": cohort.max_fits}))
    return path


def test_what_an_older_version_wrote_down_goes_on(plans: list[Plan]) -> None:
    """It knew the runs alone; those that ask for all of them bring their configurations along."""
    study, cohort = plans[0].study, Cohort(tuple(plans), 5)
    old_record(study, cohort)
    study.cohorts.checkpoint(cohort.name, 0).write_bytes(b"x")
    assert planned(plans[::-1], never) == sets(plans)
    assert study.cohorts.checkpoint(cohort.name, 0).exists()
    # Any process can train it now.
    record = study.cohorts.load(cohort.name)
    assert record.configs.keys() == record.overrides.keys() == set(ids(plans))
    assert cohort_of(record).name == cohort.name


def test_part_of_what_an_older_version_wrote_down_is_grouped_anew(plans: list[Plan]) -> None:
    """Even while somebody has a claim on it: what it is made of cannot be known."""
    study, cohort = plans[0].study, Cohort(tuple(plans))
    old_record(study, cohort)
    assert planned(plans[:2]) == sets(plans[:2])
    assert on_disk(study) == sets(plans[:2])


def test_a_record_that_is_not_what_its_name_says_is_no_cohort(plans: list[Plan]) -> None:
    """As one that somebody has copied: its checkpoint would not fit."""
    study, cohort = plans[0].study, Cohort(tuple(plans[:2]))
    old_record(study, cohort).rename(study.cohorts.record("0123456789"))
    assert planned(plans[:2]) == sets(plans[:2])
    assert list(study.cohorts.load_all()) == [cohort.name]


def test_the_study_need_not_be_there(config: Configure) -> None:
    plans = grid(small(config, "study.name=new/study"), seed=[0])
    assert planned(plans) == sets(plans)
    # What was claimed for the moment leaves a mark that nobody takes for a cohort.
    assert {path.name.partition(".")[0] for path in plans[0].study.directory.iterdir()} <= {
        "cohorts",
        "study",
        "split",
        "",
    }


ROUNDS = 12
Told = list[dict[str, list[str]]]


def _plan(config: dict[str, Any], seeds: Sequence[int], size: int, gate: Barrier) -> Told:
    told = []
    for turn in range(ROUNDS):
        # Each round in a study of its own.
        study = {**config["study"], "name": f"round {turn}"}
        plans = [prepare(parse({**config, "study": study, "seed": seed})) for seed in seeds]
        files, token = plans[0].study, f"of {seeds[0]}"
        files.cohorts.directory.mkdir(parents=True, exist_ok=True)
        sweep = acquire(files.cohorts.sweep(token))
        assert sweep is not None
        gate.wait(60)
        cohorts = write_down(
            plans,
            {plan.run_id: [] for plan in plans},
            lambda fresh: [Cohort(tuple(fresh[i : i + size])) for i in range(0, len(fresh), size)],
            lambda cohort, count: 1,
            command="x",
            sweep=token,
        )
        told.append({cohort.name: ids(cohort.plans) for cohort in cohorts})
        gate.wait(60)
        sweep.release()
    return told


def _plan_there(config: dict[str, Any], seeds: Sequence[int], size: int, gate: Barrier, results: Any) -> None:  # noqa: ANN401
    results.put(_plan(config, seeds, size, gate))


def test_two_that_plan_at_once_agree(config: Configure) -> None:
    """Of what both ask for, whoever comes first decides; no run is in two cohorts, and none is forgotten."""
    values = small(config).model_dump(by_alias=True)
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2), context.Queue()
    wishes = {0: ([0, 1, 2, 3, 4], 2), 3: ([3, 4, 5, 6], 3)}
    other = context.Process(target=_plan_there, args=(values, *wishes[3], gate, results))
    other.start()
    try:
        told = {0: _plan(values, *wishes[0], gate), 3: results.get(timeout=60)}
    finally:
        other.join(10)
        other.kill()
        other.join()
    for turn in range(ROUNDS):
        study = StudyFiles(Path(values["study"]["root"]) / f"round {turn}")
        seed_of = {
            run_id: config["seed"]
            for record in study.cohorts.load_all().values()
            for run_id, config in record.configs.items()
        }
        written = {name: sorted(seed_of[r] for r in rec.runs) for name, rec in study.cohorts.load_all().items()}
        assert sorted(itertools.chain(*written.values())) == [0, 1, 2, 3, 4, 5, 6]
        for first, (seeds, _) in wishes.items():
            own = {name: sorted(seed_of[run] for run in runs) for name, runs in told[first][turn].items()}
            # It was told all cohorts that hold one of its runs, as they are written down.
            assert own == {name: runs for name, runs in written.items() if set(runs) & set(seeds)}
        first = 0 if [2, 3] in written.values() else 3
        expected = {0: [[0, 1], [2, 3], [4], [5, 6]], 3: [[0, 1], [2], [3, 4, 5], [6]]}
        assert sorted(written.values()) == expected[first]
