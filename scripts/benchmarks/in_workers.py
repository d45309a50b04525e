"""Runs that a benchmark trains by the package's own processes, to look at what happens on the way."""

from collections.abc import Iterator, Sequence

from overfit_lab.launch.events import Finished, Progress
from overfit_lab.launch.grouping import Machine, form_cohorts, threads_for
from overfit_lab.launch.machine import cores, devices_for
from overfit_lab.launch.planning import write_down
from overfit_lab.launch.workers import train_in_workers
from overfit_lab.plan import Plan


def train_plans(plans: Sequence[Plan], machine: Machine) -> Iterator[Progress | Finished]:
    """Write runs of one study down as cohorts, as the launcher does, and train them."""
    overrides: dict[str, list[str]] = {plan.run_id: [] for plan in plans}
    cohorts = write_down(
        plans,
        overrides,
        lambda fresh: form_cohorts(fresh, machine),
        lambda cohort, count: threads_for(cohort.plans, machine, max(1, cores() // min(machine.workers, count))),
        command="bench",
    )
    yield from train_in_workers(cohorts, overrides, devices=devices_for(plans), workers=machine.workers)
