"""The protocol's last step: select by validation, retrain from scratch on all development rows, test once.

Everything that can fail comes before the test rows are opened, and the ledger says that they are before they are.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config, LoggerConfig, StudyConfig, parse
from overfit_lab.data.split import Fold, Rows, Split
from overfit_lab.data.unseal import unseal
from overfit_lab.environment import describe_environment, device_name
from overfit_lab.errors import UserError, first_line
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import (
    SCHEMA_VERSION,
    FinalRecord,
    LedgerLine,
    LeftOut,
    RetrainRecord,
    Rule,
    SelectionRecord,
    StudyFiles,
    ValidationRecord,
)
from overfit_lab.study.candidates import Candidate, gather_candidates
from overfit_lab.study.final_test import measure_test
from overfit_lab.study.ledger import opened_elsewhere, read_ledger, refuse_opened, sole_opener, write_opening
from overfit_lab.study.selection import Selection, select
from overfit_lab.study.study import Study, load_study
from overfit_lab.train import Trained, train_cohort
from overfit_lab.training.history import Listener

RETRAIN = -1
"""In place of the number of a fold: all development rows. The weights start from a draw of their own."""


def finalize(
    path: Path,
    *,
    rule: Rule = "min",
    reason: str | None = None,
    partial: bool = False,
    command: str,
    listeners: Sequence[Listener] = (),
) -> FinalRecord:
    """Select, retrain, test; write the ledger and `final.json`.

    Args:
        path: The study's directory.
        rule: How to select.
        reason: Why the test rows are to be opened again; None if they are opened for the first time.
        partial: Whether to go on although runs are not finished, or cannot be read.
        command: The whole command line, for the record.
        listeners: Called with the history of the retraining after each measured epoch.

    Raises:
        UserError: Something is missing, does not fit, or the test rows were opened before. They stay sealed.

    Returns:
        What was written to `final.json`.
    """
    study = load_study(path)
    refuse_opened(study.files, reason)
    if study.record.source.validates_on_test:
        raise UserError(f"{path}: its validation rows are the official test rows, so there are none left to test on")
    if not partial:
        _refuse_unfinished(study)
    candidates, left_out, seeds = gather_candidates(study)
    selection = select(candidates, rule, study.record.split)
    plan = _plan(study, selection)
    validation, environment = _validation(selection), describe_environment(command)
    with sole_opener(study.files, reason):
        trained, retrain = _retrain(plan, selection.chosen, listeners)
        opening = LedgerLine(
            schema_version=SCHEMA_VERSION,
            number=1,
            time=_now(),
            study=study.record.name,
            source=study.record.source.fingerprint,
            test_rows=hashlib.sha256(plan.split.test.tobytes()).hexdigest(),
            rows=len(plan.split.test),
            config_id=selection.chosen.config_id,
            config=dict(selection.chosen.config),
            epochs=selection.chosen.epoch,
            command=command,
            git=environment.git,
            reason=reason,
            intact=True,
            previous="",
        )
        elsewhere = opened_elsewhere(study.files, opening)
        opened = unseal(plan.source, plan.split, functools.partial(write_opening, study.files, opening))
        state = read_ledger(study.files)
        record = FinalRecord(
            schema_version=SCHEMA_VERSION,
            study=study.record.name,
            time=_now(),
            selection=SelectionRecord(
                rule=rule,
                config_id=selection.chosen.config_id,
                config=dict(selection.chosen.config),
                epoch=selection.chosen.epoch,
                horizon=selection.chosen.horizon,
                candidates=list(selection.candidates),
                left_out=left_out,
            ),
            validation=validation,
            retrain=retrain,
            test=measure_test(trained, plan, opened, validation),
            openings=state.openings,
            ledger=state.digest,
            warnings=_warnings(study, selection, left_out, seeds) + _of_openings(state.openings, elsewhere),
            environment=environment,
        )
        study.files.save_final(record)
    return record


def _refuse_unfinished(study: Study) -> None:
    """Refuse a study of which runs are missing, or cannot be read: the test rows are opened once."""
    directory = study.files.directory
    if study.unfinished:
        raise UserError(
            f"{directory}: {len(study.unfinished)} runs are not finished ({', '.join(study.unfinished[:3])}); finish "
            "them with the command that began them, or leave them out with --partial: the test rows are opened once"
        )
    damaged = [failed for failed in study.failed if study.files.run(failed.run_id).record.is_file()]
    if damaged:
        raise UserError(
            f"{directory}: {len(damaged)} finished runs cannot be read ({damaged[0].error}); remove their folders and "
            "run them again, or leave them out with --partial: the test rows are opened once"
        )


def _plan(study: Study, selection: Selection) -> Plan:
    """Prepare the selected run again, and make sure that it is on the rows that the study was on."""
    config = parse(selection.chosen.config)
    # The study may have been moved since. What is trained has a folder of its own, until it is done.
    own = StudyConfig(name="retrain", root=str(study.files.directory.resolve()), report=False)
    trainer = config.trainer
    if trainer.accelerator == "cuda" and not torch.cuda.is_available():
        trainer = trainer.model_copy(update={"accelerator": "auto"})
    plan = prepare(config.model_copy(update={"study": own, "trainer": trainer, "logger": LoggerConfig(_target_=None)}))
    study.files.check(plan.study_record)
    if len(plan.split.test) == 0:
        raise UserError(f"{study.files.directory}: it has no test rows (split.test_fraction=0), so there is no test")
    _check_split(study.files, plan.split)
    return plan


def _check_split(files: StudyFiles, split: Split) -> None:
    """Make sure that the study was split as its settings split today."""
    frame = files.load_split()
    parts: list[tuple[int | None, int | None, Rows]] = [(None, None, split.test)]
    parts += [(fold.repeat, fold.fold, fold.val) for fold in split.folds]
    for repeat, fold, rows in parts:
        role = "test" if fold is None else "dev"
        own = (pl.col("role") == role) & pl.col("repeat").eq_missing(repeat) & pl.col("fold").eq_missing(fold)
        if not np.array_equal(np.sort(frame.filter(own)["row"].to_numpy()), rows):
            raise UserError(
                f"{files.split}: its {role} rows are not those that the study's split settings give; it was edited, or "
                "another version of scikit-learn shuffles differently"
            )


def _retrain(plan: Plan, chosen: Candidate, listeners: Sequence[Listener]) -> tuple[Trained, RetrainRecord]:
    """Train from scratch on all development rows, with batches of the same size, for as long as was selected."""
    started = time.perf_counter()
    config: Config = plan.config
    training = config.training.model_copy(update={"epochs": chosen.epoch})
    rows = plan.split.development
    whole = dataclasses.replace(
        plan,
        config=config.model_copy(update={"training": training}),
        split=Split(plan.split.test, rows, (Fold(0, RETRAIN, rows, rows[:0]),)),
    )
    try:
        trained = train_cohort(Cohort((whole,)), listeners)
    except (UserError, OSError):
        raise
    except Exception as error:
        # A network of the user's own may raise anything.
        what = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{config.study.root}: the retraining of {chosen.config_id} failed with {what}; the test rows stay sealed"
        ) from error
    shutil.rmtree(StudyFiles(config.study.directory).directory)
    record = RetrainRecord(
        rows=len(trained.development.folds[0].train),
        epochs=chosen.epoch,
        seed=config.seed,
        train_loss=float(trained.history.curve("train", "loss")[0, 0, -1]),
        seconds=time.perf_counter() - started,
        device=device_name(trained.device),
    )
    if record.train_loss is None:
        raise UserError(
            f"{config.study.root}: the retraining of {chosen.config_id} diverged; the test rows stay sealed"
        )
    return trained, record


def _validation(selection: Selection) -> ValidationRecord:
    chosen, bias = selection.chosen, selection.bias
    return ValidationRecord(
        loss=chosen.loss,
        se=chosen.se,
        metrics=chosen.metrics,
        selection_bias=bias,
        selection_bias_by_folds=selection.bias_by_folds,
        corrected=None if bias is None else chosen.loss + bias,
    )


def _warnings(study: Study, selection: Selection, left_out: Sequence[LeftOut], seeds: Sequence[int]) -> list[str]:
    chosen = selection.chosen
    lines = []
    if selection.at_horizon:
        lines.append(
            f"the selected epoch {chosen.epoch} is at the horizon of {chosen.horizon}: validation was still improving; "
            f"train longer, for example with training.epochs={2 * chosen.horizon}"
        )
    noise = chosen.config["data"].get("label_noise", 0)
    if noise:
        lines.append(
            f"{100 * noise:g} % of the labels that it was validated on are wrong on purpose, and none of the test's: "
            "the two losses are of different things"
        )
    if len(selection.candidates) == 1:
        lines.append("there is one configuration: nothing but its number of epochs was selected")
    if selection.bias is None:
        lines.append("the selection bias cannot be computed from these losses")
    lines += [f"configuration {one.config_id} was left out: {one.why}" for one in left_out]
    for what, count in (("failed", len(study.failed)), ("not finished", len(study.unfinished))):
        if count:
            lines.append(f"{count} runs that are {what} were left out")
    ignored = {run.config["seed"] for run in study.runs} - set(seeds)
    if ignored:
        lines.append(f"seeds that not all configurations share play no part: {', '.join(map(str, sorted(ignored)))}")
    return lines


def _of_openings(openings: int, elsewhere: Sequence[str]) -> list[str]:
    lines = []
    if openings > 1:
        lines.append(f"the test rows were opened {openings} times: this is no first look any more")
    if elsewhere:
        lines.append(f"the same test rows were opened in {', '.join(elsewhere)}: this is no first look")
    return lines


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
