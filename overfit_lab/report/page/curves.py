"""The loss curves of a run, thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overfit_lab.records import RunRecord
from overfit_lab.report.figure import NEGLIGIBLE, WIDE
from overfit_lab.report.loss_curves import Array, LossCurves, mean_over_fits
from overfit_lab.report.page.numbers import all_rounded, rounded
from overfit_lab.report.plot_curves import EXPLOSION, is_early

MOST_POINTS = 60


@dataclass(frozen=True)
class PageCurves:
    """Train and validation loss of a run, null where they are not finite.

    Args:
        epochs: Completed passes, at most `MOST_POINTS`.
        train: Mean over fits, as `val`.
        val: The same on validation rows.
        train_band: The lowest and the highest fit, as `val_band`; empty for a single fit.
        val_band: The same on validation rows.
        span: The losses to show, or None where none is finite.
        log: Whether their range calls for a logarithmic axis.
        early: Whether the epochs call for one, as in `plot_curves`: the onset comes early in a long training.
        fits: How many there are.
        val_clean: As `val`, against the right labels where some were made wrong; else empty.
    """

    epochs: list[int]
    train: list[float | None]
    val: list[float | None]
    train_band: list[list[float | None]]
    val_band: list[list[float | None]]
    span: tuple[float, float] | None
    log: bool
    early: bool
    fits: int
    val_clean: list[float | None]


def page_curves(run: RunRecord, curves: LossCurves) -> PageCurves:
    """Thin the curves of a run; its best epoch, its onset and the ends of the onset's interval are kept."""
    onset = run.onset
    keep = [epoch for epoch in (run.val_loss.epoch, onset.epoch, *(onset.ci or ())) if epoch is not None]
    early = is_early([run], int(curves.epochs[-1]))
    places = thin(curves.epochs, keep, log=early)
    span = _span(curves)
    return PageCurves(
        epochs=curves.epochs[places].tolist(),
        train=all_rounded(mean_over_fits(curves.train)[places].tolist()),
        val=all_rounded(mean_over_fits(curves.val)[places].tolist()),
        train_band=_band(curves.train[:, places]),
        val_band=_band(curves.val[:, places]),
        span=span,
        log=span is not None and 0 < WIDE * span[0] < span[1],
        early=early,
        fits=len(curves.val),
        val_clean=[] if curves.val_clean is None else all_rounded(mean_over_fits(curves.val_clean)[places].tolist()),
    )


def thin(
    epochs: NDArray[np.int64], keep: Iterable[int], most: int = MOST_POINTS, *, log: bool = False
) -> NDArray[np.int64]:
    """Choose places of epochs: the first, the last, those to be kept, and others between them.

    Args:
        epochs: `epochs`, in order.
        keep: Epochs that must be there, where they were measured.
        most: How many places at most.
        log: Whether they shall lie evenly on a logarithmic axis.
    """
    last = len(epochs) - 1
    if last < most:
        return np.arange(last + 1)
    musts = np.flatnonzero(np.isin(epochs, list(keep)))
    count = most - len(musts)
    # Curves bend most at the beginning.
    spaced = np.append(0, np.geomspace(1, last, count - 1)) if log else last * np.linspace(0, 1, count) ** 1.5
    return np.union1d(np.round(spaced).astype(np.int64), musts)


def _band(losses: Array) -> list[list[float | None]]:
    if len(losses) < 2:
        return []
    finite = np.where(np.isfinite(losses), losses, np.nan)
    return [all_rounded(np.fmin.reduce(finite).tolist()), all_rounded(np.fmax.reduce(finite).tolist())]


def _span(curves: LossCurves) -> tuple[float, float] | None:
    """Which losses to show, as in the figures: neither an explosion nor a vanishing train loss flattens the rest."""
    val = _finite(mean_over_fits(curves.val))
    if not val.size:
        return None
    shown = [part for part in (curves.train, curves.val, curves.val_clean) if part is not None]
    losses = np.concatenate([_finite(part) for part in shown])
    untrained = _finite(curves.val[:, 0]).max(initial=val.min())
    low, high = max(losses.min(), val.min() / NEGLIGIBLE), min(losses.max(), EXPLOSION * untrained)
    # Rounding could cut a curve that hugs an end by a hair; the axis leaves more room than that.
    return rounded(float(low)) or 0.0, rounded(float(high)) or 0.0


def _finite(values: Array) -> Array:
    finite: Array = values[np.isfinite(values)]
    return finite
