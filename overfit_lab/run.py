"""From configurations to records: train a cohort, then analyse each of its runs, then save it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overfit_lab.analysis.onset import Onset
from overfit_lab.analysis.pooling import pool_rows
from overfit_lab.analysis.summary import summarise
from overfit_lab.cohort import Cohort
from overfit_lab.data.development import Stream
from overfit_lab.environment import describe_environment, device_name
from overfit_lab.model import count_parameters
from overfit_lab.plan import split_frame
from overfit_lab.records import SCHEMA_VERSION, Descriptive, FitRecord, RunRecord, Status, ValLoss, ValLosses
from overfit_lab.train import Trained, train_cohort
from overfit_lab.training.events import CohortEvents, RunMembers
from overfit_lab.training.history import History, Listener
from overfit_lab.training.loggers import log_run
from overfit_lab.training.supervision import ALONE, Supervision


def execute(
    cohort: Cohort,
    *,
    overrides: Mapping[str, Sequence[str]],
    command: str,
    listeners: Sequence[Listener] = (),
    supervision: Supervision = ALONE,
) -> list[RunRecord]:
    """Train a cohort, analyse the curves of each of its runs, and save them.

    Args:
        cohort: Prepared runs. Where checkpoints of it lie in its study, it goes on from there; runs that were saved
            before are left as they are.
        overrides: For each run by its id, what the command line changed, for the record.
        command: The whole command line, for the record.
        listeners: Called with the history after each measured epoch.
        supervision: Who may stop the training, and hears how far it is.

    Raises:
        UserError: As `prepare`, if another run has made the study another one meanwhile.
        Stopped: It was told to stop; the same call goes on from there.

    Returns:
        The records, in the order of the cohort's runs.
    """
    started = time.perf_counter()
    first, environment = cohort.plans[0], describe_environment(command)
    first.study.create(first.study_record, split_frame(first.source, first.split))
    missing = cohort.missing
    for plan in missing:
        plan.files.directory.mkdir(parents=True, exist_ok=True)
    places = [(cohort.streams_of(plan), cohort.configuration_of(plan)) for plan in missing]
    members = [
        RunMembers(plan.files.directory, tuple(own), configuration)
        for plan, (own, configuration) in zip(missing, places, strict=True)
    ]
    with closing(CohortEvents(members)) as events:
        trained = train_cohort(cohort, [events, *listeners], supervision)
        share = (time.perf_counter() - started) / len(cohort.plans)
        for i, (plan, (own, configuration)) in enumerate(zip(missing, places, strict=True)):
            supervision.check()
            begun = time.perf_counter()
            val_losses = _val_losses(trained, own, configuration)
            record = RunRecord(
                schema_version=SCHEMA_VERSION,
                run_id=plan.run_id,
                config_id=plan.config_id,
                config=plan.config.model_dump(by_alias=True, mode="json"),
                overrides=list(overrides[plan.run_id]),
                parameters=count_parameters(plan.network),
                **_analyse(trained.history, own, configuration, val_losses)._asdict(),
                descriptive=_descriptive(trained, own, configuration),
                # Of what the cohort took together, each run is given the same share.
                seconds=share + time.perf_counter() - begun,
                device=device_name(trained.device),
                environment=environment,
                interruptions=supervision.interruptions,
                epochs_repeated=supervision.epochs_repeated,
            )
            events.finish(i, *_hparams(record))
            plan.files.save(record, trained.history.curves_frame(own, configuration), val_losses)
            log_run(plan.config.logger, members[i], plan.config.study.name, trained.history, *_hparams(record))
    # Only now: whoever goes on after a kill in between needs no more than to save the rest.
    cohort.study.cohorts.end(cohort.name)
    return [plan.files.load() for plan in cohort.plans]


class _Outcome(NamedTuple):
    """The fields of a record that come from its curves."""

    status: Status
    onset: Onset
    val_loss: ValLoss
    train_loss: float | None
    fits: list[FitRecord]


def _analyse(history: History, own: Mapping[int, Stream], configuration: int, val_losses: ValLosses) -> _Outcome:
    """Find the onset of a run's pooled curve and of each of its fits, and what is selected by validation."""
    epochs = val_losses.epochs
    kept = np.searchsorted(history.measured, epochs)
    train_losses = history.curve("train", "loss")[list(own), configuration][:, kept]
    fits = []
    for (place, stream), train_loss in zip(own.items(), train_losses, strict=True):
        losses = val_losses.losses[stream.repeat][:, val_losses.folds[stream.repeat] == stream.fold]
        onset, best = summarise(losses[1:], train_loss[1:], epochs[1:])
        diverged_at = history.first_divergence(place, configuration)
        fits.append(
            FitRecord(
                repeat=stream.repeat,
                fold=stream.fold,
                seed=stream.seed,
                status="finished" if diverged_at is None else "diverged",
                diverged_at=diverged_at,
                onset=onset,
                best_epoch=best,
                val_loss=_val_loss(losses, epochs, best).mean,
            )
        )
    pooled = pool_rows(val_losses.losses, val_losses.rows)
    train_loss = train_losses.mean(0)
    onset, best = summarise(pooled[1:], train_loss[1:], epochs[1:])
    return _Outcome(
        status="diverged" if any(fit.status == "diverged" for fit in fits) else "finished",
        onset=onset,
        val_loss=_val_loss(pooled, epochs, best),
        train_loss=None if best is None else train_loss[np.searchsorted(epochs, best)],
        fits=fits,
    )


def _val_loss(losses: NDArray[Any], epochs: NDArray[np.int64], best: int | None) -> ValLoss:
    if best is None:
        return ValLoss(mean=None, se=None, epoch=None)
    values = losses[np.searchsorted(epochs, best)].astype(np.float64)
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return ValLoss(mean=values.mean(), se=se, epoch=best)


def _descriptive(trained: Trained, own: Mapping[int, Stream], configuration: int) -> Descriptive:
    """Sum up what a run's trained networks are like; where one of its fits has diverged, their mean is none."""
    history, found, places = trained.history, trained.description, list(own)
    sound = np.array([history.first_divergence(place, configuration) is None for place in places])

    def mean(values: NDArray[np.float64]) -> float:
        return float(np.where(sound, values, np.nan).mean())

    # What has no weights that are known as such has no norm of them either.
    names = [name for name in ("weight_norm", "distance_from_init") if ("train", name) in history.curves]
    norms = {name: mean(history.curve("train", name)[places, configuration, -1]) for name in names}
    dof = float(found.effective_dof[places[0], configuration]) if sound[0] else math.nan
    return Descriptive(
        weight_norm=norms.get("weight_norm"),
        distance_from_init=norms.get("distance_from_init"),
        effective_dof=dof,
        effective_dof_rows=found.effective_dof_rows[places[0]] if math.isfinite(dof) else None,
        normalised_margin=mean(found.normalised_margin[places, configuration].numpy()),
    )


def _val_losses(trained: Trained, own: Mapping[int, Stream], configuration: int) -> ValLosses:
    """Lay a run's kept losses out as `repeats x epochs x columns`, the folds of a repeat side by side."""
    development, storage = trained.development, trained.storage
    val_rows = {(f.repeat, f.fold): development.rows[f.val] for f in development.folds}
    losses: list[NDArray[np.float32]] = []
    rows: list[NDArray[np.int64]] = []
    folds: list[NDArray[np.int64]] = []
    for repeat in sorted({stream.repeat for stream in own.values()}):
        fits = {i: stream for i, stream in own.items() if stream.repeat == repeat}
        parts = [np.stack([epoch[i][configuration].numpy() for epoch in trained.history.val_losses]) for i in fits]
        names = [(stream.repeat, stream.fold) for stream in fits.values()]
        columns = [part.shape[1] for part in parts]
        losses.append(np.concatenate(parts, axis=1))
        rows.append(
            np.concatenate(
                [
                    val_rows[name] if storage.blocks[name] is None else np.full(count, -1)
                    for name, count in zip(names, columns, strict=True)
                ]
            )
        )
        folds.append(np.repeat([fold for _, fold in names], columns))
    return ValLosses(
        epochs=np.array(storage.epochs), losses=np.stack(losses), rows=np.stack(rows), folds=np.stack(folds)
    )


def _hparams(record: RunRecord) -> tuple[dict[str, object], dict[str, float | None]]:
    """What TensorBoard's HPARAMS tab shows of a run."""
    # Source and split are the same all over a study, but for how many of its rows are trained on, and how.
    hparams = {
        f"{section}.{key}": value
        for section in ("model", "penalty", "optimizer", "training")
        for key, value in record.config[section].items()
        if not isinstance(value, list)
    }
    hparams |= {
        f"data.{key}": value for key in ("label_noise", "train_size") if (value := record.config["data"].get(key))
    }
    hparams |= {"seed": record.config["seed"], "parameters": record.parameters}
    return hparams, {"val_loss": record.val_loss.mean, "onset": record.onset.epoch, "gap": record.gap}
