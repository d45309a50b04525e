"""`overfit-lab train`: what it leaves behind, twice the same, and what it does not do twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

import overfit_lab
from overfit_lab.analysis.onset import estimate_onset
from overfit_lab.data import load_source
from overfit_lab.records import RunFiles
from tests.integration.conftest import Train

RECORD_KEYS = (
    "schema_version run_id config_id status config overrides parameters onset val_loss train_loss fits descriptive "
    "seconds device environment interruptions epochs_repeated files digest"
)
ONSET_KEYS = "verdict epoch ci detected_at best_epoch p_value second_descent spikes"
DESCRIPTIVE_KEYS = "weight_norm distance_from_init effective_dof effective_dof_rows normalised_margin"
ENVIRONMENT_KEYS = "overfit_lab torch lightning python git command"

QUICK = ("training.epochs=12", "model.width=8", "study.report=false")


def _only_run(study: Path) -> RunFiles:
    (directory,) = (study / "runs").iterdir()
    return RunFiles(directory)


def test_a_run_leaves_what_the_contract_says(train: Train, tmp_path: Path) -> None:
    overrides = ["training.epochs=12", "model.width=8", "split.repeats=2", "split.folds=3", "seed=4"]
    result = train(*overrides)
    assert (result.code, result.err) == (0, "")
    study = tmp_path / "studies/breast_cancer-kfold"
    files = _only_run(study)
    names = {p.name for p in files.directory.iterdir() if not p.name.startswith("events.out.tfevents")}
    assert names == {".hydra", "run.json", "curves.parquet", "val_losses.npz"}
    assert any(p.name.startswith("events.out.tfevents") for p in files.directory.iterdir())
    assert (study / "report" / "runs.csv").is_file()

    record = json.loads(files.record.read_text())
    assert list(record) == RECORD_KEYS.split()
    assert list(record["onset"]) == ONSET_KEYS.split()
    assert list(record["environment"]) == ENVIRONMENT_KEYS.split()
    assert list(record["descriptive"]) == DESCRIPTIVE_KEYS.split()
    assert record["run_id"] == files.directory.name
    assert record["overrides"] == overrides
    assert record["parameters"] == 30 * 8 + 8 + 8 * 8 + 8 + 8 + 1
    assert [(f["repeat"], f["fold"], f["seed"]) for f in record["fits"]] == [
        (r, f, 4) for r in (0, 1) for f in range(3)
    ]
    assert record["environment"]["command"] == f"overfit-lab train {' '.join(overrides)}"
    hydra_config = OmegaConf.load(files.directory / ".hydra" / "config.yaml")
    assert hydra_config.model.width == 8

    curves = files.load_curves()
    assert curves.columns == ["repeat", "fold", "epoch", "split", "metric", "value"]
    of_training = {"running_loss", "penalty", "weight_norm", "distance_from_init"}
    assert set(curves["metric"]) == {"loss", "accuracy", "f1", "auroc", *of_training}
    loss = curves.filter(pl.col("metric") == "loss")
    assert loss.height == 2 * 3 * 2 * 13
    assert loss["epoch"].max() == 12
    assert loss["epoch"].min() == 0


def test_losses_of_rows_agree_with_curves_record_and_split(train: Train, tmp_path: Path) -> None:
    """One number, four files: per-row losses, curves, the record's pooled mean, the split's rows."""
    assert train(*QUICK, "split.repeats=2", "split.folds=3").code == 0
    study = overfit_lab.load_study("studies/breast_cancer-kfold")
    (run,) = study.runs
    files = study.files.run(run.run_id)
    kept, curves, split = files.load_val_losses(), files.load_curves(), pl.read_parquet(study.files.split)

    assert kept.losses.shape == (2, 13, 455)
    test_rows = split.filter(pl.col("role") == "test")["row"]
    assert test_rows.len() == 114
    for repeat in range(2):
        own = split.filter(pl.col("repeat") == repeat).sort("row")
        order = np.argsort(kept.rows[repeat])
        assert np.array_equal(kept.rows[repeat][order], own["row"])
        assert np.array_equal(kept.folds[repeat][order], own["fold"])
        assert not set(kept.rows[repeat]) & set(test_rows)
        for fold in range(3):
            curve = curves.filter(
                pl.col("metric") == "loss", pl.col("split") == "val", pl.col("repeat") == repeat, pl.col("fold") == fold
            ).sort("epoch")["value"]
            mean = kept.losses[repeat][:, kept.folds[repeat] == fold].mean(1, dtype=np.float64)
            np.testing.assert_allclose(mean, curve, rtol=1e-6)
    best = run.val_loss.epoch
    assert best is not None
    pooled = kept.losses[:, best].astype(np.float64)
    assert run.val_loss.mean == pytest.approx(pooled.mean(), rel=1e-9)
    by_row = pl.DataFrame({"row": kept.rows.ravel(), "loss": pooled.ravel()}).group_by("row").mean()["loss"]
    assert run.val_loss.se == pytest.approx(by_row.std() / np.sqrt(455), rel=1e-9)


def test_the_onset_in_the_record_follows_from_the_files(train: Train) -> None:
    """Anyone can compute it again: from the stored losses of rows, and the stored train curve."""
    assert train("data=diabetes", "training.epochs=40", "optimizer.lr=0.01", "study.report=false").code == 0
    study = overfit_lab.load_study("studies/diabetes-kfold")
    (run,) = study.runs
    kept = study.files.run(run.run_id).load_val_losses()
    loss = study.curves(run.run_id).filter(pl.col("metric") == "loss", pl.col("split") == "train", pl.col("epoch") > 0)
    train_loss = loss.group_by("epoch").agg(pl.col("value").mean()).sort("epoch")["value"].to_numpy()
    assert run.onset == estimate_onset(kept.losses[0, 1:].astype(np.float64), train_loss)
    assert run.onset.verdict == "overfit"
    for fit in run.fits:
        own = loss.filter(pl.col("fold") == fit.fold).sort("epoch")["value"].to_numpy()
        assert fit.onset == estimate_onset(kept.losses[0][1:, kept.folds[0] == fit.fold], own)


def test_a_long_horizon_is_analysed_at_log_spaced_epochs(train: Train) -> None:
    assert train("data=iris", "split=holdout", "model=linear", "training.epochs=300", "study.report=false").code == 0
    study = overfit_lab.load_study("studies/iris-holdout")
    (run,) = study.runs
    kept = study.files.run(run.run_id).load_val_losses()
    assert kept.epochs[-1] == 300
    assert len(kept.epochs) == kept.losses.shape[1] <= 129
    best = run.val_loss.epoch
    assert best is not None
    assert best in kept.epochs
    val = study.curves(run.run_id).filter(pl.col("metric") == "loss", pl.col("split") == "val").sort("epoch")["value"]
    assert len(val) == 301
    assert run.val_loss.mean == pytest.approx(val[best], rel=1e-6)


def test_curves_may_be_measured_at_every_fifth_epoch(train: Train) -> None:
    own = ("data=diabetes", "training.epochs=48", "optimizer.lr=0.01", "study.report=false")
    assert train(*own).code == 0
    assert train(*own, "training.eval_every=5").code == 0
    study = overfit_lab.load_study("studies/diabetes-kfold")
    every, fifth = sorted(study.runs, key=lambda run: run.config["training"]["eval_every"])
    measured = [*range(0, 48, 5), 48]
    ours, theirs = (study.curves(run.run_id) for run in (fifth, every))
    assert ours["epoch"].unique().sort().to_list() == measured
    assert ours.equals(theirs.filter(pl.col("epoch").is_in(measured)))

    kept, all_kept = (study.files.run(run.run_id).load_val_losses() for run in (fifth, every))
    assert kept.epochs.tolist() == measured
    assert np.array_equal(kept.losses, all_kept.losses[:, measured])
    loss = ours.filter(pl.col("metric") == "loss", pl.col("split") == "train", pl.col("epoch") > 0)
    train_loss = loss.group_by("epoch").agg(pl.col("value").mean()).sort("epoch")["value"].to_numpy()
    assert fifth.onset == estimate_onset(kept.losses[0, 1:].astype(np.float64), train_loss, epochs=measured[1:])
    assert fifth.onset.verdict == every.onset.verdict == "overfit"
    assert fifth.onset.epoch in measured
    assert fifth.onset.ci is not None
    assert every.onset.ci is not None
    assert fifth.onset.ci[0] <= every.onset.ci[1]
    assert every.onset.ci[0] <= fifth.onset.ci[1]
    # What is trained is the same.
    assert fifth.descriptive == every.descriptive
    assert fifth.descriptive is not None


def test_what_the_trained_networks_are_like_is_recorded(train: Train) -> None:
    """At the horizon, as the mean over the fits; what a network or a problem does not have is none."""
    own = ("training.epochs=3", "split.folds=3", "study.report=false")
    assert train("-m", *own, "data=wine", "penalty.alpha=0,0.1").code == 0
    assert train(*own, "data=diabetes", "model=linear", "penalty.alpha=0").code == 0
    wine = overfit_lab.load_study("studies/wine-kfold")
    for run in wine.runs:
        found = run.descriptive
        assert found is not None
        curves = wine.curves(run.run_id).filter(pl.col("epoch") == 3)
        for name in ("weight_norm", "distance_from_init"):
            assert getattr(found, name) == pytest.approx(curves.filter(pl.col("metric") == name)["value"].mean())
        assert found.effective_dof_rows == 94
        assert found.effective_dof is not None
        assert 0 < found.effective_dof <= 3 * 94
        assert found.normalised_margin is not None
    first, second = (run.descriptive for run in wine.runs)
    assert first is not None
    assert second is not None
    assert (first.effective_dof or 0) > (second.effective_dof or 0)
    row = wine.frame().row(0, named=True)
    assert row["descriptive_effective_dof"] == first.effective_dof
    assert row["descriptive_weight_norm"] == first.weight_norm

    (run,) = overfit_lab.load_study("studies/diabetes-kfold").runs
    assert run.descriptive is not None
    # Ten inputs and an intercept.
    assert run.descriptive.effective_dof == pytest.approx(11, rel=1e-4)
    assert run.descriptive.normalised_margin is None


def test_the_same_command_twice_is_bit_identical(train: Train, tmp_path: Path) -> None:
    sweep = ("-m", "model.width=4,8", "model.dropout=0.2", "training.epochs=9", "study.report=false")
    for root in ("one", "two"):
        assert train(*sweep, f"study.root={root}").code == 0
    first, second = (sorted((tmp_path / root).glob("*/runs/*")) for root in ("one", "two"))
    assert [p.name for p in first] == [p.name for p in second]
    assert len(first) == 2
    for ours, theirs in zip(first, second, strict=True):
        for name in ("curves.parquet", "val_losses.npz"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_a_finished_run_is_not_run_again(train: Train, tmp_path: Path) -> None:
    assert "finished before" not in train(*QUICK).out
    files = _only_run(tmp_path / "studies/breast_cancer-kfold")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (files.record, files.curves, files.val_losses)}
    again = train(*QUICK)
    assert again.code == 0
    assert "finished before" in again.out
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}


TWO = """
from torch import nn

class A(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)

class B(A):
    pass
"""


def test_a_key_that_must_be_given_may_be_swept(train: Train, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    two = ("model=custom", "model._target_=two.A,two.B", "training.epochs=1", "study.report=false")
    assert train("-m", *two).code == 0
    assert overfit_lab.load_study("studies/breast_cancer-kfold").swept() == {"model._target_": ["two.A", "two.B"]}


def test_how_data_are_scaled_may_be_swept_in_one_study(train: Train) -> None:
    assert train("-m", "data.scale_inputs=true,false", "training.epochs=1", "study.report=false").code == 0
    assert len(overfit_lab.load_study("studies/breast_cancer-kfold").runs) == 2


def test_data_may_be_swept_with_a_study_for_each(train: Train, tmp_path: Path) -> None:
    assert train("-m", "data=iris,wine", "training.epochs=1", "model=linear", "study.report=false").code == 0
    assert {p.name for p in (tmp_path / "studies").iterdir()} == {"iris-kfold", "wine-kfold", "multirun.yaml"}


def test_a_run_that_failed_starts_from_scratch_the_next_time(train: Train, tmp_path: Path) -> None:
    """Its checkpoint holds weights that came from the code that failed."""
    (tmp_path / "late.py").write_text(LATE)
    own = ("model=custom", "model._target_=late.Late", "training.epochs=4", "training.checkpoint_seconds=0")
    result = train(*own, "study.report=false")
    assert result.code == 1
    assert "RuntimeError: too late" in result.err
    (directory,) = (tmp_path / "studies/breast_cancer-kfold/runs").iterdir()
    assert not (tmp_path / "studies/breast_cancer-kfold/cohorts").exists()
    assert (directory / "failure.json").exists()


LATE = """
from torch import nn

class Late(nn.Linear):
    calls = 0

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)

    def forward(self, x):
        Late.calls += 1
        if Late.calls > 40:
            raise RuntimeError("too late")
        return super().forward(x)
"""


def test_a_sweep_runs_only_what_is_missing(train: Train) -> None:
    sweep = ("training.epochs=3", "study.report=false")
    train("-m", "model.width=4,8", *sweep)
    lines = train("-m", "model.width=4,8,16", *sweep).out.splitlines()
    assert ["finished before" in line for line in lines] == [True, True, False]
    assert [line.split(":")[0] for line in lines] == [f"[{i}/3] model.width={w}" for i, w in ((1, 4), (2, 8), (3, 16))]


def test_an_override_may_refer_to_another_key(train: Train) -> None:
    result = train("study.name=${data.name} width ${model.width}", "training.epochs=1", "study.report=false")
    assert (result.code, result.err) == (0, "")
    (run,) = overfit_lab.load_study("studies/breast_cancer width 64").runs
    assert run.overrides[0] == "study.name=${data.name} width ${model.width}"


def test_odd_names_are_only_names(train: Train, tmp_path: Path) -> None:
    name = "[bold]x[/bold]*? $y$ <script>"
    result = train(f"study.name='{name}'", "study.root='in [here]'", "training.epochs=2", "data=iris", "model=linear")
    assert (result.code, result.err) == (0, "")
    (study,) = (p for p in (tmp_path / "in [here]").iterdir() if p.is_dir())
    assert overfit_lab.load_study(study).record.name == name
    assert name in result.out
    assert (study / "report/runs.csv").is_file()


def test_one_validation_row_proves_nothing(train: Train) -> None:
    train("data=linnerud", "split=holdout", "split.val_fraction=0.01", "training.epochs=10", "study.report=false")
    (run,) = overfit_lab.load_study("studies/linnerud-holdout").runs
    assert run.onset.verdict == "too_short"
    assert run.val_loss.se is None
    assert run.val_loss.epoch is not None


def test_a_fit_that_diverges_is_recorded(train: Train) -> None:
    result = train("optimizer=sgd", "optimizer.lr=1e30", "training.epochs=4", "study.report=true", "data=diabetes")
    assert result.code == 0
    (run,) = overfit_lab.load_study("studies/diabetes-kfold").runs
    assert run.status == "diverged"
    assert run.onset.verdict == "diverged"
    assert [fit.status for fit in run.fits] == ["diverged"] * 5
    assert all(fit.diverged_at in (1, 2) for fit in run.fits)
    assert "diverged" in result.out
    assert run.descriptive is not None
    assert set(dict(run.descriptive).values()) == {None}


@pytest.mark.parametrize("split", ["kfold", "holdout"])
@pytest.mark.parametrize(
    "name",
    ["breast_cancer", "digits", "wine", "iris", "diabetes", "linnerud", "digits_traits", "digits_ink"],
)
def test_every_source_trains_with_every_split(train: Train, name: str, split: str) -> None:
    result = train(f"data={name}", f"split={split}", "training.epochs=1", "model=linear", "study.report=false")
    assert (result.code, result.err) == (0, "")
    study = overfit_lab.load_study(f"studies/{name}-{split}")
    assert study.record.source.problem == load_source(name).problem
    assert study.runs[0].onset.verdict == "too_short"
    assert len(study.runs[0].fits) == (5 if split == "kfold" else 1)
    curves = study.curves(study.runs[0].run_id)
    assert curves.filter(pl.col("metric") != "r2")["value"].is_finite().all()


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=momentum", "penalty=l1", "penalty.alpha=1e-3"),
        ("optimizer=adamw", "penalty=none"),
        ("optimizer=rmsprop", "penalty=elastic_net", "penalty.alpha=1e-3"),
        ("optimizer=sgd", "penalty.exclude=[6.weight]", "penalty.alpha=0.1", "trainer.precision=bf16-mixed"),
        ("data=digits_ink", "task=unit_regression", "task.loss=binary_cross_entropy", "trainer.precision=64-true"),
        ("data=wine", "task=multiclass", "task.metrics=[auroc]", "split.stratify=false", "split.test_fraction=0"),
    ],
)
def test_every_choice_trains(train: Train, overrides: tuple[str, ...]) -> None:
    result = train(*overrides, "training.epochs=2", "model.width=4", "study.report=false")
    assert (result.code, result.err) == (0, "")


OWN_CODE = """
import numpy as np
from torch import nn
from overfit_lab.data import Source

class Bottleneck(nn.Module):
    def __init__(self, inputs, outputs, hidden):
        super().__init__()
        self.down, self.up, self.drop = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs), nn.Dropout(0.1)

    def forward(self, x):
        if self.down.out_features == 13 and len(x) > 2:
            raise RuntimeError("thirteen")
        return self.up(self.drop(self.down(x).tanh()))

def ring(rows):
    x = np.random.default_rng(0).normal(size=(rows, 2))
    return Source("ring", "binary", x, (np.linalg.norm(x, axis=1) > 1.2).astype(int))
"""


def test_own_network_and_own_data_from_the_working_folder(train: Train, tmp_path: Path) -> None:
    """And a run that fails inside is a record: the sweep goes on, the exit code is 1."""
    (tmp_path / "mine.py").write_text(OWN_CODE)
    data = ("data=custom", "data._target_=mine.ring", "data.name=ring", "+data.rows=120")
    model = ("model=custom", "model._target_=mine.Bottleneck", "training.epochs=2")
    result = train("-m", *data, *model, "+model.hidden=3,13,5")
    assert result.code == 1
    study = overfit_lab.load_study("studies/ring-kfold")
    assert [run.config["model"]["hidden"] for run in study.runs] == [3, 5]
    assert [run.parameters for run in study.runs] == [2 * 3 + 3 + 3 + 1, 2 * 5 + 5 + 5 + 1]
    (failed,) = study.failed
    assert failed.error == "RuntimeError: thirteen"
    assert result.err.strip() == f"overfit-lab: run {failed.run_id} failed: RuntimeError: thirteen"
    failure = study.files.run(failed.run_id).load_failure()
    assert "mine.py" in failure.traceback
    assert failure.config["model"]["hidden"] == 13
    assert not study.files.run(failed.run_id).record.exists()
    assert "RuntimeError: thirteen" in " ".join(result.out.split())

    # Once mended, the same command runs that one alone.
    source = OWN_CODE.replace("== 13", "== 14")
    (tmp_path / "mine.py").write_text(source)
    import mine  # type: ignore[import-not-found]

    exec(source, mine.__dict__)
    again = train("-m", *data, *model, "+model.hidden=3,13,5")
    assert again.code == 0
    assert again.out.count("finished before") == 2
    assert overfit_lab.load_study("studies/ring-kfold").failed == ()


def test_the_demo_sweep_has_a_row_for_each_of_its_runs(train: Train) -> None:
    result = train("sweep=capacity_by_decay", "training.epochs=1", "split.repeats=1", "study.report=false")
    assert result.code == 0
    study = overfit_lab.load_study("studies/breast_cancer-kfold")
    pairs = [(run.config["model"]["width"], run.config["penalty"]["alpha"]) for run in study.runs]
    assert pairs == [(w, a) for w in (4, 16, 64, 256) for a in (0.0, 1e-3, 1e-2, 1e-1)]
    assert study.swept() == {"model.width": [4, 16, 64, 256], "penalty.alpha": [0.0, 1e-3, 1e-2, 1e-1]}
