"""A cohort: its layout, how it is halved, what it writes down, and that parts of it give what the whole gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config
from overfit_lab.data.development import Stream
from overfit_lab.plan import Plan
from overfit_lab.train import Trained, train_cohort
from overfit_lab.training.checkpoint import CheckpointFile
from overfit_lab.training.history import History
from tests.launch.plans import grid, ids

Configure = Callable[..., Config]


def small(config: Configure, *overrides: str) -> Config:
    return config(
        "data=iris", "split.folds=3", "model.width=4", "model.depth=1", "training.epochs=3", "optimizer.lr=0.01",
        "trainer.accelerator=cpu", *overrides,
    )  # fmt: skip


def test_layout(config: Configure) -> None:
    plans = grid(small(config), optimizer__lr=[0.1, 0.2], penalty__alpha=[0.0, 1.0], seed=[4, 2])
    random.Random(0).shuffle(plans)
    cohort = Cohort(tuple(plans))
    # Fold by fold, so that neighbours train on the same rows.
    assert cohort.streams == tuple(Stream(seed, 0, fold) for fold in range(3) for seed in (2, 4))
    assert (cohort.fits, cohort.epochs, cohort.parts) == (24, 3, [cohort.streams])
    rates = [own.optimizer.lr or 0.0 for own in cohort.configurations.values()]
    assert sorted(rates) in (rates, rates[::-1])
    for plan in plans:
        (own,) = [list(cohort.configurations.values())[cohort.configuration_of(plan)]]
        assert own.model_copy(update={"seed": plan.config.seed}) == plan.config
        assert [s.fold for s in cohort.streams_of(plan).values()] == [0, 1, 2]
        assert {s.seed for s in cohort.streams_of(plan).values()} == {plan.config.seed}
        assert all(cohort.streams[place] == stream for place, stream in cohort.streams_of(plan).items())


def test_repeats_follow_one_another(config: Configure) -> None:
    cohort = Cohort(tuple(grid(small(config, "split.repeats=2", "split.folds=2"), seed=[0, 1])))
    assert [(s.repeat, s.fold, s.seed) for s in cohort.streams] == [
        (repeat, fold, seed) for repeat in (0, 1) for fold in (0, 1) for seed in (0, 1)
    ]


def test_parts(config: Configure) -> None:
    plans = tuple(grid(small(config), penalty__alpha=[0.0, 1.0], seed=[0, 1]))
    sizes = {n: [len(part) for part in Cohort(plans, n).parts] for n in (1, 2, 3, 4, 5, 8, 12, 99)}
    # Two configurations train beside one another in each stream, whatever is said.
    assert sizes == {1: [1] * 6, 2: [1] * 6, 3: [1] * 6, 4: [2, 2, 2], 5: [2, 2, 2], 8: [4, 2], 12: [6], 99: [6]}


def test_what_is_no_grid_is_no_cohort(config: Configure) -> None:
    plans = grid(small(config), penalty__alpha=[0.0, 1.0], seed=[0, 1])
    for wrong in (plans[:3], [*plans, plans[0]]):
        with pytest.raises(ValueError, match="every configuration with every seed, each once"):
            _ = Cohort(tuple(wrong)).configurations


def test_name(config: Configure) -> None:
    """By content alone: the order of the runs and where the study lies do not enter."""
    plans = grid(small(config), penalty__alpha=[0.0, 1.0], seed=[0, 1])
    names = {Cohort(tuple(order)).name for order in (plans, plans[::-1], plans[2:] + plans[:2])}
    elsewhere = grid(small(config, "study.name=elsewhere"), penalty__alpha=[0.0, 1.0], seed=[0, 1])
    assert names == {Cohort(tuple(elsewhere)).name}
    others = [Cohort(tuple(plans), 4), Cohort(tuple(plans), 5), Cohort(tuple(plans[:2])), Cohort(tuple(plans[:1]))]
    assert len(names | {c.name for c in others}) == 5


def test_one_name_is_one_layout(config: Configure) -> None:
    """A checkpoint holds members by their places and is found by the name."""
    plans = grid(small(config), penalty__alpha=[0.0, 1.0, 2.0])
    first, second = Cohort(tuple(plans)), Cohort(tuple(plans[::-1]))
    assert first.name == second.name
    assert list(first.configurations) == list(second.configurations)


@pytest.mark.parametrize("smaller", [True, False])
def test_halves_are_grids_down_to_single_runs(config: Configure, smaller: bool) -> None:
    plans = grid(small(config), penalty__alpha=[0.0, 1.0, 2.0], model__dropout=[0.0, 0.1], seed=[0, 1, 2])
    whole = Cohort(tuple(plans), 7)
    waiting, single, depth = [whole], [], 0
    while waiting:
        depth += 1
        halves = [cohort.halves(smaller=smaller) if len(cohort.plans) > 1 else () for cohort in waiting]
        for cohort, own in zip(waiting, halves, strict=True):
            assert cohort.fits == 3 * len(cohort.plans)
            if not own:
                single += [cohort]
                continue
            first, second = own
            assert not set(ids(first.plans)) & set(ids(second.plans))
            assert set(ids(first.plans)) | set(ids(second.plans)) == set(ids(cohort.plans))
            # Nearly halves, so that few tries find the one that fails.
            axis = max(len(cohort.configurations), 1)
            axis = axis if axis > 1 else len(cohort.seeds)
            assert abs(len(first.plans) - len(second.plans)) <= len(cohort.plans) / axis
            assert first.max_fits == second.max_fits == 7
        waiting = [cohort for own in halves for cohort in own]
    assert sorted(ids([plan for cohort in single for plan in cohort.plans])) == sorted(ids(plans))
    assert all(len(cohort.plans) == 1 for cohort in single)
    assert depth <= 7


def test_a_single_run_is_cut_into_parts_where_that_helps(config: Configure) -> None:
    (plan,) = grid(small(config, "split.folds=5"), seed=[0])
    cohort, sizes = Cohort((plan,)), []
    assert cohort.halves(smaller=False) == ()
    while halves := cohort.halves(smaller=True):
        (cohort,) = halves
        assert cohort.plans == (plan,)
        sizes.append([len(part) for part in cohort.parts])
    assert sizes == [[3, 2], [2, 2, 1], [1] * 5]
    # One that was in parts already goes on from there.
    (quarter,) = Cohort((plan,), 4).halves(smaller=True)
    assert [len(part) for part in quarter.parts] == [2, 2, 1]


Heard = list[tuple[int, NDArray[np.float64]]]


def trained(plans: Sequence[Plan], max_fits: int | None) -> tuple[Trained, Heard]:
    heard: Heard = []

    def listen(history: History) -> None:
        heard.append((history.epochs, history.curves["val", "loss"][-1].numpy().copy()))

    cohort = Cohort(tuple(plans), max_fits)
    result = train_cohort(cohort, [listen])
    cohort.study.cohorts.end(cohort.name)
    return result, heard


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-6), ("64-true", 1e-12)])
def test_in_parts_as_at_once(config: Configure, precision: str, tolerance: float) -> None:
    plans = grid(
        small(config, f"trainer.precision={precision}"), model__dropout=[0.0, 0.3], model__width=[4, 6], seed=[0, 1]
    )
    whole, heard = trained(plans, None)
    assert [epoch for epoch, _ in heard] == [0, 1, 2, 3]
    assert heard[0][1].shape == (6, 4)
    for max_fits in (16, 4):
        parts, heard_of_parts = trained(plans, max_fits)
        assert parts.history.curves.keys() == whole.history.curves.keys()
        for split, metric in whole.history.curves:
            ours, theirs = parts.history.curve(split, metric), whole.history.curve(split, metric)
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=f"{split} {metric}")
        for losses, others in zip(parts.history.val_losses, whole.history.val_losses, strict=True):
            for own, same in zip(losses, others, strict=True):
                np.testing.assert_allclose(own, same, rtol=1e-5, atol=1e-6)
        # They are all different: agreement says something.
        assert len({round(float(v), 6) for v in whole.history.curve("val", "loss")[..., -1].ravel()}) == 24
        assert [epoch for epoch, _ in heard_of_parts] == [0, 1, 2, 3]
        for (_, ours), (_, theirs) in zip(heard_of_parts, heard, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_parts_that_are_done_are_not_trained_again(config: Configure) -> None:
    """An interruption in the last part leaves the checkpoints of those before it."""
    plans = grid(small(config), seed=[0, 1])
    cohort = Cohort(tuple(plans), 2)
    first = train_cohort(cohort)
    checkpoints = [cohort.study.cohorts.checkpoint(cohort.name, part) for part in range(3)]
    assert all(path.exists() for path in checkpoints)
    checkpoints[2].unlink()
    # What the first part holds now is its own checkpoint's, not what training would give.
    first.modules[0].history.curves["val", "loss"][1][:] = 77.0
    CheckpointFile(checkpoints[0]).save(first.modules[0])
    again = train_cohort(cohort)
    assert (again.history.curve("val", "loss")[:2, :, 1] == 77.0).all()
    ours, theirs = (t.history.curve("val", "loss")[2:] for t in (again, first))
    assert np.array_equal(ours, theirs)
    cohort.study.cohorts.end(cohort.name)
    assert not cohort.study.cohorts.directory.exists()
