"""The launcher `cohort`: Hydra's own suites for launchers, and what it does beyond Hydra's."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir, version
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import SweepTaskFunction
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from overfit_lab.config import conf_directory
from overfit_lab.launch.job import register_resolvers

# Hydra's suite wants the behaviour of 1.1, where a job changes its working directory; Hydra warns that it is old.
hydras_warning = pytest.mark.filterwarnings(r"ignore:\s*Future Hydra versions will no longer change work:UserWarning")


LAUNCHERS = ("cohort", "cohort_local", "cohort_slurm")


@pytest.fixture
def hydra_1_1(hydra_restore_singletons: None) -> None:
    """Hydra's behaviour where nobody has said which version's; tests before may have done so in this process."""
    version.VersionBase.instance().setbase(version.__compat_version__)


class LastFirst(SweepTaskFunction):
    """Hydra's task function for tests, with an owner that has the jobs run backwards."""

    asked: list[int]

    @property
    def __self__(self) -> LastFirst:
        return self

    def run_together(self, configs: list[DictConfig], _: object) -> Iterator[int]:
        self.asked = []
        for index in reversed(range(len(configs))):
            self.asked.append(index)
            yield index


@hydras_warning
@pytest.mark.usefixtures("hydra_1_1")
@pytest.mark.parametrize(("launcher_name", "overrides"), [(name, []) for name in LAUNCHERS])
class TestOneAfterAnother(LauncherTestSuite):
    """Where the task function has no owner."""


@hydras_warning
@pytest.mark.usefixtures("hydra_1_1")
@pytest.mark.parametrize(("launcher_name", "overrides"), [(name, []) for name in LAUNCHERS])
class TestTogether(LauncherTestSuite):
    """Where it has one: whoever waits for the results must not see the difference."""

    @pytest.fixture
    def hydra_sweep_runner(
        self, hydra_sweep_runner: Callable[..., SweepTaskFunction]
    ) -> Iterator[Callable[..., SweepTaskFunction]]:
        made: list[LastFirst] = []

        def make(**arguments: object) -> SweepTaskFunction:
            sweep = LastFirst()
            vars(sweep).update(vars(hydra_sweep_runner(**arguments)))
            made.append(sweep)
            return sweep

        yield make
        assert all(sweep.asked for sweep in made if sweep.returns)


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=cohort"])])
class TestApps(IntegrationTestSuite):
    """Whole apps, which find the plugin by themselves."""


class Owner:
    """Has the jobs run in an order of its own, and notes what happens."""

    def __init__(self, order: Sequence[int], failing: int | None = None) -> None:
        self.order = order
        self.failing = failing
        self.events: list[str] = []

    def run(self, config: DictConfig) -> int:
        self.events.append(f"run {config.model.width} as {HydraConfig.get().job.num}")
        if config.model.width == self.failing:
            raise ValueError("as it should")
        return int(config.model.width)


class Together(Owner):
    def run_together(self, configs: list[DictConfig], settings: dict[str, Any]) -> Iterator[int]:
        assert settings["place"] == "cohort"
        told = f"{settings['max_fits']} fits, {settings['workers']} workers"
        self.events.append(f"{told}, jobs {[config.hydra.job.id for config in configs]}")
        for index in self.order:
            self.events.append(f"ready {index}")
            yield index


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None) -> Iterator[list[list[str]]]:
    """Note what the loader composes for a sweep."""
    register_resolvers()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        jobs: list[list[str]] = []
        by_hydra = loader.load_sweep_config

        def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
            jobs.append(sweep_overrides)
            return by_hydra(master_config, sweep_overrides)

        monkeypatch.setattr(loader, "load_sweep_config", load_sweep_config)
        yield jobs


JOBS = [["model.width=10"], ["model.width=11"], ["model.width=12"]]


def launch(owner: Owner, root: Path, *overrides: str, jobs: Sequence[Sequence[str]] = JOBS) -> Sequence[JobReturn]:
    """Launch jobs, with numbers from 5, by the launcher that conf/ names."""
    loader: ConfigLoader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("config", [f"study.root={root}", *overrides], RunMode.MULTIRUN)
    launcher = Plugins.instance().instantiate_launcher(
        HydraContext(config_loader=loader, callbacks=Callbacks()), owner.run, master
    )
    assert type(launcher).__name__ == "CohortLauncher"
    return launcher.launch([[*job, f"study.root={root}"] for job in jobs], initial_job_idx=5)


def test_jobs_are_run_as_they_get_ready_and_returned_in_their_order(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Together([2, 0, 1])
    returns = launch(owner, tmp_path, "hydra.launcher.max_fits=64", "hydra.launcher.workers=3")
    assert owner.events == [
        "64 fits, 3 workers, jobs ['5', '6', '7']",
        *["ready 2", "run 12 as 7"],
        *["ready 0", "run 10 as 5"],
        *["ready 1", "run 11 as 6"],
    ]
    assert [done.return_value for done in returns] == [10, 11, 12]
    assert [list(done.overrides or [])[:1] for done in returns] == JOBS


def test_each_job_is_composed_once(composed: list[list[str]], tmp_path: Path) -> None:
    launch(Together([1, 2, 0]), tmp_path)
    assert [job[:1] for job in composed] == JOBS


def test_nothing_is_said_where_nothing_is_asked(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Together([0, 1, 2])
    launch(owner, tmp_path)
    assert owner.events[0] == "None fits, None workers, jobs ['5', '6', '7']"


def test_a_job_that_fails_does_not_end_the_others(composed: list[list[str]], tmp_path: Path) -> None:
    returns = launch(Together([1, 2, 0], failing=11), tmp_path)
    assert [done.status for done in returns] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    with pytest.raises(ValueError, match="as it should"):
        _ = returns[1].return_value


def test_a_job_that_cannot_be_composed_does_not_end_the_others(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Together([1, 0])
    returns = launch(owner, tmp_path, jobs=[JOBS[0], ["model.wdith=3"], JOBS[2]])
    assert owner.events[0].endswith("jobs ['5', '7']")
    assert [done.status for done in returns] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    assert [returns[0].return_value, returns[2].return_value] == [10, 12]
    with pytest.raises(ConfigCompositionException, match=r"model\.wdith"):
        _ = returns[1].return_value


class Checking(Together):
    """Finds a mistake in the job with width 11, where a sweeper searches."""

    def check_job(self, config: DictConfig) -> None:
        self.events.append(f"check {config.model.width}")
        if config.model.width == 11:
            raise ValueError("a mistake")


def test_a_search_ends_with_its_first_mistake(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Checking([0, 1])
    with pytest.raises(ValueError, match="a mistake"):
        launch(owner, tmp_path, "+hydra.sweeper.max_failure_rate=0.0")
    assert owner.events == ["check 10", "check 11"]
    with pytest.raises(ConfigCompositionException, match=r"model\.wdith"):
        launch(owner, tmp_path, "+hydra.sweeper.max_failure_rate=0.0", jobs=[["model.wdith=3"]])
    assert list(tmp_path.iterdir()) == []


def test_a_search_may_allow_for_mistakes(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Checking([0, 1])
    returns = launch(owner, tmp_path, "+hydra.sweeper.max_failure_rate=0.5")
    assert owner.events[:4] == ["check 10", "check 11", "check 12", "None fits, None workers, jobs ['5', '7']"]
    assert [done.status for done in returns] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    with pytest.raises(ValueError, match="a mistake"):
        _ = returns[1].return_value
    # What is a mistake leaves no folder.
    assert len(list(tmp_path.glob("*/runs/*"))) == 2


def test_jobs_that_are_known_beforehand_are_not_checked_again(composed: list[list[str]], tmp_path: Path) -> None:
    owner = Checking([0, 1, 2])
    launch(owner, tmp_path)
    assert not [event for event in owner.events if event.startswith("check")]


def test_each_job_has_a_folder(composed: list[list[str]], tmp_path: Path) -> None:
    returns = launch(Together([2, 1, 0]), tmp_path)
    folders = [done.hydra_cfg.hydra.runtime.output_dir for done in returns if done.hydra_cfg is not None]
    assert len(set(folders)) == 3
    assert all(Path(folder).is_dir() and Path(folder).is_relative_to(tmp_path) for folder in folders)


def test_between_jobs_the_log_is_hydras(
    composed: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)

    def whose_log() -> str:
        formatter = root.handlers[0].formatter
        assert formatter is not None
        return "Hydra's" if "[HYDRA]" in str(formatter._fmt) else "the job's"

    class Watching(Together):
        def run(self, config: DictConfig) -> int:
            self.events.append(whose_log())
            return 0

        def run_together(self, configs: list[DictConfig], _: object) -> Iterator[int]:
            for index in self.order:
                self.events.append(whose_log())
                yield index

    owner = Watching([2, 0, 1])
    launch(owner, tmp_path, "hydra/hydra_logging=default", "hydra/job_logging=stdout")
    assert owner.events == ["Hydra's", "the job's"] * 3


def test_a_job_that_never_gets_ready_is_an_error(composed: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        launch(Together([0, 2]), tmp_path)


def test_without_an_owner_that_can_the_jobs_are_run_one_after_another(
    composed: list[list[str]], tmp_path: Path
) -> None:
    owner = Owner([2, 0, 1])
    returns = launch(owner, tmp_path)
    assert owner.events == ["run 10 as 5", "run 11 as 6", "run 12 as 7"]
    assert [done.return_value for done in returns] == [10, 11, 12]


def test_the_plugin_burdens_no_other_app() -> None:
    """Hydra imports it for every app in the environment."""
    code = """if True:
        import sys
        from hydra.core.plugins import Plugins
        Plugins.instance()
        assert "hydra_plugins.overfit_lab_launcher" in sys.modules
        print([name for name in ("overfit_lab", "torch", "lightning", "numpy") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
