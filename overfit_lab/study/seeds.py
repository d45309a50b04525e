"""Configurations over their seeds: how often and when each begins to overfit, and how far its loss moves."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, stdev
from typing import Any

import polars as pl

from overfit_lab.analysis.survival import median_onset
from overfit_lab.records import RunRecord
from overfit_lab.study.study import Study, flatten

ENOUGH_SEEDS = 10
"""Fewer independent seeds than this give no median onset."""


def across_seeds(study: Study) -> pl.DataFrame:
    """One row for each configuration that ran with two seeds or more; no row at all where none did.

    `onset_median` and its 95 % interval are those of Kaplan and Meier [1958]: a seed that has not overfitted is
    censored at its horizon. They need ten seeds with a verdict. A null stands where a value is not reached.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        groups[run.config_id].append(run)
    rows = [_row(runs) for runs in groups.values() if len(runs) > 1]
    return pl.from_dicts(rows, infer_schema_length=None) if rows else pl.DataFrame()


def _row(runs: list[RunRecord]) -> dict[str, Any]:
    config = {key: value for key, value in flatten(runs[0].config).items() if key != "seed"}
    # A seed that diverged has no onset, and is no seed without one either.
    known = [run for run in runs if run.onset.verdict not in ("diverged", "too_short")]
    losses = [run.val_loss.mean for run in runs if run.val_loss.mean is not None]
    epochs = [run.val_loss.epoch for run in runs if run.val_loss.epoch is not None]
    median, low, high = None, None, None
    if len(known) >= ENOUGH_SEEDS:
        onsets = [run.onset.epoch for run in known]
        horizons = [int(run.config["training"]["epochs"]) for run in known]
        found = median_onset(
            [horizon if onset is None else onset for onset, horizon in zip(onsets, horizons, strict=True)],
            [onset is not None for onset in onsets],
        )
        median, (low, high) = found.median, found.ci
    return {
        "config_id": runs[0].config_id,
        **config,
        "parameters": runs[0].parameters,
        "seeds": len(runs),
        "seeds_overfit": sum(run.onset.epoch is not None for run in known),
        "seeds_diverged": sum(run.status == "diverged" for run in runs),
        "onset_median": median,
        "onset_median_low": low,
        "onset_median_high": high,
        "best_epoch": fmean(epochs) if epochs else None,
        "val_loss": fmean(losses) if losses else None,
        "val_loss_sd": stdev(losses) if len(losses) > 1 else None,
    }
