"""A study is read from what is there: finished, failed, damaged, unfinished."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import overfit_lab
from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError
from overfit_lab.study import load_study
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep


def test_runs_failures_and_unfinished_ones_are_told_apart(tmp_path: Path) -> None:
    study = load_study(make_sweep(tmp_path).directory)
    # In the order of their configurations: width 4 with both alphas, then 16, then 64.
    assert [run.run_id for run in study.runs] == ["narrow0", "decayed0", "medium0", "wide0"]
    assert [(failed.run_id, failed.error) for failed in study.failed] == [("broken0", "ValueError: no [bold]memory[/]")]
    assert study.unfinished == ("running0",)


def test_a_damaged_record_is_a_failed_run_and_the_rest_is_there(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    path = files.run("medium0").record
    path.write_text(path.read_text()[:200])
    study = load_study(files.directory)
    assert len(study.runs) == 3
    errors = {failed.run_id: failed.error for failed in study.failed}
    assert errors["medium0"].startswith(f"{path} is damaged")


def test_damaged_curves_and_a_record_of_another_run_are_failed_runs(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    files.run("medium0").curves.write_bytes(b"PAR1")
    files.run("wide0").record.write_text(files.run("narrow0").record.read_text())
    study = load_study(files.directory)
    assert [run.run_id for run in study.runs] == ["narrow0", "decayed0"]
    errors = {failed.run_id: failed.error for failed in study.failed}
    assert errors["medium0"].startswith(f"{files.run('medium0').curves} is missing or damaged: ")
    assert (
        errors["wide0"]
        == f"{files.run('wide0').record} is damaged: it is of run narrow0, not of the folder that it lies in"
    )


def test_swept_lists_the_keys_that_differ_with_numbers_in_order(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for width, alpha in ((64, 0.1), (4, 0.0), (16, 1e-3)):
        add_run(files.run(f"w{width}"), configuration(width, alpha), Onset("not_reached", best_epoch=3), losses(3))
    assert load_study(files.directory).swept() == {"model.width": [4, 16, 64], "penalty.alpha": [0.0, 1e-3, 0.1]}


def test_the_frame_has_a_row_for_each_finished_run(tmp_path: Path) -> None:
    frame = load_study(make_sweep(tmp_path).directory).frame()
    row = frame.row(by_predicate=pl.col("run_id") == "narrow0", named=True)
    assert row["model.width"] == 4
    assert row["penalty.alpha"] == 0.0
    assert (row["verdict"], row["onset"], row["onset_low"], row["onset_high"]) == ("overfit", 12, 9, 15)
    # The made-up curve has its minimum of 0.2 at epoch 12; its train loss there is half the start, less a tenth a time.
    assert row["best_epoch"] == 12
    assert row["val_loss"] == pytest.approx(0.2)
    assert row["train_loss"] == pytest.approx(0.5 * 0.8 * 0.9**12)
    assert row["gap"] == pytest.approx(0.2 - 0.5 * 0.8 * 0.9**12)
    assert (row["fits"], row["fits_overfit"], row["fits_onset_median"]) == (2, 1, 5.0)
    assert "study.name" not in frame.columns
    # These runs were written by a version that did not describe its networks.
    names = ("weight_norm", "distance_from_init", "effective_dof", "effective_dof_rows", "normalised_margin")
    assert [row[f"descriptive_{name}"] for name in names] == [None] * 5


def test_a_study_without_finished_runs_has_an_empty_frame(tmp_path: Path) -> None:
    study = load_study(make_study(tmp_path).directory)
    assert study.frame().is_empty()
    assert study.swept() == {}


def test_the_curves_of_a_run(tmp_path: Path) -> None:
    study = overfit_lab.load_study(str(make_sweep(tmp_path).directory))
    curves = study.curves("narrow0")
    assert curves.columns == ["repeat", "fold", "epoch", "split", "metric", "value"]
    assert curves["epoch"].max() == 20


def test_what_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a study"):
        load_study(tmp_path / "nothing")
