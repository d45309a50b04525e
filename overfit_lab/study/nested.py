"""Nested cross-validation: each outer fold is a study of its own, which is finalized once; then they are averaged.

K_outer (C K_inner + 1) fits for C configurations [Varma and Simon 2006; Cawley and Talbot 2010, section 5].
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from overfit_lab.analysis.comparison import corrected_t_test
from overfit_lab.environment import describe_environment
from overfit_lab.errors import UserError
from overfit_lab.records import SCHEMA_VERSION, FinalRecord, MeanRecord, NestedRecord, OuterFoldRecord, Rule
from overfit_lab.records.schema import write_record
from overfit_lab.study.candidates import gather_candidates
from overfit_lab.study.finalize import finalize
from overfit_lab.study.study import load_study
from overfit_lab.training.history import Listener


def finalize_outer_folds(
    studies: Sequence[Path], *, rule: Rule, command: str, listeners: Sequence[Listener] = ()
) -> NestedRecord:
    """Finalize the study of each outer fold, and average what their test rows gave.

    A study that was finalized before is not opened again: what it gave counts.

    Args:
        studies: Their directories, outer fold 0 first, side by side in one folder; `nested.json` is written there.
        rule: How to select.
        command: The whole command line, for the record.
        listeners: Called with the history of each retraining.

    Raises:
        UserError: As `finalize`; or a study was finalized before by another rule or among other configurations.
    """
    # All of them first: where one cannot go on, none is opened.
    before = [_finalized(path, rule) for path in studies]
    finals = [
        finalize(path, rule=rule, command=command, listeners=listeners) if final is None else final
        for path, final in zip(studies, before, strict=True)
    ]
    folds = [_outer(i, path.name, final) for i, (path, final) in enumerate(zip(studies, finals, strict=True))]
    record = NestedRecord(
        schema_version=SCHEMA_VERSION,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        rule=rule,
        folds=folds,
        loss=_mean([final.test.loss.value for final in finals]),
        gap=_mean([final.test.gap.value for final in finals]),
        metrics={name: _mean([final.test.metrics[name].value for final in finals]) for name in finals[0].test.metrics},
        configurations=len({str(fold.settings) for fold in folds}),
        environment=describe_environment(command),
    )
    write_record(studies[0].parent / "nested.json", record)
    return record


def _mean(values: Sequence[float | None]) -> MeanRecord:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return MeanRecord(mean=None, sd=None, se=None)
    # Of K outer folds each leaves one for testing to K - 1 for training.
    found = corrected_t_test(known, val_train_ratio=1 / (len(known) - 1))
    return MeanRecord(mean=found.mean, sd=float(np.std(known, ddof=1)), se=found.se)


def _finalized(path: Path, rule: Rule) -> FinalRecord | None:
    """Return what a study gave when it was finalized before, or None; by another rule or among others does not do."""
    study = load_study(path)
    candidates, _, _ = gather_candidates(study)
    before = study.files.load_final()
    if before is None:
        return None
    now = {(c.config_id, len(c.runs)) for c in candidates}
    if before.selection.rule != rule or now != {(c.config_id, c.seeds) for c in before.selection.candidates}:
        raise UserError(
            f"{path}: it was finalized before, with selection={before.selection.rule} among "
            f"{len(before.selection.candidates)} configurations on {before.selection.candidates[0].seeds} seed(s), and "
            "its test rows are spent; give another study.name"
        )
    return before


def _outer(outer: int, study: str, final: FinalRecord) -> OuterFoldRecord:
    test, selected = final.test, final.selection.config_id
    return OuterFoldRecord(
        outer=outer,
        study=study,
        config_id=selected,
        settings=next(c.settings for c in final.selection.candidates if c.config_id == selected),
        epoch=final.selection.epoch,
        promised=final.validation.promised,
        test_loss=test.loss.value,
        metrics={name: interval.value for name, interval in test.metrics.items()},
        warnings=final.warnings,
    )
