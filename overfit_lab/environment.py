"""What a run was made with: versions, device, git state."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version

import torch

from overfit_lab.records import Environment


def describe_environment(command: str) -> Environment:
    """Describe the software that runs now, and the command that it was given."""
    return Environment(
        overfit_lab=version("overfit_lab"),
        torch=torch.__version__,
        lightning=version("lightning"),
        python=platform.python_version(),
        git=_git_state(),
        command=command,
    )


def device_name(device: torch.device) -> str:
    """Name a device: `cpu`, or a GPU by its model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@functools.cache
def _git_state() -> str | None:
    """The commit of the working directory, with a + where tracked files differ from it; None outside of git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
