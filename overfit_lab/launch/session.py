"""The jobs of one command: checked before the first is run, then trained one by one or together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from overfit_lab.cohort import Cohort
from overfit_lab.config import run_id
from overfit_lab.errors import UserError
from overfit_lab.launch.display import Display
from overfit_lab.launch.grouping import cost, form_cohorts, threads_for
from overfit_lab.launch.job import Outcome, command_line, config_of, overrides_of, present
from overfit_lab.launch.machine import describe_machine, devices_for
from overfit_lab.launch.workers import Progress, train_in_workers
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import StudyFiles, StudyRecord
from overfit_lab.training.history import History


class Session:
    """Runs the jobs that Hydra hands over.

    Args:
        display: Where it is said.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self.outcomes: list[Outcome] = []
        self._plans: dict[str, Plan] = {}
        # What `run_together` has trained, by the folders of the runs.
        self._ready: dict[Path, Outcome] = {}

    @property
    def studies_to_report(self) -> list[Path]:
        """The studies of the jobs so far, without those whose config says not to report."""
        return list(dict.fromkeys(o.study for o in self.outcomes if o.report))

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""
        self.display.expect(jobs)

    def check(self, jobs: Iterable[DictConfig]) -> None:
        """Check all jobs of a command before the first is run; nothing is written.

        Raises:
            UserError: A job is a mistake, or jobs of one study have several sources or splits.
        """
        studies: dict[Path, StudyRecord] = {}
        for job in jobs:
            plan = self._prepare(job)
            if plan.files.record.is_file():
                plan.files.load()
            # The study's directory may not exist yet, so the jobs are compared with one another.
            first = studies.setdefault(plan.study.directory, plan.study_record)
            own = plan.study_record
            if not first.source.has_rows_of(own.source) or first.split != own.split:
                raise UserError(
                    f"study.name={first.name}: a study has one source and one split, and this sweep has several; "
                    "use one command for each, or sweep study.name along"
                )

    def run(self, composed: DictConfig) -> Outcome:
        """Run one job: Hydra's task function.

        Raises:
            UserError: The job cannot be what was asked for.
        """
        hydra = HydraConfig.get()
        plan, overrides = self._prepare(composed), overrides_of(hydra)
        # A run that stands twice in a sweep is trained once, also if it fails.
        outcome = self._ready.pop(plan.files.directory, None) or present(plan, overrides)
        if outcome is None:
            # Lightning takes seconds to import, and a sweep that trains in processes of their own needs it only there.
            from overfit_lab.launch.training import train_runs

            self.display.announce(plan, verbose=bool(hydra.verbose))

            def show_epoch(history: History) -> None:
                self.display.progress(history.epochs / plan.config.training.epochs)

            cohort, machine = Cohort((plan,)), describe_machine([plan], workers=1)
            torch.set_num_threads(threads_for(cohort.plans, machine, torch.get_num_threads()))
            [outcome] = train_runs(cohort, {plan.run_id: overrides}, command_line(), [show_epoch])
        if outcome.status == "failed":
            self._ready[plan.files.directory] = outcome
        self.outcomes.append(outcome)
        self.display.finish(outcome)
        return outcome

    def run_together(
        self, composed: Sequence[DictConfig], *, max_fits: int | None, workers: int | None
    ) -> Iterator[int]:
        """Train jobs as cohorts, in processes of their own; the launcher `cohort` calls this.

        Args:
            composed: The jobs.
            max_fits: At most so many fits in a cohort; by the memory where it is not said.
            workers: How many processes; by the machine where it is not said.

        Yields:
            The index of each job that is done, once: `run` then returns its outcome at once. A job that is a mistake
            comes first, and `run` says so; that the others are trained all the same is for the sweeper to judge.
        """
        jobs: dict[Path, list[int]] = defaultdict(list)
        studies: dict[Path, dict[Path, Plan]] = defaultdict(dict)
        overrides: dict[Path, list[str]] = {}
        for index, job in enumerate(composed):
            try:
                plan = self._prepare(job)
            except UserError:
                yield index
                continue
            if plan.files.record.is_file():
                yield index
                continue
            folder = plan.files.directory
            if not jobs[folder]:
                studies[plan.study.directory][folder] = plan
                overrides[folder] = overrides_of(job.hydra)
                self.display.announce(plan, verbose=bool(job.hydra.verbose))
            jobs[folder].append(index)
        for missing in studies.values():
            own = {plan.run_id: overrides[folder] for folder, plan in missing.items()}
            for outcome in self._train(list(missing.values()), own, max_fits, workers):
                folder = StudyFiles(outcome.study).run(outcome.run_id).directory
                self._ready[folder] = outcome
                yield from jobs[folder]

    def _train(
        self, plans: list[Plan], overrides: dict[str, list[str]], max_fits: int | None, workers: int | None
    ) -> Iterator[Outcome]:
        """Train runs of one study."""
        machine, devices = describe_machine(plans, workers), devices_for(plans)
        cohorts = form_cohorts(plans, machine, max_fits=max_fits, begun=plans[0].study.begun())
        # Halves of a cohort that has failed are new ones: they count for nothing, as what they repeat has been counted.
        costs = {cohort: cost(cohort.plans, machine) for cohort in cohorts}
        whole = sum(costs[cohort] * cohort.epochs for cohort in cohorts)
        done: dict[Cohort, float] = {}
        self.display.progress(0)
        for event in train_in_workers(cohorts, overrides, command_line(), devices=devices, machine=machine):
            if isinstance(event, Progress):
                done[event.cohort] = costs.get(event.cohort, 0) * event.epoch
                self.display.progress(min(1, sum(done.values()) / whole))
            else:
                yield from event.outcomes

    def _prepare(self, composed: DictConfig) -> Plan:
        """Check a job, once for each run."""
        config = config_of(composed)
        name = run_id(config)
        if name not in self._plans or self._plans[name].config != config:
            self._plans[name] = prepare(config)
        return self._plans[name]
