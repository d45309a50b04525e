"""`overfit-lab nested`: each outer fold is finalized once, and the means are those of what they gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.data import load_source
from overfit_lab.records import FinalRecord, NestedRecord, StudyFiles
from overfit_lab.records.schema import read_record
from overfit_lab.study.ledger import read_ledger
from tests.integration.finalizing import command, everything, finalized

FOLDS = 3
ROOT = "a 'b' [c]"
WORDS = (
    *("data=iris", "model.width=3,5", f"split.outer_folds={FOLDS}", "split.folds=2", "model.depth=1"),
    *("training.epochs=3", "optimizer.lr=0.03", r"study.root='a \'b\' [c]'", r"study.name='it\'s \"mine\"'"),
)


def _folder(place: Path) -> Path:
    (folder,) = (place / ROOT).iterdir()
    return folder


def _finals(place: Path) -> list[FinalRecord]:
    finals = [StudyFiles(_folder(place) / f"outer-{fold}").load_final() for fold in range(FOLDS)]
    found = [final for final in finals if final is not None]
    assert len(found) == FOLDS
    return found


def _nested(place: Path) -> NestedRecord:
    return read_record(_folder(place) / "nested.json", NestedRecord)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nested cross-validation, which no test writes to."""
    place = tmp_path_factory.mktemp("nested")
    result = command(place, "nested", *WORDS)
    assert (result.code, result.err) == (0, "")
    assert "nested cross-validation" in result.out
    assert "the standard errors count that outer folds share train rows" in result.out
    return place


@pytest.fixture
def place(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_the_outer_folds_are_disjoint_and_hold_all_rows(done: Path) -> None:
    test_rows, source = [], load_source("iris")
    for fold in range(FOLDS):
        split = StudyFiles(_folder(done) / f"outer-{fold}").load_split()
        test = split.filter(pl.col("role") == "test")["row"].to_list()
        development = split.filter(pl.col("role") == "dev")["row"].to_list()
        assert sorted(test + development) == list(range(source.rows))
        # Each class has its share.
        assert np.bincount(source.y[test]).min() >= len(test) // 3 - 1
        test_rows += test
    assert sorted(test_rows) == list(range(source.rows))


def test_each_outer_study_is_finalized_exactly_once(done: Path) -> None:
    for fold, final in enumerate(_finals(done)):
        files = StudyFiles(_folder(done) / f"outer-{fold}")
        assert read_ledger(files).openings == final.openings == 1
        assert final.test.rows == 50
        assert final.retrain.rows == 100
        assert len(final.selection.candidates) == 2


def test_the_means_are_those_of_the_outer_folds(done: Path) -> None:
    record, finals = _nested(done), _finals(done)
    assert [fold.outer for fold in record.folds] == [0, 1, 2]
    assert [fold.test_loss for fold in record.folds] == [final.test.loss.value for final in finals]
    assert [fold.config_id for fold in record.folds] == [final.selection.config_id for final in finals]
    assert [fold.epoch for fold in record.folds] == [final.retrain.epochs for final in finals]
    assert [fold.promised for fold in record.folds] == [final.validation.corrected for final in finals]
    for found, values in (
        (record.loss, [final.test.loss.value for final in finals]),
        (record.gap, [final.test.gap.value for final in finals]),
        (record.metrics["accuracy"], [final.test.metrics["accuracy"].value for final in finals]),
    ):
        known = [value for value in values if value is not None]
        variance = sum((value - sum(known) / 3) ** 2 for value in known) / 2
        assert found.mean == pytest.approx(sum(known) / 3)
        assert found.sd == pytest.approx(variance**0.5)
        # Two thirds are trained on and one is tested on.
        assert found.se == pytest.approx(((1 / 3 + 1 / 2) * variance) ** 0.5)
    widths = [final.selection.config["model"]["width"] for final in finals]
    assert [fold.settings for fold in record.folds] == [{"model.width": width} for width in widths]
    assert record.configurations == len(set(widths))


def test_the_same_command_again_opens_nothing_and_gives_the_same(place: Path) -> None:
    before, first = everything(place), _nested(place)
    result = command(place, "nested", *WORDS)
    assert (result.code, result.err) == (0, "")
    second = _nested(place)
    same = ("folds", "loss", "gap", "metrics", "configurations", "rule")
    assert first.model_dump(include=set(same)) == second.model_dump(include=set(same))
    after = everything(place)
    kept = [name for name in before if name.endswith(("test_ledger.jsonl", "final.json", "study.json", "run.json"))]
    assert len(kept) == FOLDS * 5
    assert all(after[name] == before[name] for name in kept)


@pytest.mark.parametrize(
    "words",
    [
        [*WORDS, "selection=one_se"],
        [*WORDS, "model.width=3,5,7"],
        [*WORDS, "seed=0,1"],
    ],
)
def test_another_selection_after_it_was_finalized_opens_nothing(place: Path, words: list[str]) -> None:
    # Of one outer fold the result is missing: it must not be opened before the others are asked.
    first = _folder(place) / "outer-0"
    for name in ("final.json", "test_ledger.jsonl"):
        (first / name).unlink()
    record = StudyFiles(first).load().model_copy(update={"test_use": None})
    (first / "study.json").write_text(record.model_dump_json())
    ledgers = [path.read_bytes() for path in sorted(_folder(place).glob("*/test_ledger.jsonl"))]
    nested = (_folder(place) / "nested.json").read_bytes()
    result = command(place, "nested", *words)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "outer-1: it was finalized before, with selection=min among 2 configurations on 1 seed(s)" in line
    assert [path.read_bytes() for path in sorted(_folder(place).glob("*/test_ledger.jsonl"))] == ledgers
    assert not (first / "final.json").exists()
    assert (_folder(place) / "nested.json").read_bytes() == nested


def test_an_outer_fold_that_was_opened_without_a_result_waits_for_a_reason(place: Path) -> None:
    """As a kill after the opening leaves it."""
    expected = _nested(place)
    outer = _folder(place) / "outer-1"
    (outer / "final.json").unlink()
    result = command(place, "nested", *WORDS)
    assert result.code == 2
    assert "outer-1: the test rows were opened once" in result.err
    assert finalized(outer, "--again", "--reason", "it was killed").openings == 2
    assert command(place, "nested", *WORDS).code == 0
    assert _nested(place).loss == expected.loss


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "data=iris"], "-m: nested takes no flags of Hydra"),
        (["data=iris,wine"], "data=iris,wine: a nested cross-validation has one source"),
        (["split.outer=1"], "split.outer=1: nested sets it itself"),
        (["split.test_fraction=0.1"], "the test rows of nested are the outer folds; leave it out"),
        (["selection=best"], "selection=best: allowed are selection=min and selection=one_se"),
        (["split.outer_folds=1"], "split.outer_folds=1: must be greater than or equal to 2"),
        (["model.width=0"], "model.width=0: must be greater than or equal to 1"),
        (["model.widht=3"], "there is no key model.widht"),
        (["=3"], "=3 cannot be read as KEY=VALUE"),
        (["data=iris", "split.outer_folds=51"], "split.outer_folds=51: class 0 has 50 row(s), stratifying needs 51"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    result = command(tmp_path, "nested", *words)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_regression_and_a_hold_out(tmp_path: Path) -> None:
    words = ("data=linnerud", "split=holdout", "split.outer_folds=2", "model.width=3", "training.epochs=2")
    result = command(tmp_path, "nested", *words)
    assert (result.code, result.err) == (0, "")
    record = read_record(tmp_path / "studies" / "linnerud-holdout-nested" / "nested.json", NestedRecord)
    assert record.metrics.keys() == {"mean_squared_error", "mean_absolute_error", "r2"}
    assert record.loss.mean is not None
