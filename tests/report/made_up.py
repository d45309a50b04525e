"""Studies of made-up runs, written as real ones are: the onset stands where the curves were bent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.analysis.onset import Onset
from overfit_lab.records import (
    SCHEMA_VERSION,
    Environment,
    FitRecord,
    RunFiles,
    RunRecord,
    SourceRecord,
    StudyFiles,
    StudyRecord,
    ValLoss,
    ValLosses,
)

HORIZON = 20
FITS = 2
ENVIRONMENT = Environment(overfit_lab="0", torch="0", lightning="0", python="0", git=None, command="made up")


def make_study(root: Path, name: str = "made-up", *, problem: str = "binary") -> StudyFiles:
    """Write a study without runs."""
    files = StudyFiles(root / "study")
    source = SourceRecord(name="coins", problem=problem, rows=100, features=3, outputs=1, fingerprint="0")
    split = {"kind": "kfold", "folds": FITS, "repeats": 1, "test_fraction": 0.2}
    files.create(
        StudyRecord(schema_version=SCHEMA_VERSION, name=name, source=source, split=split),
        pl.DataFrame({"row": [0, 1], "role": ["test", "dev"], "repeat": [None, 0], "fold": [None, 0]}),
    )
    files.runs.mkdir()
    return files


def configuration(width: int, alpha: float, *, seed: int = 0, **model: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "data": {"name": "coins", "scale_targets": False},
        "model": {"_target_": "overfit_lab.model.MLP", "width": width, **model},
        "task": {"name": "auto", "loss": "auto"},
        "penalty": {"kind": "l2", "alpha": alpha, "include": []},
        "training": {"epochs": HORIZON},
        "seed": seed,
        "study": {"name": "made-up"},
    }


def losses(turn: int, *, floor: float = 0.2, rise: float = 0.02) -> NDArray[np.float64]:
    """Validation losses, `fits x epochs`: they fall to `floor` at an epoch and rise from there."""
    epochs = np.arange(HORIZON + 1)
    mean = floor + np.where(epochs < turn, 0.05 * (turn - epochs), rise * (epochs - turn))
    return np.stack([mean - 0.01, mean + 0.01])


def add_run(
    files: RunFiles,
    config: dict[str, Any],
    onset: Onset,
    val: NDArray[np.float64],
    *,
    overfit_fits: int = 0,
    se: float | None = 0.0123,
) -> RunRecord:
    """Write a finished run; its train loss is half its validation loss at epoch 0, and falls by a tenth each epoch."""
    train = 0.5 * val[:, :1] * 0.9 ** np.arange(val.shape[1])
    best = onset.best_epoch
    fit_onsets = [Onset("overfit", 5, (4, 6)) if i < overfit_fits else Onset("not_reached") for i in range(len(val))]
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=files.directory.name,
        config_id=files.directory.name,
        status="finished" if np.isfinite(val).all() else "diverged",
        config=config,
        overrides=[],
        parameters=10 * config["model"]["width"],
        onset=onset,
        val_loss=ValLoss(
            mean=None if best is None else val[:, best].mean(), se=None if best is None else se, epoch=best
        ),
        train_loss=None if best is None else train[:, best].mean(),
        fits=[
            FitRecord(
                repeat=0, fold=i, seed=0, status="finished", diverged_at=None, onset=o, best_epoch=best, val_loss=0.1
            )
            for i, o in enumerate(fit_onsets)
        ],
        seconds=1.0,
        device="cpu",
        environment=ENVIRONMENT,
    )
    nothing = np.zeros((1, 0), dtype=np.int64)
    stored = ValLosses(epochs=nothing[0], losses=np.zeros((1, 0, 0), dtype=np.float32), rows=nothing, folds=nothing)
    files.directory.mkdir(parents=True)
    files.save(record, curves_frame({"train": train, "val": val}), stored)
    return record


def curves_frame(curves: dict[str, NDArray[np.float64]]) -> pl.DataFrame:
    """Lay losses out as `curves.parquet` does, with another metric that no figure of losses may take in."""
    rows = [
        (0, fold, epoch, split, metric, 77.0 if metric == "accuracy" else value)
        for split, values in curves.items()
        for fold, curve in enumerate(values.tolist())
        for epoch, value in enumerate(curve)
        for metric in ("accuracy", "loss")
    ]
    return pl.DataFrame(rows, schema=["repeat", "fold", "epoch", "split", "metric", "value"], orient="row")


def make_sweep(root: Path, name: str = "made-up", *, seeds: Sequence[int] = (0,)) -> StudyFiles:
    """Write a sweep of width 4, 16, 64 by alpha 0, 0.1: one diverged, one failed, one unfinished, one underfit."""
    files = make_study(root, name)
    for seed in seeds:
        add_run(
            files.run(f"narrow{seed}"),
            configuration(4, 0.0, seed=seed),
            Onset("overfit", 12, (9, 15), 16, 12, 0.01),
            losses(12 + seed),
            overfit_fits=1,
        )
        add_run(
            files.run(f"medium{seed}"),
            configuration(16, 0.0, seed=seed),
            Onset("overfit", 5, (4, 7), 8, 5, 0.01),
            losses(5, floor=0.15),
            overfit_fits=2,
        )
        exploded = losses(3)
        exploded[1, 7:] = np.inf
        exploded[1, 10:] = np.nan
        add_run(files.run(f"wide{seed}"), configuration(64, 0.0, seed=seed), Onset("diverged", best_epoch=3), exploded)
        still = Onset("underfit", best_epoch=HORIZON, p_value=1.0)
        add_run(files.run(f"decayed{seed}"), configuration(4, 0.1, seed=seed), still, losses(HORIZON, floor=0.3))
        files.run(f"broken{seed}").save_failure(
            "broken", configuration(16, 0.1, seed=seed), ValueError("no [bold]memory[/]")
        )
        files.run(f"running{seed}").directory.mkdir()
    return files
