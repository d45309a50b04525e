"""From the runs of a sweep to cohorts: which fits train together, for speed and within memory.

What a cohort costs is a guess from its sizes: a step has a price of its own, whatever is in it, so small networks train
together; and it has arithmetic, so large ones are spread over processes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from overfit_lab.cohort import Cohort
from overfit_lab.config import MLPModel
from overfit_lab.model import count_parameters
from overfit_lab.plan import Plan
from overfit_lab.training.history import BLOCKS, MAX_EPOCHS, MAX_VALUES

Value = TypeVar("Value")


@dataclass(frozen=True)
class Machine:
    """What cohorts are formed for.

    Args:
        workers: Processes that train at the same time.
        memory: Bytes that one of them may use.
        step: Seconds that an optimizer step costs, whatever is in it.
        fit: Seconds that a fit adds to it, whatever its size.
        rate: Floating-point operations of a second.
        cache: Bytes of parameters, gradients and optimizer states that one cohort should keep to.
        seconds: How long a cohort may take, where a batch system sets an end to it.
    """

    workers: int
    memory: float
    step: float
    fit: float
    rate: float
    cache: float
    seconds: float = math.inf


def form_cohorts(plans: Sequence[Plan], machine: Machine, *, max_fits: int | None = None) -> list[Cohort]:
    """Group runs whose fits can be stacked, and cut the groups; the costliest cohort comes first.

    Args:
        plans: The runs, each once, of one study.
        machine: What they are formed for.
        max_fits: At most so many fits in a cohort.
    """
    groups: dict[Hashable, list[Plan]] = defaultdict(list)
    # In an order of their own: the same runs give the same cohorts, however they were typed.
    for plan in sorted(plans, key=lambda plan: plan.run_id):
        # What is trained one by one gains nothing from company.
        groups[plan.run_id if plan.form.form == "looped" else plan.cohort_key].append(plan)
    grids = [grid for group in groups.values() for grid in _grids(group)]
    merged = [part for grid in grids for part in _by_width(grid, machine)]
    share = sum(cost(part, machine) - machine.step for part in merged) / machine.workers
    return costliest_first([cohort for part in merged for cohort in _cut(part, machine, share, max_fits)], machine)


def costliest_first(cohorts: Iterable[Cohort], machine: Machine) -> list[Cohort]:
    """Sort cohorts by what they cost, so that no long one is left for the end."""
    return sorted(cohorts, key=lambda cohort: cost(cohort.plans, machine) * cohort.epochs, reverse=True)


def duration(plans: Sequence[Plan], machine: Machine) -> float:
    """Guess how many seconds some runs take that train together."""
    training, train = plans[0].config.training, max(len(fold.train) for fold in plans[0].split.folds)
    return cost(plans, machine) * training.epochs * math.ceil(train / training.batch_size)


def cost(plans: Sequence[Plan], machine: Machine) -> float:
    """Guess the seconds of one optimizer step of some runs that train together."""
    # Where weights are used at many places, there are more products than parameters.
    widest: float = max(max(count_parameters(p.network), p.per_row.products if p.per_row else 0) for p in plans)
    first, batch = plans[0], plans[0].config.training.batch_size
    if first.form.form == "sparse":
        # Nearly all weights are of the first layer: a row meets few of them, the optimizer all.
        widest *= first.source.values_per_row / first.source.features + 4 / batch
    fits = sum(len(plan.split.folds) for plan in plans)
    # A product with each weight, forwards and twice backwards; the measuring of each epoch adds about half of that.
    arithmetic = 1.5 * 6 * widest * batch / machine.rate
    return machine.step + fits * (machine.fit + arithmetic)


def threads_for(plans: Sequence[Plan], machine: Machine, most: int) -> int:
    """Say how many threads the arithmetic of a cohort is worth; waking one costs small products more than it gives."""
    return max(1, min(most, int((cost(plans, machine) - machine.step) / (2 * machine.step))))


def _grids(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Part runs so that in each part every configuration comes with every seed."""
    configurations: dict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        configurations[plan.config_id].append(plan)
    grids: dict[frozenset[int], list[Plan]] = defaultdict(list)
    for own in configurations.values():
        grids[frozenset(plan.config.seed for plan in own)] += own
    return list(grids.values())


def _by_width(plans: Sequence[Plan], machine: Machine) -> list[list[Plan]]:
    """Part runs of one grid by width, so that the sum of costs is least; in a part, widths are padded to its widest."""
    widths: dict[int, list[Plan]] = defaultdict(list)
    for plan in plans:
        widths[plan.config.model.width if isinstance(plan.config.model, MLPModel) else 0].append(plan)
    ordered = [widths[width] for width in sorted(widths)]
    # The best way to part the first n widths is the best way to part fewer, and one more part.
    best: list[tuple[float, list[list[Plan]]]] = [(0.0, [])]
    for last in range(1, len(ordered) + 1):
        ways = []
        for first in range(last):
            part = list(itertools.chain(*ordered[first:last]))
            before, parts = best[first]
            ways.append((before + cost(part, machine), [*parts, part]))
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1][1]


def _cut(plans: Sequence[Plan], machine: Machine, share: float, max_fits: int | None) -> list[Cohort]:
    """Cut runs into cohorts that fit into memory and cost no more than a process's share of the whole.

    Args:
        plans: Runs of one grid.
        machine: What they are cut for.
        share: Seconds of arithmetic that a step of one cohort should cost at most: a process's part of the whole.
        max_fits: At most so many fits in a cohort.
    """
    fits = sum(len(plan.split.folds) for plan in plans)
    # What must not be exceeded, and what should not. A cohort is never so small that the price of a step outweighs
    # what is in it.
    most = min(max_fits or fits, max(1, int(machine.memory / bytes_per_fit(plans))))
    parts_in_time = math.ceil(duration(plans, machine) / machine.seconds)
    pieces = max(1, round((cost(plans, machine) - machine.step) / max(share, machine.step)))
    pieces = max(pieces, parts_in_time)
    good = min(most, math.ceil(fits / pieces), max(1, int(min(machine.cache / _bytes_of_state(plans), fits))))

    columns: dict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        columns[plan.config_id].append(plan)
    height = fits // len(columns)
    if height <= good:
        parts = _evenly(list(columns.values()), good // height)
        return [Cohort(tuple(itertools.chain(*part))) for part in parts]
    # One configuration is more than that: it is cut by its seeds, and a single run that is too much trains in parts.
    folds = len(plans[0].split.folds)
    return [
        Cohort(tuple(part), most if folds > most else None)
        for column in columns.values()
        for part in _evenly(column, good // folds)
    ]


def _evenly(values: list[Value], most: int) -> list[list[Value]]:
    """Cut a list into as few parts as `most` allows, of sizes that differ by one at most."""
    count = math.ceil(len(values) / max(1, most))
    edges = [i * len(values) // count for i in range(count + 1)]
    return [values[a:b] for a, b in itertools.pairwise(edges)]


def bytes_per_fit(plans: Sequence[Plan]) -> int:
    """Guess what one fit of a cohort needs: its state, a batch's activations, its rows, what is kept of its losses."""
    plan = plans[0]
    config, widest = plan.config, max(count_parameters(p.network) for p in plans)
    number = 8 if config.trainer.precision == "64-true" else 4
    rows, held = plan.source.rows, plan.source.values_per_row
    # A network of width w has about w^2 parameters; a handful of arrays of that width live at once. Sparse rows are
    # never filled in.
    wide = 0 if plan.form.form == "sparse" else plan.source.features
    activations = 16 * config.training.batch_size * max(wide, math.isqrt(widest)) * number
    # Of other networks it is known what a row leaves behind; and once more for its gradients.
    kept = max(p.per_row.kept if p.per_row else 0 for p in plans)
    activations = max(activations, 2 * config.training.batch_size * kept * number)
    epochs = min(config.training.epochs, MAX_EPOCHS) + 1
    val_rows = max(len(fold.val) for fold in plan.split.folds)
    losses = 4 * epochs * (val_rows if epochs * val_rows <= MAX_VALUES else BLOCKS)
    # Streams hold the rows once more in the order of their batches.
    data = 2 * rows * held * number // len({p.config_id for p in plans})
    # Beside what every step touches, the initial values are kept: the distance from them is measured.
    return _bytes_of_state(plans) * 5 // 4 + activations + losses + data


def _bytes_of_state(plans: Sequence[Plan]) -> int:
    number = 8 if plans[0].config.trainer.precision == "64-true" else 4
    # The value, its gradient, and the two averages that Adam keeps.
    return 4 * number * max(count_parameters(plan.network) for plan in plans)
