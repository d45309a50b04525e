"""What a run was made with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from overfit_lab.environment import describe_environment, device_name


def test_versions_and_device() -> None:
    environment = describe_environment("overfit-lab train")
    assert environment.torch == torch.__version__
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.command == "overfit-lab train"
    assert device_name(torch.device("cpu")) == "cpu"


def test_git_state_says_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def state() -> str:
        code = "from overfit_lab.environment import describe_environment; print(describe_environment('').git)"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert state() == "None"
    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert state() == commit
    (tmp_path / "file").write_text("two")
    assert state() == f"{commit}+"
