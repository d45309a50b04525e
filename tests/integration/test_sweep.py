"""The same sweep by `hydra/launcher=cohort`, the default, and by `basic`: nothing on disk tells them apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import overfit_lab
from overfit_lab.cohort import Cohort
from overfit_lab.config import parse
from overfit_lab.plan import prepare
from overfit_lab.records import SCHEMA_VERSION, CohortRecord, RunFiles
from tests.integration.conftest import Train, run_command
from tests.integration.test_mistakes import NETWORKS

QUICK = ("data=iris", "split.folds=3", "model.depth=1", "training.epochs=2", "study.report=false")
GRID = (
    *("model.width=3,5", "model.dropout=0,0.3", "penalty.alpha=0,0.01", "optimizer.lr=0.01,0.02", "seed=0,1"),
    *QUICK,
)


def runs_in(folder: Path) -> dict[str, RunFiles]:
    """The runs of all studies below a folder, by their paths in it."""
    directories = sorted(folder.glob("studies/*/runs/*"))
    return {str(directory.relative_to(folder)): RunFiles(directory) for directory in directories}


def names_in(directory: Path) -> list[str]:
    """All files, with the time and process taken out of an event file's name."""
    found = (str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    return sorted(re.sub(r"tfevents\..*", "tfevents", name) for name in found)


def assert_close(ours: object, theirs: object, tolerance: float) -> None:
    """Compare what JSON holds; numbers by a tolerance."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            # Without a penalty it is a rank: an eigenvalue near the threshold is no more exact than that.
            assert_close(ours[key], theirs[key], max(tolerance, 1e-5) if key == "effective_dof" else tolerance)
    elif isinstance(ours, list) and isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for own, same in zip(ours, theirs, strict=True):
            assert_close(own, same, tolerance)
    elif isinstance(ours, float) and isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    else:
        assert ours == theirs


def assert_same_results(ours: RunFiles, theirs: RunFiles, tolerance: float) -> None:
    """Compare the curves, the losses of rows, and the records of a run."""
    curves, others = ours.load_curves(), theirs.load_curves()
    assert curves.drop("value").equals(others.drop("value"))
    np.testing.assert_allclose(curves["value"].to_numpy(), others["value"].to_numpy(), rtol=tolerance, atol=tolerance)
    kept, same = ours.load_val_losses(), theirs.load_val_losses()
    assert np.array_equal(kept.epochs, same.epochs)
    assert np.array_equal(kept.rows, same.rows)
    assert np.array_equal(kept.folds, same.folds)
    # They are stored in single precision.
    single = max(tolerance, 2e-7)
    np.testing.assert_allclose(kept.losses, same.losses, rtol=single, atol=single)
    assert_close(_comparable(ours), _comparable(theirs), single)


def _comparable(files: RunFiles) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(files.record.read_text())
    assert record.pop("seconds") > 0
    assert record["environment"].pop("command").startswith("overfit-lab train -m ")
    # A process asks git once; this one may have done so for an earlier test, in another folder.
    del record["environment"]["git"]
    # Of files and a record that hold other times and roundings.
    del record["files"], record["digest"]
    return record


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders to work in."""
    folders = tmp_path / "together", tmp_path / "one_by_one"
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-9), ("32-true", 1e-6)])
def test_two_launchers_leave_the_same(
    train: Train, both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    lines = []
    for folder, launcher in zip(both, ("cohort", "basic"), strict=True):
        monkeypatch.chdir(folder)
        # A cohort holds all of it, or where max_fits cuts, several sizes of cohorts.
        more = ["hydra.launcher.max_fits=40"] if (launcher, precision) == ("cohort", "32-true") else []
        result = train("-m", *GRID, f"trainer.precision={precision}", f"hydra/launcher={launcher}", *more)
        assert (result.code, result.err) == (0, "")
        lines.append(result.out.splitlines())

    # A line for each job, numbered in the order of completion.
    assert [line.split("]")[0] for line in lines[0]] == [f"[{i + 1}/32" for i in range(32)]
    said = [sorted(line.partition("] ")[2].rpartition(" (")[0] for line in own) for own in lines]
    assert said[0] == said[1]
    assert len(set(said[0])) == 32
    assert "model.width=5 model.dropout=0.3 penalty.alpha=0.01 optimizer.lr=0.02 seed=1: too short" in said[0]

    ours, theirs = (runs_in(folder) for folder in both)
    assert list(ours) == list(theirs)
    assert len(ours) == 32
    for path, files in ours.items():
        other = theirs[path]
        assert names_in(files.directory) == names_in(other.directory)
        assert names_in(files.directory) == [
            *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "curves.parquet"),
            *("events.out.tfevents", "run.json", "val_losses.npz"),
        ]
        for name in ("config.yaml", "overrides.yaml"):
            assert (files.directory / ".hydra" / name).read_bytes() == (other.directory / ".hydra" / name).read_bytes()
        # Job by job, down to its number; but for the launcher and the folder.
        hydra, others = (
            _without_launcher((own.directory / ".hydra" / "hydra.yaml").read_text(), folder)
            for own, folder in zip((files, other), both, strict=True)
        )
        assert hydra == others
        assert_same_results(files, other, tolerance)

    # No two fits are the same: agreement says something.
    last = [files.load_curves().filter(epoch=2, split="val", metric="loss")["value"] for files in ours.values()]
    assert len({value for values in last for value in values}) == 32 * 3

    # Around the runs, too.
    together, one_by_one = (folder / "studies" for folder in both)
    assert {p.name for p in together.iterdir()} == {p.name for p in one_by_one.iterdir()}
    for name in ("study.json", "split.parquet"):
        assert (together / "iris-kfold" / name).read_bytes() == (one_by_one / "iris-kfold" / name).read_bytes()
    # Beside a mark that the last one has left who wrote down what trains together.
    left = {p.name for p in (together / "iris-kfold").iterdir() if not p.name.startswith(".cohorts.claim-")}
    assert left == {"study.json", "split.parquet", "runs"}


def _without_launcher(text: str, folder: Path) -> str:
    text = re.sub(r"(?m)^  launcher:\n(    .*\n)+", "", text.replace(str(folder), "FOLDER"))
    return re.sub(r"(?m)^.*(hydra/launcher|hydra\.launcher).*\n", "", text)


def test_however_few_fits_train_at_once(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ("-m", "model.width=3,5", "model.dropout=0.3", "split.repeats=2", *QUICK)
    found = []
    for max_fits in ("null", "1", "2", "3"):
        folder = tmp_path / max_fits
        folder.mkdir()
        monkeypatch.chdir(folder)
        result = train(*sweep, f"hydra.launcher.max_fits={max_fits}")
        assert (result.code, result.err) == (0, "")
        found.append(runs_in(folder))
        assert not list(folder.glob("studies/*/cohorts"))
    whole = found[0]
    assert len(whole) == 2
    for parts in found[1:]:
        assert list(parts) == list(whole)
        for path, files in parts.items():
            assert names_in(files.directory) == names_in(whole[path].directory)
            assert_same_results(files, whole[path], 1e-6)


def test_a_value_more_trains_only_what_is_new(train: Train, tmp_path: Path) -> None:
    assert train("-m", "model.width=3,5", "penalty.alpha=0,0.1", *QUICK).code == 0
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for f in runs_in(tmp_path).values() for p in [f.record]}
    result = train("-m", "model.width=3,4,5", "penalty.alpha=0,0.1", *QUICK)
    assert (result.code, result.err) == (0, "")
    # What was finished before is shown first.
    assert ["finished before" in line for line in result.out.splitlines()] == [True] * 4 + [False] * 2
    assert ["width=4" in line for line in result.out.splitlines()] == [False] * 4 + [True] * 2
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    after = overfit_lab.load_study("studies/iris-kfold").runs
    assert sorted((run.config["model"]["width"], run.config["penalty"]["alpha"]) for run in after) == [
        (width, alpha) for width in (3, 4, 5) for alpha in (0.0, 0.1)
    ]
    # And nothing at all where there is nothing new: no process is started for it.
    again = train("-m", "model.width=3,4,5", "penalty.alpha=0,0.1", *QUICK)
    assert again.out.count("finished before") == 6


def test_what_an_interruption_has_left_unsaved_is_saved(train: Train, tmp_path: Path) -> None:
    """It came while the runs of a cohort were saved, one after another: the saved ones are not touched."""
    sweep = ("-m", "model.width=3,5,7", "seed=0,1", *QUICK)
    assert train(*sweep).code == 0
    files = list(runs_in(tmp_path).values())
    study = overfit_lab.load_study("studies/iris-kfold").files
    records = [own.load() for own in files]
    before = {own: (own.curves.read_bytes(), own.record.stat().st_mtime_ns) for own in files}
    record = CohortRecord(
        schema_version=SCHEMA_VERSION,
        runs=[record.run_id for record in records],
        max_fits=None,
        configs={record.run_id: record.config for record in records},
        overrides={record.run_id: record.overrides for record in records},
    )
    study.cohorts.save(Cohort(tuple(prepare(parse(record.config)) for record in records)).name, record)
    for own in files[:2]:
        own.record.unlink()
    result = train(*sweep)
    assert (result.code, result.err) == (0, "")
    assert result.out.count("finished before") == 4
    # The same company gives the same bytes.
    assert all(own.curves.read_bytes() == curves for own, (curves, _) in before.items())
    assert [own for own, (_, time) in before.items() if own.record.stat().st_mtime_ns != time] == files[:2]
    assert not study.cohorts.directory.exists()


def test_a_job_that_is_asked_for_twice_is_trained_once(train: Train, tmp_path: Path) -> None:
    result = train("-m", "model.width=4,4,5", *QUICK)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) == 3
    assert ["finished before" in line for line in lines if "width=4" in line] == [False, True]
    files = list(runs_in(tmp_path).values())
    assert len(files) == 2
    assert all(names_in(own.directory).count("events.out.tfevents") == 1 for own in files)


def test_the_same_run_in_two_studies(train: Train, tmp_path: Path) -> None:
    result = train("-m", "study.name=one,two", "model.width=4", *QUICK)
    assert (result.code, result.err) == (0, "")
    assert len(runs_in(tmp_path)) == 2
    assert "finished before" not in result.out


def test_networks_that_cannot_be_stacked(
    train: Train, both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They train one by one, which one line for each network says, and give what `basic` gives."""
    own = "model._target_=networks.Batch,networks.Random,networks.Branch"
    sweep = ("train", "-m", "model=custom", own, "seed=0,1", *(o for o in QUICK if "depth" not in o))
    for folder in both:
        (folder / "networks.py").write_text(NETWORKS)
    result = run_command(both[0], *sweep)
    assert result.code == 0
    lines = result.err.splitlines()
    assert [line.partition(" so its fits")[0] for line in lines] == [
        f"overfit-lab: model._target_=networks.{name} cannot be stacked," for name in ("Batch", "Random", "Branch")
    ]
    assert "layer norm is a BatchNorm1d, which mixes the rows of a batch" in lines[0]
    assert all("trained one by one: " in line for line in lines)
    monkeypatch.chdir(both[1])
    assert train(*sweep[1:], "hydra/launcher=basic").err == result.err
    ours, theirs = (runs_in(folder) for folder in both)
    assert list(ours) == list(theirs)
    assert len(ours) == 6
    for path, files in ours.items():
        assert_same_results(files, theirs[path], 1e-6)


@pytest.mark.parametrize("key", ["max_fits", "workers"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_no_fits_and_no_processes(train: Train, tmp_path: Path, key: str, value: str) -> None:
    result = train("-m", "model.width=4,8", f"hydra.launcher.{key}={value}", *QUICK)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"overfit-lab: hydra.launcher.{key}={value}: must be greater than or equal to 1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["many", "1.5", "[1]"])
def test_what_is_no_number_of_fits(train: Train, tmp_path: Path, value: str) -> None:
    result = train("-m", "model.width=4,8", f"hydra.launcher.max_fits={value}", *QUICK)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: ")
    assert value.strip("[]") in line
    assert list(tmp_path.iterdir()) == []


def test_which_parameters_are_penalised_is_shown_for_each_run(train: Train) -> None:
    result = train("-m", "model.width=4,5", "hydra.verbose=true", *QUICK)
    assert (result.code, result.err) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines() if "│" in line]
    assert [row[1] for row in rows] == ["4 x 4", "4", "3 x 4", "3", "5 x 4", "5", "3 x 5", "3"]
    assert [row[3] for row in rows] == ["yes", "no"] * 4
    assert "[2/2] model.width=" in result.out


def test_one_run_that_fails_in_a_sweep(train: Train, tmp_path: Path) -> None:
    """Though it trains beside others; its error is told, the others are finished, and the exit code is 1."""
    own = ("model=custom", "model._target_=tests.launch.plans.Failing", "seed=0,1,2", "penalty.alpha=0,0.1")
    result = train("-m", *own, *(o for o in QUICK if "depth" not in o))
    assert result.code == 1
    study = overfit_lab.load_study("studies/iris-kfold")
    assert sorted(run.config["seed"] for run in study.runs) == [1, 1, 2, 2]
    assert {failed.error for failed in study.failed} == {"RuntimeError: seed 0 fails"}
    names = sorted(failed.run_id for failed in study.failed)
    assert sorted(result.err.splitlines()) == [
        f"overfit-lab: run {name} failed: RuntimeError: seed 0 fails" for name in names
    ]
    assert result.out.count("failed: RuntimeError: seed 0 fails") == 2
    assert not (tmp_path / "studies/iris-kfold/cohorts").exists()
