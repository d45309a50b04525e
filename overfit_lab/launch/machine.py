"""What this machine has for training: processes, devices, memory."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from overfit_lab.launch.grouping import Machine, duration
from overfit_lab.launch.settings import SlurmSettings
from overfit_lab.launch.slurm import spread
from overfit_lab.plan import Plan

# Of what is free, so much is planned with: estimates are rough, and a machine has other users.
SHARE = 0.5

# A kernel costs about 5 us to launch, and a step has a hundred of them.
_GPU = Machine(workers=1, memory=0, step=5e-4, fit=1e-8, rate=5e12, cache=math.inf)
# Round figures of one core of a server; scripts/bench sweep --only steps shows what a step costs.
_CORE = Machine(workers=1, memory=0, step=2.5e-4, fit=3e-6, rate=4e10, cache=8e6)


def devices_for(plans: Sequence[Plan]) -> list[str]:
    """Name the GPUs that runs are to be trained on, as CUDA_VISIBLE_DEVICES names them; none means the CPU."""
    if all(plan.config.trainer.accelerator == "cpu" for plan in plans):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def describe_machine(plans: Sequence[Plan], workers: int | None) -> Machine:
    """Describe what is here.

    Args:
        plans: The runs that are to be trained.
        workers: How many processes; one for each GPU, or for each core, where it is not said.
    """
    devices = devices_for(plans)
    if devices:
        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(len(devices)))
        return replace(_GPU, workers=workers or len(devices), memory=SHARE * memory)
    workers = workers or cores()
    return replace(_CORE, workers=workers, memory=SHARE * free_memory() / workers)


def describe_task(plans: Sequence[Plan], settings: SlurmSettings) -> Machine:
    """Describe what a Slurm task has, and how many there are to be.

    Args:
        plans: The runs that are to be trained.
        settings: What a task is given.
    """
    gpu = settings.gpus_per_node == 1 or any(plan.config.trainer.accelerator == "cuda" for plan in plans)
    if gpu:
        machine = replace(_GPU, memory=SHARE * settings.gpu_mem_gb * 2**30)
    else:
        machine = replace(_CORE, memory=SHARE * settings.mem_gb * 2**30, rate=_CORE.rate * settings.cpus_per_task)
    # Half of the time, as it is a guess: what takes longer is queued again, and goes on.
    machine = replace(machine, seconds=SHARE * 60 * settings.timeout_min)
    groups: dict[Hashable, list[Plan]] = defaultdict(list)
    for plan in plans:
        groups[plan.cohort_key].append(plan)
    return replace(machine, workers=spread(sum(duration(group, machine) for group in groups.values()), settings))


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Return the bytes that are free on this machine, or in the part of it that a batch system or container grants."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))
