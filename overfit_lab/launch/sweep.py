"""The runs of one study that a sweep asks for: written down, trained wherever the launcher says, and told of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from overfit_lab.cohort import Cohort
from overfit_lab.launch.display import Display
from overfit_lab.launch.events import Finished, Progress
from overfit_lab.launch.follow import Place, follow
from overfit_lab.launch.grouping import Machine, cost, costliest_first, form_cohorts, threads_for
from overfit_lab.launch.job import Outcome, command_line, finish
from overfit_lab.launch.local import LocalPlace
from overfit_lab.launch.machine import cores, describe_machine, describe_task, devices_for
from overfit_lab.launch.planning import leading, write_down
from overfit_lab.launch.settings import CohortSettings, Settings, SlurmSettings
from overfit_lab.launch.slurm import SlurmPlace, living_jobs
from overfit_lab.launch.workers import train_in_workers
from overfit_lab.plan import Plan


class Sweep:
    """Trains runs of one study, wherever the launcher says.

    Args:
        plans: The runs that are asked for, finished ones among them.
        overrides: For each run by its id, what the command line changed.
        settings: The launcher's.
        display: Where it is shown how far it is.
    """

    def __init__(
        self, plans: list[Plan], overrides: dict[str, list[str]], settings: Settings, display: Display
    ) -> None:
        self.plans, self.overrides, self.settings, self.display = plans, overrides, settings, display
        self.study = plans[0].study
        missing = [plan for plan in plans if not plan.files.record.is_file()]
        self.machine, self.cores, self.devices = _machine(missing, settings)
        self._token = ""

    def outcomes(self) -> Iterator[Outcome]:
        """Write down what trains together, have it trained, and tell what becomes of each run."""
        with leading(self.study) as self._token:
            cohorts = costliest_first(self._write_down(self.plans), self.machine)
            yield from self._train(cohorts)

    def _write_down(self, plans: Sequence[Plan]) -> list[Cohort]:
        return write_down(
            plans,
            self.overrides,
            lambda fresh: form_cohorts(fresh, self.machine, max_fits=self.settings.max_fits),
            self._threads,
            command=command_line(),
            sweep=self._token,
            living_jobs=living_jobs(self.study),
        )

    def _threads(self, cohort: Cohort, count: int) -> int:
        most = self.cores // max(1, min(self.machine.workers, count)) if self.shared else self.cores
        return threads_for(cohort.plans, self.machine, max(1, most))

    @property
    def shared(self) -> bool:
        """Whether the processes share the cores of one machine."""
        return not isinstance(self.settings, SlurmSettings)

    def _train(self, cohorts: list[Cohort]) -> Iterator[Outcome]:
        settings = self.settings
        if isinstance(settings, CohortSettings):
            events = train_in_workers(
                cohorts,
                self.overrides,
                devices=self.devices,
                workers=self.machine.workers,
                regroup=self._write_down,
            )
        else:
            place = self._place()
            place.start([cohort for cohort in cohorts if not place.has(cohort)])
            if not settings.wait:
                for cohort in cohorts:
                    for plan in cohort.missing:
                        yield finish(plan, self.overrides.get(plan.run_id, ()), "submitted")
                return
            events = follow(cohorts, self.overrides, place, self._write_down)
        try:
            yield from self._show(cohorts, events)
        except BaseException as interruption:
            if not isinstance(settings, CohortSettings) and not isinstance(interruption, Exception | GeneratorExit):
                where = self.study.directory
                print(f"overfit-lab: its tasks go on; overfit-lab status {where} shows them", file=sys.stderr)
            raise

    def _place(self) -> Place:
        if isinstance(self.settings, SlurmSettings):
            gpu = any(plan.config.trainer.accelerator == "cuda" for plan in self.plans)
            return SlurmPlace(self.study, self.settings, gpu=gpu)
        return LocalPlace(self.study, self._token, self.machine.workers, self.devices)

    def _show(self, cohorts: list[Cohort], events: Iterator[Progress | Finished]) -> Iterator[Outcome]:
        # Halves of a cohort that has failed are new ones: they count for nothing, as what they repeat has been counted.
        costs = {cohort: cost(cohort.plans, self.machine) for cohort in cohorts}
        whole = sum(costs[cohort] * cohort.epochs * len(cohort.parts) for cohort in cohorts)
        done: dict[Cohort, float] = {}
        self.display.progress(0)
        for event in events:
            if isinstance(event, Progress):
                done[event.cohort] = costs.get(event.cohort, 0) * event.epoch
                self.display.progress(min(1, sum(done.values()) / whole))
            else:
                yield from event.outcomes


def _machine(plans: Sequence[Plan], settings: Settings) -> tuple[Machine, int, list[str]]:
    """Describe what runs are trained on: the machine, the cores that its processes share or each has, the GPUs."""
    if isinstance(settings, SlurmSettings):
        return describe_task(plans, settings), settings.cpus_per_task, []
    return describe_machine(plans, settings.workers), cores(), devices_for(plans)
