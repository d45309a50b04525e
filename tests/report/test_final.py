"""What the terminal shows of a final test is what final.json says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from overfit_lab.records import (
    SCHEMA_VERSION,
    CandidateRecord,
    FinalRecord,
    IntervalRecord,
    MeanRecord,
    NestedRecord,
    OuterFoldRecord,
    RetrainRecord,
    SelectionRecord,
    TestRecord,
    ValidationRecord,
)
from overfit_lab.report.final import MOST_CANDIDATES, final_lines, final_tables, nested_lines, nested_table
from tests.report.made_up import ENVIRONMENT


def _candidate(number: int, **changes: object) -> CandidateRecord:
    values: dict[str, Any] = {
        "config_id": f"c{number}",
        "settings": {"model.width": 4 + number, "penalty.alpha": 0.125},
        "parameters": 1000 + number,
        "alpha": 0.125,
        "seeds": 1,
        "epoch": 20 + number,
        "val_loss": 0.31416 + number,
        "se": 0.0271,
        "difference": 0.0456 if number else None,
        "within_one_se": number < 2 if number else None,
        "p_value": 0.01 if number else None,
        "p_holm": 0.0375 if number else None,
    }
    return CandidateRecord.model_validate(values | changes)


def _interval(value: float | None, low: float | None = None, high: float | None = None) -> IntervalRecord:
    return IntervalRecord(value=value, low=low, high=high, method="bca")


def _final(candidates: Sequence[CandidateRecord], **changes: object) -> FinalRecord:
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "study": "coins",
        "time": "",
        "selection": SelectionRecord(
            rule="one_se",
            config_id=candidates[-1].config_id,
            config={},
            epoch=21,
            horizon=50,
            candidates=list(candidates),
            left_out=[],
        ),
        "validation": ValidationRecord(
            loss=0.31416,
            se=0.0271,
            metrics={"accuracy": 0.875, "auroc": None},
            selection_bias=0.01,
            selection_bias_by_folds=None,
            corrected=0.32416,
        ),
        "retrain": RetrainRecord(rows=80, epochs=21, seed=5, train_loss=0.2, seconds=1.0, device="cpu"),
        "test": TestRecord(
            rows=20,
            loss=_interval(0.35, 0.28, 0.44),
            metrics={"accuracy": _interval(0.8, 0.58, 0.92), "auroc": _interval(None)},
            gap=_interval(0.0258, -0.05, 0.1),
        ),
        "openings": 2,
        "ledger": "",
        "warnings": ["mind the gap"],
        "environment": ENVIRONMENT,
    }
    return FinalRecord.model_validate(values | changes)


def _shown(*tables: Table) -> list[str]:
    console = Console(width=300, color_system=None, force_terminal=False)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


def test_the_tables_show_what_final_json_says() -> None:
    lines = _shown(*final_tables(_final([_candidate(0), _candidate(1)])))
    assert "coins: the simplest within one standard error" in lines
    assert "width alpha params epoch val loss ± se difference within 1 se p" in lines
    dash = "\N{EN DASH}"
    assert f"4 0.125 1000 20 0.3142 ± 0.027 {dash} {dash} {dash}" in lines
    assert "5 0.125 1001 21 1.314 ± 0.027 +0.046 yes 0.037" in lines
    assert "loss 0.3142 ± 0.027 0.3242 0.35 [0.28, 0.44]" in lines
    assert "accuracy 0.875 0.8 [0.58, 0.92]" in lines
    assert f"auroc {dash} {dash}" in lines


def test_the_sentences_say_what_was_done() -> None:
    assert final_lines(_final([_candidate(0)])) == [
        "retrained from scratch on 80 rows for 21 epochs with seed 5; tested on 20 rows, opened 2 times",
        "test loss less what validation promised: +0.0258 [-0.05, +0.1]",
        "warning: mind the gap",
    ]
    assert "opened once" in final_lines(_final([_candidate(0)], openings=1))[0]


def test_of_many_configurations_the_first_and_the_chosen_are_shown() -> None:
    lines = _shown(*final_tables(_final([_candidate(i) for i in range(MOST_CANDIDATES + 5)])))
    widths = [int(line.split()[0]) for line in lines if " 0.125 " in line]
    assert widths == [*range(4, 4 + MOST_CANDIDATES), 4 + MOST_CANDIDATES + 4]
    assert any(line.startswith("4 more in final.json; p: ") for line in lines)


def test_names_are_text_and_no_markup() -> None:
    odd = _candidate(0, settings={"model.[bold]x[/]": "[red]x", "model.y": "a\x1b[31m"})
    record = _final([odd], study="[blink]s", warnings=["[link=x]w[/]\x07"])
    test = record.test.model_copy(update={"metrics": {"[red]m": _interval(0.5)}})
    record = record.model_copy(update={"test": test})
    text = "\n".join(_shown(*final_tables(record)))
    for shown in ("[blink]s", "[bold]x[/]", "[red]x", "a\ufffd[31m", "[red]m"):
        assert shown in text
    assert final_lines(record)[-1] == "warning: [link=x]w[/]\ufffd"


def _outer(number: int, **changes: object) -> OuterFoldRecord:
    values: dict[str, Any] = {
        "outer": number,
        "study": f"outer-{number}",
        "config_id": "c",
        "settings": {"model.width": 8},
        "epoch": 30 + number,
        "promised": 0.25,
        "test_loss": 0.5 + number,
        "metrics": {"accuracy": 0.75},
        "warnings": [],
    }
    return OuterFoldRecord.model_validate(values | changes)


def _nested(folds: list[OuterFoldRecord]) -> NestedRecord:
    return NestedRecord(
        schema_version=SCHEMA_VERSION,
        time="",
        rule="min",
        folds=folds,
        loss=MeanRecord(mean=1.0, sd=0.7071, se=0.612),
        gap=MeanRecord(mean=0.75, sd=0.7, se=0.6),
        metrics={"accuracy": MeanRecord(mean=None, sd=None, se=None)},
        configurations=1,
        environment=ENVIRONMENT,
    )


def test_the_outer_folds_and_their_means() -> None:
    record = _nested([_outer(0), _outer(1, test_loss=None, metrics={"accuracy": None}, warnings=["too short"])])
    lines = _shown(nested_table(record))
    dash = "\N{EN DASH}"
    assert "outer fold width epoch promised test loss accuracy" in lines
    assert "0 8 30 0.25 0.5 0.75" in lines
    assert f"1 8 31 0.25 {dash} {dash}" in lines
    assert f"mean ± se 1 ± 0.61 {dash}" in lines
    assert nested_lines(record) == [
        "test loss less what validation promised: +0.75 ± 0.6; the standard errors count that outer folds share train "
        "rows",
        "configurations selected in 2 outer folds: 1",
        "warning: outer fold 1: too short",
    ]


def test_names_of_nested_are_text_and_no_markup() -> None:
    odd = {"settings": {"model.[bold]k": "[red]x"}, "metrics": {"[red]m": 0.5}}
    record = _nested([_outer(0, **odd), _outer(1, **odd)]).model_copy(
        update={"metrics": {"[red]m": MeanRecord(mean=0.5, sd=0.1, se=0.1)}}
    )
    text = "\n".join(_shown(nested_table(record)))
    for shown in ("[bold]k", "[red]x", "[red]m"):
        assert shown in text
