"""Whole commands, in this process or in one of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from overfit_lab import cli
from tests.integration.holding import HOLDING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Train = Callable[..., "Result"]
Launch = Callable[..., "subprocess.Popen[bytes]"]
Holding = Callable[[str, str | None], Path]
BROWSER = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser without a window; what needs it is skipped where there is none."""
    if BROWSER is None:
        pytest.skip("neither chromium nor google-chrome is on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"], downloads_path=tmp_path_factory.mktemp("downloads")
        )
        yield browser
        browser.close()


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[[Page, str], None]:
    """Keep a picture of a whole page, in OVERFIT_LAB_SCREENSHOTS where that names a folder."""
    folder = Path(os.environ.get("OVERFIT_LAB_SCREENSHOTS", tmp_path))

    def take(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True)

    return take


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


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start commands; whatever happens, none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
        started.append(start(folder, *arguments))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Holding]:
    """Make folders with the network of `holding.py`; whatever happens, after the test it holds no more."""
    holds: list[Path] = []

    def make(name: str, hold: str | None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "holding.py").write_text(HOLDING)
        if hold is not None:
            holds.append(folder / "hold")
            holds[-1].write_text(hold)
        return folder

    yield make
    for hold in holds:
        hold.unlink(missing_ok=True)
