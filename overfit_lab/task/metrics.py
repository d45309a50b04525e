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
        targets: `rows [x targets]`, the same for every member.

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
    return p[..., 0], y.reshape(1, -1).expand(len(p), -1).long()


def _multiclass(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return p.transpose(1, 2), y.expand(len(p), -1)


def _multilabel(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return p.transpose(1, 2), y.T.expand(len(p), -1, -1).long()


def _binary_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return binary_accuracy(*_binary(p, y), multidim_average="samplewise", validate_args=False)


def _binary_f1(p: Tensor, y: Tensor) -> Tensor:
    return binary_f1_score(*_binary(p, y), multidim_average="samplewise", validate_args=False)


def _binary_auroc(p: Tensor, y: Tensor) -> Tensor:
    if _holds_one_value(y):
        return torch.full((len(p),), torch.nan, device=p.device)
    scores, labels = _binary(p, y)
    return torch.stack([binary_auroc(s, t, validate_args=False) for s, t in zip(scores, labels, strict=True)])


def _multiclass_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return multiclass_accuracy(
        *_multiclass(p, y), p.shape[-1], average="micro", multidim_average="samplewise", validate_args=False
    )


def _multiclass_f1(p: Tensor, y: Tensor) -> Tensor:
    return multiclass_f1_score(
        *_multiclass(p, y), p.shape[-1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multiclass_auroc(p: Tensor, y: Tensor) -> Tensor:
    # A class that is absent has no curve; the mean over classes would then hold a made-up 0.
    if len(torch.unique(y)) < p.shape[-1]:
        return torch.full((len(p),), torch.nan, device=p.device)
    return torch.stack([multiclass_auroc(m, y, p.shape[-1], average="macro", validate_args=False) for m in p])


def _multilabel_accuracy(p: Tensor, y: Tensor) -> Tensor:
    return multilabel_accuracy(
        *_multilabel(p, y), y.shape[1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multilabel_f1(p: Tensor, y: Tensor) -> Tensor:
    return multilabel_f1_score(
        *_multilabel(p, y), y.shape[1], average="macro", multidim_average="samplewise", validate_args=False
    )


def _multilabel_auroc(p: Tensor, y: Tensor) -> Tensor:
    if any(_holds_one_value(label) for label in y.T):
        return torch.full((len(p),), torch.nan, device=p.device)
    return torch.stack([multilabel_auroc(m, y.long(), y.shape[1], average="macro", validate_args=False) for m in p])


def _holds_one_value(y: Tensor) -> bool:
    return bool((y == y.reshape(-1)[0]).all())


def _as_columns(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Lay members and their outputs out as columns, `rows x (members * outputs)`."""
    members, rows, outputs = p.shape
    columns = p.permute(1, 0, 2).reshape(rows, members * outputs)
    return columns.contiguous(), y.double()[:, None].expand(rows, members, outputs).reshape(rows, -1).contiguous()


def _mean_squared_error(p: Tensor, y: Tensor) -> Tensor:
    columns = mean_squared_error(*_as_columns(p, y), num_outputs=p.shape[0] * p.shape[2])
    return columns.reshape(len(p), -1).mean(1)


def _mean_absolute_error(p: Tensor, y: Tensor) -> Tensor:
    columns = mean_absolute_error(*_as_columns(p, y), num_outputs=p.shape[0] * p.shape[2])
    return columns.reshape(len(p), -1).mean(1)


def _r2(p: Tensor, y: Tensor) -> Tensor:
    if len(y) < 2 or any(_holds_one_value(column) for column in y.T):
        return torch.full((len(p),), torch.nan, device=p.device)
    # R2 has no unit; standardised, no target is so small that torchmetrics takes its variance for 0.
    mean, deviation = y.double().mean(0), y.double().std(0)
    p, y = (p - mean) / deviation, (y.double() - mean) / deviation
    return r2_score(*_as_columns(p, y), multioutput="raw_values").reshape(len(p), -1).mean(1)


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
