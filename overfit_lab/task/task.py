"""The table of problem types: last-layer activation, loss, metrics [Chollet 2017, section 4.5]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from overfit_lab.config import LossName, Problem, TaskConfig
from overfit_lab.errors import UserError
from overfit_lab.task.losses import (
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
    one_hot_mean_squared_error,
    sigmoid_mean_squared_error,
)

Map: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """What a network is asked to do.

    Args:
        problem: The problem type.
        activation: Of the last layer: `... x outputs` logits to predictions of the same shape.
        loss_name: What the loss is called.
        loss: Logits `... x rows x outputs` and targets to `... x rows`, and their gradient.
        metrics: Names of what is measured beside the loss, see `overfit_lab.task.metrics`.
    """

    problem: Problem
    activation: Map
    loss_name: LossName
    loss: Loss
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    activation: Map
    # The first loss is the default.
    losses: Mapping[LossName, Loss]
    # The first `default` metrics are measured unless others are asked for.
    metrics: tuple[str, ...]
    default: int


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _identity(logits: Tensor) -> Tensor:
    return logits


_REGRESSION_METRICS = ("mean_squared_error", "mean_absolute_error", "r2")

TABLE: dict[Problem, _Row] = {
    "binary": _Row(
        torch.sigmoid, {"binary_cross_entropy": binary_cross_entropy}, ("accuracy", "f1", "auroc"), default=3
    ),
    # The area under the curve of every class against the rest costs more than a small cohort's training: on request.
    "multiclass": _Row(
        _softmax,
        {
            "categorical_cross_entropy": categorical_cross_entropy,
            "mean_squared_error": one_hot_mean_squared_error,
        },
        ("accuracy", "f1", "auroc"),
        default=2,
    ),
    "multilabel": _Row(
        torch.sigmoid, {"binary_cross_entropy": binary_cross_entropy}, ("accuracy", "f1", "auroc"), default=3
    ),
    "regression": _Row(_identity, {"mean_squared_error": mean_squared_error}, _REGRESSION_METRICS, default=3),
    "unit_regression": _Row(
        torch.sigmoid,
        {"mean_squared_error": sigmoid_mean_squared_error, "binary_cross_entropy": binary_cross_entropy},
        _REGRESSION_METRICS,
        default=3,
    ),
}


def make_task(config: TaskConfig, problem: Problem) -> Task:
    """Combine what the config asks for with the problem type of the source.

    Raises:
        UserError: They clash, or the problem type has no such loss or metric.
    """
    if config.name not in ("auto", problem):
        raise UserError(f"task={config.name}: the source is {problem}; allowed are auto and {problem}")
    row = TABLE[problem]
    loss_name = next(iter(row.losses)) if config.loss == "auto" else config.loss
    if loss_name not in row.losses:
        raise UserError(f"task.loss={loss_name}: {problem} allows {', '.join(row.losses)}")
    metrics = row.metrics[: row.default] if config.metrics == "auto" else tuple(dict.fromkeys(config.metrics))
    for name in metrics:
        if name not in row.metrics:
            raise UserError(f"task.metrics={name}: {problem} allows {', '.join(row.metrics)}")
    # What regresses on classes as 0 and 1 has its predictions in the logits themselves.
    as_values = problem == "multiclass" and loss_name == "mean_squared_error"
    return Task(problem, _identity if as_values else row.activation, loss_name, row.losses[loss_name], metrics)
