"""The house style of figures, and how they become files: the same figure always gives the same bytes."""

from __future__ import annotations

import io
import math
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from overfit_lab.files import write_atomically

STYLE = Path(__file__).with_name("style.mplstyle")

# The same everywhere. Train and validation are the first two colours of the style.
TRAIN = "C0"
VAL = "C1"
INK = "#262626"
FAINT = "#767676"
NO_VALUE = "#f2f2f2"

# From this ratio of the highest to the lowest loss on, their axis is logarithmic.
WIDE = 8.0
# A train loss this many times below the lowest validation loss leaves the picture: what matters would be flattened.
NEGLIGIBLE = 10.0


# Neither the time nor the name of a program is part of a figure.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FIGURE_KINDS = tuple(_METADATA)


def house_style() -> AbstractContextManager[None]:
    """Draw and save in the style of the package, whatever the user's own settings are."""
    return matplotlib.style.context(STYLE, after_reset=True)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, apart from pyplot and its global list of figures."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as SVG, as PNG and as PDF, and return the paths.

    Args:
        figure: To be saved while `house_style` is in force.
        stem: The path without suffix.
    """
    paths = []
    for kind, nothing in _METADATA.items():
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; that is no concern of whoever trains.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format=kind, metadata=nothing)
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomically(path, buffer.getvalue())
        paths.append(path)
    return paths


def add_header(figure: Figure, what: str, which: str) -> None:
    """Write what a figure shows in bold at its top left, and beneath it of which study or run."""
    width, height = figure.get_size_inches()
    for text, size, weight, below in ((what, 10.5, "bold", 0.22), (which, 9.0, "normal", 0.45)):
        # A letter is about 0.64 of the size of its font; what does not fit would be cut off without a sign.
        most = int((width - 0.25) * 72 / (0.64 * size))
        shown = text if len(text) <= most else f"{text[: most - 1]}…"
        figure.text(0.12 / width, 1 - below / height, shown, fontsize=size, fontweight=weight, va="center")


def scale_losses(axes: Axes, low: float, high: float, *, headroom: float = 0.05) -> None:
    """Set the axis of losses, logarithmic where the range calls for it.

    Args:
        axes: With the losses along y.
        low: The lowest loss to show.
        high: The highest.
        headroom: Room to leave above it, as a fraction of the axis.
    """
    if 0 < WIDE * low < high:
        axes.set_yscale("log", nonpositive="clip")
        ratio = high / low
        axes.set_ylim(low / ratio**0.05, high * ratio**headroom)
        plain_log_ticks(axes.yaxis, low, high)
    elif low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + headroom * (high - low))


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, as many as there is room for."""
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=10))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def fixed_ticks(axis: Axis, values: list[float], labels: list[str]) -> None:
    """Label an axis at given values and nowhere else."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda _, position: labels[position]))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
