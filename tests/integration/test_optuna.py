"""`sweep=optuna`: batches that train together, in search of the lowest validation loss."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import overfit_lab
from tests.integration.conftest import COMMAND

QUIET = ("data=iris", "training.epochs=8", "study.report=false", "hydra.sweeper.n_jobs=3")


def search(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: optuna's imports warn.
    return subprocess.run(
        [*COMMAND, "train", "sweep=optuna", *QUIET, *overrides], cwd=folder, capture_output=True, text=True, check=False
    )


def test_what_is_found_is_the_best_of_the_study(tmp_path: Path) -> None:
    first = search(tmp_path, "hydra.sweeper.n_trials=5")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    study = overfit_lab.load_study(tmp_path / "studies/iris-kfold")
    losses = {
        (run.config["model"]["width"], run.config["penalty"]["alpha"]): run.val_loss.mean
        for run in study.runs
        if run.val_loss.mean is not None
    }
    assert len(losses) == 5
    assert all(4 <= width <= 256 and 1e-6 <= alpha <= 1 for width, alpha in losses)
    found = OmegaConf.load(tmp_path / "studies/iris-kfold/optimization_results.yaml")
    best = min(losses, key=lambda place: losses[place])
    assert found.best_value == losses[best]
    assert (found.best_params["model.width"], found.best_params["penalty.alpha"]) == best
    # Its sampler is seeded: the same command asks for the same runs, and trains none.
    second = search(tmp_path, "hydra.sweeper.n_trials=5")
    assert second.returncode == 0
    assert second.stdout.count("(finished before)") == 5


def test_where_all_runs_fail_it_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Failing(torch.optim.SGD):\n"
        "    steps = 0\n"
        "    def step(self, closure=None):\n"
        "        self.steps += 1\n"
        "        if self.steps > 20: raise RuntimeError('it fails')\n"
    )
    own = ("optimizer=custom", "optimizer._target_=own.Failing", "hydra.sweeper.n_trials=2", "split=holdout")
    done = search(tmp_path, *own)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("failed: RuntimeError: it fails") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # In every run of a batch, in some of its runs, and in how they are composed.
        (["data=file", "data.path=nope.csv"], "data.path=nope.csv: there is no such file"),
        (["model.width=interval(-3,-2)"], "model.width=-2"),
        (["training.eval_every=choice(1,0)"], "training.eval_every=0: must be greater than or equal to 1"),
        (["model=linear"], "there is no key model.width; allowed there are _target_, bias"),
        (["hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs=0: must be greater than or equal to 1"),
        (["hydra.sweeper.n_trials=x"], "hydra.sweeper.n_trials=x: Value 'x' of type 'str' could not be converted"),
        (["optimizer.lr=interval(0.1,0.01)"], "optimizer.lr=interval(0.1,0.01): The `low` value must be smaller than"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr=tag(log,interval(0,1)): The `low` value must be "),
        (["data=glob(nope*)"], "data=glob(nope*): Optuna cannot search it"),
    ],
)
def test_a_mistake_ends_it_with_2(tmp_path: Path, overrides: list[str], message: str) -> None:
    done = search(tmp_path, *overrides)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"overfit-lab: {message}")
    assert list(tmp_path.iterdir()) == []


def test_where_failures_are_allowed_a_mistake_is_one_of_them(tmp_path: Path) -> None:
    half = ("model.width=choice(8,0)", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=4")
    done = search(tmp_path, *half, "hydra.sweeper.max_failure_rate=1")
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "studies/iris-kfold/runs").iterdir())
    assert 0 < len(runs) < 4
    assert all((run / "run.json").is_file() for run in runs)


def test_a_search_that_can_run_none_of_its_jobs_ends_with_2(tmp_path: Path) -> None:
    done = search(tmp_path, "model.width=0", "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.n_trials=2")
    assert done.returncode == 2
    assert "none of the jobs of the search could be run" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_where_all_runs_diverge_nothing_is_found(tmp_path: Path) -> None:
    done = search(tmp_path, "optimizer.lr=1e30", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("overfit-lab: no run of the search has a finite validation loss; ")


def test_a_batch_trains_as_one_cohort(tmp_path: Path) -> None:
    done = search(tmp_path, "hydra.sweeper.n_trials=5", "model.width=8", "hydra.launcher.workers=1")
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "studies/iris-kfold/runs").iterdir())
    assert len(runs) == 5
    # Event files of a cohort share their name, which tells process and cohort: here three runs, and then two.
    names = [file.name for run in runs for file in run.glob("events.out.tfevents.*")]
    assert sorted(map(names.count, set(names))) == [2, 3]
