"""The tables of the page: configurations compared, over seeds, and the final test."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overfit_lab.errors import UserError, printable
from overfit_lab.records import CandidateRecord, FinalRecord
from overfit_lab.report.configurations import swept_keys
from overfit_lab.report.final import times, with_interval
from overfit_lab.report.labels import loss_decimals, loss_value, short_names, value_label
from overfit_lab.report.page.comparison import Comparison
from overfit_lab.report.page.numbers import count
from overfit_lab.study import Study
from overfit_lab.study.ledger import LedgerState
from overfit_lab.study.seeds import ENOUGH_SEEDS, across_seeds

MOST_SEED_ROWS = 50
NONE = value_label(None)


@dataclass(frozen=True)
class PageTable:
    """A table.

    Args:
        caption: What it shows.
        columns: Their headers.
        headers: How many of the first columns name the row.
        rows: Their cells.
        marks: For each row a word that sets it apart, or nothing.
    """

    caption: str
    columns: list[str]
    headers: int
    rows: list[list[str]]
    marks: list[str]


@dataclass(frozen=True)
class Section:
    """A part of the page: sentences, and a table where there is one."""

    sentences: list[str]
    table: PageTable | None = None


def comparison_section(study: Study, comparison: Comparison | str) -> Section:
    """Show the configurations compared with the one that has the lowest validation loss."""
    if isinstance(comparison, str):
        return Section([f"The configurations cannot be compared: {comparison.rstrip('.')}."])
    candidates, simplest = comparison.candidates, comparison.simplest
    keys = [key for key in swept_keys(study) if key != "seed"]
    decimals = loss_decimals(study.runs)
    lowest = candidates[0]
    marks = []
    for one in candidates:
        words = [word for word, holds in (("lowest", one is lowest), ("simplest", one is simplest)) if holds]
        marks.append(" and ".join(words))
    columns = [*short_names(keys).values(), "params", "best epoch", "val loss ± se", "difference", "within 1 se", "p"]
    table = PageTable(
        "Configurations by validation loss. Difference: to the lowest, mean over folds. p: corrected resampled t-test "
        "against the lowest, adjusted by Holm.",
        [*columns, ""] if len(candidates) > 1 else columns,
        max(1, len(keys)),
        [
            [*_compared(one, keys, decimals), *([mark] if len(candidates) > 1 else [])]
            for one, mark in zip(candidates, marks, strict=True)
        ],
        marks,
    )
    return Section(_comparison_sentences(comparison, keys, decimals), table)


def _compared(one: CandidateRecord, keys: Sequence[str], decimals: int) -> list[str]:
    se = "" if one.se is None else f" ± {loss_value(one.se, decimals)}"
    return [
        *(value_label(one.settings.get(key)) for key in keys),
        f"{one.parameters:,}",
        f"{one.epoch}",
        f"{loss_value(one.val_loss, decimals)}{se}",
        NONE if one.difference is None else f"{one.difference:+.2g}",
        {True: "yes", False: "no", None: NONE}[one.within_one_se],
        NONE if one.p_holm is None else f"{one.p_holm:.2g}",
    ]


def _comparison_sentences(comparison: Comparison, keys: Sequence[str], decimals: int) -> list[str]:
    candidates, simplest = comparison.candidates, comparison.simplest
    lowest, lines = candidates[0], []
    if len(candidates) > 1:
        near = sum(bool(one.within_one_se) for one in candidates)
        apart = sum(one.p_holm is not None and one.p_holm < 0.05 for one in candidates)
        tested = sum(one.p_holm is not None for one in candidates)
        others = count(near, "other configuration lies", "other configurations lie") if near else "No other one lies"
        differ = f"; of {tested} others {apart or 'none'} differ from it at the 5 % level" if tested else ""
        lines.append(f"{others} within one standard error of the lowest{differ}.")
        if simplest is not lowest:
            names = short_names(keys)
            which = ", ".join(f"{names[key]} {value_label(simplest.settings.get(key))}" for key in keys)
            lines.append(f"The simplest of them: {which}, with {count(simplest.parameters, 'parameter')}.")
        elif near:
            lines.append("None of them is simpler than the lowest itself.")
    if comparison.bias is not None:
        lines.append(
            f"Selection bias: the lowest of so many losses is lower than the truth, by an estimated "
            f"{comparison.bias:.2g}. Corrected for it, the lowest loss is "
            f"{loss_value(lowest.val_loss + comparison.bias, decimals)}."
        )
    if comparison.at_horizon:
        lines.append("The lowest loss lies at the end of training: with more epochs it may be lower still.")
    if len(comparison.seeds) > 1:
        lines.append(f"Losses are means over {len(comparison.seeds)} seeds.")
    if comparison.omitted:
        lines.append(
            f"Of {len(candidates) + len(comparison.left_out) + comparison.omitted:,} configurations the "
            f"{len(candidates)} with the lowest losses are compared; selection bias and p are of those."
        )
    if comparison.left_out:
        first = comparison.left_out[0]
        lines.append(
            f"{count(len(comparison.left_out), 'configuration')} cannot be selected, the first because {first.why}."
        )
    return [printable(line) for line in lines]


def seeds_section(study: Study) -> Section | None:
    """Show configurations over their seeds; None where none has two."""
    frame = across_seeds(study)
    if frame.is_empty():
        return None
    keys = [key for key in swept_keys(study) if key != "seed"]
    decimals = loss_decimals(study.runs)
    found = frame.sort("val_loss", nulls_last=True, maintain_order=True).head(MOST_SEED_ROWS)
    rows = [_over_seeds(row, keys, decimals) for row in found.iter_rows(named=True)]
    more = f" The {MOST_SEED_ROWS} lowest of {frame.height}." if frame.height > MOST_SEED_ROWS else ""
    table = PageTable(
        f"Configurations over their seeds. Median onset: Kaplan-Meier [95 % interval], from {ENOUGH_SEEDS} seeds "
        f"on.{more}",
        [*short_names(keys).values(), "params", "seeds overfit", "median onset", "best epoch", "val loss ± sd"],
        max(1, len(keys)),
        rows,
        [""] * len(rows),
    )
    return Section([], table)


def _over_seeds(row: Mapping[str, Any], keys: Sequence[str], decimals: int) -> list[str]:
    median = NONE
    if row["seeds"] - row["seeds_diverged"] >= ENOUGH_SEEDS:
        median = "not reached" if row["onset_median"] is None else f"{row['onset_median']:g}"
        ends = (
            "?" if row[f"onset_median_{end}"] is None else f"{row[f'onset_median_{end}']:g}" for end in ("low", "high")
        )
        median += f" [{', '.join(ends)}]"
    sd = "" if row["val_loss_sd"] is None else f" ± {loss_value(row['val_loss_sd'], decimals)}"
    return [
        *(value_label(row.get(key)) for key in keys),
        f"{row['parameters']:,}",
        f"{row['seeds_overfit']} of {row['seeds']}",
        median,
        value_label(row["best_epoch"]),
        f"{loss_value(row['val_loss'], decimals)}{sd}",
    ]


def final_section(study: Study, final: FinalRecord | None, ledger: LedgerState) -> Section:
    """Show what the final test gave beside what validation promised, or that the test rows are still sealed."""
    fault = []
    if ledger.fault is not None:
        fault = [f"The test ledger {ledger.fault}: how often the test rows were opened is not certain."]
    if final is None:
        if not ledger.openings and not fault:
            return Section([_untouched(study)])
        opened = f"The test rows were opened {times(ledger.openings)}, and no result of it is kept."
        return Section([*fault, *([opened] if ledger.openings else [])])
    chosen, validation, test = final.selection, final.validation, final.test
    own = next((one for one in chosen.candidates if one.config_id == chosen.config_id), None)
    names = short_names(own.settings) if own else {}
    which = ", ".join(f"{name} {value_label(own.settings[key])}" for key, name in names.items()) if own else ""
    when = f"{printable(final.time[:16].replace('T', ' '))} UTC"
    rule = {"min": "the lowest validation loss", "one_se": "the simplest within one standard error"}[chosen.rule]
    sentences = [
        f"Selected by {rule}: {which or printable(chosen.config_id)}, at epoch {chosen.epoch}; retrained from scratch "
        f"on {final.retrain.rows:,} rows and tested on {test.rows:,} ({when}).",
        f"Test loss less what validation promised: {with_interval(test.gap, signed=True)}.",
        f"The test rows were opened {times(ledger.openings)}.",
        *fault,
        *_trained_later(study, final),
        *(f"Warning: {printable(warning)}." for warning in final.warnings),
    ]
    se = "" if validation.se is None else f" ± {validation.se:.2g}"
    rows = [["loss", f"{validation.loss:.4g}{se}", _figure(validation.corrected), with_interval(test.loss)]]
    for name, interval in test.metrics.items():
        label = printable(name.replace("_", " "))
        rows.append([label, _figure(validation.metrics.get(name)), "", with_interval(interval)])
    table = PageTable(
        "What validation promised, and what the test rows gave.",
        ["", "validation", "corrected for selection", "test [95 % interval]"],
        1,
        rows,
        [""] * len(rows),
    )
    return Section(sentences, table)


def _untouched(study: Study) -> str:
    """Say what is to be tested on, where nothing was yet."""
    if study.record.source.validates_on_test:
        return "None: the rows that were published to test on are validated on."
    # A split that is damaged is a matter of whoever trains or tests on it.
    with contextlib.suppress(UserError):
        if study.files.load_split().filter(role="test").is_empty():
            return "None: no rows were set aside to test on."
    return "Sealed: the test rows were never opened."


def _trained_later(study: Study, final: FinalRecord) -> list[str]:
    selection = final.selection
    known = {one.config_id for one in selection.candidates} | {one.config_id for one in selection.left_out}
    later = len({run.config_id for run in study.runs} - known)
    return [f"{count(later, 'configuration')} came after the final test, which says nothing of them."] if later else []


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"
