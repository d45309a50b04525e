"""`data=imdb` on a folder of made-up reviews: from words to the final test, as the book has it, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn

from overfit_lab import plan
from overfit_lab.config import conf_directory, parse
from overfit_lab.data.split import Fold
from overfit_lab.model import MLP, initialise
from overfit_lab.plan import prepare
from overfit_lab.records import StudyFiles
from overfit_lab.study import load_study
from tests.data.reviews import reviews, write_reviews
from tests.integration.conftest import Train
from tests.integration.finalizing import command
from tests.reference import plain_loop

QUICK = ("data=imdb", "data.path=imdb", "data.words=60", "training.epochs=3", "model.width=4", "training.batch_size=16")
TEST = "test-00000-of-00001.parquet"
TRAIN = "train-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def _read_anew() -> None:
    # Every test has another folder of this name.
    plan._load.cache_clear()


def test_the_published_test_half_is_opened_by_finalize_alone(tmp_path: Path) -> None:
    write_reviews(tmp_path / "imdb")
    words = (*QUICK, "split.folds=3", "optimizer=rmsprop", "penalty.alpha=0.01", "trainer.precision=64-true")
    result = command(tmp_path, "train", *words)
    assert result.code == 0, result.err
    study = tmp_path / "studies" / "imdb-kfold"
    frame = StudyFiles(study).load_split()
    assert frame.filter(pl.col("role") == "test")["row"].to_list() == list(range(80, 120))
    (run,) = load_study(study).runs
    result = command(tmp_path, "finalize", str(study))
    assert result.code == 0, result.err
    final = StudyFiles(study).load_final()
    assert final is not None

    # The slow way: the vocabulary of the train half, a dense matrix, and torch's own loop.
    halves = [reviews(80, 0), reviews(40, 1)]
    texts = [text for half in halves for text in half["text"]]
    vectorizer = CountVectorizer(binary=True).fit(texts[:80])
    names, counts = vectorizer.get_feature_names_out(), vectorizer.transform(texts[:80]).sum(axis=0).A1
    chosen = sorted(sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))[:60])
    x = CountVectorizer(binary=True, vocabulary=names[chosen]).transform(texts).toarray().astype(float)
    y = np.concatenate([half["label"].to_numpy() for half in halves]).astype(float)[:, None]
    trained = prepare(parse(run.config))
    alone = plain_loop.fit(
        initialise(trained.config.model, *trained.source.sizes, seed=0, repeat=0, fold=-1),
        x,
        y,
        Fold(0, -1, np.arange(80), np.arange(80, 120)),
        plain_loop.binary,
        _rmsprop,
        seed=0,
        epochs=final.selection.epoch,
        steps=5,
        widest=16,
        scale=False,
    )
    assert final.test.rows == 40
    assert final.test.loss.value == pytest.approx(alone.val_loss[-1], rel=1e-9)
    assert final.retrain.train_loss == pytest.approx(alone.train_loss[-1], rel=1e-9)


@pytest.mark.parametrize("name", ["imdb_network_size", "imdb_regularisation"])
def test_the_experiments_validate_as_the_book_does(name: str, train: Train, tmp_path: Path) -> None:
    write_reviews(tmp_path / "imdb")
    result = train("-m", f"experiment={name}", "data.path=imdb", "data.words=60", "training.epochs=1")
    assert result.code == 0, result.err
    study = load_study(tmp_path / "studies" / name)
    assert len(study.runs) == {"imdb_network_size": 3, "imdb_regularisation": 4}[name]
    for run in study.runs:
        assert run.config["data"]["validate_on_test"] is True
        optimizer = run.config["optimizer"]
        assert (optimizer["kind"], optimizer["lr"], optimizer["smoothing"], optimizer["eps"]) == (
            "rmsprop",
            0.001,
            0.9,
            1e-7,
        )
        assert (run.config["training"]["batch_size"], run.config["model"]["depth"]) == (512, 2)
    frame = study.files.load_split()
    assert frame.filter(pl.col("fold") == 0)["row"].to_list() == list(range(80, 120))
    assert frame.filter(pl.col("role") == "test").is_empty()
    # It is said wherever the results are.
    assert study.record.source.validates_on_test
    said = "the rows that imdb was published with to test on are validated on"
    assert said in result.out + result.err
    assert said in (study.files.directory / "report" / "index.html").read_text(encoding="utf-8").lower()
    refused = command(tmp_path, "finalize", str(study.files.directory))
    assert refused.code == 2
    assert refused.err == (
        f"overfit-lab: {study.files.directory}: its validation rows are the official test rows, so there are none left "
        "to test on\n"
    )
    assert not (study.files.directory / "test_ledger.jsonl").exists()


def test_the_decay_of_the_experiment_is_on_the_hidden_layers() -> None:
    text = (conf_directory() / "experiment" / "imdb_regularisation.yaml").read_text(encoding="utf-8")
    assert "exclude: [6.weight]" in text
    names = dict(MLP(10, 1, width=4, depth=2, activation="relu", dropout=0.5).named_parameters())
    assert [name for name in names if "weight" in name] == ["0.weight", "3.weight", "6.weight"]


def _rmsprop(weights: list[nn.Parameter], others: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": 0.01}, {"params": others}]
    return torch.optim.RMSprop(groups, lr=0.001, alpha=0.99)


def _drop(folder: Path, column: str, *names: str) -> None:
    for name in names or (TRAIN, TEST):
        pl.read_parquet(folder / name).drop(column).write_parquet(folder / name)


def _set(folder: Path, column: str, value: object) -> None:
    for name in (TRAIN, TEST):
        pl.read_parquet(folder / name).with_columns(pl.lit(value).alias(column)).write_parquet(folder / name)


def _wordless(folder: Path) -> None:
    for name in (TRAIN, TEST):
        frame = pl.read_parquet(folder / name)
        frame.with_columns(text=pl.Series(["! " * i for i in range(len(frame))])).write_parquet(folder / name)


def _text_for_labels(folder: Path) -> None:
    for name in (TRAIN, TEST):
        frame = pl.read_parquet(folder / name)
        frame.with_columns(pl.col("text").alias("label")).write_parquet(folder / name)


def _empty(folder: Path) -> None:
    for name in (TRAIN, TEST):
        pl.read_parquet(folder / name).clear().write_parquet(folder / name)


def _truncate(folder: Path) -> None:
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[: len(content) // 2])


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "words", "said"),
    [
        (lambda folder: None, ("data.path=nowhere/imdb",), "data.path=nowhere/imdb: there is no such folder"),
        (_remove, (), "holds no parquet files"),
        (lambda folder: _drop(folder, "text", TRAIN), (), "data.inputs=text: imdb has no such column"),
        (
            lambda folder: _drop(folder, "text", TEST),
            (),
            "data.path=imdb: split test has no column text, which train has",
        ),
        (
            lambda folder: _drop(folder, "text"),
            (),
            "data.inputs=text: imdb has no such column; allowed are label",
        ),
        (
            lambda folder: _drop(folder, "label"),
            (),
            "data.target=label: imdb has no",
        ),
        (_truncate, (), f"{TRAIN} is missing or damaged"),
        (_text_for_labels, (), "data.target=label: holds 120 different texts in 120 rows"),
        (_empty, (), "data.path=imdb: has no row; at least one is needed"),
        (lambda folder: _set(folder, "label", 1), (), "one class only"),
        (_wordless, (), "data.path=imdb: column text holds no word"),
        (lambda folder: None, ("split.test_fraction=0.2",), "imdb brings 40 test rows of its own; allowed is 0"),
        (lambda folder: None, ("data.scale_inputs=true",), "data.scale_inputs=true: the inputs of imdb are sparse"),
        (lambda folder: None, ("data.words=0",), "data.words=0: must be greater than or equal to 1"),
        (
            lambda folder: (folder / TEST).unlink(),
            ("data.validate_on_test=true", "split=holdout", "split.val_fraction=null"),
            "data.validate_on_test=true: imdb has no test rows with targets; allowed is false",
        ),
    ],
)
def test_mistakes_are_one_line(
    damage: Callable[[Path], object], words: tuple[str, ...], said: str, train: Train, tmp_path: Path
) -> None:
    damage(write_reviews(tmp_path / "imdb"))
    result = train(*QUICK, *words)
    assert result.code == 2
    (line,) = result.err.strip().splitlines()
    assert line.startswith("overfit-lab: ")
    assert said in line
    assert "Traceback" not in result.err
    assert not (tmp_path / "studies").exists()
