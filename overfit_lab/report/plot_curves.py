"""Loss curves: one run in a figure of its own, and all runs of a sweep as small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from overfit_lab.records import RunRecord
from overfit_lab.report.figure import (
    FAINT,
    INK,
    NEGLIGIBLE,
    TRAIN,
    VAL,
    add_header,
    fixed_ticks,
    new_figure,
    scale_losses,
)
from overfit_lab.report.grid import Grid
from overfit_lab.report.labels import onset_label, verdict_sentence
from overfit_lab.report.loss_curves import Array, LossCurves, mean_over_fits

# Of so many epochs an onset within this part of them is seen on a logarithmic axis alone.
LONG, EARLY = 1000, 0.03
# Letters of the numbers at an axis that there is always room for, and the inches that each further one takes.
USUAL_TICK, LETTER = 4, 0.085
# Inches from which on a legend stands in one line.
WIDE_ENOUGH = 6.0
BAND = 0.18
# A loss that explodes, to more than this many times the untrained network's, leaves the picture.
EXPLOSION = 10.0


def draw_run(run: RunRecord, curves: LossCurves, *, name: str, loss_label: str) -> Figure:
    """Draw the train and validation loss of a run, with the onset of overfitting.

    Args:
        run: The run.
        curves: Its losses.
        name: The swept values, as a title.
        loss_label: Name and unit of the loss.
    """
    width, height = 6.4, 4.0
    figure = new_figure(width, height)
    axes = figure.add_axes((0.72 / width, 0.52 / height, 1 - 0.9 / width, 1 - 1.5 / height))
    _draw_losses(axes, run, curves, line_width=1.8)
    _set_losses(axes, [curves], headroom=0.05)
    _set_epochs(axes, [run], int(curves.epochs[-1]))
    axes.set(xlabel="epoch (completed passes)", ylabel=loss_label)
    add_header(figure, name, verdict_sentence(run.onset, int(curves.epochs[-1])))
    noisy = curves.val_clean is not None
    _add_legend(figure, fits=len(curves.val), onset=run.onset.epoch is not None, noisy=noisy)
    return figure


def draw_overview(grid: Grid, curves: Mapping[str, LossCurves], *, title: str, loss_label: str) -> Figure:
    """Draw the curves of every cell of a grid with shared axes.

    Args:
        grid: With at most one run in a cell.
        curves: The losses of its runs, by run id.
        title: Of the figure.
        loss_label: Name and unit of the loss.
    """
    columns, rows = len(grid.x.values), len(grid.y.values)
    # In inches, from the edges of the figure to the panels.
    width = max(1.15 + 1.75 * columns, 4.8)
    left, right, bottom, top = 0.68, 0.38, 0.52, 1.05 if width > WIDE_ENOUGH else 1.25
    height = bottom + max(1.35 * rows, 2.2) + top
    figure = new_figure(width, height)
    panels: list[list[Axes]] = figure.subplots(
        rows,
        columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "right": 1 - right / width,
            "bottom": bottom / height,
            "top": 1 - top / height,
            "hspace": 0.12,
        },
    ).tolist()
    shown = [curves[run.run_id] for runs in grid.runs.values() for run in runs]
    horizon = max((int(one.epochs[-1]) for one in shown), default=1)
    _set_losses(panels[0][0], shown, headroom=0.2)
    # Long numbers leave room for fewer, and the last of a panel stands beside the first of the next one.
    long = horizon >= LONG
    _set_epochs(panels[0][0], [run for runs in grid.runs.values() for run in runs], horizon, ticks=3 if long else 5)
    left += LETTER * max(0, _longest_tick(panels[0][0]) - USUAL_TICK)
    figure.subplots_adjust(left=left / width, wspace=0.22 if long else 0.15)
    for row, column in np.ndindex(rows, columns):
        axes = panels[row][column]
        axes.tick_params(left=column == 0, bottom=row == rows - 1)
        runs = grid.runs.get((column, row), [])
        for run in runs:
            _draw_losses(axes, run, curves[run.run_id], line_width=1.3)
        text = onset_label(runs[0].onset) if runs else grid.missing((column, row))
        overfit = bool(runs) and runs[0].onset.epoch is not None
        axes.text(
            0.96,
            0.94,
            f"onset {text}" if overfit else text,
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=7.5,
            color=INK if overfit else FAINT,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2},
            zorder=2.5,
        )
    for axes, label in zip(panels[0], grid.x.labels, strict=True):
        axes.set_title(label, loc="center", fontsize=9, pad=5)
    if grid.y.name:
        for axes, label in zip([row[-1] for row in panels], grid.y.labels, strict=True):
            axes.text(1.05, 0.5, label, transform=axes.transAxes, rotation=-90, va="center", ha="left", fontsize=9)
    add_header(figure, "Where overfitting begins", title)
    middle = (1 + (left - right) / width) / 2, (1 + (bottom - top) / height) / 2
    figure.supxlabel("epoch (completed passes)", fontsize=9, x=middle[0], y=0.08 / height, va="bottom")
    figure.supylabel(loss_label, fontsize=9, x=0.08 / width, y=middle[1], ha="left")
    noisy = any(one.val_clean is not None for one in shown)
    _add_legend(figure, fits=max((len(c.val) for c in shown), default=1), onset=True, noisy=noisy)
    return figure


def _longest_tick(axes: Axes) -> int:
    """Count the letters of the longest number that stands at the axis of losses."""
    low, high = sorted(axes.get_ylim())
    ticks = [float(tick) for tick in axes.yaxis.get_majorticklocs() if low <= tick <= high]
    return max(map(len, axes.yaxis.get_major_formatter().format_ticks(ticks)), default=0)


def _draw_losses(axes: Axes, run: RunRecord, curves: LossCurves, *, line_width: float) -> None:
    onset, best = run.onset, run.val_loss.epoch
    if onset.epoch is not None and onset.ci is not None:
        # An interval of one epoch is still to be seen.
        axes.axvspan(onset.ci[0] - 0.5, onset.ci[1] + 0.5, color=INK, alpha=0.13, linewidth=0, zorder=1)
        axes.axvline(onset.epoch, color=INK, linewidth=1.1, zorder=2)
    val = mean_over_fits(curves.val)
    for losses, mean, color in ((curves.train, mean_over_fits(curves.train), TRAIN), (curves.val, val, VAL)):
        finite = np.where(np.isfinite(losses), losses, np.nan)
        if len(finite) > 1:
            low, high = np.fmin.reduce(finite), np.fmax.reduce(finite)
            axes.fill_between(curves.epochs, low, high, color=color, alpha=BAND, linewidth=0, zorder=2)
        axes.plot(curves.epochs, mean, color=color, linewidth=line_width, zorder=3)
    if curves.val_clean is not None:
        axes.plot(curves.epochs, mean_over_fits(curves.val_clean), linewidth=0.8 * line_width, **_CLEAN, zorder=3)
    if best is not None:
        at_best = val[np.searchsorted(curves.epochs, best)]
        axes.plot([best], [at_best], **_BEST, zorder=4)


_CLEAN: dict[str, Any] = {"color": VAL, "linestyle": (0, (4, 2))}
_BEST: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "color": VAL,
    "markerfacecolor": "white",
    "markeredgewidth": 1.1,
    # At the horizon it would be cut in half.
    "clip_on": False,
}


def is_early(runs: Sequence[RunRecord], horizon: int) -> bool:
    """Whether an onset is too early, in a training of so many epochs, to be seen where each takes the same room."""
    onsets = [run.onset.epoch for run in runs if run.onset.epoch is not None]
    return horizon >= LONG and min(onsets, default=horizon) < EARLY * horizon


def _set_epochs(axes: Axes, runs: Sequence[RunRecord], horizon: int, *, ticks: int = 5) -> None:
    """Set the axis of epochs, logarithmic where an onset would otherwise lie on its left edge."""
    if is_early(runs, horizon):
        # Up to epoch 1 it is linear: the untrained network has a place, too.
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        decades = [10**power for power in range(len(str(horizon)))]
        fixed_ticks(axes.xaxis, [0, *decades], [f"{epoch}" for epoch in (0, *decades)])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))
    axes.set_xlim(0, horizon)


def _set_losses(axes: Axes, shown: Sequence[LossCurves], *, headroom: float) -> None:
    losses = _finite([part for own in shown for part in (own.train, own.val, own.val_clean) if part is not None])
    val = _finite([mean_over_fits(curves.val) for curves in shown])
    if val.size:
        untrained = _finite([curves.val[:, 0] for curves in shown])
        high = min(losses.max(), EXPLOSION * untrained.max(initial=val.min()))
        low = max(losses.min(), val.min() / NEGLIGIBLE)
        scale_losses(axes, float(low), float(high), headroom=headroom)


def _finite(parts: Sequence[Array]) -> Array:
    values = np.concatenate([part.ravel() for part in parts])
    finite: Array = values[np.isfinite(values)]
    return finite


def _add_legend(figure: Figure, *, fits: int, onset: bool, noisy: bool) -> None:
    width, height = figure.get_size_inches()
    # One more line leaves less room for words.
    spread = f" ({'range over ' if noisy else 'mean, range over '}{fits} fits)" if fits > 1 else ""
    handles: dict[str, Artist | tuple[Artist, ...]] = {
        "train": _line(TRAIN, fits),
        f"validation{spread}": _line(VAL, fits),
    }
    if noisy:
        handles["right labels"] = Line2D([], [], **_CLEAN)
    if onset:
        mark = Line2D([], [], color=INK, linestyle="none", marker="|", markersize=9, markeredgewidth=1.1)
        handles["onset, 95 % interval"] = Patch(color=INK, alpha=0.13, linewidth=0), mark
    handles["best epoch"] = Line2D([], [], linestyle="none", **_BEST)
    figure.legend(
        handles=list(handles.values()),
        labels=list(handles),
        loc="upper left",
        bbox_to_anchor=(0.05 / width, 1 - 0.55 / height),
        ncols=len(handles) if width > WIDE_ENOUGH else 2,
        columnspacing=1.0 if noisy else 1.6,
    )


def _line(color: str, fits: int) -> tuple[Artist, ...]:
    line = Line2D([], [], color=color)
    return (Patch(color=color, alpha=BAND, linewidth=0), line) if fits > 1 else (line,)
