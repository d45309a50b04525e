"""What `overfit-lab finalize` refuses, in one line and without a trace; and that nothing reaches the test rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from overfit_lab import plan
from overfit_lab.records import StudyFiles
from tests.integration.finalizing import (
    QUICK,
    command,
    edit,
    everything,
    finalized,
    half,
    keep,
    records_of,
    spoil,
    trained,
)


def _of_another_split(study: Path) -> None:
    other = trained(study.parent, "data=iris", "model.width=7", "split.seed=1", *QUICK, "study.name=other")
    (run,) = (other / "runs").iterdir()
    shutil.copytree(run, study / "runs" / run.name)
    shutil.rmtree(study.parent / "studies")


def _without_common_seeds(study: Path) -> None:
    keep(study, lambda config: (config["model"]["width"], config["seed"]) in ((3, 0), (5, 1)))


def _without_a_fold(study: Path) -> None:
    keep(study, lambda config: (config["model"]["width"], config["seed"]) == (3, 0))
    ((path, _),) = records_of(study)
    edit(path / "run.json", lambda values: values["fits"].pop())


def _all_diverged(study: Path) -> None:
    for path, _ in records_of(study):
        edit(path / "run.json", lambda values: values.update(status="diverged"))


def _edited_seed(study: Path) -> None:
    edit(records_of(study)[0][0] / "run.json", lambda values: values["config"].update(seed=9))


def _moved_row(study: Path, role: str) -> None:
    """Give the first row of a role to the other one, or to another fold."""
    frame = pl.read_parquet(study / "split.parquet")
    first = frame.filter(pl.col("role") == role)["row"][0]
    other = pl.when(pl.col("row") == first)
    if role == "test":
        frame = frame.with_columns(other.then(pl.lit("dev")).otherwise(pl.col("role")).alias("role"))
    else:
        frame = frame.with_columns(other.then((pl.col("fold") + 1) % 3).otherwise(pl.col("fold")).alias("fold"))
    frame.write_parquet(study / "split.parquet")


def _damaged_final(study: Path) -> None:
    finalized(study)
    spoil("final.json", half, study)


REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no study": (lambda study: shutil.rmtree(study), [], "is not a study: it holds no study.json"),
    "no runs": (lambda study: shutil.rmtree(study / "runs"), [], "no run is finished; train one first"),
    "a fold is missing": (_without_a_fold, [], "has 2 of 3 folds; missing: repeat 0 fold 2"),
    "another split": (_of_another_split, [], "split.seed=1, but the study is split with seed=0"),
    "edited": (_edited_seed, [], "its configuration is not the one that run"),
    "no common seed": (_without_common_seeds, [], "no seed in common"),
    "all diverged": (_all_diverged, [], "no configuration can be selected; "),
    "unfinished": (lambda study: (study / "runs/u").mkdir(), [], "1 runs are not finished (u); finish them"),
    "unknown rule": (lambda study: None, ["selection=best"], "selection=best: allowed are selection=min and sel"),
    "again without a reason": (lambda study: None, ["--again"], "--again and --reason go together"),
    "a reason alone": (lambda study: None, ["--reason", "x"], "--again and --reason go together"),
    "an empty reason": (lambda study: None, ["--again", "--reason", "  "], "--again and --reason go together"),
    "again too early": (lambda study: None, ["--again", "--reason", "x"], "were not opened yet; leave it out"),
    "opened before": (finalized, [], "were opened once, last on"),
    "damaged final.json": (_damaged_final, ["--again", "--reason", "x"], "final.json is damaged"),
    **{
        f"{name} {what}": (partial(spoil, name, change), [], f"{name}{message}")
        for name, message in [
            ("val_losses.npz", " is missing or damaged: "),
            ("run.json", " is damaged: "),
            ("curves.parquet", " is missing or damaged: "),
            ("split.parquet", " is missing or damaged: "),
            ("study.json", " is damaged: "),
        ]
        for what, change in [("cut off", half), ("of garbage", lambda content: b"\x00\xff{garbage")]
    },
    "a test row moved": (partial(_moved_row, role="test"), [], "split.parquet: its test rows are not those"),
    "a fold's row moved": (partial(_moved_row, role="dev"), [], "split.parquet: its dev rows are not those"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_changes_nothing(study: Path, case: str) -> None:
    prepare, words, message = REFUSED[case]
    prepare(study)
    before = everything(study.parent)
    result = command(study.parent, "finalize", str(study), *words)
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: ")
    assert message in line
    assert everything(study.parent) == before


def test_a_study_without_test_rows(tmp_path: Path) -> None:
    path = trained(tmp_path, "data=iris", "split.test_fraction=0", *QUICK)
    before = everything(tmp_path)
    result = command(tmp_path, "finalize", str(path))
    assert (result.code, result.out) == (2, "")
    assert "it has no test rows (split.test_fraction=0), so there is no test" in result.err
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data=digits_ink", "task.loss=mean_squared_error,binary_cross_entropy", "training.epochs=1"],
            "task.loss: the runs have binary_cross_entropy and mean_squared_error",
        ),
        (["data=linnerud", "data.scale_targets=true,false"], "data.scale_targets: the runs have False and True"),
    ],
)
def test_losses_in_different_units(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = trained(tmp_path, "-m", "model.width=3", *QUICK, *overrides)
    before = everything(tmp_path)
    result = command(tmp_path, "finalize", str(path))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert message in line
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["run.json", "curves.parquet"])
def test_damaged_runs_can_be_left_out_on_request(study: Path, name: str) -> None:
    spoil(name, half, study)
    result = command(study.parent, "finalize", str(study))
    assert "1 finished runs cannot be read" in result.err
    record = finalized(study, "--partial")
    assert "1 runs that are failed were left out" in record.warnings


ROWS = """
import numpy as np
from overfit_lab.data import Source

def load(path):
    table = np.load(path)
    return Source("rows", "regression", table[:, :-1], table[:, -1])
"""


def _own_rows(folder: Path, table: NDArray[np.float64]) -> Path:
    folder.mkdir()
    (folder / "own_rows.py").write_text(ROWS)
    np.save(folder / "rows.npy", table)
    path = ("data=custom", "data.name=rows", "data._target_=own_rows.load", f"+data.path={folder / 'rows.npy'}")
    return trained(folder, *path, "data.scale_targets=true", *QUICK, "trainer.precision=64-true")


@pytest.fixture
def table() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    return np.column_stack([x, x.sum(1) + 0.1 * rng.normal(size=60)])


def test_nothing_that_is_trained_depends_on_the_test_rows(tmp_path: Path, table: NDArray[np.float64]) -> None:
    clean = _own_rows(tmp_path / "clean", table)
    split = StudyFiles(clean).load_split()
    test = split.filter(pl.col("role") == "test")["row"].to_numpy()
    poisoned = table.copy()
    poisoned[test] = 1e9 * np.random.default_rng(1).normal(size=(len(test), 4))
    other = _own_rows(tmp_path / "poisoned", poisoned)
    assert (other / "split.parquet").read_bytes() == (clean / "split.parquet").read_bytes()
    ((ours, _),), ((theirs, _),) = records_of(clean), records_of(other)
    for name in ("curves.parquet", "val_losses.npz"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    first, second = finalized(clean), finalized(other)
    assert first.retrain.train_loss == second.retrain.train_loss
    assert first.validation == second.validation
    # They were poison indeed.
    assert first.test.loss.value is not None
    assert second.test.loss.value is not None
    assert second.test.loss.value > 1e6 * first.test.loss.value


def test_rows_that_have_changed_since_are_refused(tmp_path: Path, table: NDArray[np.float64]) -> None:
    path = _own_rows(tmp_path / "own", table)
    np.save(path.parents[1] / "rows.npy", table + 1)
    before = everything(path)
    # Another process would read them anew.
    plan._load.cache_clear()
    result = command(path.parents[1], "finalize", str(path))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert "belongs to other rows of rows, not to rows" in line
    assert everything(path) == before
