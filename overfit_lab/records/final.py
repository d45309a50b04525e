"""What the final test leaves on disk: `final.json`, and the lines of `test_ledger.jsonl`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from overfit_lab.records.run import Environment
from overfit_lab.records.schema import Record

Rule = Literal["min", "one_se"]


class CandidateRecord(Record):
    """A configuration that was compared with the others on validation rows alone.

    Args:
        settings: What tells it from the others, by dotted keys.
        alpha: The strength of its penalty or, without one, of its decoupled decay; 0 for neither.
        seeds: Over how many seeds its losses are means.
        epoch: Its best epoch, in completed passes.
        val_loss: Its pooled out-of-fold mean there.
        se: Its standard error over rows.
        difference: Its mean over folds less that of the lowest candidate, over the same folds and seeds; None for that
            one.
        within_one_se: Whether the difference is within one standard error.
        p_value: Of the corrected resampled t-test against the lowest candidate; None for that one, and where there are
            less than two folds.
        p_holm: The same, adjusted for the number of comparisons.
    """

    config_id: str
    settings: dict[str, Any]
    parameters: int
    alpha: float
    seeds: int
    epoch: int
    val_loss: float
    se: float | None
    difference: float | None
    within_one_se: bool | None
    p_value: float | None
    p_holm: float | None


class LeftOut(Record):
    """A configuration that could not be selected, and why."""

    config_id: str
    why: str


class SelectionRecord(Record):
    """What was selected, by validation alone, and among what.

    Args:
        rule: `min`: the lowest loss; `one_se`: the simplest configuration within one standard error of it.
        horizon: Epochs that the selected configuration was trained for.
        candidates: All that could be selected, the lowest loss first.
    """

    rule: Rule
    config_id: str
    config: dict[str, Any]
    epoch: int
    horizon: int
    candidates: list[CandidateRecord]
    left_out: list[LeftOut]


class ValidationRecord(Record):
    """What validation promised of the selected configuration.

    Args:
        loss: Its pooled out-of-fold mean at the selected epoch.
        se: Its standard error over rows.
        metrics: The mean over fits at that epoch.
        selection_bias: How much lower than the truth the lowest loss of the sweep is by having been selected, by the
            bias-corrected bootstrap; None where it cannot be computed.
        selection_bias_by_folds: The same by the method of Tibshirani and Tibshirani, for comparison.
        corrected: `loss` plus `selection_bias`.
    """

    loss: float
    se: float | None
    metrics: dict[str, float | None]
    selection_bias: float | None
    selection_bias_by_folds: float | None
    corrected: float | None

    @property
    def promised(self) -> float:
        """What the test may be held against: the corrected loss, or the plain one where it cannot be corrected."""
        return self.loss if self.corrected is None else self.corrected


class RetrainRecord(Record):
    """The training from scratch on all development rows.

    Args:
        train_loss: After the last epoch.
    """

    rows: int
    epochs: int
    seed: int
    train_loss: float | None
    seconds: float
    device: str


class IntervalRecord(Record):
    """A value with its 95 % confidence interval.

    Args:
        method: How the interval was computed.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str


class TestRecord(Record):
    """What the test rows gave, once.

    Args:
        rows: How many there are.
        gap: The test loss less what validation promised, after correction for selection.
    """

    __test__ = False  # for pytest, which takes it for a test

    rows: int
    loss: IntervalRecord
    metrics: dict[str, IntervalRecord]
    gap: IntervalRecord


class FinalRecord(Record):
    """`final.json`: the protocol's last step.

    Args:
        time: When it was written, UTC.
        openings: How often the test rows had been opened when this was written, this time included.
        ledger: SHA-256 of the ledger at that time.
        warnings: What a reader should know before trusting the figures.
    """

    schema_version: int
    study: str
    time: str
    selection: SelectionRecord
    validation: ValidationRecord
    retrain: RetrainRecord
    test: TestRecord
    openings: int = Field(ge=1)
    ledger: str
    warnings: list[str]
    environment: Environment


class LedgerLine(Record):
    """One opening of the test rows, written down before they are opened.

    Args:
        number: From 1.
        time: UTC.
        source: Fingerprint of the source.
        test_rows: SHA-256 of the test rows' numbers.
        rows: How many they are.
        reason: Why they were opened again; None for the first time.
        intact: Whether all that was known of earlier openings was still there.
        previous: SHA-256 of all lines before this one.
    """

    schema_version: int
    number: int = Field(ge=1)
    time: str
    study: str
    source: str
    test_rows: str
    rows: int
    config_id: str
    config: dict[str, Any]
    epochs: int
    command: str
    git: str | None
    reason: str | None
    intact: bool
    previous: str
