"""What the page of a study says: records and curves in, one structure out that JSON can hold; no HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overfit_lab.errors import printable
from overfit_lab.records import FinalRecord
from overfit_lab.report.labels import loss_decimals, loss_label, loss_value, study_title
from overfit_lab.report.loss_curves import LossCurves
from overfit_lab.report.notes import noise_sentences
from overfit_lab.report.page.answer import answer
from overfit_lab.report.page.comparison import Comparison
from overfit_lab.report.page.curves import PageCurves, page_curves
from overfit_lab.report.page.lines import LineChart, capacity_chart, learning_chart
from overfit_lab.report.page.map import StudyMap, study_map
from overfit_lab.report.page.numbers import capitalised, count
from overfit_lab.report.page.provenance import Fact, provenance
from overfit_lab.report.page.runs import RunRow, columns, run_rows
from overfit_lab.report.page.tables import PageTable, Section, comparison_section, final_section, seeds_section
from overfit_lab.report.shuffles import Shuffles, shuffle_sentences
from overfit_lab.study import Study
from overfit_lab.study.ledger import LedgerState

MOST_SPREADS = 24


@dataclass(frozen=True)
class Page:
    """A page, from top to bottom.

    Args:
        name: Of the study.
        subtitle: Its source and split.
        facts: Its size in a few words each.
        answer: Where overfitting begins and which loss is the lowest, in sentences.
        loss: Name and unit of the loss.
        map: The sweep over two keys, or None where nothing was swept.
        start: The run whose curves are shown first, or None.
        capacity: Loss against size, or None.
        learning: Loss against train rows, or None.
        comparison: The configurations compared.
        final: The final test.
        spread: How far losses move with the shuffle, or None.
        seeds: Configurations over their seeds, or None.
        notes: What else a reader should know.
        provenance: What was run.
        columns: Of the table of runs.
        runs: All of them, finished or not.
        curves: Of the finished ones, by run id.
    """

    name: str
    subtitle: str
    facts: list[str]
    answer: list[str]
    loss: str
    map: StudyMap | None
    start: str | None
    capacity: LineChart | None
    learning: LineChart | None
    comparison: Section
    final: Section
    spread: Section | None
    seeds: Section | None
    notes: list[str]
    provenance: list[Fact]
    columns: list[str]
    runs: list[RunRow]
    curves: dict[str, PageCurves]


def page_content(
    study: Study,
    curves: Mapping[str, LossCurves],
    moves: Mapping[str, Shuffles],
    *,
    comparison: Comparison | str,
    final: FinalRecord | None,
    ledger: LedgerState,
) -> Page:
    """Put a page together.

    Args:
        study: Finished or not.
        curves: The losses of its finished runs, by run id.
        moves: What each reshuffle made of them, by run id.
        comparison: Its configurations compared, or why they cannot be.
        final: The final test, where it was taken.
        ledger: How often the test rows were opened.
    """
    loss = loss_label(study)
    lowest = comparison.candidates[0] if isinstance(comparison, Comparison) else None
    runs = run_rows(study)
    caveats = [*map(printable, study.record.caveats()), *noise_sentences(study)]
    return Page(
        name=printable(study.record.name),
        subtitle=study_title(study).removeprefix(f"{printable(study.record.name)}: "),
        facts=_facts(study),
        answer=answer(study, lowest),
        loss=loss,
        map=study_map(study, loss),
        start=_start(study, lowest.config_id if lowest else None),
        capacity=capacity_chart(study) if study.runs else None,
        learning=learning_chart(study),
        comparison=comparison_section(study, comparison),
        final=final_section(study, final, ledger),
        spread=_spread(study, moves, {run.id: run.name for run in runs}),
        seeds=seeds_section(study),
        notes=[f"{capitalised(note)}." for note in [*caveats, *shuffle_sentences(study, moves)]],
        provenance=provenance(study),
        columns=columns(study),
        runs=runs,
        curves={run.run_id: page_curves(run, curves[run.run_id]) for run in study.runs},
    )


def _facts(study: Study) -> list[str]:
    diverged = sum(run.status == "diverged" for run in study.runs)
    facts = [
        f"{count(len(study.runs), 'run')} finished" + (f", {diverged} of them diverged" if diverged else ""),
        f"{len(study.failed):,} failed" if study.failed else "",
        f"{len(study.unfinished):,} unfinished" if study.unfinished else "",
        count(sum(len(run.fits) for run in study.runs), "fit"),
        f"{study.record.source.rows:,} rows",
    ]
    horizons = sorted({int(run.config["training"]["epochs"]) for run in study.runs})
    if horizons:
        facts.append(f"{horizons[0]} epochs" if len(horizons) == 1 else f"{horizons[0]} to {horizons[-1]} epochs")
    return [fact for fact in facts if fact]


def _start(study: Study, lowest: str | None) -> str | None:
    """Choose whose curves come first: of the earliest onset, as that is what a study is about, or the lowest loss."""
    overfit = [run for run in study.runs if run.onset.epoch is not None]
    if overfit:
        return min(overfit, key=lambda run: run.onset.epoch or 0).run_id
    own = [run for run in study.runs if run.config_id == lowest] or list(study.runs)
    return own[0].run_id if own else None


def _spread(study: Study, moves: Mapping[str, Shuffles], names: Mapping[str, str]) -> Section | None:
    """Show how far each run's loss moves with the shuffle, the lowest first."""
    if not moves:
        return None
    decimals = loss_decimals(study.runs)
    shown = sorted(moves, key=lambda run_id: float(moves[run_id].losses.mean()))[:MOST_SPREADS]
    rows = []
    for run_id in shown:
        losses = moves[run_id].losses
        ends = (float(losses.mean()), moves[run_id].sd, float(losses.min()), float(losses.max()))
        mean, sd, low, high = (loss_value(value, decimals) for value in ends)
        rows.append([names[run_id], f"{mean} ± {sd}", low, high])
    more = f" The lowest {len(shown)} of {len(moves):,} runs." if len(shown) < len(moves) else ""
    shuffled = len(next(iter(moves.values())).losses)
    table = PageTable(
        f"Validation loss over {shuffled} shuffles of the rows, mean ± standard deviation between them.{more}",
        ["run", "val loss ± sd", "lowest", "highest"],
        1,
        rows,
        [""] * len(rows),
    )
    return Section([], table)
