"""Configurations over their seeds, against sums done by hand and statsmodels."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from statsmodels.duration.survfunc import SurvfuncRight

from overfit_lab.analysis.onset import Onset
from overfit_lab.records import StudyFiles
from overfit_lab.report import seeds_table
from overfit_lab.study import load_study
from overfit_lab.study.seeds import across_seeds
from tests.records.signing import sign
from tests.report.made_up import HORIZON, add_run, configuration, losses, make_study


def _add(files: StudyFiles, seed: int, onset: int | None, width: int = 4, *, diverged: bool = False) -> None:
    if onset is not None:
        verdict = Onset("overfit", onset, (onset - 1, onset + 1), onset + 2, onset, 0.01)
    else:
        verdict = Onset("diverged" if diverged else "not_reached", best_epoch=10)
    path = files.run(f"{width}-{seed}")
    add_run(path, configuration(width, 0.0, seed=seed), verdict, losses(10, floor=0.2 + 0.1 * seed))
    # Runs that differ in seed alone share a configuration.
    path.record.write_text(path.record.read_text().replace(f'"config_id": "{width}-{seed}"', f'"config_id": "{width}"'))
    sign(path)


def _printed(files: StudyFiles) -> str:
    out = io.StringIO()
    table = seeds_table(load_study(files.directory))
    assert table is not None
    Console(file=out, width=100).print(table)
    return " ".join(out.getvalue().split())


def test_the_median_is_that_of_kaplan_and_meier(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    onsets = [3, 4, 4, 6, 7, 9, 12, None, None, None, None]
    for seed, onset in enumerate(onsets):
        _add(files, seed, onset)
    [row] = across_seeds(load_study(files.directory)).iter_rows(named=True)
    reference = SurvfuncRight([o or HORIZON for o in onsets], [o is not None for o in onsets])
    assert row["onset_median"] == reference.quantile(0.5) == 9
    low, _ = reference.quantile_ci(0.5, method="cloglog")
    assert row["onset_median_low"] == low
    assert (row["seeds"], row["seeds_overfit"], row["seeds_diverged"]) == (11, 7, 0)
    assert "7 of 11" in _printed(files)
    assert f"9 [{low:.0f}, ?]" in _printed(files)


def test_few_seeds_have_losses_and_no_median(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for seed in range(3):
        _add(files, seed, 5)
    _add(files, 0, 5, width=16)
    [row] = across_seeds(load_study(files.directory)).iter_rows(named=True)
    assert row["onset_median"] is None
    # Losses at the best epoch, 5 before the turn at 10: floor + .25, with floors .2, .3, .4.
    assert (row["val_loss"], row["val_loss_sd"]) == pytest.approx((0.55, 0.1))


def test_a_seed_that_diverged_is_neither_with_nor_without_an_onset(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for seed in range(10):
        _add(files, seed, 5)
    _add(files, 10, None, diverged=True)
    [row] = across_seeds(load_study(files.directory)).iter_rows(named=True)
    assert (row["onset_median"], row["seeds"], row["seeds_overfit"]) == (5, 11, 10)


def test_one_seed_each_has_no_table(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    _add(files, 0, 5)
    _add(files, 0, 5, width=16)
    study = load_study(files.directory)
    assert across_seeds(study).is_empty()
    assert seeds_table(study) is None
