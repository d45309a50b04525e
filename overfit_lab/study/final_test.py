"""What a retrained network gives on the test rows, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overfit_lab.analysis.interval import Index, Interval, bootstrap_interval, proportion_interval
from overfit_lab.data.unseal import UnsealedRows
from overfit_lab.plan import Plan
from overfit_lab.records import IntervalRecord, TestRecord, ValidationRecord
from overfit_lab.task.metrics import measure_members
from overfit_lab.train import Trained
from overfit_lab.training.measure import predict, unscale

ELEMENTS = 10_000_000
"""Logits of bootstrap samples that are measured at once."""

UNDEFINED = "none: not defined on the test rows"
NORMAL = 1.959964
"""Standard errors on either side of a 95 % interval of a normal distribution."""


def measure_test(trained: Trained, plan: Plan, opened: UnsealedRows, validation: ValidationRecord) -> TestRecord:
    """Measure the retrained network on the test rows, each figure with its 95 % confidence interval.

    Args:
        trained: The retraining, of one fit.
        plan: What was trained.
        opened: The test rows.
        validation: What was promised.
    """
    data, task = trained.data[0], plan.task
    rows = data.prepare(opened)
    logits = predict(trained.modules[0].network, rows, [0])[0, 0]
    targets = rows.y[0]
    losses = task.loss(logits, targets).double().numpy()
    group = plan.config.split.group
    clusters = None if group is None else plan.source.groups[group][opened.rows]
    if task.problem == "regression":
        logits, targets = (unscale(v[None, None], data.target_scalings)[0, 0] for v in (logits, targets))
    metrics = {name: _metric(name, plan, logits, targets, clusters) for name in task.metrics}
    return TestRecord(
        rows=len(losses),
        loss=_bootstrap(lambda index: losses[index].mean(-1), len(losses), clusters),
        metrics=metrics,
        gap=_gap(losses, validation),
    )


def _metric(
    name: str, plan: Plan, logits: Tensor, targets: Tensor, clusters: NDArray[np.generic] | None
) -> IntervalRecord:
    """Measure a metric with its interval: rows are drawn with replacement, and the metric is measured again."""

    def measured(index: Index) -> NDArray[np.float64]:
        # By parts: once the rows are opened, memory must not run out.
        drawn, size = torch.tensor(index), max(1, ELEMENTS // logits.numel())
        parts = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        found = [measure_members([name], plan.task.problem, logits[own], targets[own])[name] for own in parts]
        return torch.cat(found).numpy()

    rows = len(logits)
    if name == "accuracy" and plan.task.problem in ("binary", "multiclass") and clusters is None:
        # A bootstrap of rows that are all right has no width.
        value = float(measured(np.arange(rows)[None])[0])
        return _interval(value, proportion_interval(round(value * rows), rows))
    return _bootstrap(measured, rows, clusters)


def _bootstrap(
    statistic: Callable[[Index], NDArray[np.float64]], rows: int, clusters: NDArray[np.generic] | None
) -> IntervalRecord:
    value = float(statistic(np.arange(rows)[None])[0])
    if not np.isfinite(value):
        return IntervalRecord(value=None, low=None, high=None, method=UNDEFINED)
    drawn = rows if clusters is None else len(np.unique(clusters))
    if drawn < 2:
        return IntervalRecord(value=value, low=None, high=None, method="none: there is one row or group only")
    return _interval(value, bootstrap_interval(statistic, rows, clusters=clusters))


def _gap(losses: NDArray[np.float64], validation: ValidationRecord) -> IntervalRecord:
    """Compare the test loss with what validation promised; the rows of the two are different ones."""
    gap = float(losses.mean() - validation.promised)
    if not np.isfinite(gap):
        return IntervalRecord(value=None, low=None, high=None, method=UNDEFINED)
    if validation.se is None or len(losses) < 2:
        return IntervalRecord(value=gap, low=None, high=None, method="none: a single row has no standard error")
    se = float(np.hypot(losses.std(ddof=1) / np.sqrt(len(losses)), validation.se))
    return IntervalRecord(value=gap, low=gap - NORMAL * se, high=gap + NORMAL * se, method="normal")


def _interval(value: float, interval: Interval) -> IntervalRecord:
    if interval.low == interval.high:
        # As for an AUROC of 1: certain it is not.
        return IntervalRecord(value=value, low=None, high=None, method="none: every resample gives the same value")
    return IntervalRecord(value=value, low=interval.low, high=interval.high, method=interval.method)
