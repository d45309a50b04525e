from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from overfit_lab.analysis.onset import Onset
from overfit_lab.records import StudyFiles
from overfit_lab.report import results_table
from overfit_lab.study import load_study
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep


def rendered(files: StudyFiles, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(results_table(load_study(files.directory)))
    return out.getvalue()


def test_each_finished_run_has_a_row_with_the_numbers_of_its_record(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in rendered(make_sweep(tmp_path), 100).splitlines()]
    # Train losses by hand: half the mean validation loss at epoch 0, times 0.9 for each epoch.
    assert "4 0 40 12 [9, 15] 12 0.200 ± 0.012 0.113 0.087 1 of 2" in lines
    assert "16 0 160 5 [4, 7] 5 0.150 ± 0.012 0.118 0.032 2 of 2" in lines
    assert "64 0 640 diverged 3 0.200 ± 0.012 0.128 0.072 0 of 2" in lines
    assert "4 0.1 40 underfit 20 0.300 ± 0.012 0.079 0.221 0 of 2" in lines


def test_rows_stand_in_the_order_of_the_study_and_the_rest_below(tmp_path: Path) -> None:
    text = rendered(make_sweep(tmp_path), 100)
    places = [text.index(part) for part in ("12 [9, 15]", "underfit", "5 [4, 7]", "diverged", "failed", "unfinished")]
    assert places == sorted(places)


def test_a_failed_run_shows_its_swept_values_and_its_error_with_brackets(tmp_path: Path) -> None:
    text = rendered(make_sweep(tmp_path), 160)
    row = next(" ".join(line.split()) for line in text.splitlines() if "failed" in line)
    assert row == "16 0.1 failed: broken0: ValueError: no [bold]memory[/]"


def test_it_fits_a_narrow_terminal_and_keeps_every_number(tmp_path: Path) -> None:
    text = rendered(make_sweep(tmp_path))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "12 [9, 15]" in text
    assert "0.150 ± 0.012" in text
    assert "…" not in text


def test_title_names_study_source_and_split_and_shows_markup_as_it_is(tmp_path: Path) -> None:
    text = rendered(make_sweep(tmp_path, "[red]a[/red] \x1b[31m"))
    assert "[red]a[/red] \N{REPLACEMENT CHARACTER}[31m: coins, 2-fold cross-validation" in text


@pytest.mark.parametrize(("se", "shown"), [(None, "0.200"), (0.5, "0.20 ± 0.50"), (0.00042, "0.20000 ± 0.00042")])
def test_losses_have_the_digits_of_their_standard_error(tmp_path: Path, se: float | None, shown: str) -> None:
    files = make_study(tmp_path)
    add_run(files.run("one"), configuration(4, 0.0), Onset("not_reached", best_epoch=9), losses(9), se=se)
    row = next(line for line in rendered(files, 100).splitlines() if "not reached" in line)
    assert f" {shown} " in " ".join(row.split()) + " "
    assert ("±" in row) == (se is not None)


def test_a_run_without_a_best_epoch_shows_dashes(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    add_run(files.run("one"), configuration(4, 0.0), Onset("too_short"), losses(9))
    assert "40 too short – – – – 0 of 2" in " ".join(rendered(files).split())  # noqa: RUF001 - dashes


def test_a_study_without_finished_runs_has_a_table(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    assert "coins" in rendered(files)
    files.run("broken").save_failure("broken", {}, ValueError("no memory"))
    files.run("damaged").directory.mkdir()
    files.run("damaged").record.write_text("{")
    text = rendered(files, 120)
    assert "failed: broken: ValueError: no memory" in text
    assert "failed: damaged:" in text
