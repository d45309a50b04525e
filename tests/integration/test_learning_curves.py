"""Sweeps over train sizes and label noise, as whole commands: one study, its page, its final test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.data import load_source
from overfit_lab.study import Study, load_study
from tests.integration.finalizing import QUICK, command, finalized, trained

SIZES = (15, 40, 80)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three train sizes, which no test writes to."""
    quick = [word for word in QUICK if word != "study.report=false"]
    return trained(tmp_path_factory.mktemp("sizes"), "-m", "data=iris", "data.train_size=15,40,80", *quick)


def _curves(study: Study, metric: str, split: str, **config: object) -> pl.DataFrame:
    (run,) = (run for run in study.runs if config.items() <= run.config["data"].items())
    return study.curves(run.run_id).filter((pl.col("metric") == metric) & (pl.col("split") == split))


def test_train_sizes_are_one_study_with_a_learning_curve_on_its_page(sizes: Path) -> None:
    study = load_study(sizes)
    assert sorted(run.config["data"]["train_size"] for run in study.runs) == list(SIZES)
    page = (sizes / "report" / "index.html").read_text()
    assert "How many train rows" in page


def test_the_final_training_is_on_as_many_rows_as_were_selected(sizes: Path) -> None:
    record = finalized(sizes)
    size = record.selection.config["data"]["train_size"]
    assert record.retrain.rows == size in SIZES


def test_wrong_labels_are_learned_and_tell_on_the_curves(tmp_path: Path) -> None:
    noise = ("-m", "data=digits", "data.label_noise=0,0.3", "data.train_size=200", "split=holdout")
    result = command(tmp_path, "train", *noise, "training.epochs=60", "optimizer.lr=0.005", "split.val_fraction=0.5")
    assert (result.code, result.err) == (0, "")
    assert "labels of train and validation rows were made wrong on purpose (30 %)" in result.out
    (directory,) = (path.parent for path in tmp_path.glob("studies/*/study.json"))
    study = load_study(directory)
    last = {
        (metric, split): _curves(study, metric, split, label_noise=0.3)["value"][-1]
        for metric in ("accuracy", "accuracy_clean", "loss", "loss_clean")
        for split in ("train", "val")
    }
    # It has learned the wrong labels by heart; of the right ones it has as many as are right.
    assert last["accuracy", "train"] > 0.99
    assert last["accuracy_clean", "train"] == pytest.approx(0.7, abs=0.06)
    # No network guesses a wrong label of a row that it has not seen, so this one is better than it looks.
    assert last["accuracy_clean", "val"] > last["accuracy", "val"] + 0.1
    assert last["loss_clean", "val"] < last["loss", "val"]
    assert _curves(study, "accuracy_clean", "val", label_noise=0.0).is_empty()
    refused = command(tmp_path, "finalize", str(directory))
    assert refused.code == 2
    assert "data.label_noise: the runs have 0 and 0.3, so they were validated on different labels" in refused.err


def test_test_labels_are_never_wrong(tmp_path: Path) -> None:
    """The test accuracy of a network that has learned iris in spite of the noise is that of the right labels."""
    words = ("data=iris", "data.label_noise=0.3", "split.folds=3", "training.epochs=30", "model.width=8")
    study = trained(tmp_path, *words, "study.report=false", "optimizer.lr=0.01")
    record = finalized(study)
    value = record.test.metrics["accuracy"].value
    assert value is not None
    assert value > 0.85
    assert record.validation.metrics["accuracy"] is not None
    assert record.validation.metrics["accuracy"] < 0.75
    assert any("30 % of the labels that it was validated on are wrong on purpose" in line for line in record.warnings)
    # The source, and so the fingerprint of the study, is of the right labels.
    assert load_study(study).record.source.fingerprint == load_source("iris").fingerprint
    assert np.isfinite(record.test.loss.value or np.nan)
