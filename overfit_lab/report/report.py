"""Write a study's report: its runs as a table for other programs, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from matplotlib.figure import Figure

from overfit_lab.files import write_atomically
from overfit_lab.records import write_frame
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.figure import house_style, save_figure
from overfit_lab.report.grid import grid_keys, make_grid
from overfit_lab.report.labels import loss_label, printable, short_names, study_title, value_label
from overfit_lab.report.loss_curves import LossCurves, load_loss_curves, rule_epochs
from overfit_lab.report.notes import study_notes
from overfit_lab.report.plot_capacity import draw_capacity, has_capacity
from overfit_lab.report.plot_curves import draw_overview, draw_run
from overfit_lab.report.plot_heatmap import draw_onset, draw_val_loss
from overfit_lab.report.plot_shuffles import draw_shuffles
from overfit_lab.report.shuffles import Shuffles, shuffles
from overfit_lab.study import Study
from overfit_lab.study.seeds import across_seeds

# Beyond these a grid is no picture any more.
MOST_PANELS_ALONG = 8
MOST_CELLS_ALONG = 12

_FIGURES = ("curves", "curves_*", "capacity", "heatmap_*", "shuffles")


class Report(NamedTuple):
    """A report that has been written.

    Args:
        directory: Where.
        notes: What a reader should know beside the figures, in sentences.
    """

    directory: Path
    notes: list[str]


def write_report(study: Study) -> Report:
    """Write the report of a study, finished or not, over the one that is there.

    Raises:
        UserError: A file of curves is missing or damaged.
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

    written: set[Path] = set()
    with house_style():
        for name, figure in _figures(study, curves, moves):
            written.update(save_figure(figure, directory / name))
    for pattern in _FIGURES:
        for kind in ("svg", "png"):
            for stale in set(directory.glob(f"{pattern}.{kind}")) - written:
                stale.unlink(missing_ok=True)
    return Report(study.files.report, study_notes(study, moves))


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


def _figures(
    study: Study, curves: Mapping[str, LossCurves], moves: Mapping[str, Shuffles]
) -> Iterator[tuple[str, Figure]]:
    """Draw every figure that makes sense for a study, with its name."""
    loss, title = loss_label(study), study_title(study)
    swept = short_names(swept_keys(study))
    names = {}
    for run in study.runs:
        values = [f"{name} {value_label(configured(run.config, key))}" for key, name in swept.items()]
        names[run.run_id] = ", ".join(values) or printable(study.record.name)
        yield f"curves_{run.run_id}", draw_run(run, curves[run.run_id], name=names[run.run_id], loss_label=loss)
    if moves:
        yield "shuffles", draw_shuffles(moves, names, title=title, loss_label=loss)

    keys = grid_keys(study)
    if 1 <= len(swept) <= 2 and keys:
        by_panel = make_grid(study, keys[0], next((key for key in [*keys[1:], *swept] if key != keys[0]), None))
        if max(len(by_panel.x.values), len(by_panel.y.values)) <= MOST_PANELS_ALONG:
            yield "curves", draw_overview(by_panel, curves, title=title, loss_label=loss)
    if has_capacity(study):
        yield "capacity", draw_capacity(study, title=title, loss_label=loss)
    if len(keys) >= 2:
        by_cell = make_grid(study, keys[0], keys[1])
        if max(len(by_cell.x.values), len(by_cell.y.values)) <= MOST_CELLS_ALONG:
            yield "heatmap_val_loss", draw_val_loss(by_cell, title=title, loss_label=loss)
            yield "heatmap_onset", draw_onset(by_cell, title=title)
