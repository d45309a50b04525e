"""Hydra's callback: every job of a command is checked before the first one is launched."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from overfit_lab.errors import UserError
from overfit_lab.launch.compose import compose_from_templates
from overfit_lab.launch.explain import explain
from overfit_lab.launch.job import overrides_of
from overfit_lab.launch.search import check_search, is_optuna, nothing_found


class Refusal(SystemExit):
    """Ends the command because of a user's mistake. Hydra turns a callback's other exceptions into warnings."""

    def __init__(self, error: UserError) -> None:
        super().__init__(2)
        self.error = error


class Jobs(Protocol):
    """Whoever is to run the jobs of a command."""

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""

    def launched_by(self, launcher: Mapping[str, Any]) -> None:
        """Learn which launcher there is, from its section of the configuration."""

    def check(self, jobs: Iterable[DictConfig]) -> None:
        """Check all jobs before the first is run."""


class JobCallback(Callback):
    """Refuses a command as a whole where any of its jobs is a mistake; a typo must not cost a night's sweep."""

    # Hydra makes the callback, so this stands at the class.
    jobs: Jobs

    def on_run_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Check the only job."""
        _check_folder(config)
        self._learn_launcher(config)
        self.jobs.expect([overrides_of(config.hydra)])
        self._check([config])

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Check every job of a sweep, where the sweeper's jobs are known before it runs."""
        _check_folder(config)
        self._learn_launcher(config)
        loader = GlobalHydra.instance().config_loader()
        compose_from_templates(loader)
        try:
            if is_optuna(config):
                check_search(config, _overrides(config))
            elif config.hydra.sweeper._target_ == f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}":
                jobs = [job for batch in BasicSweeper.split_arguments(_overrides(config), None) for job in batch]
                self.jobs.expect(jobs)
                self._check(loader.load_sweep_config(config, job) for job in jobs)
        except UserError as error:
            raise Refusal(error) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise Refusal(UserError(explain(error))) from error

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Say where a search has found nothing."""
        if is_optuna(config) and (said := nothing_found(config)) is not None:
            print(f"overfit-lab: {said}", file=sys.stderr)

    def _learn_launcher(self, config: DictConfig) -> None:
        launcher = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        assert isinstance(launcher, dict)
        try:
            self.jobs.launched_by({str(key): value for key, value in launcher.items()})
        except UserError as error:
            raise Refusal(error) from error

    def _check(self, composed: Iterable[DictConfig]) -> None:
        try:
            self.jobs.check(composed)
        except UserError as error:
            raise Refusal(error) from error


def _check_folder(config: DictConfig) -> None:
    if config.hydra.job.chdir:
        raise Refusal(UserError("hydra.job.chdir=true: study.root is seen from where you work; allowed is false"))


def _overrides(config: DictConfig) -> list[Override]:
    """Parse the overrides that a sweeper makes its jobs from."""
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return parser.parse_overrides([*fixed, *overrides_of(config.hydra)])
