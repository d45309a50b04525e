"""A private Slurm for tests: a real one, of one node, started and stopped by the project's own scripts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAEMONS = ("munged", "slurmctld", "slurmd")


def why_not() -> str | None:
    """Say why there can be no Slurm here, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=path) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}); .ci/run does it"
    return None if os.geteuid() == 0 else "a private Slurm is started by root alone"


@contextmanager
def private_slurm() -> Iterator[dict[str, str]]:
    """Start one, and lend what makes its commands find it."""
    # Not below pytest's own folder, which nobody else may enter: munge wants that.
    with tempfile.TemporaryDirectory(prefix="overfit-lab-slurm-") as folder:
        Path(folder).chmod(0o755)
        environment = {"SLURM_LAB": f"{folder}/lab", "SLURM_LAB_PORT": str(_free_ports()), "SLURM_LAB_ARRAY": "6"}
        told = os.environ | environment
        started = subprocess.run([ROOT / "scripts/slurm/start"], env=told, capture_output=True, text=True)
        try:
            assert started.returncode == 0, started.stderr
            yield {"SLURM_CONF": f"{folder}/lab/slurm.conf"}
        finally:
            subprocess.run([ROOT / "scripts/slurm/stop"], env=told, check=True, capture_output=True)


def _free_ports() -> int:
    """Find a place where four ports are free; other processes of the tests have a Slurm of their own."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        try:
            for more in range(4):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port + more))
        except OSError:
            continue
        return port
