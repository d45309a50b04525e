import math
from typing import get_args

import numpy as np
import pytest
import torch

from overfit_lab.config import LossName, Problem, TaskConfig
from overfit_lab.errors import UserError
from overfit_lab.task import make_task
from overfit_lab.task.task import TABLE

CLASSIFICATION = ("accuracy", "f1", "auroc")
REGRESSION = ("mean_squared_error", "mean_absolute_error", "r2")


def config(name: str = "auto", loss: str = "auto", metrics: str | list[str] = "auto") -> TaskConfig:
    return TaskConfig.model_validate({"name": name, "loss": loss, "metrics": metrics})


LOGITS = [[0.3, -2.0, 5.0], [0.0, 0.0, math.log(2)]]
SIGMOID = [[1 / (1 + math.exp(-z)) for z in row] for row in LOGITS]
SOFTMAX = [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in LOGITS]
ONE_HOT = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)


# The rows of Chollet 2017, table 4.1, and what is measured beside the loss.
@pytest.mark.parametrize(
    ("problem", "predictions", "loss", "metrics"),
    [
        ("binary", SIGMOID, "binary_cross_entropy", CLASSIFICATION),
        ("multiclass", SOFTMAX, "categorical_cross_entropy", ("accuracy", "f1")),
        ("multilabel", SIGMOID, "binary_cross_entropy", CLASSIFICATION),
        ("regression", LOGITS, "mean_squared_error", REGRESSION),
        ("unit_regression", SIGMOID, "mean_squared_error", REGRESSION),
    ],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["auto", "named"])
def test_table_of_problem_types(
    problem: Problem, predictions: list[list[float]], loss: LossName, metrics: tuple[str, ...], by_name: bool
) -> None:
    task = make_task(config(problem if by_name else "auto"), problem)
    assert task.problem == problem
    assert task.loss_name == loss
    assert task.metrics == metrics
    found = task.activation(torch.tensor(LOGITS, dtype=torch.float64))
    np.testing.assert_allclose(found, predictions, rtol=1e-12)


def test_classes_as_values_have_their_predictions_in_the_logits() -> None:
    task = make_task(config(loss="mean_squared_error"), "multiclass")
    logits = torch.tensor(LOGITS)
    assert task.activation(logits) is logits
    assert task.metrics == ("accuracy", "f1")


def test_table_is_complete() -> None:
    assert set(TABLE) == set(get_args(Problem))
    assert {loss for row in TABLE.values() for loss in row.losses} == set(get_args(LossName))


@pytest.mark.parametrize(
    ("problem", "loss", "targets", "by_hand"),
    [
        ("binary", "auto", ONE_HOT, "cross-entropy"),
        ("multilabel", "binary_cross_entropy", ONE_HOT, "cross-entropy"),
        ("unit_regression", "binary_cross_entropy", ONE_HOT, "cross-entropy"),
        ("unit_regression", "auto", ONE_HOT, "squares of the sigmoid"),
        ("unit_regression", "mean_squared_error", ONE_HOT, "squares of the sigmoid"),
        ("regression", "auto", ONE_HOT, "squares"),
        ("multiclass", "auto", torch.tensor([2, 0]), "softmax"),
        ("multiclass", "mean_squared_error", torch.tensor([2, 0]), "squares from one-hot"),
    ],
)
def test_loss_of_each_problem_type(problem: Problem, loss: str, targets: torch.Tensor, by_hand: str) -> None:
    pairs = [list(zip(p, t, strict=True)) for p, t in zip(SIGMOID, ONE_HOT.tolist(), strict=True)]
    raw = [list(zip(p, t, strict=True)) for p, t in zip(LOGITS, ONE_HOT.tolist(), strict=True)]
    expected = {
        "cross-entropy": [-sum(math.log(p if t else 1 - p) for p, t in row) / 3 for row in pairs],
        "squares of the sigmoid": [sum((p - t) ** 2 for p, t in row) / 3 for row in pairs],
        "squares from one-hot": [
            sum((z - (place == label)) ** 2 for place, z in enumerate(row)) / 3
            for row, label in zip(LOGITS, (2, 0), strict=True)
        ],
        "squares": [sum((p - t) ** 2 for p, t in row) / 3 for row in raw],
        "softmax": [-math.log(SOFTMAX[0][2]), -math.log(SOFTMAX[1][0])],
    }[by_hand]
    task = make_task(config(loss=loss), problem)
    found = task.loss(torch.tensor(LOGITS, dtype=torch.float64), targets)
    assert found.tolist() == pytest.approx(expected, rel=1e-10)
    assert loss in ("auto", task.loss_name)


def test_activations_work_on_the_last_of_many_dimensions() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64).expand(4, 3, 2, 3)
    found = make_task(config(), "multiclass").activation(logits)
    np.testing.assert_allclose(found, np.broadcast_to(SOFTMAX, (4, 3, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize(
    ("problem", "asked", "given"),
    [
        ("multiclass", ["auroc"], ("auroc",)),
        ("multiclass", ["auroc", "accuracy"], ("auroc", "accuracy")),
        ("regression", ["r2"], ("r2",)),
        ("binary", [], ()),
        # Measured twice, a metric would be stacked twice.
        ("binary", ["f1", "accuracy", "f1"], ("f1", "accuracy")),
    ],
)
def test_metrics_on_request(problem: Problem, asked: list[str], given: tuple[str, ...]) -> None:
    assert make_task(config(metrics=asked), problem).metrics == given


@pytest.mark.parametrize(
    ("asked", "problem", "message"),
    [
        (config("regression"), "binary", r"^task=regression: the source is binary; allowed are auto and binary$"),
        (config("binary"), "multiclass", r"^task=binary: the source is multiclass; allowed are auto and multiclass$"),
        (config("multilabel"), "multiclass", r"^task=multilabel: the source is multiclass"),
        (config("unit_regression"), "regression", r"^task=unit_regression: the source is regression"),
        (
            config(loss="binary_cross_entropy"),
            "multiclass",
            r"^task\.loss=binary_cross_entropy: multiclass allows categorical_cross_entropy, mean_squared_error$",
        ),
        (
            config(loss="binary_cross_entropy"),
            "regression",
            r"^task\.loss=binary_cross_entropy: regression allows mean",
        ),
        (
            config(loss="categorical_cross_entropy"),
            "unit_regression",
            r"^task\.loss=categorical_cross_entropy: unit_regression allows mean_squared_error, binary_cross_entropy$",
        ),
        (config(loss="mean_squared_error"), "binary", r"^task\.loss=mean_squared_error: binary allows binary_cross"),
        (
            config(metrics=["accuracy"]),
            "regression",
            r"^task\.metrics=accuracy: regression allows mean_squared_error, ",
        ),
        (config(metrics=["f1", "r2"]), "binary", r"^task\.metrics=r2: binary allows accuracy, f1, auroc$"),
        (
            config(metrics=["Accuracy"]),
            "multilabel",
            r"^task\.metrics=Accuracy: multilabel allows accuracy, f1, auroc$",
        ),
    ],
)
def test_clashes_are_named(asked: TaskConfig, problem: Problem, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task(asked, problem)
