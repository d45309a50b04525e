"""The page in a real browser: a study is trained by the command, and its page is opened, read and clicked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from overfit_lab.analysis.onset import Onset
from overfit_lab.report import write_report
from overfit_lab.study import load_study
from tests.integration.conftest import run_command
from tests.report.made_up import add_run, configuration, make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SWEEP = ("model.width=4,16", "penalty.alpha=0,0.1", "training.epochs=12", "split.folds=2", "study.name=small")
DESKTOP, PHONE = (1280, 900), (390, 844)


Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    trained = run_command(folder, "train", "-m", "hydra.launcher.workers=1", *SWEEP)
    assert (trained.code, trained.err) == (0, "")
    return folder / "studies/small"


@pytest.fixture
def open_page(study: Path, browser: Browser) -> Iterator[Open]:
    """Open the page of a study; at the end nothing may have been said on the console or asked of the network."""
    said: list[str] = []
    pages: list[Page] = []

    def open_it(path: Path = study, size: tuple[int, int] = DESKTOP, scheme: Any = "light") -> Page:  # noqa: ANN401
        viewport: Any = {"width": size[0], "height": size[1]}
        page = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        pages.append(page)
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url))
        page.goto((path / "report/index.html").resolve().as_uri())
        return page

    yield open_it
    for page in pages:
        page.close()
    assert said == []


def cells(page: Page) -> dict[str, dict[str, str]]:
    """Read the table of runs as a person does, by run."""
    heads = [head.strip() for head in page.locator("#runs-table thead th").all_inner_texts()]
    rows = [
        dict(zip(heads, row.locator("td").all_inner_texts(), strict=True))
        for row in page.locator("#runs-table tbody tr").all()
    ]
    return {row["run"].split()[-1]: row for row in rows}


def centre(page: Page, column: int, row: int) -> tuple[float, float]:
    """Find the middle of a cell of the map, on the screen."""
    page.locator("#map-plot").scroll_into_view_if_needed()
    box = page.locator("#map-plot .nsewdrag").bounding_box()
    assert box is not None
    return box["x"] + (column + 0.5) * box["width"] / 2, box["y"] + (row + 0.5) * box["height"] / 2


def map_labels(page: Page) -> list[str]:
    # The lines of a label are elements of their own.
    labels = page.locator("#map-plot .scatterlayer text").all()
    return [" ".join(label.locator("tspan").all_text_contents() or label.all_text_contents()) for label in labels]


def wait_until(page: Page, condition: str) -> None:
    """Wait for what follows a change; Playwright's own waiting needs eval, which the page forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_its_numbers_are_those_of_the_records(study: Path, open_page: Open, shoot: Callable[..., None]) -> None:
    page = open_page()
    frame = pl.read_csv(study / "report/runs.csv")
    shown = cells(page)
    assert set(shown) == set(frame["run_id"])
    for run in frame.iter_rows(named=True):
        row = shown[run["run_id"]]
        loss, _, se = row["val loss ± se"].partition(" ± ")
        unit = 10.0 ** -len(loss.partition(".")[2])
        assert float(loss) == pytest.approx(run["val_loss"], abs=0.51 * unit)
        assert float(se) == pytest.approx(run["val_loss_se"], abs=0.51 * unit)
        assert float(row["train loss"]) == pytest.approx(run["train_loss"], abs=0.51 * unit)
        assert (int(row["width"]), float(row["alpha"])) == (run["model.width"], run["penalty.alpha"])
        assert int(row["params"].replace(",", "")) == run["parameters"]
        assert int(row["best epoch"]) == run["best_epoch"]
        assert row["verdict"] == run["verdict"].replace("_", " ")
    lowest = frame.sort("val_loss").row(0, named=True)
    answer = page.locator("#answer").inner_text()
    assert (
        f"has width {lowest['model.width']}, alpha {lowest['penalty.alpha']:g} at epoch {lowest['best_epoch']}"
        in answer
    )
    link = page.locator("#runs-table a").first
    assert (
        study / "report" / (link.get_attribute("href") or "")
    ).resolve() == study.resolve() / "runs" / link.inner_text()
    shoot(page, "desktop-light")


def test_an_early_onset_in_a_long_training_stands_on_a_logarithmic_axis(tmp_path: Path, open_page: Open) -> None:
    files = make_study(tmp_path)
    onset = Onset("overfit", 20, (15, 26), 30, 5, 0.01)
    epochs = np.arange(3001)
    val = np.stack([1 + (np.log1p(epochs) - np.log(21)) ** 2] * 2)
    add_run(files.run("one"), configuration(4, 0.0), onset, val)
    write_report(load_study(files.directory))
    plot = "document.getElementById('curves-plot')"
    page = open_page(files.directory)
    page.locator("#curves-plot .js-line").first.wait_for(state="attached")

    def place(epoch: float) -> float:
        return 0.4 * epoch if epoch <= 1 else 0.4 + math.log10(epoch)

    shown, drawn = (page.evaluate(f"{plot}.data.find(t => t.name === 'validation').{key}") for key in ("text", "x"))
    assert {0, 1, 15, 20, 26, 3000} <= set(shown)
    assert drawn == pytest.approx([place(epoch) for epoch in shown])
    ticks = page.evaluate(f"[{plot}.layout.xaxis.ticktext, {plot}.layout.xaxis.tickvals]")
    assert ticks[0] == ["0", "1", "10", "100", "1000"]
    assert ticks[1] == pytest.approx([place(int(text)) for text in ticks[0]])
    interval, line = page.evaluate(f"{plot}.layout.shapes.map(s => [s.x0, s.x1])")
    assert interval == pytest.approx([place(14.5), place(26.5)])
    assert line == pytest.approx([place(20)] * 2)


def test_a_cell_shows_the_curves_of_its_run(study: Path, open_page: Open) -> None:
    page = open_page()
    for column, row, name in ((0, 1, "width 4, alpha 0.1"), (1, 0, "width 16, alpha 0"), (0, 0, "width 4, alpha 0")):
        page.mouse.click(*centre(page, column, row))
        page.locator("#run-name", has_text=name).wait_for()
        said = page.locator("#curves-plot").get_attribute("aria-label") or ""
        assert said.startswith(f"Train and validation loss of {name} over 12 epochs.")
    # What is drawn is what was measured.
    frame = load_study(study).frame().filter((pl.col("model.width") == 4) & (pl.col("penalty.alpha") == 0))
    curves = load_study(study).curves(frame["run_id"][0]).filter(pl.col("metric") == "loss")
    for split, trace in (("train", "train"), ("val", "validation")):
        drawn = page.evaluate(f"document.getElementById('curves-plot').data.find(t => t.name === '{trace}').y")
        mean = curves.filter(pl.col("split") == split).group_by("epoch").agg(pl.col("value").mean()).sort("epoch")
        assert drawn == pytest.approx(mean["value"].to_list(), rel=1e-3)

    # The same by keyboard.
    page.locator("#map-table summary").focus()
    page.keyboard.press("Enter")
    button = page.locator("#map-table button").nth(3)
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("#run-name").inner_text() == "width 16, alpha 0.1"
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#map-table button[aria-pressed=true]").count() == 1


def test_layers_of_the_map(study: Path, open_page: Open, shoot: Callable[..., None]) -> None:
    page = open_page()
    frame = pl.read_csv(study / "report/runs.csv").sort("penalty.alpha", "model.width")
    losses = [float(label.split()[0]) for label in map_labels(page)]
    assert losses == pytest.approx(frame["val_loss"].to_list(), rel=0.05)
    page.locator("#layers input[value=gap]").check()
    assert "less train loss" in page.locator("#map-caption").inner_text()
    gaps = [float(label) for label in map_labels(page)]
    assert gaps == pytest.approx(frame["gap"].to_list(), abs=0.001)
    page.locator("#layers input[value=onset]").check()
    words = [verdict.replace("_", " ") for verdict in frame["verdict"]]
    for label, word in zip(map_labels(page), words, strict=True):
        assert label == word or (word == "overfit" and "[" in label)
    shoot(page, "layer-onset")


def test_the_table_is_sorted_and_filtered(study: Path, open_page: Open) -> None:
    page = open_page()
    head = page.locator("#runs-table thead th").nth(6)
    losses = pl.read_csv(study / "report/runs.csv").sort("val_loss")["run_id"].to_list()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert list(cells(page)) == losses
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert list(cells(page)) == losses[::-1]
    page.locator("#filter").fill(losses[1])
    assert list(cells(page)) == [losses[1]]
    assert page.locator("#shown").inner_text() == "1 of 4 runs"


def test_dark_and_light(open_page: Open, shoot: Callable[..., None]) -> None:
    page = open_page(scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    drawn = "document.querySelector('#curves-plot .main-svg').style.background"
    assert page.evaluate(background) == page.evaluate(drawn) == "rgb(22, 24, 27)"
    shoot(page, "desktop-dark")
    page.emulate_media(color_scheme="light")
    wait_until(page, f"{drawn} === 'rgb(255, 255, 255)'")


def test_a_phone_scrolls_down_and_not_aside(open_page: Open, shoot: Callable[..., None]) -> None:
    page = open_page(size=PHONE)
    page.locator("#map-table summary").click()
    for width in (PHONE[0], 360):
        page.set_viewport_size({"width": width, "height": PHONE[1]})
        wait_until(page, "document.documentElement.scrollWidth <= innerWidth")
        for figure in ("map", "curves", "capacity"):
            box = page.locator(f"#{figure}-plot .main-svg").first.bounding_box()
            assert box is not None
            assert box["width"] > 0.8 * width
            assert box["x"] + box["width"] <= width
    shoot(page, "phone-light")


def test_on_paper_there_are_all_sections_and_no_buttons(open_page: Open) -> None:
    page = open_page(scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#map-table table").is_visible()
    for hidden in ("header nav", "#filter", "#runs-table .show"):
        assert not page.locator(hidden).first.is_visible()
    drawn = "document.querySelector('#curves-plot .main-svg').style.background"
    assert page.evaluate(drawn) == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(drawn) == "rgb(22, 24, 27)"


def test_a_study_without_finished_runs_opens_too(tmp_path: Path, open_page: Open) -> None:
    files = make_study(tmp_path)
    files.run("broken").save_failure("broken", {}, ValueError("</script><b>no memory"))
    write_report(load_study(files.directory))
    page = open_page(files.directory)
    assert page.locator("#runs-table td.wide").inner_text() == "failed: ValueError: </script><b>no memory"
    assert page.locator(".plot").count() == 0
