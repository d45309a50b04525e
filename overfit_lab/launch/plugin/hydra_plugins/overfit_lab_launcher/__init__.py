"""Hydra's launchers `cohort`, `cohort_local` and `cohort_slurm`: the jobs of a sweep are handed over together.

They are trained in whatever order and place is best. Hydra looks for launchers in the namespace package
`hydra_plugins` alone, hence this place (pyproject.toml maps it), and imports each of them for every Hydra app of the
environment: nothing heavy may be imported here, not even overfit_lab.
"""

# Annotations stay objects: Hydra imports a plugin before it stands in sys.modules, where dataclasses look strings up.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

# What the keys mean stands in overfit_lab.launch.settings, which checks them.


@dataclass
class CohortLauncherConf:
    """What `hydra/launcher=cohort` lets a user set."""

    _target_: str = "hydra_plugins.overfit_lab_launcher.CohortLauncher"
    place: str = "cohort"
    max_fits: int | None = None
    workers: int | None = None


@dataclass
class CohortLocalLauncherConf:
    """What `hydra/launcher=cohort_local` lets a user set."""

    _target_: str = "hydra_plugins.overfit_lab_launcher.CohortLauncher"
    place: str = "cohort_local"
    max_fits: int | None = None
    workers: int | None = None
    wait: bool = True


@dataclass
class CohortSlurmLauncherConf:
    """What `hydra/launcher=cohort_slurm` lets a user set."""

    _target_: str = "hydra_plugins.overfit_lab_launcher.CohortLauncher"
    place: str = "cohort_slurm"
    max_fits: int | None = None
    wait: bool = True
    tasks: int | None = None
    timeout_min: int = 60
    mem_gb: float = 4.0
    cpus_per_task: int = 2
    gpus_per_node: int | None = None
    gpu_mem_gb: float = 16.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    array_parallelism: int = 256
    signal_delay_s: int = 120
    max_num_timeout: int = 1000
    name: str = "overfit-lab"
    stderr_to_stdout: bool = False


for _name, _node in (
    ("cohort", CohortLauncherConf),
    ("cohort_local", CohortLocalLauncherConf),
    ("cohort_slurm", CohortSlurmLauncherConf),
):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="overfit_lab")


class CohortLauncher(BasicLauncher):
    """Lets the owner of the task function say in which order the jobs are run.

    The owner is the object that the task function is a method of. It has a method `run_together(configs, settings)`,
    which yields the index of each job, once, when that job can be run. Where there is no such method the jobs are run
    one after another, as Hydra's basic launcher does it.

    A sweeper that searches (it has a `max_failure_rate`) makes its jobs up as it goes. Where the owner has a method
    `check_job(config)`, which raises what is wrong with a job, each is checked before the first of its batch is run. A
    mistake ends the search at once where no failure is allowed for.

    Args:
        settings: Handed to `run_together`.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - Hydra hands over whatever the configuration holds
        super().__init__()
        self.settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs.

        Args:
            job_overrides: The overrides of each job.
            initial_job_idx: The number of the first.

        Returns:
            What became of each job, in the order of job_overrides.
        """
        owner = getattr(self.task_function, "__self__", None)
        run_together, check_job = getattr(owner, "run_together", None), getattr(owner, "check_job", None)
        if not callable(run_together):
            return super().launch(job_overrides, initial_job_idx)
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.task_function is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs: list[DictConfig] = []
        numbers: list[int] = []
        returns: dict[int, JobReturn] = {}
        failures_allowed = OmegaConf.select(self.config, "hydra.sweeper.max_failure_rate")
        for number, overrides in enumerate(job_overrides):
            try:
                config = self._compose(overrides, initial_job_idx + number)
                if failures_allowed is not None and callable(check_job):
                    check_job(config)
                configs.append(config)
                numbers.append(number)
            except Exception as error:
                if failures_allowed == 0:
                    raise
                # One job's mistake is not the others': the sweeper is told, and judges.
                returns[number] = JobReturn(overrides=overrides, status=JobStatus.FAILED)
                returns[number].return_value = error
        for index in run_together(configs, self.settings):
            returns[numbers[index]] = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=configs[index],
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            # A job has a log of its own.
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if any(job.status == JobStatus.COMPLETED for job in returns.values()):
            # For what the sweeper writes there; a mistake alone leaves nothing behind.
            Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        return [returns[number] for number in range(len(job_overrides))]

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config
