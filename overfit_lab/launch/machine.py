"""What this machine has for training: processes, devices, memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from overfit_lab.launch.grouping import Machine
from overfit_lab.plan import Plan

# Of what is free, so much is planned with: estimates are rough, and a machine has other users.
SHARE = 0.5


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
        # A kernel costs about 5 us to launch, and a step has a hundred of them.
        return Machine(workers or len(devices), SHARE * memory, step=5e-4, fit=1e-8, rate=5e12, cache=math.inf)
    workers = workers or cores()
    # Round figures of one core of a server; scripts/bench sweep --only steps shows what a step costs.
    return Machine(workers, SHARE * free_memory() / workers, step=2.5e-4, fit=3e-6, rate=4e10, cache=8e6)


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
