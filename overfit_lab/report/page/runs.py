"""Every run of a study, as a row of a table and as a panel beside its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overfit_lab.errors import printable
from overfit_lab.records import Descriptive, RunRecord
from overfit_lab.report.configurations import configured, failed_configurations, swept_keys
from overfit_lab.report.labels import (
    VERDICTS,
    loss_decimals,
    loss_value,
    onset_label,
    short_names,
    value_label,
    verdict_sentence,
)
from overfit_lab.report.page.comparison import without_place
from overfit_lab.report.page.numbers import capitalised, rounded
from overfit_lab.study import Study

COLUMNS = ("params", "verdict", "onset", "best epoch", "val loss ± se", "train loss", "gap", "fits overfit")
# What Descriptive holds, in words.
DESCRIPTIVE = {
    "weight_norm": "norm of the weights",
    "distance_from_init": "distance from the initial weights",
    "effective_dof": "effective number of parameters",
    "effective_dof_rows": "from so many train rows",
    "normalised_margin": "normalised margin",
}

Key = float | str | None


@dataclass(frozen=True)
class Onset:
    """Where the onset stands in a figure: epoch and interval."""

    epoch: int
    low: int
    high: int


@dataclass(frozen=True)
class RunRow:
    """One run.

    Args:
        id: Its folder.
        name: The swept values in words.
        status: `finished`, `diverged`, `failed` or `unfinished`.
        cells: Its row of the table, without the link.
        keys: What each cell is sorted by.
        seed: Its seed, as text.
        onset: Or None.
        best: Its best epoch.
        sentences: What became of it; for a run that failed the error.
        descriptive: What the trained networks are like, name and value.
    """

    id: str
    name: str
    status: str
    cells: list[str]
    keys: list[Key]
    seed: str
    onset: Onset | None
    best: int | None
    sentences: list[str]
    descriptive: list[tuple[str, str]]


def columns(study: Study) -> list[str]:
    """Name the columns of the table of runs."""
    return [*short_names(swept_keys(study)).values(), *COLUMNS]


def run_rows(study: Study) -> list[RunRow]:
    """Describe the finished runs of a study, then those that failed, then those that are not finished."""
    names, decimals = short_names(swept_keys(study)), loss_decimals(study.runs)
    rows = [_finished(run, names, decimals, study) for run in study.runs]
    configurations = failed_configurations(study)
    for failed in study.failed:
        values = [configured(configurations.get(failed.run_id, {}), key) for key in names]
        error = without_place(failed.error, study)
        rows.append(_without_result(failed.run_id, "failed", f"failed: {error}", values))
    rows += [_without_result(run_id, "unfinished", "not finished", [None] * len(names)) for run_id in study.unfinished]
    return rows


def _finished(run: RunRecord, names: dict[str, str], decimals: int, study: Study) -> RunRow:
    values = [configured(run.config, key) for key in names]
    onset, val = run.onset, run.val_loss
    overfit = sum(fit.onset.verdict == "overfit" for fit in run.fits)
    loss = loss_value(val.mean, decimals)
    if val.se is not None:
        loss += f" ± {loss_value(val.se, decimals)}"
    cells = [
        *map(value_label, values),
        f"{run.parameters:,}",
        VERDICTS[onset.verdict],
        value_label(None) if onset.epoch is None else onset_label(onset),
        value_label(val.epoch),
        loss,
        loss_value(run.train_loss, decimals),
        loss_value(run.gap, decimals),
        f"{overfit} of {len(run.fits)}",
    ]
    keys: list[Key] = [
        *map(_key, values),
        run.parameters,
        VERDICTS[onset.verdict],
        onset.epoch,
        val.epoch,
        *map(rounded, (val.mean, run.train_loss, run.gap)),
        overfit,
    ]
    chosen = ", ".join(f"{names[key]} {value_label(value)}" for key, value in zip(names, values, strict=True))
    marked = None
    if onset.epoch is not None:
        marked = Onset(onset.epoch, *(onset.ci or (onset.epoch, onset.epoch)))
    return RunRow(
        id=printable(run.run_id),
        name=chosen or printable(study.record.name),
        status=run.status,
        cells=cells,
        keys=keys,
        seed=value_label(run.config.get("seed")),
        onset=marked,
        best=val.epoch,
        sentences=_sentences(run, decimals, loss),
        descriptive=_descriptive(run.descriptive),
    )


def _sentences(run: RunRecord, decimals: int, loss: str) -> list[str]:
    onset, val = run.onset, run.val_loss
    sentence = capitalised(verdict_sentence(onset, int(run.config["training"]["epochs"])))
    details = []
    if onset.detected_at is not None:
        details.append(f"the rise is proven from epoch {onset.detected_at} on")
    if onset.p_value is not None:
        details.append(f"p = {onset.p_value:.2g}")
    sentences = [f"{sentence} ({', '.join(details)})." if details else f"{sentence}."]
    if onset.spikes:
        which = f"epoch {onset.spikes[0]}" if len(onset.spikes) == 1 else f"epochs {', '.join(map(str, onset.spikes))}"
        sentences.append(f"At {which} training slipped and recovered; the onset is found without.")
    if onset.second_descent:
        sentences.append("After its peak the validation loss falls again: a second descent.")
    if val.epoch is not None:
        sentences.append(
            f"Lowest validation loss {loss} at epoch {val.epoch}; train loss there "
            f"{loss_value(run.train_loss, decimals)}, gap {loss_value(run.gap, decimals)}."
        )
    if len(run.fits) > 1:
        overfit = sum(fit.onset.verdict == "overfit" for fit in run.fits)
        sentences.append(f"Taken alone, {overfit} of {len(run.fits)} fits overfit.")
    return sentences


def _descriptive(found: Descriptive | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    values = ((words, getattr(found, name)) for name, words in DESCRIPTIVE.items())
    return [(words, f"{value:.4g}") for words, value in values if value is not None]


def _without_result(run_id: str, status: str, said: str, values: Sequence[object]) -> RunRow:
    # The error stands under the verdict; what a run without a result lacks is empty.
    cells = [*map(value_label, values), "", said, *[""] * (len(COLUMNS) - 2)]
    keys: list[Key] = [*map(_key, values), None, said, *[None] * (len(COLUMNS) - 2)]
    chosen = [value_label(value) for value in values if value is not None]
    return RunRow(printable(run_id), ", ".join(chosen), status, cells, keys, "", None, None, [said], [])


def _key(value: object) -> Key:
    if isinstance(value, int | float):
        return rounded(float(value)) if isinstance(value, float) else value
    return None if value is None else value_label(value)
