"""Whole commands, in this process or in one of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from overfit_lab import cli

Train = Callable[..., "Result"]
# As the installed command does it, whatever the folder.
COMMAND = [sys.executable, "-c", "import sys; from overfit_lab.cli import main; sys.exit(main())"]


@dataclass
class Result:
    """What a command said and returned."""

    code: int
    out: str
    err: str


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    """Run `overfit-lab train` in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> Result:
        # What the command does to its process ends with it.
        monkeypatch.setattr(sys, "argv", list(sys.argv))
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        capfd.readouterr()
        code = cli.main(["train", *overrides])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two widths with two seeds each, which no test writes to."""
    from tests.integration.finalizing import GRID, trained

    return trained(tmp_path_factory.mktemp("swept"), *GRID)


@pytest.fixture
def study(swept: Path, tmp_path: Path) -> Path:
    """A copy of it, somewhere else."""
    return Path(shutil.copytree(swept, tmp_path / "moved" / "study"))


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, which leads a group as it does on a terminal."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
    )


def run_command(folder: Path, *arguments: str) -> Result:
    """Run a command in a process of its own."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    return Result(process.returncode, out.decode(), err.decode())
