"""Loss against capacity: where a network is too small, and where it is larger than it needs to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.figure import (
    INK,
    NEGLIGIBLE,
    TRAIN,
    VAL,
    add_header,
    fixed_ticks,
    new_figure,
    plain_log_ticks,
    scale_losses,
)
from overfit_lab.report.labels import short_names, value_label
from overfit_lab.study import Study

# More lines than this cannot be told apart.
MOST_LINES = 8
# As fractions of the axis: between two sizes whose labels do not touch, and by which lines stand apart.
ROOM = 0.15
DODGE = 0.008


@dataclass(frozen=True)
class Point:
    """The runs of one line that have equally many parameters, averaged: seeds, as a rule.

    Args:
        parameters: Trainable scalars.
        val: Validation loss at the best epoch.
        se: Its standard error over validation rows; that of one run, as the seeds share their rows.
        train: Train loss at the same epoch.
    """

    parameters: int
    val: float
    se: float
    train: float


def capacity_lines(study: Study) -> dict[str, list[Point]]:
    """Return validation loss against capacity, one line for each value of the other swept keys, by its label."""
    names, swept = short_names(swept_keys(study)), study.swept()
    keys = [key for key in names if key != "seed" and not _is_size(study.runs, key)]

    def place(run: RunRecord) -> tuple[list[int], int]:
        return [swept[key].index(configured(run.config, key)) for key in keys], run.parameters

    lines: dict[str, dict[int, list[RunRecord]]] = {}
    for run in sorted((run for run in study.runs if run.val_loss.mean is not None), key=place):
        label = ", ".join(f"{names[key]} {value_label(configured(run.config, key))}" for key in keys)
        lines.setdefault(label, {}).setdefault(run.parameters, []).append(run)
    return {label: [_point(size, runs) for size, runs in line.items()] for label, line in lines.items()}


def has_capacity(study: Study) -> bool:
    """Is there anything to see: networks of several sizes, in few enough lines."""
    lines = capacity_lines(study)
    return 1 <= len(lines) <= MOST_LINES and any(len(points) > 1 for points in lines.values())


def draw_capacity(study: Study, *, title: str, loss_label: str) -> Figure:
    """Draw the validation and train loss at the best epoch against the number of parameters."""
    lines = capacity_lines(study)
    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.113, 0.15, 0.657, 0.68))
    everywhere = [point.parameters for points in lines.values() for point in points]
    span = max(everywhere) / min(everywhere)
    handles = []
    for i, (label, points) in enumerate(lines.items()):
        val_color, train_color = _colors(i, len(lines))
        # Side by side, so that error bars do not hide each other.
        sizes = [point.parameters * span ** (DODGE * (i - (len(lines) - 1) / 2)) for point in points]
        axes.plot(sizes, [point.train for point in points], color=train_color, **_TRAIN_LINE)
        val, se = [point.val for point in points], [point.se for point in points]
        axes.errorbar(sizes, val, se, color=val_color, capsize=2.5, elinewidth=1, **_VAL_LINE)
        if label:
            handles.append(Line2D([], [], color=val_color, label=label, **_VAL_LINE))
    val_color, train_color = (INK, INK) if len(lines) > 1 else (VAL, TRAIN)
    handles.append(Line2D([], [], color=val_color, label="validation ± se", **_VAL_LINE))
    handles.append(Line2D([], [], color=train_color, label="train", **_TRAIN_LINE))
    _set_scales(axes, study, [point for points in lines.values() for point in points])
    axes.set(xlabel="capacity (trainable parameters)", ylabel=loss_label)
    add_header(figure, "Loss at the best epoch against capacity", title)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.775, 0.845))
    return figure


_VAL_LINE: dict[str, Any] = {"marker": "o", "markersize": 4.5}
_TRAIN_LINE: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 0.9}


def _colors(line: int, lines: int) -> tuple[Any, Any]:
    """Colour validation and train: lines are ordered, so their colours are; a single one has the usual two."""
    if lines == 1:
        return VAL, TRAIN
    shade = matplotlib.colormaps["viridis"](0.85 * line / (lines - 1))
    return shade, shade


def _is_size(runs: Sequence[RunRecord], key: str) -> bool:
    """Does the number of parameters depend on this key?"""
    sizes: dict[Any, set[int]] = {}
    for run in runs:
        sizes.setdefault(configured(run.config, key), set()).add(run.parameters)
    # How the rows are prepared may set the number of inputs.
    return key.startswith(("model.", "data.")) and len({frozenset(seen) for seen in sizes.values()}) > 1


def _point(parameters: int, runs: Sequence[RunRecord]) -> Point:
    losses = [run.val_loss.mean for run in runs if run.val_loss.mean is not None]
    errors = [run.val_loss.se for run in runs if run.val_loss.se is not None]
    trains = [run.train_loss for run in runs if run.train_loss is not None]
    mean = [fmean(values) if values else math.nan for values in (losses, errors, trains)]
    return Point(parameters, *mean)


def _set_scales(axes: Axes, study: Study, points: Sequence[Point]) -> None:
    sizes = sorted({point.parameters for point in points})
    axes.set_xscale("log")
    span = sizes[-1] / sizes[0]
    axes.set_xlim(sizes[0] / span**0.07, sizes[-1] * span**0.07)
    widths = {size: {configured(r.config, "model.width") for r in study.runs if r.parameters == size} for size in sizes}
    by_width = "model.width" in study.swept() and all(len(seen) == 1 for seen in widths.values())
    if all(b / a > span**ROOM for a, b in itertools.pairwise(sizes)):
        labels = [f"{size:,}" + (f"\nwidth {value_label(*widths[size])}" if by_width else "") for size in sizes]
        fixed_ticks(axes.xaxis, [float(size) for size in sizes], labels)
    else:
        plain_log_ticks(axes.xaxis, sizes[0], sizes[-1])

    shown = [value for p in points for value in (p.val - p.se, p.val + p.se, p.val, p.train) if math.isfinite(value)]
    lowest = min(point.val for point in points) / NEGLIGIBLE
    scale_losses(axes, max(min(shown), lowest), max(shown))
