"""Data of the user's own, from files to the final test, as whole commands; and what is wrong with them in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab import plan
from overfit_lab.records import FinalRecord, StudyFiles
from overfit_lab.study import load_study
from tests.data.files import write_mnist
from tests.integration.conftest import Train
from tests.integration.finalizing import command

QUICK = ("training.epochs=3", "split.folds=3", "model.width=4")
ROWS = 90


def passengers(rows: int = ROWS) -> pl.DataFrame:
    """A table with numbers of which some are missing, categories, and who belongs together."""
    rng = np.random.default_rng(0)
    sex, age = rng.choice(["f", "m"], rows), rng.normal(35, 12, rows).round()
    alive = (sex == "f") ^ (rng.random(rows) < 0.2)
    return pl.DataFrame(
        {
            "sex": sex,
            "age": [None if i % 9 == 4 else float(age[i]) for i in range(rows)],
            "deck": rng.choice(["A", "B", "C"], rows),
            "family": [f"f{i // 3}" for i in range(rows)],
            "alive": np.where(alive, "yes", "no"),
        }
    )


def finalized(study: Path) -> FinalRecord:
    """Finalize a study where it was trained: its files are looked for from there."""
    result = command(study.parents[1], "finalize", str(study))
    assert result.code == 0, result.err
    record = StudyFiles(study).load_final()
    assert record is not None
    return record


def test_a_csv_from_the_sweep_to_the_final_test(tmp_path: Path) -> None:
    passengers().write_csv(tmp_path / "ship.csv")
    words = (
        "data=file",
        "data.path=ship.csv",
        "data.group=family",
        "split.group=family",
        "model.width=3,5",
        *QUICK[:2],
    )
    result = command(tmp_path, "train", "-m", *words)
    said = (
        "target alive is binary: no, yes are classes 0, 1",
        "3 input columns, categories in sex, deck, missing values in age",
    )
    assert (result.code, result.err) == (0, f"overfit-lab: ship: {'; '.join(said)}\n")
    study = tmp_path / "studies" / "ship-kfold"
    record = StudyFiles(study).load()
    assert record.said == list(said)
    # Two sexes, three decks, an age.
    assert (record.source.name, record.source.rows, record.source.features) == ("ship", ROWS, 6)
    assert len(load_study(study).runs) == 2
    page = (study / "report" / "index.html").read_text()
    assert said[1] in page
    final = finalized(study)
    assert final.test.rows + final.retrain.rows == ROWS


def test_a_folder_as_mnist_has_it_is_tested_on_its_own_test_images(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", train=60, test=20, compressed=True)
    words = (
        "data=file",
        "data.path=mnist",
        "split.test_fraction=0",
        "split=holdout",
        "training.epochs=2",
        "model.width=4",
    )
    result = command(tmp_path, "train", *words, "study.report=false")
    assert result.code == 0, result.err
    assert "multiclass: 5 classes; images of 4 x 3 pixels and 1 channel, bytes divided by 255" in result.err
    study = tmp_path / "studies" / "mnist-holdout"
    roles = StudyFiles(study).load_split().group_by("role").len().sort("role")
    assert roles.rows() == [("dev", 60), ("test", 20)]
    assert finalized(study).test.rows == 20


def test_texts_of_a_folder_as_the_hub_has_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, rows in (("train", 60), ("test", 20)):
        labels = np.arange(rows) % 2
        mood = np.where(labels == 1, "wonderful", "dreadful")
        texts = [f"a {mood[i]} film number {i} {rng.integers(1000)}" for i in range(rows)]
        (tmp_path / "films").mkdir(exist_ok=True)
        pl.DataFrame({"text": texts, "label": labels}).write_parquet(
            tmp_path / "films" / f"{split}-00000-of-00001.parquet"
        )
    words = (
        "data=hub",
        "data.path=films",
        "data.words=20",
        "split.test_fraction=0",
        "split=holdout",
        "optimizer.lr=0.1",
    )
    result = command(tmp_path, "train", *words, "training.epochs=8", "model.width=4")
    assert result.code == 0, result.err
    assert "20 rows of test are the test rows; the 20 most frequent words of text" in result.err
    record = finalized(tmp_path / "studies" / "films-holdout")
    assert record.test.metrics["accuracy"].value == 1
    assert record.test.rows == 20


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of files, each with something wrong."""
    frame = passengers(30)
    frame.write_csv(tmp_path / "good.csv")
    frame.with_columns(pl.when(pl.col("alive") == "no").then(None).otherwise(1.0).alias("alive")).write_csv(
        tmp_path / "nan.csv"
    )
    frame.with_columns(pl.lit("yes").alias("alive")).write_csv(tmp_path / "one.csv")
    frame.head(0).write_csv(tmp_path / "empty.csv")
    frame.with_columns(pl.Series("age", [*["12"] * 29, "old"])).write_csv(tmp_path / "text.csv")
    frame.write_parquet(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:300])
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode())[:90])
    np.savez(tmp_path / "objects.npz", x=np.array([{}, []], dtype=object), y=np.arange(2))
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=gone.csv"], "data.path=gone.csv: there is no such file; it is looked for in "),
        (
            ["data.path=good.csv", "data.target=died"],
            "data.target=died: good.csv has no such column; allowed are sex, a",
        ),
        (["data.path=good.csv", "data.inputs=[sex,size]"], "data.inputs=size: good.csv has no such column"),
        (["data.path=good.csv", "split.group=family"], "split.group=family: "),
        (["data.path=good.csv", "task=regression"], "data.path=good.csv: target alive: holds String such as '"),
        (
            ["data.path=good.csv", "data.target=deck", "task=binary"],
            "data.target=deck: holds 3 classes; binary needs two",
        ),
        (
            ["data.path=good.csv", "data.target=age", "data.label_noise=0.1"],
            "data.target=age: no target in 3 of 30 rows",
        ),
        (["data.path=nan.csv"], "data.path=nan.csv: target alive: no target in "),
        (
            ["data.path=one.csv"],
            "data.path=one.csv: target alive: holds one class only (yes); binary needs two or more",
        ),
        (["data.path=empty.csv"], "data.path=empty.csv: has no row; at least one is needed"),
        (["data.path=text.csv"], "data.path=text.csv: column age holds text where numbers are needed, such as 'old'"),
        (["data.path=cut.parquet"], "data.path=cut.parquet: is missing or damaged: "),
        (["data.path=cut.csv.gz"], "data.path=cut.csv.gz: is missing or damaged: Compressed file ended before the end"),
        (["data.path=objects.npz"], "data.path=objects.npz: x holds Python objects, which are never unpickled"),
        (
            ["data=hub", "data.path=no/such"],
            "data.path=no/such: there is no such folder, and it was not downloaded bef",
        ),
        (
            ["data=hub", "data.path=../x"],
            "data.path=../x: there is no such folder, and no data set of the hub is calle",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(train: Train, broken: Path, overrides: list[str], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in broken.iterdir()}
    result = train("data=file", *overrides)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: ")
    assert message in line
    assert {path: path.stat().st_mtime_ns for path in broken.iterdir()} == before


def test_a_file_that_has_changed_is_another_study(tmp_path: Path, train: Train) -> None:
    passengers().write_csv(tmp_path / "ship.csv")
    words = ("data=file", "data.path=ship.csv", *QUICK, "study.report=false")
    assert train(*words).code == 0
    passengers(60).write_csv(tmp_path / "ship.csv")
    plan._load.cache_clear()  # as in a process of its own
    result = train(*words)
    assert result.code == 2
    assert "belongs to other rows of ship, not to ship; give another study.name" in result.err
