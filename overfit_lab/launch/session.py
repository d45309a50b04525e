"""The jobs of one command: checked before the first is run, then trained one by one or together."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from overfit_lab.cohort import Cohort
from overfit_lab.config import run_id
from overfit_lab.errors import UserError
from overfit_lab.launch.display import Display
from overfit_lab.launch.events import say_busy
from overfit_lab.launch.follow import LOOK_SECONDS
from overfit_lab.launch.grouping import threads_for
from overfit_lab.launch.job import Outcome, command_line, config_of, finish, found, overrides_of, present
from overfit_lab.launch.machine import describe_machine
from overfit_lab.launch.planning import leading, write_down
from overfit_lab.launch.settings import (
    SlurmSettings,
    parse_settings,
    refuse_several_processes,
)
from overfit_lab.launch.supervise import heeding_signals
from overfit_lab.launch.sweep import Sweep
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import Damaged, StudyFiles, StudyRecord
from overfit_lab.training.history import History
from overfit_lab.training.supervision import Stopped


class Session:
    """Runs the jobs that Hydra hands over.

    Args:
        display: Where it is said.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self.outcomes: list[Outcome] = []
        # Whether the jobs are trained on other machines.
        self.elsewhere = False
        self._plans: dict[Path, Plan] = {}
        # What `run_together` has trained, by the folders of the runs.
        self._ready: dict[Path, Outcome] = {}

    @property
    def studies_to_report(self) -> list[Path]:
        """The studies that have changed, without those whose config says not to report."""
        return list(dict.fromkeys(o.study for o in self.all_outcomes() if o.report and o.status != "submitted"))

    def all_outcomes(self) -> list[Outcome]:
        """What has become of the jobs, of those too that another launcher has run in processes of its own."""
        seen = {StudyFiles(outcome.study).run(outcome.run_id).directory for outcome in self.outcomes}
        others = [plan for folder, plan in self._plans.items() if folder not in seen]
        lost = "its process has ended and left neither a record nor a failure"
        return self.outcomes + [found(plan, ()) or finish(plan, (), "failed", error=lost) for plan in others]

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""
        self.display.expect(jobs)

    def launched_by(self, launcher: Mapping[str, Any]) -> None:
        """Learn which launcher there is, from its section of the configuration.

        Raises:
            UserError: One of its settings is not allowed.
        """
        settings = parse_settings(launcher)
        self.elsewhere = isinstance(settings, SlurmSettings) or str(launcher["_target_"]).endswith(".SlurmLauncher")
        refuse_several_processes(launcher)

    def check(self, jobs: Iterable[DictConfig]) -> None:
        """Check all jobs of a command before the first is run; nothing is written.

        Raises:
            UserError: A job is a mistake, or jobs of one study have several sources or splits.
        """
        studies: dict[Path, StudyRecord] = {}
        for job in jobs:
            plan = self._prepare(job)
            if plan.files.record.is_file():
                # One of a newer version ends the command here; one that is damaged is set aside when its turn comes.
                with contextlib.suppress(Damaged):
                    plan.files.load()
            # The study's directory may not exist yet, so the jobs are compared with one another.
            first = studies.setdefault(plan.study.directory, plan.study_record)
            own = plan.study_record
            if not first.source.has_rows_of(own.source) or first.split != own.split:
                raise UserError(
                    f"study.name={first.name}: a study has one source and one split, and this sweep has several; "
                    "use one command for each, or sweep study.name along"
                )

    def check_job(self, composed: DictConfig) -> None:
        """Check one job of a search before its batch is run; our launchers call this, and nothing is written.

        Raises:
            UserError: The job is a mistake.
        """
        self._prepare(composed)

    def run(self, composed: DictConfig) -> Outcome:
        """Run one job: Hydra's task function.

        Raises:
            UserError: The job cannot be what was asked for.
            Stopped: A signal has asked for it; the checkpoint is on disk.
        """
        hydra = HydraConfig.get()
        plan, overrides = self._prepare(composed), overrides_of(hydra)
        # A run that stands twice in a sweep is trained once, also if it fails.
        outcome = self._ready.pop(plan.files.directory, None) or present(plan, overrides)
        if outcome is None:
            self.display.announce(plan, verbose=bool(hydra.verbose))
            outcome = self._train_here(plan, overrides)
        if outcome.status == "failed":
            self._ready[plan.files.directory] = outcome
        self.outcomes.append(outcome)
        self.display.finish(outcome)
        return outcome

    def run_together(self, composed: Sequence[DictConfig], settings: Mapping[str, Any]) -> Iterator[int]:
        """Train jobs as cohorts, wherever the launcher's settings say; our launchers call this.

        Args:
            composed: The jobs.
            settings: What the launcher was given, see `overfit_lab.launch.settings`.

        Yields:
            The index of each job that is done, once: `run` then returns its outcome at once. A job that is a mistake
            comes first, and `run` says so; that the others are trained all the same is for the sweeper to judge.
        """
        launcher = parse_settings(settings)
        assert launcher is not None  # the callback has checked it
        jobs: dict[Path, list[int]] = defaultdict(list)
        studies: dict[Path, dict[Path, Plan]] = defaultdict(dict)
        missing: set[Path] = set()
        overrides: dict[Path, list[str]] = {}
        for index, job in enumerate(composed):
            try:
                plan = self._prepare(job)
            except UserError:
                yield index
                continue
            folder = plan.files.directory
            if folder not in overrides:
                studies[plan.study.directory][folder] = plan
                overrides[folder] = overrides_of(job.hydra)
                if present(plan, overrides[folder]) is None:
                    missing.add(folder)
                    self.display.announce(plan, verbose=bool(job.hydra.verbose))
            if folder in missing:
                jobs[folder].append(index)
            else:
                yield index
        for plans in studies.values():
            if not plans.keys() & missing:
                continue
            own = {plan.run_id: overrides[folder] for folder, plan in plans.items()}
            for outcome in Sweep(list(plans.values()), own, launcher, self.display).outcomes():
                folder = StudyFiles(outcome.study).run(outcome.run_id).directory
                # A cohort may hold runs that this command has not asked for.
                if folder in missing:
                    missing.remove(folder)
                    self._ready[folder] = replace(outcome, overrides=tuple(overrides[folder]))
                    yield from jobs[folder]
            # Another command was done with these before they were written down: `run` finds them.
            for folder in plans.keys() & missing:
                missing.remove(folder)
                yield from jobs[folder]

    def _train_here(self, plan: Plan, overrides: Sequence[str]) -> Outcome:
        """Train one run in this process."""

        def show_epoch(history: History) -> None:
            self.display.progress(history.epochs / plan.config.training.epochs)

        machine, said = describe_machine([plan], workers=1), False
        with leading(plan.study) as token:
            while True:
                cohorts = write_down(
                    [plan],
                    {plan.run_id: overrides},
                    lambda plans: [Cohort((plan,)) for plan in plans],
                    lambda cohort, _: threads_for(cohort.plans, machine, torch.get_num_threads()),
                    command=command_line(),
                    sweep=token,
                )
                if cohorts and [p.run_id for p in cohorts[0].plans] == [plan.run_id]:
                    # Lightning takes seconds to import, and a sweep that trains in processes of their own needs it only
                    # there; and here only now that others can see what is going to be trained.
                    from overfit_lab.launch.training import Busy, train_runs

                    [cohort] = cohorts
                    record = plan.study.cohorts.find(cohort.name)
                    torch.set_num_threads(1 if record is None else record.threads)
                    # Stopped without a signal: others have gone on with it, as if it had been theirs from the start.
                    with contextlib.suppress(Busy, Stopped), heeding_signals() as flag:
                        [outcome] = train_runs(cohort, {plan.run_id: overrides}, command_line(), [show_epoch], flag)
                        return outcome
                # It is in the hands of another command, alone or in company.
                if (there := present(plan, overrides)) is not None:
                    return there
                if cohorts and not said:
                    said = True
                    say_busy(cohorts[0])
                time.sleep(LOOK_SECONDS)

    def _prepare(self, composed: DictConfig) -> Plan:
        """Check a job, once for each run."""
        config = config_of(composed)
        folder = StudyFiles(config.study.directory).run(run_id(config)).directory
        if folder not in self._plans or self._plans[folder].config != config:
            self._plans[folder] = prepare(config, elsewhere=self.elsewhere)
        return self._plans[folder]

    def __getstate__(self) -> dict[str, Any]:
        # Launchers that run each job in a process of its own carry the task function there, and with it its owner.
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(Session(Display(Console()))))
        # As the command does it: a user's own network or data lies where he works.
        sys.path.append(str(Path.cwd()))
