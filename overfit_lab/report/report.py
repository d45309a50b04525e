"""Write a study's report: its page, its runs as a table for other programs, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from overfit_lab.files import write_atomically
from overfit_lab.records import write_frame
from overfit_lab.report.configurations import swept_keys
from overfit_lab.report.figure import FIGURE_KINDS, house_style, save_figure
from overfit_lab.report.figures import StudyFigures
from overfit_lab.report.loss_curves import LossCurves, load_loss_curves, rule_epochs
from overfit_lab.report.notes import study_notes
from overfit_lab.report.page import compare, page_content, render_page
from overfit_lab.report.shuffles import Shuffles, shuffles
from overfit_lab.report.tensorboard import write_events
from overfit_lab.study import Study
from overfit_lab.study.ledger import read_ledger
from overfit_lab.study.seeds import across_seeds

# A figure takes a third of a second: of more runs than these, the page alone shows the curves of each.
MOST_RUN_FIGURES = 16

_FIGURES = ("curves", "curves_*", "capacity", "heatmap_*", "shuffles")


class Report(NamedTuple):
    """A report that has been written.

    Args:
        directory: Where.
        page: Its page, for a browser.
        notes: What a reader should know beside the figures, in sentences.
    """

    directory: Path
    page: Path
    notes: list[str]


def write_report(study: Study) -> Report:
    """Write the report of a study, finished or not, over the one that is there.

    Raises:
        UserError: A file of curves or `final.json` is missing or damaged.
    """
    curves = load_loss_curves(study)
    moves = shuffles(study, curves)
    directory = study.files.report / "figures"
    directory.mkdir(parents=True, exist_ok=True)
    frame = runs_frame(study, curves, moves)
    write_atomically(study.files.report / "runs.csv", frame.write_csv().encode())
    write_frame(study.files.report / "runs.parquet", frame)
    configurations = study.files.report / "configurations.csv"
    if (seeds := across_seeds(study)).is_empty():
        configurations.unlink(missing_ok=True)
    else:
        write_atomically(configurations, seeds.write_csv().encode())

    figures = StudyFigures(study, curves, moves)
    shown: list[Path] = []
    written: set[Path] = set()
    with house_style():
        for name, figure in figures.of_the_study():
            shown += save_figure(figure, directory / name)
        if len(study.runs) <= MOST_RUN_FIGURES:
            for run in study.runs:
                written.update(save_figure(figures.run(run.run_id), directory / f"curves_{run.run_id}"))
    written.update(shown)
    for pattern in _FIGURES:
        for kind in FIGURE_KINDS:
            for stale in set(directory.glob(f"{pattern}.{kind}")) - written:
                stale.unlink(missing_ok=True)
    newest = max((study.files.run(run.run_id).record.stat().st_mtime for run in study.runs), default=0.0)
    pictures = [path for path in shown if path.suffix == ".png"]
    write_events(study.files.report / "tensorboard", pictures, swept_keys(study), newest)
    page, final, ledger = study.files.report / "index.html", study.files.load_final(), read_ledger(study.files)
    content = page_content(study, curves, moves, comparison=compare(study), final=final, ledger=ledger)
    write_atomically(page, render_page(content).encode())
    return Report(study.files.report, page, study_notes(study, moves))


def runs_frame(study: Study, curves: Mapping[str, LossCurves], moves: Mapping[str, Shuffles]) -> pl.DataFrame:
    """One row for each finished run, as `Study.frame`, and what its curves add.

    That is the epoch that each named stopping rule would keep and, where the rows were reshuffled, the standard
    deviation of its validation loss between shuffles.
    """
    if not study.runs:
        return study.frame()
    rules = pl.from_dicts([rule_epochs(curves[run.run_id]) for run in study.runs], infer_schema_length=None)
    frame = study.frame().hstack(rules.cast(pl.Int64))
    if not moves:
        return frame
    sd = [moves[run.run_id].sd if run.run_id in moves else None for run in study.runs]
    return frame.with_columns(pl.Series("val_loss_shuffle_sd", sd, dtype=pl.Float64))
