"""Hydra's callback: every job of a command is checked before the first one is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from overfit_lab.errors import UserError
from overfit_lab.launch.explain import explain
from overfit_lab.launch.job import config_of, overrides_of
from overfit_lab.plan import prepare
from overfit_lab.records import StudyRecord


class Refusal(SystemExit):
    """Ends the command because of a user's mistake. Hydra turns a callback's other exceptions into warnings."""

    def __init__(self, error: UserError) -> None:
        super().__init__(2)
        self.error = error


class JobCallback(Callback):
    """Refuses a command as a whole where any of its jobs is a mistake; a typo must not cost a night's sweep."""

    # Told the overrides of each job that is to come. Hydra makes the object, so this stands at the class.
    expect: Callable[[list[list[str]]], None] = staticmethod(lambda jobs: None)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Check the only job."""
        _check_folder(config)
        type(self).expect([overrides_of(config.hydra)])
        _check_all(iter([config]))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Check every job of a sweep, where the sweeper's jobs are known before it runs."""
        _check_folder(config)
        if config.hydra.sweeper._target_ != f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}":
            return
        try:
            jobs = _sweep(config)
            type(self).expect(jobs)
            loader = GlobalHydra.instance().config_loader()
            _check_all(loader.load_sweep_config(config, job) for job in jobs)
        except (HydraException, OmegaConfBaseException) as error:
            raise Refusal(UserError(explain(error))) from error


def _check_folder(config: DictConfig) -> None:
    if config.hydra.job.chdir:
        raise Refusal(UserError("hydra.job.chdir=true: study.root is seen from where you work; allowed is false"))


def _sweep(config: DictConfig) -> list[list[str]]:
    """List the overrides of each job, as the basic sweeper will."""
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*fixed, *overrides_of(config.hydra)])
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def _check_all(composed: Iterator[DictConfig]) -> None:
    """Check each job; and that jobs of one study have one source and one split, as its directory may not exist yet."""
    studies: dict[Path, StudyRecord] = {}
    for job in composed:
        try:
            plan = prepare(config_of(job))
            if plan.files.record.is_file():
                plan.files.load()
            first = studies.setdefault(plan.study.directory, plan.study_record)
            if (first.source, first.split) != (plan.study_record.source, plan.study_record.split):
                raise UserError(
                    f"study.name={first.name}: a study has one source and one split, and this sweep has several; "
                    "use one command for each, or sweep study.name along"
                )
        except UserError as error:
            raise Refusal(error) from error
