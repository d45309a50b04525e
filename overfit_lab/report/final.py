"""What the final test found, as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from overfit_lab.errors import printable
from overfit_lab.records import CandidateRecord, FinalRecord, IntervalRecord, MeanRecord, NestedRecord
from overfit_lab.report.labels import short_names, value_label

MOST_CANDIDATES = 10


def times(count: int) -> str:
    """Say a count of openings."""
    return "once" if count == 1 else f"{count} times"


def final_tables(record: FinalRecord) -> list[Table]:
    """Show what was selected among what, and what validation promised beside what the test gave."""
    return [_candidates(record), _figures(record)]


def final_lines(record: FinalRecord) -> list[str]:
    """Say in sentences what was done, and what to know before trusting it."""
    retrain, test = record.retrain, record.test
    lines = [
        f"retrained from scratch on {retrain.rows} rows for {retrain.epochs} epochs with seed {retrain.seed}; "
        f"tested on {test.rows} rows, opened {times(record.openings)}",
        f"test loss less what validation promised: {with_interval(test.gap, signed=True)}",
    ]
    return lines + [f"warning: {printable(line)}" for line in record.warnings]


def nested_table(record: NestedRecord) -> Table:
    """Show what each outer fold selected and gave, and the means."""
    table = Table(title=Text("nested cross-validation"), box=box.SIMPLE_HEAD, pad_edge=False)
    metrics, names = list(record.metrics), short_names(key for fold in record.folds for key in fold.settings)
    table.add_column("outer fold", justify="right")
    for name in names.values():
        table.add_column(Text(name), justify="right", overflow="fold")
    for header in ("epoch", "promised", "test loss", *map(_metric, metrics)):
        table.add_column(Text(header), justify="right", no_wrap=True)
    for fold in record.folds:
        values = [fold.promised, fold.test_loss, *(fold.metrics[name] for name in metrics)]
        settings = [Text(value_label(fold.settings.get(key))) for key in names]
        table.add_row(f"{fold.outer}", *settings, f"{fold.epoch}", *map(_value, values))
    table.add_section()
    means = [record.loss, *(record.metrics[name] for name in metrics)]
    table.add_row("mean ± se", *[""] * (len(names) + 2), *(_mean(mean) for mean in means), style="bold")
    return table


def nested_lines(record: NestedRecord) -> list[str]:
    """Say in sentences what the outer folds gave together."""
    return [
        f"test loss less what validation promised: {_mean(record.gap, signed=True)}; the standard errors count that "
        "outer folds share train rows",
        f"configurations selected in {len(record.folds)} outer folds: {record.configurations}",
        *(f"warning: outer fold {fold.outer}: {printable(line)}" for fold in record.folds for line in fold.warnings),
    ]


def _metric(name: str) -> str:
    return printable(name.replace("_", " "))


def _value(value: float | None) -> str:
    return value_label(None) if value is None else f"{value:.4g}"


def _mean(mean: MeanRecord, *, signed: bool = False) -> str:
    if mean.mean is None:
        return value_label(None)
    return f"{mean.mean:{'+' if signed else ''}.4g} ± {mean.se:.2g}"


def _candidates(record: FinalRecord) -> Table:
    selection = record.selection
    rule = {"min": "the lowest validation loss", "one_se": "the simplest within one standard error"}[selection.rule]
    names = short_names(key for candidate in selection.candidates for key in candidate.settings)
    table = Table(title=Text(f"{printable(record.study)}: {rule}"), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names.values():
        table.add_column(Text(name), justify="right", overflow="fold")
    for header in ("params", "epoch", "val loss ± se", "difference", "within 1 se", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    shown = [c for i, c in enumerate(selection.candidates) if i < MOST_CANDIDATES or c.config_id == selection.config_id]
    for candidate in shown:
        style = "bold" if candidate.config_id == selection.config_id else ""
        table.add_row(*(Text(cell, style=style) for cell in _cells(candidate, list(names))))
    hidden = len(selection.candidates) - len(shown)
    more = f"{hidden} more in final.json; " if hidden else ""
    table.caption = Text(f"{more}p: corrected resampled t-test against the lowest loss, adjusted by Holm")
    return table


def _cells(candidate: CandidateRecord, keys: Sequence[str]) -> list[str]:
    se = "" if candidate.se is None else f" ± {candidate.se:.2g}"
    return [
        *(value_label(candidate.settings.get(key)) for key in keys),
        f"{candidate.parameters}",
        f"{candidate.epoch}",
        f"{candidate.val_loss:.4g}{se}",
        value_label(None) if candidate.difference is None else f"{candidate.difference:+.2g}",
        {True: "yes", False: "no", None: value_label(None)}[candidate.within_one_se],
        value_label(None) if candidate.p_holm is None else f"{candidate.p_holm:.2g}",
    ]


def _figures(record: FinalRecord) -> Table:
    validation, test = record.validation, record.test
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for header in ("validation", "corrected for selection", "test [95 % interval]"):
        table.add_column(header, justify="right", no_wrap=True)
    se = "" if validation.se is None else f" ± {validation.se:.2g}"
    table.add_row("loss", f"{validation.loss:.4g}{se}", _value(validation.corrected), with_interval(test.loss))
    for name, interval in test.metrics.items():
        table.add_row(Text(_metric(name)), _value(validation.metrics.get(name)), "", with_interval(interval))
    return table


def with_interval(interval: IntervalRecord, *, signed: bool = False) -> str:
    """Show a value with its interval in brackets."""
    sign = "+" if signed else ""
    if interval.value is None:
        return value_label(None)
    value = f"{interval.value:{sign}.4g}"
    if interval.low is None or interval.high is None:
        return value
    return f"{value} [{interval.low:{sign}.4g}, {interval.high:{sign}.4g}]"
