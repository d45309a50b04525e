"""What is said beside a study's figures: duplicates, the test ledger, the final test."""

from __future__ import annotations

from pathlib import Path

from overfit_lab.report.notes import study_notes
from overfit_lab.study import load_study
from tests.integration.finalizing import command, finalized, trained
from tests.report.made_up import make_study

QUICK = ("data=iris", "split.folds=3", "model.depth=1", "model.width=3", "training.epochs=3", "study.report=false")


def _notes(study: Path) -> list[str]:
    return study_notes(load_study(study), {})


def test_the_notes_of_a_study_from_sealed_to_opened_twice(tmp_path: Path) -> None:
    study = trained(tmp_path, *QUICK)
    # Of the 150 irises, 102 and 143 are the same flower; both are development rows.
    assert all("test rows" not in note for note in _notes(study))
    record = finalized(study)
    notes = _notes(study)
    assert "the test rows were opened once" in notes
    (line,) = [note for note in notes if note.startswith("final test (")]
    assert f"took configuration {record.selection.config_id} at epoch {record.selection.epoch}" in line
    assert f"test loss {record.test.loss.value:.4g} [" in line

    trained(tmp_path, *QUICK[:3], "model.width=4", *QUICK[4:])
    assert "1 configurations were trained after the final test; it says nothing of them" in _notes(study)

    finalized(study, "--again", "--reason", "to see it in the notes")
    assert "the test rows were opened 2 times" in _notes(study)
    result = command(tmp_path, "report", str(study))
    assert result.code == 0
    assert "the test rows were opened 2 times" in result.out.splitlines()


def test_a_ledger_that_was_removed_is_said(tmp_path: Path) -> None:
    study = trained(tmp_path, *QUICK)
    finalized(study)
    (study / "test_ledger.jsonl").unlink()
    assert "test_ledger.jsonl was removed: how often the test rows were opened is not certain" in _notes(study)


def test_rows_on_both_sides_of_a_cut_are_said(tmp_path: Path) -> None:
    study = trained(tmp_path, *QUICK)
    counts = load_study(study).record.duplicates
    assert counts is not None
    assert counts.rows == 2
    assert _notes(study)[: len(counts.sentences())] == counts.sentences()


def test_rows_of_one_group_are_not_independent(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    record = files.load()
    assert record.caveats() == []
    grouped = record.model_copy(update={"split": record.split | {"group": "patient"}})
    (line,) = grouped.caveats()
    assert line.startswith("rows of one patient are not independent")
    files.record.write_text(grouped.model_dump_json())
    assert _notes(files.directory)[0] == line
