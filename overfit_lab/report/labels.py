"""Names, values and verdicts in words, as tables and figures show them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, get_args

from overfit_lab.analysis.onset import Onset, Verdict
from overfit_lab.errors import printable
from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured
from overfit_lab.study import Study

VERDICTS: Mapping[Verdict, str] = {verdict: str(Onset(verdict)) for verdict in get_args(Verdict)}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Shorten dotted keys to their last part where it is unambiguous; `model._target_` becomes `model`."""
    short = {key: _short(key) for key in keys}
    count = Counter(short.values())
    return {key: printable(name if count[name] == 1 else key) for key, name in short.items()}


def _short(key: str) -> str:
    section, _, last = key.rpartition(".")
    return section if section and last in {"_target_", "kind", "name"} else last


def value_label(value: Any) -> str:  # noqa: ANN401 - any configuration value
    """Show a configuration value; a dash where there is none."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value).removeprefix("overfit_lab.model."))


def onset_label(onset: Onset) -> str:
    """Say an onset as `25 [20, 31]`, where a heading says of what; or why there is none."""
    return str(onset).removeprefix("overfit from epoch ")


def verdict_sentence(onset: Onset, horizon: int) -> str:
    """Say what became of a run of so many epochs."""
    sentences: Mapping[Verdict, str] = {
        "overfit": f"overfitting begins at epoch {onset_label(onset)}",
        "not_reached": f"no overfitting within {horizon} epochs",
        "underfit": f"still underfitting at epoch {horizon}",
        "diverged": "diverged",
        "too_short": f"{horizon} epochs are too few to tell",
    }
    return sentences[onset.verdict]


def loss_label(study: Study) -> str:
    """Name the loss of a study with its unit."""
    names = study.losses()
    if names == {"mean_squared_error"}:
        scaled = {configured(run.config, "data.scale_targets") for run in study.runs} == {True}
        return "mean squared error (standardised targets)" if scaled else "mean squared error"
    if all(name.endswith("cross_entropy") for name in names):
        return "cross-entropy (nats)"
    return "loss"


def loss_decimals(runs: Sequence[RunRecord]) -> int:
    """Choose the decimals of all losses: two digits of a typical standard error, or three of a typical loss."""
    errors = [run.val_loss.se for run in runs if run.val_loss.se]
    losses = [abs(run.val_loss.mean) for run in runs if run.val_loss.mean]
    if errors:
        return max(0, 1 - math.floor(math.log10(median(errors))))
    return max(0, 2 - math.floor(math.log10(median(losses)))) if losses else 0


def loss_value(value: float | None, decimals: int) -> str:
    """Show a loss; a dash where there is none."""
    if value is None:
        return value_label(None)
    # A loss that exploded would be a number of 30 digits.
    return f"{value:.{decimals}f}" if abs(value) < 1e6 else f"{value:.1e}"


def study_title(study: Study) -> str:
    """Name a study with its source and its split."""
    record = study.record
    split = record.split
    if split.get("kind") == "kfold":
        how = f"{split.get('folds')}-fold cross-validation"
    elif split.get("val_fraction") is None:
        how = "hold-out, official rows for validation"
    else:
        how = f"hold-out, {100 * split['val_fraction']:g} % for validation"
    if split.get("repeats", 1) > 1:
        how += f", {split['repeats']} times"
    if split.get("group") is not None:
        how += f", grouped by {printable(split['group'])}"
    if split.get("outer") is not None:
        how += f", outer fold {split['outer']} of {split.get('outer_folds')}"
    return f"{printable(record.name)}: {printable(record.source.name)}, {how}"
