"""The table of results: one row for each run."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, failed_configurations, swept_keys
from overfit_lab.report.labels import (
    loss_decimals,
    loss_value,
    onset_label,
    printable,
    short_names,
    study_title,
    value_label,
)
from overfit_lab.study import Study

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
