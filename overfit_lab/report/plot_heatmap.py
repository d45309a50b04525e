"""Heatmaps over the two keys of a sweep: the validation loss and the onset of overfitting."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from overfit_lab.records import RunRecord
from overfit_lab.report.figure import FAINT, INK, NO_VALUE, add_header, fixed_ticks, new_figure
from overfit_lab.report.grid import Cell, Grid
from overfit_lab.report.labels import VERDICTS, loss_decimals, loss_value, value_label

# Relative luminance below which white text is easier to read than dark text.
DARK = 0.2


@dataclass(frozen=True)
class _Content:
    """What stands in a cell: a number to colour it by or None, the text, and a smaller line beneath."""

    value: float | None
    text: str
    beneath: str = ""


def draw_val_loss(grid: Grid, *, title: str, loss_label: str) -> Figure:
    """Draw the validation loss at the best epoch; the mean where several runs share a cell."""
    decimals = loss_decimals([run for runs in grid.runs.values() for run in runs])
    contents = {cell: _val_loss(runs, decimals) for cell, runs in grid.runs.items()}
    return _draw(
        grid, contents, what="Validation loss at the best epoch ± standard error", which=f"{loss_label}; {title}"
    )


def draw_onset(grid: Grid, *, title: str) -> Figure:
    """Draw the onset of overfitting; the mean over the runs that overfit where several share a cell."""
    contents = {cell: _onset(runs) for cell, runs in grid.runs.items()}
    return _draw(grid, contents, what="Onset of overfitting [95 % interval]", which=f"epochs; {title}")


def _val_loss(runs: list[RunRecord], decimals: int) -> _Content:
    losses = [run.val_loss.mean for run in runs if run.val_loss.mean is not None]
    if not losses:
        return _Content(None, VERDICTS[runs[0].onset.verdict])
    mean = fmean(losses)
    if len(runs) > 1:
        return _Content(mean, loss_value(mean, decimals), f"mean of {len(losses)} runs")
    se = runs[0].val_loss.se
    return _Content(mean, loss_value(mean, decimals), "" if se is None else f"± {loss_value(se, decimals)}")


def _onset(runs: list[RunRecord]) -> _Content:
    onsets = [run.onset.epoch for run in runs if run.onset.epoch is not None]
    if not onsets:
        verdict, count = Counter(VERDICTS[run.onset.verdict] for run in runs).most_common(1)[0]
        return _Content(None, verdict, f"{count} of {len(runs)} runs" if len(runs) > 1 else "")
    if len(runs) > 1:
        return _Content(fmean(onsets), f"{fmean(onsets):.3g}", f"{len(onsets)} of {len(runs)} runs")
    interval = runs[0].onset.ci
    return _Content(onsets[0], f"{onsets[0]}", "" if interval is None else f"[{interval[0]}, {interval[1]}]")


def _draw(grid: Grid, contents: Mapping[Cell, _Content], *, what: str, which: str) -> Figure:
    columns, rows = len(grid.x.values), len(grid.y.values)
    width, height = 1.0 + max(1.05 * columns, 4.8), 1.3 + 0.62 * rows
    figure = new_figure(width, height)
    axes = figure.add_axes((0.8 / width, 0.55 / height, 1 - 0.95 / width, 1 - 1.25 / height))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    # The first row is on top, as in the overview of curves.
    axes.set(xlim=(0, columns), ylim=(rows, 0), xlabel=grid.x.name, ylabel=grid.y.name)
    fixed_ticks(axes.xaxis, [i + 0.5 for i in range(columns)], [value_label(value) for value in grid.x.values])
    fixed_ticks(axes.yaxis, [i + 0.5 for i in range(rows)], [value_label(value) for value in grid.y.values])
    norm = _norm([content.value for content in contents.values() if content.value is not None])
    for column, row in itertools.product(range(columns), range(rows)):
        missing = (column, row) not in contents
        content = contents.get((column, row)) or _Content(None, grid.missing((column, row)))
        _draw_cell(axes, column, row, content, norm, hatch="////" if missing else None)
    add_header(figure, what, which)
    return figure


def _draw_cell(axes: Axes, column: int, row: int, content: _Content, norm: Normalize, *, hatch: str | None) -> None:
    fill, ink, size = to_rgb(NO_VALUE), FAINT, 8
    if content.value is not None:
        # The lighter part of the map: text is readable on it.
        fill = to_rgb(matplotlib.colormaps["YlGnBu"](0.05 + 0.7 * float(norm(content.value))))
        ink, size = "white" if _luminance(fill) < DARK else INK, 10
    # Cells are shapes with white gaps: an image would be pixels in the SVG.
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor="white", linewidth=2))
    if hatch:
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor="none", edgecolor="#d8d8d8", hatch=hatch, linewidth=0))
    lift = 0.1 if content.beneath else 0.0
    centred: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    axes.text(column + 0.5, row + 0.5 - lift, content.text, fontsize=size, **centred)
    axes.text(column + 0.5, row + 0.76, content.beneath, fontsize=7, **centred)


def _norm(values: list[float]) -> Normalize:
    low, high = min(values, default=1.0), max(values, default=1.0)
    if low == high:
        # One colour from the middle of the map, not from its end.
        return Normalize(low - 1, high + 1)
    return LogNorm(low, high) if low > 0 else Normalize(low, high)


def _luminance(color: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB colour [WCAG 2, Web Content Accessibility Guidelines]."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
