"""One run: from a plan to its record. Train the cohort of its fits, analyse their curves, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from overfit_lab import config as cfg
from overfit_lab.analysis.onset import Onset, estimate_onset
from overfit_lab.analysis.pooling import pool_rows
from overfit_lab.data.datamodule import CohortDataModule, DevelopmentRows, Stream, seal
from overfit_lab.data.source import Source
from overfit_lab.data.split import Split
from overfit_lab.environment import describe_environment, device_name
from overfit_lab.model import count_parameters, initialise
from overfit_lab.objective import make_penalty
from overfit_lab.plan import Plan
from overfit_lab.records import (
    SCHEMA_VERSION,
    FitRecord,
    RunRecord,
    Status,
    ValLoss,
    ValLosses,
)
from overfit_lab.training.events import EventWriter
from overfit_lab.training.history import History, plan_storage
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import StackedNetwork

Listener = Callable[[History], None]


def execute(plan: Plan, *, overrides: Sequence[str], command: str, listeners: Sequence[Listener] = ()) -> RunRecord:
    """Train all fits of a run as one cohort, analyse their curves, and save the run.

    Args:
        plan: A prepared run. Where a checkpoint of it lies in its folder, it goes on from there.
        overrides: What the command line changed, for the record.
        command: The whole command line, for the record.
        listeners: Called with the history after each measured epoch.

    Raises:
        UserError: As `prepare`, if another run has made the study another one meanwhile.
    """
    started = time.perf_counter()
    config = plan.config
    plan.study.create(plan.study_record, _split_frame(plan.source, plan.split))
    plan.files.directory.mkdir(parents=True, exist_ok=True)
    development = seal(plan.source, plan.split)
    streams = [Stream(config.seed, f.repeat, f.fold) for f in development.folds]
    with closing(EventWriter(plan.files.directory, configuration=0)) as events:
        module, history = _train(plan, development, streams, [events, *listeners])
        val_losses = _val_losses(development, module, history, configuration=0)
        record = RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=plan.run_id,
            config_id=cfg.config_id(config),
            config=config.model_dump(by_alias=True, mode="json"),
            overrides=list(overrides),
            parameters=count_parameters(plan.network),
            **_analyse(streams, history, val_losses, configuration=0)._asdict(),
            seconds=time.perf_counter() - started,
            device=device_name(module.trained_on),
            environment=describe_environment(command),
        )
        events.finish(*_hparams(record))
    plan.files.save(record, history.curves_frame(streams, configuration=0), val_losses)
    return record


def _train(
    plan: Plan, development: DevelopmentRows, streams: Sequence[Stream], listeners: Sequence[Listener]
) -> tuple[CohortModule, History]:
    config = plan.config
    data = CohortDataModule(
        development,
        streams,
        batch_size=config.training.batch_size,
        max_train_rows_measured=config.training.max_train_rows_measured,
        scale_inputs=config.data.scale_inputs,
        scale_targets=config.data.scale_targets,
        dtype=torch.float64 if config.trainer.precision == "64-true" else torch.float32,
    )
    sizes = plan.source.features, plan.source.outputs
    networks = [[initialise(config.model, *sizes, seed=s.seed, repeat=s.repeat, fold=s.fold)] for s in streams]
    storage = plan_storage(
        config.training.epochs, [(f.repeat, f.fold) for f in data.folds], [len(f.val) for f in data.folds]
    )
    module = CohortModule(
        StackedNetwork(networks),
        plan.task,
        config.optimizer,
        [make_penalty(config.penalty)],
        plan.weights,
        storage,
        listeners,
    )
    history = train(
        module,
        data,
        training=config.training,
        trainer=config.trainer,
        checkpoint=plan.files.checkpoint,
    )
    return module, history


class _Outcome(NamedTuple):
    """The fields of a record that come from its curves."""

    status: Status
    onset: Onset
    val_loss: ValLoss
    train_loss: float | None
    fits: list[FitRecord]


def _analyse(streams: Sequence[Stream], history: History, val_losses: ValLosses, *, configuration: int) -> _Outcome:
    """Find the onset of the pooled curve and of each fit, and what is selected by validation."""
    epochs = val_losses.epochs
    train_losses = history.curve("train", "loss")[:, configuration, epochs]
    fits = []
    for i, stream in enumerate(streams):
        own = val_losses.losses[stream.repeat][:, val_losses.folds[stream.repeat] == stream.fold]
        onset, best = _onset(own, train_losses[i], epochs)
        diverged_at = history.first_divergence(i, configuration)
        fits.append(
            FitRecord(
                repeat=stream.repeat,
                fold=stream.fold,
                seed=stream.seed,
                status="finished" if diverged_at is None else "diverged",
                diverged_at=diverged_at,
                onset=onset,
                best_epoch=best,
                val_loss=_val_loss(own, epochs, best).mean,
            )
        )
    pooled = pool_rows(val_losses.losses, val_losses.rows)
    train_loss = train_losses.mean(0)
    onset, best = _onset(pooled, train_loss, epochs)
    return _Outcome(
        status="diverged" if any(fit.status == "diverged" for fit in fits) else "finished",
        onset=onset,
        val_loss=_val_loss(pooled, epochs, best),
        train_loss=None if best is None else train_loss[np.searchsorted(epochs, best)],
        fits=fits,
    )


def _onset(
    losses: NDArray[Any], train_loss: NDArray[np.float64], epochs: NDArray[np.int64]
) -> tuple[Onset, int | None]:
    """Estimate the onset and the best epoch: where the trend is lowest, or the curve if it is too short for a trend."""
    # Epoch 0 takes no part: the first pass over the data is no trend of its own. One row has no sampling error: what
    # it shows is proof of nothing.
    enough = losses.shape[1] > 1
    onset = estimate_onset(losses[1:], train_loss[1:], epochs=epochs[1:]) if enough else Onset("too_short")
    curve = losses[1:].mean(1, dtype=np.float64)
    if onset.best_epoch is None and np.isfinite(curve).any():
        return onset, int(epochs[1:][np.nanargmin(curve)])
    return onset, onset.best_epoch


def _val_loss(losses: NDArray[Any], epochs: NDArray[np.int64], best: int | None) -> ValLoss:
    if best is None:
        return ValLoss(mean=None, se=None, epoch=None)
    values = losses[np.searchsorted(epochs, best)].astype(np.float64)
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return ValLoss(mean=values.mean(), se=se, epoch=best)


def _val_losses(
    development: DevelopmentRows, module: CohortModule, history: History, *, configuration: int
) -> ValLosses:
    """Lay the kept losses out as `repeats x epochs x columns`, the folds of a repeat side by side."""
    losses: list[NDArray[np.float32]] = []
    rows: list[NDArray[np.int64]] = []
    folds: list[NDArray[np.int64]] = []
    repeats = 1 + max(f.repeat for f in development.folds)
    for repeat in range(repeats):
        members = [(i, f) for i, f in enumerate(development.folds) if f.repeat == repeat]
        parts = [np.stack([epoch[i][configuration].numpy() for epoch in history.val_losses]) for i, _ in members]
        losses.append(np.concatenate(parts, axis=1))
        rows.append(
            np.concatenate(
                [
                    development.rows[f.val] if module.storage.blocks[i] is None else np.full(part.shape[1], -1)
                    for (i, f), part in zip(members, parts, strict=True)
                ]
            )
        )
        folds.append(np.concatenate([np.full(p.shape[1], f.fold) for (_, f), p in zip(members, parts, strict=True)]))
    return ValLosses(
        epochs=np.array(module.storage.epochs),
        losses=np.stack(losses),
        rows=np.stack(rows),
        folds=np.stack(folds),
    )


def _split_frame(source: Source, split: Split) -> pl.DataFrame:
    """List every row's role: test rows once; development rows once a repeat, with the fold that validates on them."""
    parts = [pl.DataFrame({"row": split.test, "role": "test", "repeat": None, "fold": None}, schema=_SPLIT_SCHEMA)]
    for repeat in sorted({f.repeat for f in split.folds}):
        fold = np.full(source.rows, -1)
        for f in split.folds:
            if f.repeat == repeat:
                fold[f.val] = f.fold
        own = fold[split.development]
        frame = pl.DataFrame(
            {"row": split.development, "role": "dev", "repeat": repeat, "fold": own}, schema=_SPLIT_SCHEMA
        )
        # Of a hold-out's development rows, those that are only trained on belong to no fold.
        parts.append(frame.with_columns(pl.when(pl.col("fold") >= 0).then(pl.col("fold"))))
    return pl.concat(parts)


_SPLIT_SCHEMA = {"row": pl.Int64, "role": pl.String, "repeat": pl.Int32, "fold": pl.Int32}


def _hparams(record: RunRecord) -> tuple[dict[str, object], dict[str, float | None]]:
    """What TensorBoard's HPARAMS tab shows of a run."""
    # Source and split are the same all over a study.
    hparams = {
        f"{section}.{key}": value
        for section in ("model", "penalty", "optimizer", "training")
        for key, value in record.config[section].items()
        if not isinstance(value, list)
    }
    hparams |= {"seed": record.config["seed"], "parameters": record.parameters}
    return hparams, {"val_loss": record.val_loss.mean, "onset": record.onset.epoch, "gap": record.gap}
