"""A user's mistake: one line that names it, exit code 2, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from overfit_lab import cli
from overfit_lab.records import SCHEMA_VERSION
from tests.integration.conftest import Train, run_command


def _everything(folder: Path) -> set[tuple[str, int]]:
    return {(str(p.relative_to(folder)), p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=mnits"], "data=mnits: allowed are breast_cancer, custom, diabetes, digits"),
        (["data.name=mnits"], "data.name=mnits: allowed are breast_cancer, digits"),
        (["optimizer=newton"], "optimizer=newton: allowed are adam, adamw, custom, momentum, rmsprop, sgd"),
        (["model.widht=3"], "there is no key model.widht; allowed there are _target_, width, depth"),
        (["optimizr=sgd"], "there is no key optimizr; allowed there are split, data, model"),
        (["model.width=["], "model.width=[ cannot be read as KEY=VALUE"),
        (["model.width=4,8"], "model.width=4,8: several values are a sweep; add -m"),
        (["model.width=0"], "model.width=0: must be greater than or equal to 1"),
        (["study.root=${nope}"], "study.root: Interpolation key 'nope' not found"),
        (["~model.foo"], "Could not delete from config. 'model.foo' does not exist."),
        (["=3"], "=3 cannot be read as KEY=VALUE"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: study.root is seen from where you work"),
        (["data=linnerud", "split.test_fraction=0.95"], "split.test_fraction=0.95: leaves 1 of 20 rows"),
        (["--run", "--multirun"], "Only one of --run, --multirun"),
        (["--data=iris"], "unrecognized arguments: --data=iris; allowed are KEY=VALUE, without dashes, and the flags"),
        (["--cfg"], "argument --cfg/-c: expected one argument; allowed are"),
        (["model=null"], "model=null: allowed are cnn, custom, linear, mlp, "),
        (["data=3"], "data=3: allowed are breast_cancer, custom, "),
        (["-m", "split=[kfold,1]"], "split=[kfold,1]: allowed are holdout, kfold"),
        (["-m", "logger=null,csv"], "logger=null,csv: allowed are csv, custom, mlflow, tensorboard, wandb"),
        (["split.folds=456"], "split.folds=456: there are 455 development rows; allowed is 2 to 455"),
        (["data=iris", "split.folds=41"], "split.folds=41: class 0 has 40 row(s), stratifying needs 41"),
        (["task=regression"], "task=regression: the source is binary; allowed are auto and binary"),
        (["task.metrics=[r2]"], "task.metrics=r2: binary allows accuracy, f1, auroc"),
        (["data.label_noise=1"], "data.label_noise=1: must be at least 0 and below 1"),
        (
            ["data=diabetes", "data.label_noise=0.1"],
            "data.label_noise=0.1: diabetes is regression; only binary, multicl",
        ),
        (["data.train_size=365"], "data.train_size=365: a fold has 364 train rows; allowed is 1 to 364, or a share"),
        (["data.train_size=0"], "data.train_size=0: must be greater than or equal to 1 or above 0 and below 1"),
        (["data.train_size=1.5"], "data.train_size=1.5: must be a valid integer"),
        (["data.scale_targets=true"], "data.scale_targets=true: breast_cancer is binary"),
        (["penalty.exclude=[nope]"], "penalty.exclude=nope: matches no parameter; allowed are 0.weight, 0.bias"),
        (
            ["model=custom", "model._target_=no.Such"],
            "model._target_=no.Such: ModuleNotFoundError: ",
        ),
        (["model._target_=torch.nn.ReLU"], "model._target_=torch.nn.ReLU: called with inputs=30, outputs=1"),
        (
            ["model=cnn"],
            "model=cnn: the rows of the data have no shape; allowed is (channels, length) or (channels, hei",
        ),
        (["model=cnn", "data=digits", "model.kernel=2"], "model.kernel=2: must be odd"),
        (["model=transformer", "model.heads=5"], "model.heads=5: must divide model.embedding=32"),
        (["model=transformer", "model.patch=4"], "model.patch=4: must divide the sides of a row, 30"),
        (["optimizer=custom"], "optimizer._target_ is missing; give it as optimizer._target_="),
        (["optimizer=custom", "optimizer._target_=torch.optim.Adaam"], "optimizer._target_=torch.optim.Adaam: "),
        (
            ["-m", "optimizer=custom", "optimizer._target_=torch.optim.NAdam,torch.optim.LBFGS"],
            "optimizer._target_=torch.optim.LBFGS: a step failed: ",
        ),
        (["logger=csv", "logger.nmae=x"], "there is no key logger.nmae; allowed there are _target_, save_dir"),
        (["logger=csv", "+logger.nmae=x"], "logger._target_=lightning.pytorch.loggers.CSVLogger: "),
        # In a sweep, the last job's mistake is found before the first job starts.
        (["-m", "model.width=4,8,0"], "model.width=0: must be greater than or equal to 1"),
        (["-m", "data=iris,mnits"], "data=mnits: allowed are breast_cancer, custom"),
        (["-m", "data=iris,wine", "study.name=one"], "a study has one source and one split"),
        (["model=custom", "model._target_=torch.nn.Linear", "+model.bias=nan"], "bias=nan: must be a finite number"),
        (["-m", "split.folds=4,5"], "a study has one source and one split"),
        (["sweep=capacity_by_decay", "+foo=1"], "foo=1: there is no such key"),
    ],
)
def test_nothing_is_left_behind(train: Train, tmp_path: Path, overrides: list[str], message: str) -> None:
    result = train(*overrides)
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("overfit-lab: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=wine"], "belongs to breast_cancer, not to wine; give another study.name"),
        (
            ["split.seed=1"],
            "split.seed=1: studies/mine is split with seed=0; give the same split or another study.name",
        ),
        (["split=holdout", "-m"], "split.kind=holdout: studies/mine is split with kind=kfold"),
    ],
)
def test_a_study_of_another_source_or_split_is_left_alone(
    train: Train, tmp_path: Path, overrides: list[str], message: str
) -> None:
    quick = ("study.name=mine", "training.epochs=1", "study.report=false")
    assert train(*quick).code == 0
    before = _everything(tmp_path)
    result = train(*quick, *overrides)
    assert result.code == 2
    assert message in result.err
    assert _everything(tmp_path) == before


NETWORKS = """
import torch
import torch.nn.functional as F
from torch import nn

class Own(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.map = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.map(x)

class Batch(Own):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.norm = nn.BatchNorm1d(inputs)

class Random(Own):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5, self.training)

class Branch(Own):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else -super().forward(x)

class Twice(Own):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(super().forward(self.drop(x)))

class Squeezed(Own):
    def forward(self, x):
        return super().forward(x).squeeze(0)

class Exits(Own):
    def __init__(self, inputs, outputs):
        raise SystemExit(0)

class Empty(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return torch.zeros(len(x), self.outputs)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Twice", "calls its dropout layer drop more than once in a pass; give each place a layer of its own"),
        ("Empty", "it has no trainable parameter; at least one is needed"),
        ("Squeezed", "1 row gave shape (1,); the task needs (1, 1)"),
        ("Exits", "called with inputs=30, outputs=1 it failed: 0"),
        ("Missing", "AttributeError: "),
    ],
)
def test_a_network_that_cannot_be_trained(train: Train, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "networks.py").write_text(NETWORKS)
    result = train("model=custom", f"model._target_=networks.{name}")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert message in line
    assert {p.name for p in tmp_path.iterdir()} == {"networks.py"}


def test_a_module_that_does_not_compile(train: Train, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("class (")
    result = train("model=custom", "model._target_=broken.Net")
    assert result.code == 2
    assert "model._target_=broken.Net: SyntaxError: " in result.err


RING = """
import numpy as np
from overfit_lab.data import Source

def ring():
    x = np.random.default_rng({seed}).normal(size=(120, 2))
    return Source("ring", "binary", x, (np.linalg.norm(x, axis=1) > 1.2).astype(int))
"""


def test_a_study_whose_rows_have_changed_is_left_alone(tmp_path: Path) -> None:
    """Even where the run asked for is finished: its record is of other rows."""
    command = ("train", "data=custom", "data._target_=rows.ring", "data.name=ring", "training.epochs=1")
    (tmp_path / "rows.py").write_text(RING.format(seed=0))
    assert run_command(tmp_path, *command).code == 0
    (tmp_path / "rows.py").write_text(RING.format(seed=1))
    before = _everything(tmp_path)
    result = run_command(tmp_path, *command)
    assert result.code == 2
    assert "belongs to other rows of ring, not to ring; give another study.name" in result.err
    assert _everything(tmp_path) == before


def test_data_that_cannot_be_loaded_are_named(train: Train, tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("def load(path):\n    return open(path)\n")
    result = train("data=custom", "data._target_=gone.load", "data.name=x", "+data.path=nowhere.csv")
    assert result.code == 2
    assert "data._target_=gone.load with path=nowhere.csv: FileNotFoundError: " in result.err
    assert {p.name for p in tmp_path.iterdir()} == {"gone.py"}


def test_a_record_of_a_newer_version_is_refused_and_kept(train: Train, tmp_path: Path) -> None:
    quick = ("training.epochs=1", "study.report=false")
    train(*quick)
    (record,) = tmp_path.glob("studies/*/runs/*/run.json")
    newer = record.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}')
    record.write_text(newer)
    result = train(*quick)
    assert result.code == 2
    assert f"has schema version {SCHEMA_VERSION + 1}; this overfit_lab reads up to {SCHEMA_VERSION}" in result.err
    assert record.read_text() == newer


def test_report_on_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"overfit-lab: {tmp_path} is not a study: it holds no study.json\n"


def test_a_study_root_that_is_a_file(train: Train, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = train("study.root=taken", "training.epochs=1")
    assert result.code == 2
    assert "taken" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "argument COMMAND: invalid choice: 'nosuch' (choose from "),
        ([], "the following arguments are required: COMMAND; see overfit-lab --help"),
        (["report"], "the following arguments are required: STUDY; see overfit-lab report --help"),
        (["status", "--wacth", "studies/x"], "unrecognized arguments: --wacth; see overfit-lab --help"),
    ],
)
def test_words_that_are_no_command(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"overfit-lab: {message}")


def test_a_process_says_so_by_its_exit_code(tmp_path: Path) -> None:
    result = run_command(tmp_path, "train", "model.width=0")
    assert (result.code, result.out) == (2, "")
    assert result.err == "overfit-lab: model.width=0: must be greater than or equal to 1\n"
    assert list(tmp_path.iterdir()) == []
