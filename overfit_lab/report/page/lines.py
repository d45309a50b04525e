"""Loss at the best epoch against the size of the network, and against the number of train rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.labels import loss_decimals, loss_value, short_names, value_label
from overfit_lab.report.page.numbers import rounded
from overfit_lab.report.plot_capacity import MOST_LINES, Point, capacity_lines
from overfit_lab.study import Study

TRAIN_SIZE = "data.train_size"


@dataclass(frozen=True)
class Line:
    """One line of a chart, `points` long.

    Args:
        label: The values of the other swept keys.
        x: In order.
        val: Validation loss at the best epoch.
        se: Its standard error.
        train: Train loss at the same epoch.
    """

    label: str
    x: list[float]
    val: list[float | None]
    se: list[float | None]
    train: list[float | None]


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis.

    Args:
        x_title: Of the axis.
        lines: At most `MOST_LINES`.
        lowest: Where the lowest validation loss lies along x.
        sides: What lies left and right of it, in words; empty where nothing does.
        sentence: What is seen.
    """

    x_title: str
    lines: list[Line]
    lowest: float
    sides: tuple[str, str]
    sentence: str


def capacity_chart(study: Study) -> LineChart | None:
    """Put the validation curve together; None where the networks have one size."""
    points = capacity_lines(study)
    if not any(len(line) > 1 for line in points.values()):
        return None
    shown, omitted = _choose(points)
    lines = [_line(label, [point.parameters for point in line], line) for label, line in shown.items()]
    sizes = sorted({point.parameters for line in shown.values() for point in line})
    label, best = min(((label, point) for label, line in shown.items() for point in line), key=lambda item: item[1].val)
    left = "← too small: underfitting" if best.parameters > sizes[0] else ""
    right = "larger than it needs: overfitting →" if best.parameters < sizes[-1] else ""
    loss = loss_value(best.val, loss_decimals(study.runs))
    sentence = f"Lowest, {loss}, at {best.parameters:,} parameters{f' ({label})' if label else ''}"
    along = "along that line " if len(lines) > 1 else ""
    if left and right:
        sentence += f": {along}smaller networks are on the underfitting side, larger ones on the overfitting side."
    elif left:
        sentence += f", the largest network: {along}the others are on the underfitting side."
    else:
        sentence += f", the smallest network: {along}the others are on the overfitting side."
    return LineChart("capacity (trainable parameters)", lines, best.parameters, (left, right), sentence + omitted)


def learning_chart(study: Study) -> LineChart | None:
    """Put the learning curve over train rows together; None where their number was not swept.

    Counts and shares are not put on one axis: where both were swept, the counts are shown. All rows are the share 1.
    """
    swept = study.swept().get(TRAIN_SIZE, [])
    counts = [size for size in swept if isinstance(size, int)]
    shares = [size for size in swept if isinstance(size, float)]
    counted = len(counts) > 1 or not shares
    sizes = counts if counted else [*shares, None]
    if len(sizes) < 2:
        return None
    names = short_names(swept_keys(study))
    others = [key for key in names if key not in (TRAIN_SIZE, "seed")]
    groups: dict[str, dict[float, list[RunRecord]]] = {}
    for run in study.runs:
        size = configured(run.config, TRAIN_SIZE)
        if size in sizes and run.val_loss.mean is not None:
            size = 1.0 if size is None else size  # all of them
            label = ", ".join(f"{names[key]} {value_label(configured(run.config, key))}" for key in others)
            groups.setdefault(label, {}).setdefault(size, []).append(run)
    points = {
        label: {size: _mean_point(own) for size, own in sorted(by_size.items())} for label, by_size in groups.items()
    }
    if not any(len(line) > 1 for line in points.values()):
        return None
    shown, omitted = _choose({label: list(line.values()) for label, line in points.items()})
    lines = [_line(label, list(points[label]), line) for label, line in shown.items()]
    size, best = min(((size, p) for label in shown for size, p in points[label].items()), key=lambda item: item[1].val)
    loss = loss_value(best.val, loss_decimals(study.runs))
    reached = f"{size:g} train rows" if counted else f"{100 * size:g} % of the train rows"
    sentence = f"The lowest validation loss, {loss}, is reached with {reached}."
    title = "train rows" if counted else "share of the train rows"
    return LineChart(title, lines, size, ("", ""), sentence + omitted)


def _choose(lines: Mapping[str, list[Point]]) -> tuple[dict[str, list[Point]], str]:
    """Keep as many lines as can be told apart: the one with the lowest loss, and others evenly spaced."""
    if len(lines) <= MOST_LINES:
        return dict(lines), ""
    labels = list(lines)
    best = min(labels, key=lambda label: min(point.val for point in lines[label]))
    step = (len(labels) - 1) / (MOST_LINES - 2)
    kept = {labels[round(i * step)] for i in range(MOST_LINES - 1)} | {best}
    return {label: lines[label] for label in labels if label in kept}, f" {len(kept)} of {len(lines)} lines are shown."


def _mean_point(runs: Sequence[RunRecord]) -> Point:
    columns = (
        [run.val_loss.mean for run in runs],
        [run.val_loss.se for run in runs],
        [run.train_loss for run in runs],
    )
    known = [[value for value in column if value is not None] for column in columns]
    val, se, train = (fmean(column) if column else math.nan for column in known)
    return Point(runs[0].parameters, val, se, train)


def _line(label: str, x: Sequence[float], points: Sequence[Point]) -> Line:
    return Line(
        label,
        list(x),
        [rounded(point.val) for point in points],
        [rounded(point.se) for point in points],
        [rounded(point.train) for point in points],
    )
