"""Loss curves of a run as arrays, and what the stopping rules read from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.analysis.rules import DEFAULT_RULES
from overfit_lab.errors import UserError
from overfit_lab.study import Study

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LossCurves:
    """Train and validation loss of all fits of a run, measured on the same weights, without penalty.

    Args:
        epochs: `epochs`, completed passes, from 0.
        train: `fits x epochs`.
        val: `fits x epochs`.
        repeats: `fits`, which reshuffle of the rows each fit is on.
        val_clean: `fits x epochs`, as `val`, against the right labels where some were made wrong; else None.
    """

    epochs: NDArray[np.int64]
    train: Array
    val: Array
    repeats: NDArray[np.int64]
    val_clean: Array | None = None


def loss_curves(frame: pl.DataFrame) -> LossCurves:
    """Lay the losses of `curves.parquet` out as arrays."""
    of_metric = frame.filter(pl.col("metric").is_in(["loss", "loss_clean"])).sort("repeat", "fold", "epoch")
    losses = of_metric.filter(pl.col("metric") == "loss")
    epochs = losses["epoch"].unique().sort().cast(pl.Int64).to_numpy()
    train, val, clean = (
        of_metric.filter((pl.col("split") == split) & (pl.col("metric") == metric))["value"]
        .to_numpy()
        .reshape(-1, len(epochs))
        for split, metric in (("train", "loss"), ("val", "loss"), ("val", "loss_clean"))
    )
    repeats = losses.filter(pl.col("split") == "val")["repeat"].cast(pl.Int64).to_numpy()[:: len(epochs)]
    return LossCurves(epochs, train, val, repeats, clean if len(clean) else None)


def load_loss_curves(study: Study) -> dict[str, LossCurves]:
    """Read the loss curves of all finished runs, by run id.

    Raises:
        UserError: A file of curves is missing or damaged.
    """
    curves = {}
    for run in study.runs:
        try:
            curves[run.run_id] = loss_curves(study.curves(run.run_id))
        except ValueError as error:
            raise UserError(f"{study.files.run(run.run_id).curves} is damaged: {error}") from error
    return curves


def mean_over_fits(losses: Array) -> Array:
    """Average `fits x epochs` over fits; NaN from where a fit is not finite, as the others alone are another mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = losses.mean(axis=0)
    return np.where(np.isfinite(mean), mean, np.nan)


def rule_epochs(curves: LossCurves) -> dict[str, int | None]:
    """Apply the named stopping rules to the mean curves of a run.

    Returns:
        For each rule, as `rule_NAME`, the epoch whose weights it would keep; None where it does not fire.
    """
    # The untrained network takes no part. A rule counts measured epochs, from 1.
    train, val = mean_over_fits(curves.train)[1:], mean_over_fits(curves.val)[1:]
    kept = {f"rule_{rule.name}": rule.stop(val, train).epoch for rule in DEFAULT_RULES}
    return {name: None if place is None else int(curves.epochs[place]) for name, place in kept.items()}
