"""The table of results: one row for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from overfit_lab.errors import printable
from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, failed_configurations, swept_keys
from overfit_lab.report.labels import (
    loss_decimals,
    loss_value,
    onset_label,
    short_names,
    study_title,
    value_label,
)
from overfit_lab.study import Study
from overfit_lab.study.seeds import ENOUGH_SEEDS, across_seeds

CAPTION = "onset: epoch after which validation loss provably rises [95 % interval]"
LONGEST_ERROR = 200


def results_table(study: Study) -> Table:
    """Build the table of a study: a row for each finished run, then for each that failed or is not finished."""
    keys = swept_keys(study)
    table = Table(
        title=Text(study_title(study)),
        caption=Text(CAPTION),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    # Text, never str: brackets in what comes from a configuration are not markup.
    for name in short_names(keys).values():
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_column("params", justify="right", no_wrap=True)
    # Errors stand here, so it is this column that folds where the terminal is narrow.
    table.add_column("onset", overflow="fold", min_width=11)
    for header in ("best\nepoch", "val loss\n± se", "train\nloss", "gap", "fits\noverfit"):
        table.add_column(header, justify="right", no_wrap=True)

    decimals = loss_decimals(study.runs)
    for run in study.runs:
        table.add_row(*(Text(cell) for cell in _cells(run, keys, decimals)))
    table.add_section()
    configs = failed_configurations(study)
    for failed in study.failed:
        values = [value_label(configured(configs.get(failed.run_id, {}), key)) for key in keys]
        error = printable(failed.error)
        short = error if len(error) <= LONGEST_ERROR else error[:LONGEST_ERROR] + "…"
        table.add_row(*map(Text, values), "", Text(f"failed: {printable(failed.run_id)}: {short}", style="red"))
    for run_id in study.unfinished:
        table.add_row(*[""] * (len(keys) + 1), Text(f"unfinished: {printable(run_id)}", style="dim"))
    return table


def seeds_table(study: Study) -> Table | None:
    """Build the table of configurations over their seeds, or None where none has two."""
    frame = across_seeds(study)
    if frame.is_empty():
        return None
    keys = [key for key in swept_keys(study) if key != "seed"]
    table = Table(
        title=Text("over seeds"),
        caption=Text(f"median onset: Kaplan-Meier [95 % interval], from {ENOUGH_SEEDS} seeds on"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in short_names(keys).values():
        table.add_column(Text(name), justify="right", overflow="fold")
    for header in ("params", "seeds\noverfit", "median onset", "best\nepoch", "val loss\n± sd"):
        table.add_column(header, justify="right", no_wrap=True)
    decimals = loss_decimals(study.runs)
    for row in frame.iter_rows(named=True):
        loss = loss_value(row["val_loss"], decimals)
        sd = "" if row["val_loss_sd"] is None else f" ± {loss_value(row['val_loss_sd'], decimals)}"
        table.add_row(
            *(Text(value_label(row.get(key))) for key in keys),
            f"{row['parameters']}",
            f"{row['seeds_overfit']} of {row['seeds']}",
            _median(row),
            value_label(row["best_epoch"]),
            f"{loss}{sd}",
        )
    return table


def _median(row: Mapping[str, Any]) -> str:
    if row["seeds"] - row["seeds_diverged"] < ENOUGH_SEEDS:
        return value_label(None)
    median = "not reached" if row["onset_median"] is None else f"{row['onset_median']}"
    low, high = (row[f"onset_median_{end}"] for end in ("low", "high"))
    return f"{median} [{'?' if low is None else low}, {'?' if high is None else high}]"


def _cells(run: RunRecord, keys: Sequence[str], decimals: int) -> list[str]:
    val = run.val_loss
    loss = loss_value(val.mean, decimals)
    return [
        *(value_label(configured(run.config, key)) for key in keys),
        f"{run.parameters}",
        onset_label(run.onset),
        value_label(val.epoch),
        loss if val.se is None else f"{loss} ± {loss_value(val.se, decimals)}",
        loss_value(run.train_loss, decimals),
        loss_value(run.gap, decimals),
        f"{sum(fit.onset.verdict == 'overfit' for fit in run.fits)} of {len(run.fits)}",
    ]
