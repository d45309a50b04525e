"""TensorBoard in a real browser, on what a sweep and its report have left."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.integration.conftest import run_command

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SWEEP = ("model.width=4,16", "penalty.alpha=0,0.1", "training.epochs=10", "split.folds=2", "study.name=small")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    trained = run_command(folder, "train", "-m", "hydra.launcher.workers=1", *SWEEP)
    assert (trained.code, trained.err) == (0, "")
    return folder / "studies/small"


@pytest.fixture(scope="module")
def address(small: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(small), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = threading.Timer(60, server.kill)
    deadline.start()
    try:
        assert server.stdout is not None
        found = next((m for line in server.stdout if (m := re.search(r"at (http://\S+)", line))), None)
        assert found is not None, "TensorBoard did not start"
        deadline.cancel()
        yield found[1]
    finally:
        deadline.cancel()
        server.kill()
        server.communicate()


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for what comes after what one can wait for by name; whoever asks says what is wrong after a minute."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(100)


@pytest.fixture
def board(browser: Browser, address: str) -> Iterator[Callable[[str, str], Page]]:
    """Open a tab of TensorBoard, and wait for a text on it; nothing may have gone wrong at the end."""
    errors: list[str] = []
    pages: list[Page] = []

    def open_tab(tab: str, text: str) -> Page:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.set_default_timeout(60_000)
        page.goto(f"{address}#{tab}")
        page.get_by_text(text, exact=True).first.wait_for()
        return page

    yield open_tab
    for page in pages:
        page.close()
    assert errors == []


def test_train_and_val_share_a_chart_and_the_folds_have_a_band(
    board: Callable[[str, str], Page], shoot: Callable[[Page, str], None]
) -> None:
    page = board("custom_scalars", "mean and range over the folds")
    page.get_by_text("loss, val", exact=True).first.wait_for()
    for title in ("train and val", "loss", "accuracy", "report/tensorboard"):
        page.get_by_text(title, exact=True).first.wait_for()
    shoot(page, "tensorboard_custom_scalars")


def test_hparams_are_those_of_the_records(
    board: Callable[[str, str], Page], shoot: Callable[[Page, str], None], small: Path
) -> None:
    runs = {f"runs/{run['run_id']}": run for run in pl.read_csv(small / "report" / "runs.csv").iter_rows(named=True)}
    page = board("hparams", next(iter(runs)))
    wait_until(page, lambda: len(_values(_rows(page))) == len(runs))
    shoot(page, "tensorboard_hparams")
    rows = _rows(page)
    heads = ["Trial ID", "model.width", "parameters", "penalty.alpha", "final/val_loss", "final/onset", "final/gap"]
    assert heads in rows
    found = _values(rows)
    assert set(found) == set(runs)
    for name, values in found.items():
        run = runs[name]
        shown = [float(value) for value in values]
        onset = math.nan if run["onset"] is None else run["onset"]
        expected = [run["model.width"], run["parameters"], run["penalty.alpha"], run["val_loss"], onset, run["gap"]]
        # Five digits are shown.
        assert shown == pytest.approx(expected, rel=1e-4, nan_ok=True), name


def _values(rows: list[list[str]]) -> dict[str, list[str]]:
    """What the table says of each run, where its row is there as a whole."""
    return {row[0]: row[1:] for row in rows if row[0].startswith("runs/") and len(row) == 7 and all(row)}


def _rows(page: Page) -> list[list[str]]:
    """Read a table as it stands on the screen: its cells are no children of its rows."""
    rows: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for cell in page.locator("vaadin-grid-cell-content").all():
        box = cell.bounding_box()
        if box is not None and box["width"] > 0 and box["height"] > 0:
            rows[round(box["y"])].append((box["x"], cell.inner_text().strip()))
    texts = [[text for _, text in sorted(row)] for _, row in sorted(rows.items())]
    return [row for row in texts if any(row)]


def test_the_reports_figures_are_images(
    board: Callable[[str, str], Page], shoot: Callable[[Page, str], None], small: Path
) -> None:
    page = board("images", "report/curves")
    figures = {path.stem for path in (small / "report/figures").glob("*.png") if not path.stem.startswith("curves_")}
    for name in figures:
        page.get_by_text(f"report/{name}", exact=True).first.wait_for()
    images = page.locator("tf-image-loader img")
    wait_until(page, lambda: images.count() == len(figures))
    shoot(page, "tensorboard_images")
    assert images.count() == len(figures) == 4
