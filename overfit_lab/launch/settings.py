"""What a user may set of the launchers that train cohorts, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from overfit_lab.config import ONE_DEVICE, Count, Positive, Section, sentence
from overfit_lab.errors import UserError


class CohortSettings(Section):
    """`hydra/launcher=cohort`: processes of this command.

    Args:
        max_fits: The most fits that train together; by the memory where it is not said.
        workers: How many processes; one for each GPU, or for each core, where it is not said.
    """

    place: Literal["cohort"]
    max_fits: Count | None = None
    workers: Count | None = None


class LocalSettings(Section):
    """`hydra/launcher=cohort_local`: processes of their own on this machine, which go on when the command ends.

    Args:
        max_fits: As for `cohort`.
        workers: As for `cohort`.
        wait: Whether the command waits for them.
    """

    place: Literal["cohort_local"]
    max_fits: Count | None = None
    workers: Count | None = None
    wait: bool = True


class SlurmSettings(Section):
    """`hydra/launcher=cohort_slurm`: tasks of a Slurm array, one cohort for each.

    Args:
        max_fits: As for `cohort`.
        wait: Whether the command waits for them.
        tasks: The most tasks that the work is spread over; by its length where it is not said.
        timeout_min: Minutes that a task may take; one that needs more is queued again and goes on.
        mem_gb: Memory of a task; cohorts are cut to it on the CPU.
        cpus_per_task: Cores of a task.
        gpus_per_node: 1 for a GPU, 0 for none; by trainer.accelerator where it is not said.
        gpu_mem_gb: Memory of a GPU; cohorts are cut to it there.
        partition: As the other names up to `exclude`, what `sbatch` calls so.
        setup: Shell lines before the task, such as `module load cuda`.
        additional_parameters: Any further option of `sbatch`.
        array_parallelism: How many tasks of an array may run at the same time.
        signal_delay_s: Seconds before its end in which a task is told to save and be queued again.
        max_num_timeout: How often a task may be queued again because its time was over.
        name: What the job is called in the queue.
        stderr_to_stdout: Whether a task has one log for both.
    """

    place: Literal["cohort_slurm"]
    max_fits: Count | None = None
    wait: bool = True
    tasks: Count | None = None
    timeout_min: Count = 60
    mem_gb: Positive = 4.0
    cpus_per_task: Count = 2
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    gpu_mem_gb: Positive = 16.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    setup: list[str] = Field(default_factory=list)
    additional_parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    array_parallelism: Count = 256
    signal_delay_s: Count = 120
    max_num_timeout: Annotated[int, Field(ge=0)] = 1000
    name: str = "overfit-lab"
    stderr_to_stdout: bool = False

    @model_validator(mode="after")
    def _one_device(self) -> Self:
        if self.gpus_per_node is not None and self.gpus_per_node > 1:
            raise UserError(
                f"hydra.launcher.gpus_per_node={self.gpus_per_node}: a cohort trains on one GPU; allowed are 0 and 1, "
                "and hydra.launcher.tasks=N spreads the sweep over N of them"
            )
        if self.signal_delay_s >= 60 * self.timeout_min:
            raise UserError(
                f"hydra.launcher.signal_delay_s={self.signal_delay_s}: must be less than the {60 * self.timeout_min} "
                "seconds of hydra.launcher.timeout_min"
            )
        return self


Settings = CohortSettings | LocalSettings | SlurmSettings
_KINDS: dict[str, type[Settings]] = {
    "cohort": CohortSettings,
    "cohort_local": LocalSettings,
    "cohort_slurm": SlurmSettings,
}


def parse_settings(values: Mapping[str, Any]) -> Settings | None:
    """Check what Hydra's configuration says of the launcher.

    Args:
        values: The section `hydra.launcher`, as plain values.

    Raises:
        UserError: A key is unknown, or its value is not allowed.

    Returns:
        The settings, or None for a launcher that is not ours.
    """
    kind = _KINDS.get(str(values.get("place")))
    if kind is None:
        return None
    try:
        return kind.model_validate({key: value for key, value in values.items() if key != "_target_"})
    except ValidationError as error:
        raise UserError(f"hydra.launcher.{sentence(error.errors())}") from error


def refuse_several_processes(launcher: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a sweep whose jobs, or whose command, would run several times side by side: each run has one process.

    Args:
        launcher: The section `hydra.launcher`, as plain values.
        environment: Of the process.

    Raises:
        UserError: So it is; the message names the launcher that spreads a sweep over devices.
    """
    for key in ("tasks_per_node", "nodes", "gpus_per_node", "gpus_per_task"):
        value = launcher.get(key)
        if isinstance(value, int) and value > 1:
            raise UserError(f"hydra.launcher.{key}={value}: {ONE_DEVICE}; allowed is 1")
    # What torchrun, `srun --ntasks` and Lightning's own launcher say to each of several processes.
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        value = environment.get(name, "1")
        if value.isdecimal() and int(value) > 1:
            raise UserError(f"{name}={value}: this command was started {value} times side by side; {ONE_DEVICE}")
