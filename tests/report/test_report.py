from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import polars as pl
import pytest
from PIL import Image

from overfit_lab.analysis.onset import Onset
from overfit_lab.records import StudyFiles
from overfit_lab.report import write_report
from overfit_lab.study import load_study
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep

SVG = "{http://www.w3.org/2000/svg}"
SWEEP = {"curves", "capacity", "heatmap_val_loss", "heatmap_onset"}


def report(files: StudyFiles) -> Path:
    return write_report(load_study(files.directory)).directory


def stems(directory: Path, suffix: str) -> set[str]:
    return {path.stem for path in (directory / "figures").glob(f"*{suffix}")}


def texts(svg: Path) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.parse(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(make_sweep(tmp_path_factory.mktemp("sweep")))


def test_a_sweep_over_two_keys_has_all_figures_as_svg_and_png(sweep: Path) -> None:
    expected = SWEEP | {f"curves_{name}0" for name in ("narrow", "medium", "wide", "decayed")}
    assert stems(sweep, ".svg") == expected
    assert stems(sweep, ".png") == expected


def test_images_are_what_they_say(sweep: Path) -> None:
    for path in (sweep / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        with Image.open(path.with_suffix(".png")) as image:
            assert image.format == "PNG"
            points = [float(root.attrib[side].removesuffix("pt")) for side in ("width", "height")]
            assert image.size == pytest.approx([side / 72 * 200 for side in points], abs=1)


def test_the_report_says_where_overfitting_begins(sweep: Path) -> None:
    figures = sweep / "figures"
    assert {"onset 12 [9, 15]", "onset 5 [4, 7]", "underfit", "diverged", "failed", "no result"} <= set(
        texts(figures / "curves.svg")
    )
    assert {"12", "[9, 15]", "5", "[4, 7]", "underfit", "diverged", "failed", "no result"} <= set(
        texts(figures / "heatmap_onset.svg")
    )
    assert "overfitting begins at epoch 12 [9, 15]" in texts(figures / "curves_narrow0.svg")
    assert "width 4, alpha 0" in texts(figures / "curves_narrow0.svg")


def test_losses_have_their_numbers_and_their_unit(sweep: Path) -> None:
    shown = texts(sweep / "figures" / "heatmap_val_loss.svg")
    assert [shown.count(value) for value in ("0.200", "0.150", "0.300", "± 0.012")] == [2, 1, 1, 4]
    for name in ("curves", "capacity", "curves_wide0"):
        assert "cross-entropy (nats)" in texts(sweep / "figures" / f"{name}.svg")


def test_runs_csv_holds_the_records_and_the_rules(sweep: Path) -> None:
    frame = pl.read_csv(sweep / "runs.csv")
    assert frame.columns == pl.read_parquet(sweep / "runs.parquet").columns
    assert frame["run_id"].to_list() == ["narrow0", "decayed0", "medium0", "wide0"]
    assert frame["model.width"].to_list() == [4, 4, 16, 64]
    assert frame["onset"].to_list() == [12, None, 5, None]
    assert frame["onset_high"].to_list() == [15, None, 7, None]
    assert frame["val_loss"].to_list() == pytest.approx([0.2, 0.3, 0.15, 0.2])
    assert frame["fits_overfit"].to_list() == [1, 0, 2, 0]
    # The curves turn at 12, at the horizon, at 5, and at 3 with a loss that is infinite from 7 on.
    assert frame["rule_argmin"].to_list() == [12, None, 5, 3]
    assert frame["rule_GL5"].to_list() == [12, None, 5, 3]


def test_the_same_study_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    first = {path: path.read_bytes() for path in report(files).rglob("*.*")}
    # Eight figures in three forms, two tables, the page, the figures for TensorBoard.
    assert len(first) == 3 * 8 + 2 + 1 + 1
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.hashsalt": "other", "font.size": 20}):
        report(files)
    assert {path: path.read_bytes() for path in first} == first


def test_figures_of_runs_that_are_gone_are_removed_and_others_are_left(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    mine = report(files) / "figures" / "mine.svg"
    mine.write_text("<svg/>")
    for path in files.run("narrow0").directory.iterdir():
        path.unlink()
    assert "curves_narrow0" not in stems(report(files), ".png")
    assert stems(files.report, ".png") == SWEEP | {"curves_medium0", "curves_wide0", "curves_decayed0"}
    assert mine.exists()


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    name = 'a $x^2$ <script>&"[red] \N{SNOWMAN}\N{HIRAGANA LETTER A}\x07'
    directory = report(make_sweep(tmp_path, name))
    title = name.replace("\x07", "\N{REPLACEMENT CHARACTER}") + ": coins, 2-fold cross-validation"
    for figure in ("curves", "capacity"):
        assert title in texts(directory / "figures" / f"{figure}.svg")


def test_seeds_are_averaged_in_heatmaps_and_there_is_no_overview_of_three_keys(tmp_path: Path) -> None:
    directory = report(make_sweep(tmp_path, seeds=[0, 1, 2]))
    assert {"capacity", "heatmap_val_loss", "heatmap_onset"} == {
        s for s in stems(directory, ".svg") if "curves" not in s
    }
    assert "curves" not in stems(directory, ".svg")
    assert texts(directory / "figures" / "heatmap_val_loss.svg").count("mean of 3 runs") == 4
    shown = texts(directory / "figures" / "heatmap_onset.svg")
    assert shown.count("3 of 3 runs") == 4
    assert {"12", "5", "underfit"} <= set(shown)


def test_one_key_gives_one_row_of_curves_and_no_heatmap(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for width in (4, 8):
        onset = Onset("not_reached", best_epoch=9)
        add_run(files.run(f"w{width}"), configuration(width, 0.0), onset, losses(9))
    assert stems(report(files), ".svg") == {"curves", "capacity", "curves_w4", "curves_w8"}


def test_one_run_has_its_curves_alone(tmp_path: Path) -> None:
    files = make_study(tmp_path, "alone")
    add_run(files.run("one"), configuration(4, 0.0), Onset("not_reached", best_epoch=9), losses(9))
    directory = report(files)
    assert stems(directory, ".svg") == {"curves_one"}
    assert {"alone", "no overfitting within 20 epochs"} <= set(texts(directory / "figures" / "curves_one.svg"))


def test_many_runs_have_no_figures_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overfit_lab.report.report.MOST_RUN_FIGURES", 3)
    assert stems(report(make_sweep(tmp_path)), ".svg") == SWEEP


@pytest.mark.parametrize("failed", [False, True])
def test_a_study_without_finished_runs_has_a_report_without_figures(tmp_path: Path, failed: bool) -> None:
    files = make_study(tmp_path)
    if failed:
        files.run("broken").save_failure("broken", configuration(4, 0.0), ValueError("no memory"))
    directory = report(files)
    assert stems(directory, "") == set()
    assert pl.read_parquet(directory / "runs.parquet").is_empty()
    assert (directory / "runs.csv").read_text().strip() == ""
