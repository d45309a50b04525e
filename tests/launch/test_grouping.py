"""From runs to cohorts: what trains together, and how it is cut. Nothing is trained here."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config, conf_directory
from overfit_lab.launch.grouping import Machine, bytes_per_fit, cost, duration, form_cohorts
from overfit_lab.launch.job import config_of, register_resolvers
from overfit_lab.model import count_parameters
from overfit_lab.plan import Plan, prepare
from tests.launch.plans import grid, ids, vary

Configure = Callable[..., Config]

# A step has a price, and nothing else: everything that may train together does.
LAVISH = Machine(workers=1, memory=1e18, step=1.0, fit=0.0, rate=1e30, cache=1e18)


def runs_of(cohorts: Sequence[Cohort]) -> list[set[str]]:
    return [set(ids(cohort.plans)) for cohort in cohorts]


def at_once(cohort: Cohort) -> int:
    return len(cohort.parts[0]) * len(cohort.configurations)


@pytest.mark.parametrize(
    "both",
    [
        ("optimizer.lr=0.1",),
        ("optimizer.beta1=0.5", "optimizer.beta2=0.9", "optimizer.eps=1e-4"),
        ("penalty.alpha=0.1",),
        ("penalty=l1", "penalty.alpha=0.1"),
        ("penalty=elastic_net", "penalty.alpha=0.1"),
        ("penalty=none",),
        ("model.dropout=0.5",),
        ("seed=7",),
        ("model.width=5",),
        ("study.report=false", "penalty.alpha=0.1"),
    ],
)
def test_what_may_differ(config: Configure, both: tuple[str, ...]) -> None:
    plans = [prepare(config()), prepare(config(*both))]
    (cohort,) = form_cohorts(plans, LAVISH)
    assert runs_of([cohort]) == [set(ids(plans))]
    assert cohort.fits == 10


@pytest.mark.parametrize(
    ("kind", "override"),
    [
        ("sgd", "optimizer.lr=0.2"),
        ("momentum", "optimizer.momentum=0.5"),
        ("momentum", "optimizer.nesterov=true"),
        ("adamw", "optimizer.decoupled_decay=0.5"),
        ("rmsprop", "optimizer.smoothing=0.5"),
    ],
)
def test_every_setting_of_one_kind_of_optimizer_may_differ(config: Configure, kind: str, override: str) -> None:
    plans = [prepare(config(f"optimizer={kind}")), prepare(config(f"optimizer={kind}", override))]
    assert len(form_cohorts(plans, LAVISH)) == 1


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "elu", "leaky_relu", "silu", "quadratic", "sigmoid"])
def test_widths_may_differ_where_zero_stays_zero(config: Configure, activation: str) -> None:
    plans = grid(config(f"model.activation={activation}"), model__width=[4, 8])
    zero_stays = activation != "sigmoid"
    assert len(form_cohorts(plans, LAVISH)) == (1 if zero_stays else 2)
    # The same width may always be in company.
    assert len(form_cohorts(grid(config(f"model.activation={activation}"), seed=[0, 1]), LAVISH)) == 1


@pytest.mark.parametrize(
    "override",
    [
        "data=digits",
        "data.scale_inputs=false",
        "split.seed=1",
        "split.folds=4",
        "split=holdout",
        "task.metrics=[f1]",
        "model.depth=1",
        "model.activation=tanh",
        "model=linear",
        "optimizer=sgd",
        "penalty.exclude=[0.weight]",
        "training.batch_size=16",
        "training.epochs=7",
        "training.max_train_rows_measured=100",
        "trainer.precision=64-true",
        "study.name=another",
        "study.root=elsewhere",
    ],
)
def test_what_may_not_differ(config: Configure, override: str) -> None:
    # The strength may; a run has one name in whatever study it is.
    plans = [prepare(config()), prepare(config(override, "penalty.alpha=0.1"))]
    assert sorted(map(len, runs_of(form_cohorts(plans, LAVISH)))) == [1, 1]


def test_targets_that_are_scaled_and_others(config: Configure) -> None:
    plans = [prepare(config("data=diabetes", f"data.scale_targets={scaled}")) for scaled in ("true", "false")]
    assert len(form_cohorts(plans, LAVISH)) == 2


def test_what_cannot_be_stacked_stands_alone(config: Configure) -> None:
    own = config("model=custom", "model._target_=tests.launch.plans.Mixing")
    looped = grid(own, seed=[0, 1], penalty__alpha=[0.0, 0.1])
    assert {plan.form.form for plan in looped} == {"looped"}
    plans = [*looped, *grid(config(), penalty__alpha=[0.0, 0.1])]
    cohorts = runs_of(form_cohorts(plans, LAVISH))
    assert sorted(map(len, cohorts)) == [1, 1, 1, 1, 2]
    assert set(ids(plans[4:])) in cohorts


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One configuration for the properties below; hypothesis wants a fixture that lives longer than a test."""
    register_resolvers()
    root: Path = tmp_path_factory.mktemp("studies")
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return config_of(compose("config", [f"study.root={root}", "data=iris", "split.folds=3", "training.epochs=2"]))


machines = st.builds(
    Machine,
    workers=st.integers(1, 4),
    memory=st.floats(4, 9).map(lambda exponent: 10**exponent),
    step=st.floats(-6, 0).map(lambda exponent: 10**exponent),
    fit=st.floats(0, 1e-3),
    rate=st.floats(6, 12).map(lambda exponent: 10**exponent),
    cache=st.floats(1, 1e9),
)
settings_of_a_run = st.tuples(
    st.integers(0, 4), st.sampled_from([4, 8, 64]), st.sampled_from([0.0, 0.1, 0.2]), st.sampled_from([0.01, 0.1])
)


def varied(base: Config, seed: int, width: int, alpha: float, lr: float) -> Plan:
    return vary(base, {"seed": seed, "model.width": width, "penalty.alpha": alpha, "optimizer.lr": lr})


@settings(deadline=None)
@given(
    runs=st.lists(settings_of_a_run, min_size=1, max_size=25, unique=True),
    machine=machines,
    max_fits=st.none() | st.integers(1, 40),
)
def test_every_run_is_in_exactly_one_full_grid(
    base: Config, runs: list[tuple[int, int, float, float]], machine: Machine, max_fits: int | None
) -> None:
    plans = [varied(base, *run) for run in runs]
    cohorts = form_cohorts(plans, machine, max_fits=max_fits)
    assert sorted(itertools.chain(*(ids(cohort.plans) for cohort in cohorts))) == sorted(ids(plans))
    for cohort in cohorts:
        seen = {(name, seed) for name in cohort.configurations for seed in cohort.seeds}
        assert len(seen) == len(cohort.plans)
        assert cohort.fits == 3 * len(cohort.plans)
        assert [s for part in cohort.parts for s in part] == list(cohort.streams)
        assert at_once(cohort) <= (max_fits or 10**9)
        # Parts are the last resort: a run that could train at once does, and one that cannot has no company.
        if len(cohort.parts) > 1:
            assert len(cohort.plans) == 1
    assert len({cohort.name for cohort in cohorts}) == len(cohorts)


def reference_cost(plans: Sequence[Plan], machine: Machine) -> float:
    """What the model of costs says, written down anew: a step, and for each fit the arithmetic of the widest."""
    widest = max(sum(p.numel() for p in plan.network.parameters()) for plan in plans)
    batch = plans[0].config.training.batch_size
    # Three products with each weight, two operations each, and half as much again for measuring.
    return machine.step + len(plans) * 3 * (machine.fit + 9 * widest * batch / machine.rate)


def partitions(values: Sequence[int]) -> Iterator[list[list[int]]]:
    if not values:
        yield []
        return
    first, *rest = values
    for parts in partitions(rest):
        yield [[first], *parts]
        for i in range(len(parts)):
            yield [*parts[:i], [first, *parts[i]], *parts[i + 1 :]]


@settings(deadline=None)
@given(
    widths=st.sets(st.sampled_from([2, 3, 5, 8, 16, 40, 90]), min_size=1, max_size=5),
    runs_each=st.integers(1, 3),
    rate=st.floats(6, 10),
    fit=st.floats(0, 1e-3),
)
def test_widths_are_merged_as_it_costs_least(
    base: Config, widths: set[int], runs_each: int, rate: float, fit: float
) -> None:
    """Against every way to part the widths, neighbours or not."""
    machine = dataclasses.replace(LAVISH, step=1e-3, rate=10**rate, fit=fit)
    plans = grid(base, model__width=sorted(widths), penalty__alpha=[0.0, 0.1, 0.2][:runs_each])
    of_width = {w: [p for p in plans if p.config.model.model_dump()["width"] == w] for w in widths}
    cheapest = min(
        sum(reference_cost([p for w in part for p in of_width[w]], machine) for part in parts)
        for parts in partitions(sorted(widths))
    )
    cohorts = form_cohorts(plans, machine)
    assert sum(reference_cost(cohort.plans, machine) for cohort in cohorts) == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize(("dearer", "together"), [(0.99, True), (1.01, False)])
def test_two_widths_part_where_padding_costs_more_than_a_step(base: Config, dearer: float, together: bool) -> None:
    narrow, wide = grid(base, model__width=[4, 32])
    # 4 features, 3 classes, two hidden layers.
    parameters = [w * 4 + w + w * w + w + 3 * w + 3 for w in (4, 32)]
    padding = 3 * 9 * (parameters[1] - parameters[0]) * base.training.batch_size
    machine = dataclasses.replace(LAVISH, step=1.0, rate=padding / dearer)
    assert len(form_cohorts([narrow, wide], machine)) == (1 if together else 2)


def test_max_fits(base: Config) -> None:
    plans = grid(base, penalty__alpha=[i / 10 for i in range(7)], seed=[0, 1])
    assert [c.fits for c in form_cohorts(plans, LAVISH)] == [42]
    # 6 fits for each configuration; 7 configurations in as few cohorts as may be, and those as even as may be.
    assert sorted(len(c.configurations) for c in form_cohorts(plans, LAVISH, max_fits=20)) == [2, 2, 3]
    assert sorted(c.fits for c in form_cohorts(plans, LAVISH, max_fits=6)) == [6] * 7
    # Less than a configuration: its seeds part. Each has 3 folds.
    assert [(c.fits, len(c.parts)) for c in form_cohorts(plans, LAVISH, max_fits=5)] == [(3, 1)] * 14
    assert [(c.fits, len(c.parts)) for c in form_cohorts(plans, LAVISH, max_fits=3)] == [(3, 1)] * 14


def test_a_run_with_more_fits_than_that_trains_in_parts(base: Config) -> None:
    config = vary(base, {"split.repeats": 2}).config
    cohorts = form_cohorts(grid(config, penalty__alpha=[0.0, 0.1]), LAVISH, max_fits=4)
    assert [len(c.plans) for c in cohorts] == [1, 1]
    for cohort in cohorts:
        assert [[(s.repeat, s.fold) for s in part] for part in cohort.parts] == [
            [(0, 0), (0, 1), (0, 2), (1, 0)],
            [(1, 1), (1, 2)],
        ]


def test_memory(base: Config) -> None:
    plans = grid(base, penalty__alpha=[i / 10 for i in range(8)])
    each = bytes_per_fit(plans)
    fitting = [
        form_cohorts(plans, dataclasses.replace(LAVISH, memory=fits * each + each / 2)) for fits in (24, 12, 7, 2, 0)
    ]
    # Three fits for each run.
    assert [[at_once(c) for c in cohorts] for cohorts in fitting] == [[24], [12] * 2, [6] * 4, [2] * 8, [1] * 8]


def test_what_a_fit_needs(base: Config) -> None:
    """Against what can be counted: its state, its rows, its losses."""
    (wide,) = grid(base, model__width=[300])
    (double,) = grid(vary(base, {"trainer.precision": "64-true"}).config, model__width=[300])
    parameters = sum(p.numel() for p in wide.network.parameters())
    state = 4 * 4 * parameters
    assert state < bytes_per_fit([wide]) < 2 * state
    assert 1.9 * bytes_per_fit([wide]) < bytes_per_fit([double]) < 2 * bytes_per_fit([wide])
    # The widest in a cohort counts for all.
    (narrow,) = grid(base, model__width=[4])
    assert bytes_per_fit([narrow, wide]) >= state


def test_a_process_gets_its_share(base: Config) -> None:
    plans = grid(base, penalty__alpha=[i / 20 for i in range(16)])
    # What is in a step costs a hundred times what the step does.
    dear = dataclasses.replace(LAVISH, step=1.0, fit=100 / 48)
    for workers in (1, 2, 4):
        cohorts = form_cohorts(plans, dataclasses.replace(dear, workers=workers))
        assert [c.fits for c in cohorts] == [48 // workers] * workers
    # And half of it: another step would cost more than a second process saves.
    cheap = dataclasses.replace(LAVISH, step=1.0, fit=0.5 / 48, workers=4)
    assert len(form_cohorts(plans, cheap)) == 1


def test_cohorts_are_cut_to_the_cache(base: Config) -> None:
    plans = grid(base, penalty__alpha=[i / 50 for i in range(44)])
    # Value, gradient and two averages of each parameter, in four bytes.
    state = 16 * count_parameters(plans[0].network)
    cohorts = form_cohorts(plans, dataclasses.replace(LAVISH, cache=10.0 * state))
    assert sorted({c.fits for c in cohorts}) == [6, 9]
    assert sum(c.fits for c in cohorts) == 3 * 44


def test_costliest_first(config: Configure) -> None:
    """By the whole of what they cost: a step of the narrow ones is cheap, but they have many."""
    plans = [
        vary(config(f"training.epochs={epochs}"), {"model.width": width})
        for epochs, width in [(1, 64), (1000, 4), (1, 4), (2, 256)]
    ]
    machine = Machine(workers=1, memory=1e18, step=1e-4, fit=0.0, rate=1e10, cache=1e18)
    cohorts = form_cohorts(plans, machine)
    order = [(c.epochs, c.plans[0].config.model.model_dump()["width"]) for c in cohorts]
    costs = [reference_cost_of_five(c, machine) for c in cohorts]
    assert order == [(1000, 4), (2, 256), (1, 64), (1, 4)]
    assert costs == sorted(costs, reverse=True)


def reference_cost_of_five(cohort: Cohort, machine: Machine) -> float:
    parameters = sum(p.numel() for p in cohort.plans[0].network.parameters())
    return cohort.epochs * (machine.step + 5 * 9 * parameters * 32 / machine.rate)


def test_cohorts_are_cut_to_the_time_that_a_batch_system_grants(base: Config) -> None:
    """A step of 1 ms, 4 steps an epoch and 10 epochs: 40 ms, however many fits there are, and 40 more for each fit."""
    plans = grid(base, penalty__alpha=[i / 10 for i in range(8)])
    rows, batch = max(len(fold.train) for fold in plans[0].split.folds), plans[0].config.training.batch_size
    steps = plans[0].config.training.epochs * -(-rows // batch)
    folds = len(plans[0].split.folds)
    machine = dataclasses.replace(LAVISH, step=1e-3, fit=1e-3, rate=1e18)
    assert duration(plans, machine) == pytest.approx(1e-3 * steps * (1 + folds * len(plans)))
    for runs in (8, 4, 2, 1):
        allowed = dataclasses.replace(machine, seconds=1e-3 * steps * (1 + folds * runs) * 1.01)
        cohorts = form_cohorts(plans, allowed)
        assert all(duration(cohort.plans, machine) <= allowed.seconds for cohort in cohorts)
        assert max(len(cohort.plans) for cohort in cohorts) >= runs / 2
    # A single run is no shorter, however little time there is.
    assert [len(c.plans) for c in form_cohorts(plans, dataclasses.replace(machine, seconds=1e-9))] == [1] * 8


def test_no_runs_no_cohorts(base: Config) -> None:
    assert form_cohorts([], LAVISH) == []


@settings(deadline=None)
@given(order=st.permutations(range(8)), max_fits=st.sampled_from([None, 3, 6, 9, 12]))
def test_the_order_of_runs_does_not_matter(base: Config, order: list[int], max_fits: int | None) -> None:
    """The same sweep, its values typed in another order: stacked arithmetic may round differently in other company."""
    plans = grid(base, penalty__alpha=[0.0, 0.1, 0.2, 0.3], model__width=[4, 8])
    again = [plans[i] for i in order]
    ours, theirs = (form_cohorts(p, LAVISH, max_fits=max_fits) for p in (plans, again))
    assert {c.name for c in ours} == {c.name for c in theirs}


def test_rows_are_counted_for_each_seed(base: Config) -> None:
    """Configurations of a seed share its rows in memory; seeds do not share theirs."""
    one, four = grid(base, seed=[0]), grid(base, seed=[0, 1, 2, 3])
    assert bytes_per_fit(four) == bytes_per_fit(one)
    assert bytes_per_fit(grid(base, penalty__alpha=[0.0, 0.1])) < bytes_per_fit(one)


def test_figures_of_a_machine_may_be_infinite(base: Config) -> None:
    machine = dataclasses.replace(LAVISH, cache=math.inf)
    assert len(form_cohorts(grid(base, seed=[0, 1]), machine)) == 1


def test_convolutions_count_by_what_a_row_costs(config: Configure) -> None:
    """Their weights are few, but used at many places: more time and memory than a plain network takes."""
    [cnn] = grid(config("data=digits", "model=cnn", "model.channels=8"))
    [mlp] = grid(config("data=digits", "model.width=27"))
    assert count_parameters(mlp.network) > count_parameters(cnn.network)
    machine = dataclasses.replace(LAVISH, step=0.0, rate=1e9)
    assert cost([cnn], machine) > 5 * cost([mlp], machine)
    assert bytes_per_fit([cnn]) > bytes_per_fit([mlp])
