"""Starts overfit_lab and the others on a part of the grid, checks what they trained, and scales what is too long."""

import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from hydra import compose, initialize_config_dir

from overfit_lab import load_study
from overfit_lab.config import conf_directory
from overfit_lab.launch.events import Progress
from overfit_lab.launch.job import config_of, register_resolvers
from overfit_lab.launch.machine import describe_machine
from overfit_lab.plan import prepare
from scripts.benchmarks.in_workers import train_plans
from scripts.benchmarks.processes import OVERFIT_LAB, Measured, run
from scripts.benchmarks.sweep_competitors import grid
from scripts.benchmarks.sweep_competitors.grid import Trained, Work

OURS, BASIC, LIGHTNING, SKLEARN = "ours", "basic_launcher", "plain_lightning", "sklearn"
HANDWRITTEN, JAX = "handwritten", "jax"
LABELS = {
    OURS: "overfit-lab",
    BASIC: "overfit-lab, basic launcher",
    LIGHTNING: "plain Lightning, one by one",
    SKLEARN: "scikit-learn grid search, 2 jobs, no curves",
    HANDWRITTEN: "batched PyTorch by hand",
    JAX: "JAX by hand",
}
PROGRAMS = {
    LIGHTNING: "plain_lightning",
    SKLEARN: "sklearn_search",
    HANDWRITTEN: "handwritten",
    JAX: "jax_scan",
}
DEVELOPMENT_ROWS = 1437  # of the digits


@dataclass(frozen=True)
class Result:
    """What a competitor took for a part of the grid.

    Attributes:
        measured: seconds and memory.
        val_loss: median over its fits after the last epoch.
        scaled: from what the seconds are scaled; empty if nothing was.
    """

    measured: Measured
    val_loss: float
    scaled: str = ""


@dataclass(frozen=True)
class Stage:
    """Where the competitors are started.

    Attributes:
        folder: for what they write.
        launcher: Hydra's, for ours.
        jax_python: an interpreter that has JAX.
    """

    folder: Path
    launcher: str
    jax_python: str | None

    def train(self, name: str, work: Work) -> Result:
        """Train a part of the grid, or as much of it as is needed to know how long it takes."""
        if name == BASIC:
            return self._basic_launcher(work)
        if name == LIGHTNING:
            return self._plain_lightning(work)
        return Result(*self._run(name, work))

    def warm_up(self, name: str) -> None:
        """Start a competitor once, so that none is charged for files that are read for the first time."""
        self._run(name, Work((4,), (0.0,), epochs=1))

    def steps(self, name: str, fits: int, width: int, steps: int) -> dict[str, float]:
        """Milliseconds for an optimizer step of a cohort: `training` alone, and `with_measurement`."""
        out = self.folder / "steps.json"
        run([*self._start(name), f"--out={out}", f"--fits={fits}", f"--width={width}", f"--steps={steps}"])
        found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
        return found

    def lightning_step_ms(self, width: int, epochs: tuple[int, int]) -> float:
        """Milliseconds for a step of one fit in plain Lightning, validation included."""
        work = [Work((width,), (0.0,), 1, number) for number in epochs]
        short, long = (self._run(LIGHTNING, one)[0].seconds for one in work)
        return _step_ms(short, long, epochs, _steps(grid.FOLDS))

    def _basic_launcher(self, work: Work) -> Result:
        """One alpha of each width; what a command costs before it trains is taken from the smallest one."""
        part = replace(work, alphas=work.alphas[:1])
        start, _ = self._run(BASIC, Work(work.widths[:1], part.alphas, epochs=1))
        measured, val_loss = self._run(BASIC, part)
        seconds = start.seconds + work.fits / part.fits * (measured.seconds - start.seconds)
        return Result(replace(measured, seconds=seconds), val_loss, f"{part.fits} of {work.fits} fits")

    def _plain_lightning(self, work: Work) -> Result:
        """One fit of each width, with few epochs and with more, and a start that trains nothing."""
        few, more = max(1, work.epochs // 50), max(2, work.epochs // 5)
        part = Work(work.widths, work.alphas[:1], 1, more)
        start, _ = self._run(LIGHTNING, replace(part, widths=()))
        short, _ = self._run(LIGHTNING, replace(part, epochs=few))
        measured, val_loss = self._run(LIGHTNING, part)
        epoch = (measured.seconds - short.seconds) / (more - few)
        training = measured.seconds - start.seconds + (work.epochs - more) * epoch
        seconds = start.seconds + work.fits / part.fits * training
        scaled = f"{part.fits} of {work.fits} fits, {few} and {more} of {work.epochs} epochs"
        return Result(replace(measured, seconds=seconds), val_loss, scaled)

    def _run(self, name: str, work: Work) -> tuple[Measured, float]:
        """Run one command and check that it did the work; returns the median of the losses as well."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            if name in (OURS, BASIC):
                measured = run(overfit_lab_sweep(work, Path(folder), self.launcher if name == OURS else "basic"))
                trained = _trained_by_us(Path(folder))
            else:
                out = Path(folder, "trained.json")
                measured = run([*self._start(name), f"--out={out}", *work.words])
                trained = Trained(**json.loads(out.read_text(encoding="utf-8")))
        if trained.fits != work.fits or trained.epochs != work.fits * work.epochs:
            raise SystemExit(
                f"{name}: trained {trained.fits} fits for {trained.epochs} epochs in all, "
                f"not {work.fits} for {work.fits * work.epochs}"
            )
        if not np.isfinite(trained.val_losses).all():
            raise SystemExit(f"{name}: a validation loss is not finite")
        return measured, statistics.median(trained.val_losses) if trained.val_losses else math.nan

    def _start(self, name: str) -> list[str]:
        python = self.jax_python if name == JAX and self.jax_python else sys.executable
        return [python, "-m", f"scripts.benchmarks.sweep_competitors.{PROGRAMS[name]}"]


def overfit_lab_sweep(work: Work, root: Path, launcher: str, *more: str) -> list[str]:
    """The command that trains a part of the grid with overfit_lab.

    Args:
        work: which part.
        root: where the study comes to lie.
        launcher: Hydra's.
        *more: further overrides.
    """
    return [
        *(OVERFIT_LAB, "train", "-m", *_settings(work.epochs, root)),
        f"model.width={','.join(map(str, work.widths))}",
        f"penalty.alpha={','.join(f'{alpha:g}' for alpha in work.alphas)}",
        f"split.folds={work.folds}",
        f"hydra/launcher={launcher}",
        *more,
    ]


def ours_step_ms(fits: int, width: int, epochs: int) -> float:
    """Milliseconds for an optimizer step of ours, batches and the measurement of each epoch included.

    The cohorts are formed and trained as the launcher does it; time runs from the first epoch of the last of them to
    begin to the last epoch of all, so imports and the analysis at the end are not in it.

    Args:
        fits: of a sweep over alphas; 1 is a single hold-out fit.
        width: of both hidden layers.
        epochs: of each fit.
    """
    folds = next(folds for folds in (5, 4, 1) if fits % folds == 0)
    with tempfile.TemporaryDirectory() as root:
        plans = []
        split = ["split=holdout"] if fits == 1 else [f"split.folds={folds}"]
        register_resolvers()
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            for i in range(fits // folds):
                words = [*_settings(epochs, Path(root)), *split, f"model.width={width}", f"penalty.alpha={1e-5 * i}"]
                plans.append(prepare(config_of(compose("config", words, return_hydra_config=True))))
        machine = describe_machine(plans, None)
        begun: dict[str, float] = {}
        for event in train_plans(plans, machine):
            if isinstance(event, Progress):
                begun.setdefault(event.cohort.name, time.perf_counter())
                if event.epoch == epochs:
                    last = time.perf_counter()
        if len(begun) > machine.workers:
            raise SystemExit(f"{fits} fits of w={width} are more cohorts than workers: they do not run side by side")
    # A hold-out has as many rows to train on as one of five folds.
    return 1000 * (last - max(begun.values())) / (epochs * _steps(5 if fits == 1 else folds))


def _settings(epochs: int, root: Path) -> list[str]:
    return [
        *("data=digits", "task.metrics=[accuracy]", f"trainer.accelerator={grid.accelerator()}", "study.report=false"),
        *(f"study.root={root}", f"training.epochs={epochs}", f"training.batch_size={grid.BATCH_SIZE}"),
        f"optimizer.lr={grid.LEARNING_RATE}",
    ]


def _step_ms(short: float, long: float, epochs: tuple[int, int], steps: int) -> float:
    return 1000 * (long - short) / ((epochs[1] - epochs[0]) * steps)


def _steps(folds: int) -> int:
    return grid.steps_per_epoch(DEVELOPMENT_ROWS - DEVELOPMENT_ROWS // folds)


def _trained_by_us(root: Path) -> Trained:
    """Read from the study what was trained."""
    (record,) = root.glob("*/study.json")
    study = load_study(record.parent)
    epochs, losses = 0, []
    for run_record in study.runs:
        curves = study.curves(run_record.run_id).filter(pl.col("split") == "val", pl.col("metric") == "loss")
        epochs += curves.filter(pl.col("epoch") > 0).height
        losses += curves.filter(pl.col("epoch") == pl.col("epoch").max())["value"].to_list()
    return Trained(len(losses), epochs, losses)
