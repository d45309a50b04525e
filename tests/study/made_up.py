"""Studies of made-up validation losses: what is selected among them can be said beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.analysis.onset import Onset
from overfit_lab.config import Config, config_id, run_id
from overfit_lab.records import (
    SCHEMA_VERSION,
    FitRecord,
    RunFiles,
    RunRecord,
    SourceRecord,
    Status,
    StudyFiles,
    StudyRecord,
    ValLoss,
    ValLosses,
)
from tests.report.made_up import ENVIRONMENT

Losses = NDArray[np.float64]
Rows = NDArray[np.int64]


def make_study(directory: Path, config: Config) -> StudyFiles:
    """Write a study without runs, split as a configuration says."""
    files = StudyFiles(directory)
    source = SourceRecord(name="coins", problem="binary", rows=100, features=3, outputs=1, fingerprint="0")
    split = config.split.model_dump()
    record = StudyRecord(schema_version=SCHEMA_VERSION, name="coins", source=source, split=split)
    files.create(record, pl.DataFrame({"row": [0], "role": ["test"], "repeat": [None], "fold": [None]}))
    return files


def fold_columns(*sizes: int) -> Rows:
    """Say which fold validates each column, `1 x columns`."""
    return np.repeat(np.arange(len(sizes)), sizes)[None]


def add_run(
    study: StudyFiles,
    config: Config,
    losses: Losses,
    folds: Rows,
    *,
    rows: Rows | None = None,
    parameters: int = 10,
    status: Status = "finished",
    curves: pl.DataFrame | None = None,
) -> RunFiles:
    """Write a run whose best epoch is where its mean loss is lowest.

    Args:
        study: Where to.
        config: What it was told.
        losses: `repeats x epochs x columns`, from epoch 1; epoch 0 is added.
        folds: `repeats x columns`.
        rows: `repeats x columns`; the numbers of the columns if not given.
        parameters: Of its network.
        status: Of the run.
        curves: Its curves; none if not given.
    """
    repeats, epochs, columns = losses.shape
    mean = losses.astype(np.float32).astype(np.float64).mean(axis=(0, 2))
    best = int(np.nanargmin(mean)) + 1 if np.isfinite(mean).any() else None
    fits = [
        FitRecord(
            repeat=repeat,
            fold=int(fold),
            seed=config.seed,
            status=status,
            diverged_at=None,
            onset=Onset("too_short"),
            best_epoch=best,
            val_loss=0.5,
        )
        for repeat in range(repeats)
        for fold in np.unique(folds[repeat])
    ]
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=run_id(config),
        config_id=config_id(config),
        status=status,
        config=config.model_dump(by_alias=True, mode="json"),
        overrides=[],
        parameters=parameters,
        onset=Onset("too_short"),
        val_loss=ValLoss(mean=None if best is None else mean[best - 1], se=0.1, epoch=best),
        train_loss=0.5,
        fits=fits,
        seconds=1.0,
        device="cpu",
        environment=ENVIRONMENT,
    )
    kept = ValLosses(
        epochs=np.arange(epochs + 1),
        losses=np.concatenate([np.full((repeats, 1, columns), 9.0), losses], axis=1).astype(np.float32),
        rows=np.tile(np.arange(columns), (repeats, 1)) if rows is None else rows,
        folds=folds,
    )
    empty = {"repeat": [0], "fold": [0], "epoch": [0], "split": ["val"], "metric": ["loss"], "value": [9.0]}
    files = study.run(record.run_id)
    files.directory.mkdir(parents=True)
    files.save(record, pl.DataFrame(empty) if curves is None else curves, kept)
    return files
