"""Files on disk: whole or not there, versioned, never unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError
from overfit_lab.records import (
    SCHEMA_VERSION,
    Descriptive,
    DuplicatesRecord,
    Environment,
    RunFiles,
    RunRecord,
    SourceRecord,
    StudyFiles,
    StudyRecord,
    ValLoss,
    ValLosses,
)


def _record() -> RunRecord:
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id="abc",
        config_id="def",
        status="diverged",
        config={"seed": 0},
        overrides=["seed=0"],
        parameters=3,
        onset=Onset("overfit", epoch=5, ci=(3, 9), detected_at=12, best_epoch=5, p_value=0.01),
        val_loss=ValLoss(mean=float("nan"), se=float("inf"), epoch=5),
        train_loss=0.25,
        fits=[],
        seconds=1.5,
        device="cpu",
        environment=Environment(overfit_lab="0", torch="2", lightning="2", python="3", git=None, command="x"),
    )


def _val_losses() -> ValLosses:
    losses = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    rows = np.array([[4, 7]])
    return ValLosses(epochs=np.arange(3), losses=losses, rows=rows, folds=np.zeros((1, 2), dtype=np.int64))


def _study(name: str = "digits", fingerprint: str = "f", **split: object) -> StudyRecord:
    source = SourceRecord(name=name, problem="multiclass", rows=1, features=2, outputs=3, fingerprint=fingerprint)
    return StudyRecord(schema_version=SCHEMA_VERSION, name="s", source=source, split={"kind": "kfold", **split})


def test_a_run_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    columns = {"repeat": 0, "fold": 1, "epoch": [0, 1], "split": "val", "metric": "loss", "value": [0.5, float("nan")]}
    curves = pl.DataFrame(columns)
    saved = files.save(_record(), curves, _val_losses())
    assert files.load() == saved
    assert saved.model_copy(update={"files": None, "digest": None}) == _record()
    assert files.load_curves().equals(curves)
    for name, array in files.load_val_losses():
        assert np.array_equal(array, dict(_val_losses())[name]), name
    assert {p.name for p in tmp_path.iterdir()} == {"run.json", "curves.parquet", "val_losses.npz"}


VERSION_1 = """
{
  "schema_version": 1, "run_id": "abc", "config_id": "def", "status": "finished", "config": {"seed": 0},
  "overrides": [], "parameters": 3,
  "onset": {
    "verdict": "overfit", "epoch": 5, "ci": [3, 9], "detected_at": 12, "best_epoch": 5, "p_value": 0.01,
    "second_descent": false
  },
  "val_loss": {"mean": 0.5, "se": 0.1, "epoch": 5}, "train_loss": 0.25,
  "fits": [
    {
      "repeat": 0, "fold": 0, "seed": 0, "status": "finished", "diverged_at": null,
      "onset": {
        "verdict": "not_reached", "epoch": null, "ci": null, "detected_at": null, "best_epoch": 7, "p_value": 0.5,
        "second_descent": false
      },
      "best_epoch": 7, "val_loss": 0.4
    }
  ],
  "seconds": 1.5, "device": "cpu",
  "environment": {
    "overfit_lab": "0.1", "torch": "2.7", "lightning": "2.5", "python": "3.11", "git": null, "command": "overfit-lab"
  }
}
"""


def test_a_run_of_version_1_is_read(tmp_path: Path) -> None:
    """It says nothing of what its networks are like."""
    files = RunFiles(tmp_path)
    files.record.write_text(VERSION_1)
    record = files.load()
    assert record.schema_version == 1
    assert record.descriptive is None
    assert record.onset == Onset("overfit", epoch=5, ci=(3, 9), detected_at=12, best_epoch=5, p_value=0.01)
    assert record.fits[0].val_loss == 0.4


def test_what_is_not_finite_of_a_description_is_none(tmp_path: Path) -> None:
    numbers = {"weight_norm": float("inf"), "distance_from_init": 2.0, "effective_dof": float("nan")}
    described = Descriptive(**numbers, effective_dof_rows=None, normalised_margin=-0.5)
    files = RunFiles(tmp_path)
    files.save(_record().model_copy(update={"descriptive": described}), pl.DataFrame(), _val_losses())
    found = files.load().descriptive
    assert found is not None
    assert list(dict(found).values()) == [None, 2.0, None, None, -0.5]


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.save(_record(), pl.DataFrame(), _val_losses())
    values = json.loads(files.record.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert values["val_loss"] == {"mean": None, "se": None, "epoch": 5}
    assert values["onset"]["ci"] == [3, 9]


def test_a_finished_run_forgets_its_earlier_failure(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "runs" / "abc")
    failure = files.save_failure("abc", {"seed": 0}, ValueError("two\nlines"))
    assert failure.error == "ValueError: two lines"
    assert files.load_failure() == failure
    files.save(_record(), pl.DataFrame(), _val_losses())
    assert not files.failure.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ('{"run_id": "a"}', "is damaged: 'schema_version'"),
        ('{"schema_version": 99}', f"has schema version 99; this overfit_lab reads up to {SCHEMA_VERSION}: upgrade it"),
        ('{"schema_version": 1, "run_id": "a"}', "is damaged: config_id: Field required"),
        ('{"schema_version": "x"}', "is damaged"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_named(tmp_path: Path, content: str, message: str) -> None:
    files = RunFiles(tmp_path)
    files.record.write_text(content)
    with pytest.raises(UserError) as caught:
        files.load()
    assert f"{files.record} {message}" in str(caught.value)


def test_val_losses_are_never_unpickled(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    np.savez(files.val_losses, epochs=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"val_losses\.npz is missing or damaged: .*allow_pickle"):
        files.load_val_losses()
    with files.val_losses.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="is missing or damaged"):
        files.load_val_losses()


def test_a_study_takes_no_other_source_or_split(tmp_path: Path) -> None:
    files = StudyFiles(tmp_path / "study")
    files.create(_study(folds=5), pl.DataFrame({"row": [0]}))
    files.check(_study(folds=5))
    files.create(_study(folds=5), pl.DataFrame({"row": [99]}))
    assert pl.read_parquet(files.split)["row"].to_list() == [0]
    for other, message in [
        (_study("wine", folds=5), "belongs to digits, not to wine; give another study.name"),
        (_study(fingerprint="g", folds=5), "belongs to other rows of digits"),
        (_study(folds=4), "split.folds=4: "),
    ]:
        with pytest.raises(UserError) as caught:
            files.check(other)
        assert message in str(caught.value)


def test_a_study_takes_the_same_rows_prepared_in_another_way() -> None:
    source = SourceRecord(
        name="words", problem="binary", rows=9, features=100, outputs=1, fingerprint="a", bayes_risk=0.1
    )
    assert source.has_rows_of(source.model_copy(update={"features": 5}))
    for changed in ({"fingerprint": "b"}, {"name": "other"}, {"rows": 8}, {"bayes_risk": None}):
        assert not source.has_rows_of(source.model_copy(update=changed))


def test_a_directory_without_study_json_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a study"):
        StudyFiles(tmp_path).load()


def test_sentences_say_what_a_reader_should_know() -> None:
    assert DuplicatesRecord(rows=40, across_test=0, across_folds=0, conflicting=0).sentences() == []
    assert DuplicatesRecord(rows=40, across_test=12, across_folds=3, conflicting=2).sentences() == [
        "12 development rows stand among the test rows, too",
        "3 development rows are validated while rows with equal inputs are trained on",
        "2 development rows have the inputs of another one but not its target",
    ]
    assert DuplicatesRecord(rows=2, across_test=1, across_folds=1, conflicting=0).sentences() == [
        "1 development row stands among the test rows, too",
        "1 development row is validated while a row with equal inputs is trained on",
    ]
