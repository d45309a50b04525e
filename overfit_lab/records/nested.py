"""What nested cross-validation leaves on disk: `nested.json`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from overfit_lab.records.final import Rule
from overfit_lab.records.run import Environment
from overfit_lab.records.schema import Record


class OuterFoldRecord(Record):
    """One outer fold: a study of its own, whose test rows are the fold.

    Args:
        study: The folder of the study.
        config_id: What was selected in it; it names the outer fold, too.
        settings: What tells it from what it was compared with, by dotted keys.
        epoch: For how many epochs it was retrained.
        promised: What validation promised, corrected for selection where that can be computed.
        test_loss: What the fold gave.
        metrics: The same of the metrics.
        warnings: Those of its final test.
    """

    outer: int
    study: str
    config_id: str
    settings: dict[str, Any]
    epoch: int
    promised: float
    test_loss: float | None
    metrics: dict[str, float | None]
    warnings: list[str]


class MeanRecord(Record):
    """A mean over outer folds.

    Args:
        sd: Standard deviation between folds (ddof=1).
        se: Standard error of the mean, corrected for train rows that the folds share [Nadeau and Bengio 2003].
    """

    mean: float | None
    sd: float | None
    se: float | None


class NestedRecord(Record):
    """`nested.json`: how well the whole procedure, selection included, does on rows that it has never seen.

    Args:
        loss: Of the test rows.
        gap: Test loss less what validation promised.
        configurations: How many different ones were selected over the outer folds.
    """

    schema_version: int
    time: str
    rule: Rule
    folds: list[OuterFoldRecord] = Field(min_length=2)
    loss: MeanRecord
    gap: MeanRecord
    metrics: dict[str, MeanRecord]
    configurations: int
    environment: Environment
