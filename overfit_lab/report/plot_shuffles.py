"""Validation losses from one reshuffle of the rows to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from overfit_lab.report.figure import INK, VAL, add_header, fixed_ticks, new_figure
from overfit_lab.report.shuffles import Shuffles

MOST_ROWS = 24


def draw_shuffles(runs: Mapping[str, Shuffles], names: Mapping[str, str], *, title: str, loss_label: str) -> Figure:
    """Draw a row for each run, the lowest mean on top: a dot for each reshuffle, and their mean with deviation.

    Args:
        runs: By run id; of many the lowest are drawn.
        names: What to call each run.
        title: Of the figure.
        loss_label: Name and unit of the loss.
    """
    shown = sorted(runs, key=lambda run_id: float(runs[run_id].losses.mean()))[:MOST_ROWS]
    width, height = 6.4, 1.35 + 0.26 * max(len(shown), 4)
    figure = new_figure(width, height)
    longest = max(len(names[run_id]) for run_id in shown)
    left = min(0.4 + 0.066 * longest, 2.6)
    axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.2) / width, 1 - 1.4 / height))
    # Dots of one row would hide each other: they are spread, and the same in every picture.
    spread = 0.22 * np.sin(np.arange(len(runs[shown[0]].losses)) * 2.4)
    for row, run_id in enumerate(shown):
        own = runs[run_id]
        axes.plot(own.losses, row + spread, linestyle="none", marker="o", markersize=3.2, color=VAL, alpha=0.45)
        axes.errorbar([own.losses.mean()], [row], xerr=[own.sd], color=INK, marker="|", markersize=9, capsize=3)
    axes.set(xlabel=loss_label, ylim=(len(shown) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    fixed_ticks(axes.yaxis, [float(row) for row in range(len(shown))], [names[run_id] for run_id in shown])
    more = f" (the lowest {len(shown)} of {len(runs)} runs)" if len(shown) < len(runs) else ""
    add_header(figure, f"How far the validation loss moves with the shuffle{more}", title)
    figure.legend(
        handles=[
            Line2D([], [], linestyle="none", marker="o", markersize=3.2, color=VAL, alpha=0.45, label="one shuffle"),
            Line2D([], [], color=INK, marker="|", markersize=9, label="mean ± standard deviation"),
        ],
        loc="upper left",
        bbox_to_anchor=(0.05 / width, 1 - 0.55 / height),
        ncols=2,
    )
    return figure
