"""`sweep=optuna`: batches that train together, in search of the lowest validation loss."""

from __future__ import annotations

import subprocess
from pathlib import Path

from omegaconf import OmegaConf

import overfit_lab
from tests.integration.conftest import COMMAND

# What optuna prints of itself stands aside.
QUIET = ("data=iris", "training.epochs=8", "study.report=false", "hydra.sweeper.n_jobs=3")


def search(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: optuna's imports warn.
    return subprocess.run(
        [*COMMAND, "train", "sweep=optuna", *QUIET, *overrides], cwd=folder, capture_output=True, text=True, check=False
    )


def test_what_is_found_is_the_best_of_the_study(tmp_path: Path) -> None:
    first = search(tmp_path, "hydra.sweeper.n_trials=5")
    assert first.returncode == 0, first.stderr
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


def test_a_mistake_ends_it_with_2(tmp_path: Path) -> None:
    done = search(tmp_path, "model.width=interval(-3,-2)")
    assert done.returncode == 2
    assert "model.width=-2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "studies/iris-kfold").exists()


def test_a_batch_trains_as_one_cohort(tmp_path: Path) -> None:
    done = search(tmp_path, "hydra.sweeper.n_trials=5", "model.width=8", "hydra.launcher.workers=1")
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "studies/iris-kfold/runs").iterdir())
    assert len(runs) == 5
    # Event files of a cohort share their name, which tells process and cohort: here three runs, and then two.
    names = [file.name for run in runs for file in run.glob("events.out.tfevents.*")]
    assert sorted(map(names.count, set(names))) == [2, 3]
