"""The jobs of one command: how many there are, what became of them, and what a person sees of it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from overfit_lab.cohort import Cohort
from overfit_lab.config import run_id
from overfit_lab.errors import UserError
from overfit_lab.launch.grouping import cost, form_cohorts
from overfit_lab.launch.job import Outcome, command_line, config_of, overrides_of, present, train_runs
from overfit_lab.launch.machine import describe_machine, devices_for
from overfit_lab.launch.workers import Progress, train_in_workers
from overfit_lab.objective import parameter_roles
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import StudyRecord
from overfit_lab.training.history import History


class Session:
    """Runs the jobs that Hydra hands over, one after another.

    On a terminal there is a bar for the sweep, with the time left, and one for the cohort that is training; below
    them a line for every finished job. Where stdout is no terminal there are the lines alone.

    Args:
        console: Where it is said.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.outcomes: list[Outcome] = []
        self._total: int | None = None
        self._shared: set[str] = set()
        self._plans: dict[str, Plan] = {}
        self._ready: dict[str, Outcome] = {}
        self._warned: set[str] = set()
        self._progress = ProgressBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._jobs = self._progress.add_task("runs", total=None)
        self._epochs = self._progress.add_task("epochs", total=None, visible=False)

    def __enter__(self) -> Session:
        """Show the bars, on a terminal."""
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove the bars."""
        if self.console.is_terminal:
            self._progress.stop()

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""
        self._total = len(jobs)
        if len(jobs) > 1:
            self._shared = set.intersection(*map(set, jobs))
        self._progress.update(self._jobs, total=len(jobs))

    @property
    def studies_to_report(self) -> list[Path]:
        """The studies of the jobs so far, without those whose config says not to report."""
        return list(dict.fromkeys(o.study for o in self.outcomes if o.report))

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
            first = studies.setdefault(plan.study.directory, plan.study_record)
            if (first.source, first.split) != (plan.study_record.source, plan.study_record.split):
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
        outcome = self._ready.pop(plan.run_id, None) or present(plan, overrides)
        if outcome is None:
            self._warn(plan)
            if hydra.verbose:
                self.console.print(_parameter_table(plan))
            self._progress.reset(self._epochs, total=plan.config.training.epochs, visible=True)

            def show_epoch(history: History) -> None:
                self._progress.update(self._epochs, completed=history.epochs)

            [outcome] = train_runs(Cohort((plan,)), {plan.run_id: overrides}, command_line(), [show_epoch])
        self.outcomes.append(outcome)
        self._progress.advance(self._jobs)
        self.console.print(self._line(outcome), highlight=False, markup=False, soft_wrap=True)
        return outcome

    def run_together(
        self, composed: Sequence[DictConfig], *, max_fits: int | None, workers: int | None
    ) -> Iterator[int]:
        """Train jobs as cohorts, in processes of their own; the launcher `cohort` calls this.

        Args:
            composed: The jobs.
            max_fits: At most so many fits in a cohort; by the memory where it is not said.
            workers: How many processes; by the machine where it is not said.

        Raises:
            UserError: A job cannot be what was asked for.

        Yields:
            The index of each job that is done, once: `run` then returns its outcome at once.
        """
        for key, value in (("max_fits", max_fits), ("workers", workers)):
            if value is not None and value < 1:
                raise UserError(f"hydra.launcher.{key}={value}: must be at least 1")
        plans = [self._prepare(job) for job in composed]
        overrides = {
            plan.run_id: overrides_of(job.hydra) for plan, job in zip(reversed(plans), reversed(composed), strict=True)
        }
        missing = {plan.run_id: plan for plan in plans if not plan.files.record.is_file()}
        jobs = defaultdict(list)
        for index, plan in enumerate(plans):
            jobs[plan.run_id].append(index)
        for name, indices in jobs.items():
            if name not in missing:
                yield from indices
        if not missing:
            return
        for plan in missing.values():
            self._warn(plan)
            if composed[jobs[plan.run_id][0]].hydra.verbose:
                self.console.print(_parameter_table(plan))
        machine = describe_machine(list(missing.values()), workers)
        studies = {plan.study.directory: plan.study for plan in missing.values()}
        begun = [record for study in studies.values() for record in study.begun()]
        cohorts = form_cohorts(list(missing.values()), machine, max_fits=max_fits, begun=begun)
        whole = sum(cost(cohort.plans, machine) * cohort.epochs for cohort in cohorts)
        done: dict[str, float] = {}
        self._progress.reset(self._epochs, description="training, %", total=100, visible=True)
        devices = devices_for(list(missing.values()))
        for event in train_in_workers(cohorts, overrides, command_line(), devices=devices, workers=machine.workers):
            if isinstance(event, Progress):
                done[event.cohort.name] = cost(event.cohort.plans, machine) * event.epoch
                self._progress.update(self._epochs, completed=100 * sum(done.values()) / whole)
                continue
            for outcome in event.outcomes:
                self._ready[outcome.run_id] = outcome
                yield from jobs[outcome.run_id]

    def _prepare(self, composed: DictConfig) -> Plan:
        """Check a job, once for each run."""
        config = config_of(composed)
        name = run_id(config)
        if name not in self._plans or self._plans[name].config != config:
            self._plans[name] = prepare(config)
        return self._plans[name]

    def _warn(self, plan: Plan) -> None:
        """Say, once for each network, that its fits are trained one by one, and why."""
        target = getattr(plan.config.model, "target", "")
        if plan.form.form == "looped" and target not in self._warned:
            self._warned.add(target)
            line = f"model._target_={target} cannot be stacked, so its fits are trained one by one: {plan.form.reason}"
            print(f"overfit-lab: {line}", file=sys.stderr)

    def _line(self, outcome: Outcome) -> str:
        number = f"[{len(self.outcomes)}/{self._total or '?'}]"
        # What all jobs of a sweep share tells none of them apart.
        what = " ".join(o for o in outcome.overrides if o not in self._shared) or outcome.run_id
        if outcome.record is None:
            return f"{number} {what}: failed: {outcome.error}"
        when = "finished before" if outcome.status == "present" else f"{outcome.record.seconds:.1f} s"
        return f"{number} {what}: {outcome.record.onset} ({when})"


def _parameter_table(plan: Plan) -> Table:
    """Show what the network's parameters are, and which of them are penalised or decay."""
    table = Table("parameter", "shape", "role", "penalised", title="parameters")
    shapes = {name: tuple(value.shape) for name, value in plan.network.named_parameters()}
    for name, role in parameter_roles(plan.network).items():
        shape = " x ".join(map(str, shapes[name]))
        # A network of the user's own may have any names: Text, which is not markup.
        table.add_row(Text(name), shape, role or "unknown", "yes" if name in plan.weights else "no")
    return table
