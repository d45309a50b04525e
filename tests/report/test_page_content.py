"""What the page says, against what was made up and sums done by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.analysis.onset import Onset
from overfit_lab.config import Config
from overfit_lab.records import Descriptive, StudyFiles
from overfit_lab.report.loss_curves import LossCurves, load_loss_curves
from overfit_lab.report.page import Page, compare, page_content
from overfit_lab.report.page.answer import answer
from overfit_lab.report.page.comparison import MANY, MOST_COMPARED, Comparison, without_place
from overfit_lab.report.page.curves import MOST_POINTS, page_curves, thin
from overfit_lab.report.page.provenance import provenance
from overfit_lab.report.page.tables import final_section
from overfit_lab.report.shuffles import shuffles
from overfit_lab.study import Study, load_study
from overfit_lab.study.ledger import read_ledger
from tests.report.made_up import HORIZON, add_run, configuration, losses, make_study, make_sweep
from tests.study.made_up import add_run as add_selectable
from tests.study.made_up import fold_columns
from tests.study.made_up import make_study as make_selectable

Make = Callable[..., Config]


def content(files: StudyFiles) -> Page:
    study = load_study(files.directory)
    curves = load_loss_curves(study)
    return page_content(
        study,
        curves,
        shuffles(study, curves),
        comparison=compare(study),
        final=study.files.load_final(),
        ledger=read_ledger(study.files),
    )


def said(files: StudyFiles) -> list[str]:
    return answer(load_study(files.directory), None)


def grid(root: Path, onsets: dict[tuple[int, float], Onset], *, epochs: int = HORIZON) -> StudyFiles:
    """Write a sweep of width by alpha with given onsets; its lowest loss falls with the width."""
    files = make_study(root)
    for (width, alpha), onset in onsets.items():
        config = configuration(width, alpha) | {"training": {"epochs": epochs}}
        val = losses(onset.best_epoch or 1, floor=1 / width)
        add_run(files.run(f"w{width}a{alpha:g}"), config, onset, val)
    return files


def overfit(epoch: int) -> Onset:
    return Onset("overfit", epoch, (epoch - 1, epoch + 2), epoch + 3, epoch, 0.01)


NEVER = Onset("not_reached", best_epoch=HORIZON - 8)
STILL = Onset("underfit", best_epoch=HORIZON)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return content(make_sweep(tmp_path_factory.mktemp("sweep"), seeds=[0]))


def test_a_sweep_is_answered_row_by_row(sweep: Page) -> None:
    assert sweep.answer == [
        "Without decay overfitting begins at epoch 5 [4, 7] for width 16 and at 12 [9, 15] for width 4; "
        "with alpha 0.1 it is not seen within 20 epochs.",
        "The lowest validation loss, 0.150 ± 0.012, has width 16, alpha 0 at epoch 5.",
        "1 configuration diverged.",
        "1 run failed and 1 run is not finished: what is said here is of the others alone.",
    ]
    assert sweep.facts == [
        "4 runs finished, 1 of them diverged",
        "1 failed",
        "1 unfinished",
        "8 fits",
        "100 rows",
        "20 epochs",
    ]


def test_rows_without_onset_are_one_clause_and_so_is_each_with(tmp_path: Path) -> None:
    files = grid(
        tmp_path,
        {
            (4, 0.0): NEVER,
            (8, 0.0): overfit(9),
            (4, 0.01): NEVER,
            (8, 0.01): overfit(14),
            (4, 0.1): NEVER,
            (8, 0.1): NEVER,
            (4, 1.0): STILL,
            (8, 1.0): STILL,
        },
    )
    assert said(files)[0] == (
        "Without decay overfitting begins at epoch 9 [8, 11] for width 8, and is not seen for width 4 within 20 "
        "epochs; with alpha 0.01 it begins at epoch 14 [13, 16] for width 8, and is not seen for width 4 within 20 "
        "epochs; with alpha 0.1 or 1 it is not seen within 20 epochs."
    )


def test_many_onsets_are_said_by_the_first_and_the_last(tmp_path: Path) -> None:
    onsets = {(width, 0.0): overfit(20 - width) for width in range(5, 10)} | {(4, 0.0): NEVER}
    assert said(grid(tmp_path, onsets))[0] == (
        "Overfitting begins between epoch 11 [10, 13] (width 9) and 15 [14, 17] (width 5) in 5 of 6 configurations, "
        "and is not seen in the others within 20 epochs."
    )


def test_a_sweep_with_onsets_in_many_rows_is_said_as_a_whole(tmp_path: Path) -> None:
    onsets = {(8, alpha): overfit(int(8 + 10 * alpha)) for alpha in (0.0, 0.1, 0.2)} | {(8, 0.3): NEVER}
    onsets |= {(4, alpha): NEVER for alpha in (0.0, 0.1, 0.2, 0.3)}
    assert said(grid(tmp_path, onsets))[0] == (
        "Overfitting begins in 3 of 8 configurations, at epoch 8 [7, 10] the earliest (width 8, alpha 0) and at "
        "10 [9, 12] the latest (width 8, alpha 0.2); in 5 it is not seen within 20 epochs."
    )


def test_no_onset_at_all(tmp_path: Path) -> None:
    files = grid(tmp_path, {(4, 0.0): NEVER, (8, 0.0): STILL})
    assert said(files)[:2] == [
        "Overfitting is not seen within 20 epochs in any of 2 configurations.",
        "The lowest validation loss, 0.125 ± 0.012, has width 8 at epoch 20, at the end of training.",
    ]


@pytest.mark.parametrize(
    ("onset", "expected"),
    [
        (overfit(9), "Overfitting begins at epoch 9 [8, 11]."),
        (NEVER, "Overfitting is not seen within 20 epochs."),
        (STILL, "Overfitting is not seen within 20 epochs: the network still underfits."),
        (Onset("too_short", best_epoch=2), "There are too few epochs to tell where overfitting begins."),
        (Onset("diverged", best_epoch=2), "Training diverged, so where overfitting begins cannot be said."),
    ],
)
def test_one_run_is_answered_honestly(tmp_path: Path, onset: Onset, expected: str) -> None:
    assert said(grid(tmp_path, {(4, 0.0): onset}))[0] == expected


def test_configurations_that_all_diverged_are_no_proof(tmp_path: Path) -> None:
    diverged = Onset("diverged", best_epoch=2)
    files = grid(tmp_path, {(4, 0.0): diverged, (8, 0.0): Onset("too_short", best_epoch=2)})
    assert said(files)[0] == "Of none of 2 configurations can be said where overfitting begins."
    assert said(files)[2] == "1 configuration diverged and 1 configuration has too few epochs to tell."


def test_studies_without_a_finished_run(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    assert said(files) == ["No run is finished yet, so nothing can be said."]
    files.run("broken").save_failure("broken", configuration(4, 0.0), ValueError("no memory"))
    assert said(files) == ["No run has a result: 1 run failed, the first with ValueError: no memory"]
    files.run("running").directory.mkdir()
    page = content(files)
    assert page.answer == ["No run is finished yet, so nothing can be said.", "1 run failed and 1 run is not finished."]
    assert (page.map, page.start, page.capacity, page.curves) == (None, None, None, {})
    assert [run.sentences for run in page.runs] == [["failed: ValueError: no memory"], ["not finished"]]


def test_every_cell_has_its_value_in_each_layer_or_a_word(sweep: Page) -> None:
    assert sweep.map is not None
    assert (sweep.map.x.labels, sweep.map.y.labels) == (["4", "16", "64"], ["0", "0.1"])
    [only] = sweep.map.slices
    shown = {(c.x, c.y): (c.state, *((f.text, f.beneath, f.value) for f in c.faces.values())) for c in only.cells}
    # The gap by hand: 0.2 less half of 0.2 + 12 x 0.05, times 0.9 to the 12.
    gap = 0.2 - 0.5 * 0.8 * 0.9**12
    assert shown[0, 0] == ("finished", ("0.200", "± 0.012", 0.2), ("12", "[9, 15]", 12), ("0.087", "", round(gap, 5)))
    assert shown[2, 0][2] == ("diverged", "", None)
    assert shown[0, 1][2] == ("underfit", "", None)
    assert shown[1, 1] == ("failed", *[("failed", "", None)] * 3)
    assert shown[2, 1] == ("missing", *[("no result", "", None)] * 3)


def test_seeds_share_a_cell_and_other_keys_are_slices(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for seed in (0, 1):
        for dropout in (0.0, 0.5):
            for width in (4, 8):
                config = configuration(width, 0.0, seed=seed, dropout=dropout)
                add_run(files.run(f"s{seed}d{dropout}w{width}"), config, overfit(9 + seed), losses(9 + seed))
    page = content(files)
    assert page.map is not None
    assert [part.label for part in page.map.slices] == [""]
    assert page.map.y.labels == ["0", "0.5"]
    first = page.map.slices[0].cells[0]
    assert first.runs == ["s0d0.0w4", "s1d0.0w4"]
    assert (first.faces["onset"].text, first.faces["onset"].beneath) == ("9.5", "mean of 2 of 2 runs")
    for alpha in (0.1, 0.2):
        add_run(files.run(f"a{alpha}"), configuration(4, alpha, dropout=0.0), NEVER, losses(9))
    page = content(files)
    assert page.map is not None
    assert (page.map.x.name, page.map.y.name) == ("width", "alpha")
    assert [part.label for part in page.map.slices] == ["dropout 0", "dropout 0.5"]


def test_thinned_curves_hold_what_is_marked() -> None:
    epochs = np.arange(0, 1001)
    keep = [613, 601, 655, 997]
    kept = epochs[thin(epochs, keep)].tolist()
    assert {0, 1000, *keep} <= set(kept)
    assert len(kept) <= MOST_POINTS
    assert kept == sorted(set(kept))
    few = np.arange(0, 100, 5)
    assert few[thin(few, [33])].tolist() == few.tolist()


def test_curves_on_a_logarithmic_axis_are_thinned_evenly_on_it(tmp_path: Path) -> None:
    onset = Onset("overfit", 20, (15, 26), 30, 5, 0.01)
    run = add_run(make_study(tmp_path).run("one"), configuration(4, 0.0), onset, losses(5))
    val = np.linspace(2, 1, 3001)[None]
    shown = page_curves(run, LossCurves(np.arange(3001), val, val, np.zeros(1, dtype=np.int64)))
    assert shown.early
    assert {0, 1, 5, 15, 20, 26, 3000} <= set(shown.epochs)
    assert len(shown.epochs) <= MOST_POINTS
    assert sum(epoch <= 100 for epoch in shown.epochs) > len(shown.epochs) / 2
    short = page_curves(run, LossCurves(np.arange(301), val[:, :301], val[:, :301], np.zeros(1, dtype=np.int64)))
    assert not short.early


def test_curves_are_the_means_with_four_digits_and_their_band(tmp_path: Path) -> None:
    run = add_run(make_study(tmp_path).run("one"), configuration(4, 0.0), overfit(5), losses(5))
    val = np.array([[0.123456, 0.5, np.inf], [0.3, 0.7, 0.1]])
    shown = page_curves(run, LossCurves(np.array([0, 5, 10]), val / 2, val, np.zeros(2, dtype=np.int64)))
    assert shown.epochs == [0, 5, 10]
    assert shown.val == [0.2117, 0.6, None]
    assert shown.train == [0.1059, 0.3, None]
    assert shown.val_band == [[0.1235, 0.5, 0.1], [0.3, 0.7, 0.1]]
    assert shown.val_clean == []
    # From a tenth of the lowest mean on; the losses below it would flatten the rest.
    assert shown.span == (0.05, 0.7)
    assert shown.log


def test_the_curve_against_the_right_labels_is_a_mean_and_is_in_sight(tmp_path: Path) -> None:
    run = add_run(make_study(tmp_path).run("one"), configuration(4, 0.0), overfit(5), losses(5))
    val = np.array([[0.5, 0.6, 0.7], [0.7, 0.8, 0.9]])
    curves = LossCurves(np.array([0, 5, 10]), val, val, np.zeros(2, dtype=np.int64), val_clean=val / 4)
    shown = page_curves(run, curves)
    assert shown.val_clean == [0.15, 0.175, 0.2]
    assert shown.span == (0.125, 0.9)


def test_the_validation_curve_names_its_sides(tmp_path: Path) -> None:
    onsets = {(4, 0.0): NEVER, (8, 0.0): NEVER, (16, 0.0): NEVER}
    files = make_study(tmp_path)
    for (width, alpha), onset in onsets.items():
        floor = {4: 0.3, 8: 0.2, 16: 0.25}[width]
        add_run(files.run(f"w{width}"), configuration(width, alpha), onset, losses(12, floor=floor))
    chart = content(files).capacity
    assert chart is not None
    [line] = chart.lines
    assert (line.x, line.val, line.se) == ([40, 80, 160], [0.3, 0.2, 0.25], [0.0123] * 3)
    assert chart.lowest == 80
    assert all(chart.sides)
    assert chart.sentence == (
        "Lowest, 0.200, at 80 parameters: smaller networks are on the underfitting side, larger ones on the "
        "overfitting side."
    )


def test_many_lines_are_thinned_and_the_lowest_is_kept(tmp_path: Path) -> None:
    onsets = {(width, alpha / 100): NEVER for width in (4, 8) for alpha in range(30)}
    files = make_study(tmp_path)
    for width, alpha in onsets:
        floor = 0.1 if alpha == 0.17 else 0.2
        add_run(files.run(f"w{width}a{alpha}"), configuration(width, alpha), NEVER, losses(12, floor=floor))
    chart = content(files).capacity
    assert chart is not None
    assert len(chart.lines) == 8
    assert "alpha 0.17" in [line.label for line in chart.lines]
    assert chart.sentence.endswith("8 of 30 lines are shown.")


def test_train_size_makes_a_learning_curve(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for size in (50, 100, 200):
        config = configuration(4, 0.0)
        config["data"] = {**config["data"], "train_size": size}
        add_run(files.run(f"n{size}"), config, NEVER, losses(12, floor=10 / size))
    chart = content(files).learning
    assert chart is not None
    assert (chart.lines[0].x, chart.lines[0].val) == ([50, 100, 200], [0.2, 0.1, 0.05])
    assert chart.sentence == "The lowest validation loss, 0.050, is reached with 200 train rows."
    assert chart.x_title == "train rows"


def test_shares_of_the_train_rows_make_a_learning_curve_that_ends_with_all_of_them(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for size in (0.25, 0.5, None):
        config = configuration(4, 0.0)
        config["data"] = {**config["data"], "train_size": size}
        add_run(files.run(f"n{size}"), config, NEVER, losses(12, floor=0.05 / (size or 1)))
    chart = content(files).learning
    assert chart is not None
    assert (chart.lines[0].x, chart.lines[0].val) == ([0.25, 0.5, 1], [0.2, 0.1, 0.05])
    assert chart.x_title == "share of the train rows"
    assert chart.sentence == "The lowest validation loss, 0.050, is reached with 100 % of the train rows."


def test_labels_that_were_made_wrong_are_told_of(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for share in (0.0, 0.2):
        config = configuration(4, 0.0)
        config["data"] = {**config["data"], "label_noise": share}
        add_run(files.run(f"noise{share}"), config, NEVER, losses(12))
    page = content(files)
    (note,) = [note for note in page.notes if note.startswith("Labels")]
    assert "were made wrong on purpose (20 %)" in note


def test_the_table_has_every_run_with_what_it_is_sorted_by(sweep: Page) -> None:
    assert sweep.columns[:4] == ["width", "alpha", "params", "verdict"]
    first, *_ = sweep.runs
    assert first.cells == ["4", "0", "40", "overfit", "12 [9, 15]", "12", "0.200 ± 0.012", "0.113", "0.087", "1 of 2"]
    assert first.keys == [4, 0.0, 40, "overfit", 12, 12, 0.2, 0.113, 0.08703, 1]
    assert [run.status for run in sweep.runs] == [
        "finished",
        "finished",
        "finished",
        "diverged",
        "failed",
        "unfinished",
    ]
    assert sweep.runs[4].cells[:4] == ["16", "0.1", "", "failed: ValueError: no [bold]memory[/]"]
    assert all(len(run.cells) == len(run.keys) == len(sweep.columns) for run in sweep.runs)


def test_a_run_is_described_in_sentences(sweep: Page) -> None:
    assert sweep.runs[0].sentences == [
        "Overfitting begins at epoch 12 [9, 15] (the rise is proven from epoch 16 on, p = 0.01).",
        "Lowest validation loss 0.200 ± 0.012 at epoch 12; train loss there 0.113, gap 0.087.",
        "Taken alone, 1 of 2 fits overfit.",
    ]
    assert sweep.runs[0].descriptive == []


@pytest.mark.parametrize(
    ("spikes", "which"), [((7,), "At epoch 7 training"), ((7, 12), "At epochs 7, 12 training")], ids=["one", "two"]
)
def test_a_run_says_what_was_set_aside_and_that_the_loss_falls_again(
    tmp_path: Path, spikes: tuple[int, ...], which: str
) -> None:
    onset = dataclasses.replace(overfit(5), spikes=spikes, second_descent=True)
    files = make_study(tmp_path)
    add_run(files.run("one"), configuration(4, 0.0), onset, losses(5))
    _, spiked, again, *_ = content(files).runs[0].sentences
    assert spiked == f"{which} slipped and recovered; the onset is found without."
    assert again == "After its peak the validation loss falls again: a second descent."


def test_what_describes_a_network_is_shown_where_it_is_known(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    run = add_run(files.run("one"), configuration(4, 0.0), NEVER, losses(9))
    known = Descriptive(
        weight_norm=17.12345,
        distance_from_init=2.0,
        effective_dof=None,
        effective_dof_rows=None,
        normalised_margin=None,
    )
    study = load_study(files.directory)
    study = Study(study.files, study.record, (run.model_copy(update={"descriptive": known}),), (), ())
    page = page_content(study, load_loss_curves(study), {}, comparison="", final=None, ledger=read_ledger(study.files))
    assert page.runs[0].descriptive == [("norm of the weights", "17.12"), ("distance from the initial weights", "2")]


def test_configurations_are_compared_as_finalize_does(tmp_path: Path, config: Make) -> None:
    def make(width: int) -> Config:
        return config("split.folds=4", "training.epochs=6", f"model.width={width}")

    files = make_selectable(tmp_path, make(4))
    folds = fold_columns(2, 2, 2, 2)
    noise = np.array([0.0, 0.2, 0.1, -0.1, 0.0, 0.0, -0.2, 0.1])
    # Fold by fold width 4 loses .0002 more than width 8, and -.001, -.0005, .001, .0005: a standard error of .00046.
    for width, level in ((4, 1.0002), (8, 1.0), (16, 2.0)):
        at_best = (level + 0.01 * np.roll(noise, width)).astype(np.float64)
        away = np.abs(np.arange(1, 7) - 3)[:, None]
        add_selectable(files, make(width), (at_best + away)[None], folds, parameters=width)
    found = compare(load_study(tmp_path))
    assert isinstance(found, Comparison)
    assert [one.settings["model.width"] for one in found.candidates] == [8, 4, 16]
    assert [one.within_one_se for one in found.candidates] == [None, True, False]
    assert found.simplest.settings["model.width"] == 4
    assert (found.omitted, found.seeds) == (0, (0,))


def test_of_many_configurations_the_lowest_are_compared(
    tmp_path: Path, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overfit_lab.report.page.comparison.MANY", 3)
    monkeypatch.setattr("overfit_lab.report.page.comparison.MOST_COMPARED", 2)
    files = make_selectable(tmp_path, config("split.folds=4", "training.epochs=6"))
    folds = fold_columns(2, 2, 2, 2)
    for width, level in ((2, 4.0), (4, 2.0), (8, 1.0), (16, 3.0)):
        at_best = level + (0.01 * np.arange(8)[None, None] + np.arange(6)[None, :, None]).astype(np.float64)
        add_selectable(files, config("split.folds=4", "training.epochs=6", f"model.width={width}"), at_best, folds)
    found = compare(load_study(tmp_path))
    assert isinstance(found, Comparison)
    assert [one.settings["model.width"] for one in found.candidates] == [8, 4]
    assert found.omitted == 2
    assert MOST_COMPARED < MANY


def test_what_cannot_be_compared_is_a_sentence_without_the_place_of_the_study(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    assert compare(load_study(files.directory)) == "made-up: no run is finished; train one first"
    assert content(make_sweep(tmp_path / "other")).comparison.table is None


def test_the_final_test_is_sealed_until_it_is_taken(sweep: Page) -> None:
    assert sweep.final.sentences == ["Sealed: the test rows were never opened."]
    assert sweep.final.table is None


def test_where_there_is_nothing_to_test_on_nothing_is_sealed(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    add_run(files.run("one"), configuration(4, 0.0), NEVER, losses(9))
    pl.read_parquet(files.split).filter(role="dev").write_parquet(files.split)
    assert content(files).final.sentences == ["None: no rows were set aside to test on."]
    study = load_study(files.directory)
    source = study.record.source.model_copy(update={"validates_on_test": True})
    study = Study(study.files, study.record.model_copy(update={"source": source}), study.runs, (), ())
    section = final_section(study, None, read_ledger(files))
    assert section.sentences == ["None: the rows that were published to test on are validated on."]


def test_what_was_run(sweep: Page) -> None:
    known = {fact.name: fact.values for fact in sweep.provenance}
    assert known["command"] == ["made up"]
    assert known["seeds"] == ["0"]
    assert known["rows"] == ["100 with 3 inputs and 1 output"]
    assert known["training time"] == ["4 s in all, summed over runs"]


def test_the_bayes_risk_is_told_where_it_is_known(tmp_path: Path) -> None:
    study = load_study(make_study(tmp_path).directory)
    assert "Bayes risk" not in {fact.name for fact in provenance(study)}
    source = study.record.source.model_copy(update={"bayes_risk": 0.25})
    known = Study(study.files, study.record.model_copy(update={"source": source}), (), (), ())
    (told,) = [fact.values for fact in provenance(known) if fact.name == "Bayes risk"]
    assert told == ["0.25, the lowest validation loss that can be expected"]


@pytest.mark.parametrize("place", ["a", ".", "/b/a"])
def test_where_a_study_lies_is_no_part_of_a_message(place: str, tmp_path: Path) -> None:
    study = load_study(make_study(tmp_path).directory)
    study = Study(StudyFiles(Path(place)), study.record, (), (), ())
    assert without_place(f"{study.files.directory}: a run is missing.", study) == "made-up: a run is missing."
    path = study.files.run("c").record
    assert without_place(f"{path} is damaged: a key", study) == "runs/c/run.json is damaged: a key"
