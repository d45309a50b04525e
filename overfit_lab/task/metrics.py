"""Metrics for many members at once, by torchmetrics.

torchmetrics can treat a leading dimension as samples of their own, or members as outputs or labels of one another:
then one call serves a whole cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics.functional import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_f1_score,
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_f1_score,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_f1_score,
)

from overfit_lab.config import Problem

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def measure_members(name: str, problem: Problem, predictions: Tensor, targets: Tensor) -> Tensor:
    """Measure one metric for every member.

    Args:
        name: One of the names that the problem type allows.
        problem: The problem type.
        predictions: `members x rows x outputs`, after the last-layer activation.
        targets: `members x rows [x targets]`.

    Returns:
        `members`, float; NaN for a member with a prediction that is not finite, and where the metric is undefined
        (the area under the curve of one class alone).
    """
    finite = predictions.isfinite().flatten(1).all(1)
    # One value that is no probability would make torchmetrics take every member's for logits.
    safe = torch.where(finite[:, None, None], predictions, 0.5)
    # In double precision: torchmetrics sums squares, and targets of 10000 +- 1 would lose all digits.
    values = _METRICS[problem][name](safe.double(), targets).float()
    return torch.where(finite, values, torch.nan)


def _binary(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return p[..., 0], y[..., 0].long()


def _multilabel(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return p.transpose(1, 2), y.transpose(1, 2).long()


def _binary_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return binary_accuracy(*_binary(p, y), multidim_average="samplewise", validate_args=False)


def _binary_f1(p: Tensor, y: Tensor) -> Tensor:
    return binary_f1_score(*_binary(p, y), multidim_average="samplewise", validate_args=False)


def _binary_auroc(p: Tensor, y: Tensor) -> Tensor:
    return _one_by_one(lambda m, t: binary_auroc(m[:, 0], t[:, 0].long(), validate_args=False), p, y, 2)


def _multiclass_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return multiclass_accuracy(
        p.transpose(1, 2), y, p.shape[-1], average="micro", multidim_average="samplewise", validate_args=False
    )


def _multiclass_f1(p: Tensor, y: Tensor) -> Tensor:
    return multiclass_f1_score(
        p.transpose(1, 2), y, p.shape[-1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multiclass_auroc(p: Tensor, y: Tensor) -> Tensor:
    classes = p.shape[-1]
    return _one_by_one(lambda m, t: multiclass_auroc(m, t, classes, validate_args=False), p, y, classes)


def _multilabel_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return multilabel_accuracy(
        *_multilabel(p, y), p.shape[-1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multilabel_f1(p: Tensor, y: Tensor) -> Tensor:
    return multilabel_f1_score(
        *_multilabel(p, y), p.shape[-1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multilabel_auroc(p: Tensor, y: Tensor) -> Tensor:
    labels = p.shape[-1]
    return _one_by_one(lambda m, t: multilabel_auroc(m, t.long(), labels, validate_args=False), p, y, 2)


def _one_by_one(metric: Metric, p: Tensor, y: Tensor, classes: int) -> Tensor:
    """Measure member by member; NaN where a target lacks one of its classes: its curve would be a made-up 0."""
    undefined = torch.full((), torch.nan, dtype=p.dtype, device=p.device)
    columns = y if y.ndim == 3 else y[..., None]
    complete = [all(len(torch.unique(column)) == classes for column in own.T) for own in columns]
    return torch.stack([metric(m, t) if ok else undefined for m, t, ok in zip(p, y, complete, strict=True)])


def _as_columns(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Lay members and their outputs out as columns, `rows x (members * outputs)`."""
    return tuple(v.double().transpose(0, 1).flatten(1) for v in (p, y))  # type: ignore[return-value]


def _mean_squared_error(p: Tensor, y: Tensor) -> Tensor:
    columns = mean_squared_error(*_as_columns(p, y), num_outputs=p.shape[0] * p.shape[2])
    return columns.reshape(len(p), -1).mean(1)


def _mean_absolute_error(p: Tensor, y: Tensor) -> Tensor:
    columns = mean_absolute_error(*_as_columns(p, y), num_outputs=p.shape[0] * p.shape[2])
    return columns.reshape(len(p), -1).mean(1)


def _r2(p: Tensor, y: Tensor) -> Tensor:
    y = y.double()
    constant = (y == y[:, :1]).all(1).any(1)
    if y.shape[1] < 2:
        return torch.full((len(p),), torch.nan, device=p.device)
    # R2 has no unit; standardised, no target is so small that torchmetrics takes its variance for 0.
    mean, deviation = y.mean(1, keepdim=True), y.std(1, keepdim=True)
    columns = _as_columns((p - mean) / deviation, (y - mean) / deviation)
    values = r2_score(*columns, multioutput="raw_values").reshape(len(p), -1).mean(1)
    return torch.where(constant, torch.nan, values)


_REGRESSION: dict[str, Metric] = {
    "mean_squared_error": _mean_squared_error,
    "mean_absolute_error": _mean_absolute_error,
    "r2": _r2,
}

_METRICS: dict[Problem, dict[str, Metric]] = {
    "binary": {"accuracy": _binary_accuracy, "f1": _binary_f1, "auroc": _binary_auroc},
    "multiclass": {"accuracy": _multiclass_accuracy, "f1": _multiclass_f1, "auroc": _multiclass_auroc},
    "multilabel": {"accuracy": _multilabel_accuracy, "f1": _multilabel_f1, "auroc": _multilabel_auroc},
    "regression": _REGRESSION,
    "unit_regression": _REGRESSION,
}
