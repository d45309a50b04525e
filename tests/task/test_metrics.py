from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as reference
from torch import Tensor

from overfit_lab.config import Problem
from overfit_lab.task.metrics import measure_members
from overfit_lab.task.task import TABLE

Array = NDArray[Any]
ROWS = 40
# From nearly right to nearly random, and one that is wrong more often than not: members that differ.
QUALITIES = (4.0, 1.5, 0.5, 0.0, -1.0)


def softmax(z: Array) -> Array:
    e: Array = np.exp(z - z.max(-1, keepdims=True))
    result: Array = e / e.sum(-1, keepdims=True)
    return result


def sigmoid(z: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-z))
    return result


def draw(problem: Problem, rows: int = ROWS, seed: int = 0) -> tuple[Array, Array]:
    """Predictions `members x rows x outputs` of members of different quality, and targets."""
    rng = np.random.default_rng(seed)
    quality = np.array(QUALITIES)[:, None, None]
    if problem == "binary":
        y = rng.permutation(np.arange(rows) % 3 == 0).astype(float)[:, None]
        return sigmoid(quality * (2 * y - 1) + rng.normal(size=(5, rows, 1))), y
    if problem == "multiclass":
        y = rng.permutation(np.minimum(np.arange(rows) % 6, 3))
        return softmax(quality * np.eye(4)[y] + rng.normal(size=(5, rows, 4))), y
    if problem == "multilabel":
        y = (rng.uniform(size=(rows, 3)) < [0.2, 0.5, 0.8]).astype(float)
        return sigmoid(quality * (2 * y - 1) + rng.normal(size=(5, rows, 3))), y
    if problem == "regression":
        y = rng.normal([1, -20], [2, 5], (rows, 2))
        return y + (5 - quality) * rng.normal(size=(5, rows, 2)), y
    y = rng.uniform(size=(rows, 1))
    return sigmoid(quality * (y - 0.5) + rng.normal(size=(5, rows, 1))), y


def labels(problem: Problem, p: Array) -> Array:
    if problem == "multiclass":
        return np.asarray(p.argmax(-1))
    return (p > 0.5).astype(int)


def macro_over_labels(score: Callable[[Array, Array], float], y: Array, p: Array) -> float:
    return float(np.mean([score(y[:, k], p[:, k]) for k in range(y.shape[1])]))


def f1(y: Array, p: Array, average: str) -> float:
    return float(reference.f1_score(y, p, average=average, zero_division=0))


REFERENCE: dict[tuple[Problem, str], Callable[[Array, Array], float]] = {
    ("binary", "accuracy"): lambda y, p: reference.accuracy_score(y, labels("binary", p)),
    ("binary", "f1"): lambda y, p: f1(y[:, 0], labels("binary", p)[:, 0], "binary"),
    ("binary", "auroc"): lambda y, p: reference.roc_auc_score(y[:, 0], p[:, 0]),
    ("multiclass", "accuracy"): lambda y, p: reference.accuracy_score(y, labels("multiclass", p)),
    ("multiclass", "f1"): lambda y, p: f1(y, labels("multiclass", p), "macro"),
    ("multiclass", "auroc"): lambda y, p: reference.roc_auc_score(y, p, multi_class="ovr", average="macro"),
    ("multilabel", "accuracy"): lambda y, p: macro_over_labels(reference.accuracy_score, y, labels("multilabel", p)),
    ("multilabel", "f1"): lambda y, p: f1(y, labels("multilabel", p), "macro"),
    ("multilabel", "auroc"): lambda y, p: reference.roc_auc_score(y, p, average="macro"),
    **{
        (problem, name): function
        for problem in ("regression", "unit_regression")
        for name, function in {
            "mean_squared_error": reference.mean_squared_error,
            "mean_absolute_error": reference.mean_absolute_error,
            "r2": reference.r2_score,
        }.items()
    },
}
EVERY = pytest.mark.parametrize(("problem", "name"), list(REFERENCE))


def measured(name: str, problem: Problem, p: Array, y: Array) -> Tensor:
    return measure_members(name, problem, torch.tensor(p), torch.tensor(y).expand(len(p), *y.shape))


def test_every_metric_that_a_task_may_name_is_tested_here() -> None:
    assert {(problem, name) for problem, row in TABLE.items() for name in row.metrics} == set(REFERENCE)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scikit_learn_member_by_member(problem: Problem, name: str, dtype: type[np.floating[Any]]) -> None:
    p, y = draw(problem)
    expected = [REFERENCE[problem, name](y, member) for member in p]
    assert len({round(value, 6) for value in expected}) == len(QUALITIES)
    found = measured(name, problem, p.astype(dtype), y if problem == "multiclass" else y.astype(dtype))
    assert found.shape == (len(QUALITIES),)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_one_member_alone(problem: Problem, name: str) -> None:
    p, y = draw(problem, seed=1)
    found = measured(name, problem, p[2:3], y)
    np.testing.assert_allclose(found, [REFERENCE[problem, name](y, p[2])], rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_member_that_is_not_finite_disturbs_no_other(problem: Problem, name: str, bad: float) -> None:
    p, y = draw(problem)
    p[1, 3, 0] = bad
    p[3] = bad
    found = measured(name, problem, p, y)
    healthy = [0, 2, 4]
    assert found.isnan().tolist() == [False, True, False, True, False]
    expected = [REFERENCE[problem, name](y, p[i]) for i in healthy]
    np.testing.assert_allclose(found[healthy], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("problem", ["regression", "unit_regression"])
@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "r2"])
def test_regression_with_one_and_several_targets(problem: Problem, name: str, outputs: int) -> None:
    rng = np.random.default_rng(3)
    y = rng.uniform(size=(ROWS, outputs)) * np.arange(1, outputs + 1) / outputs
    p = rng.uniform(size=(4, ROWS, outputs))
    expected = [REFERENCE[problem, name](y, member) for member in p]
    np.testing.assert_allclose(measured(name, problem, p, y), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("offset", "spread"), [(2000, 5), (1e4, 1), (1e6, 10), (0, 1e-2), (0, 1e-4), (1e-3, 1e-6), (0, 1e6)]
)
@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "r2"])
def test_regression_in_any_units(name: str, offset: float, spread: float) -> None:
    # Years, altitudes, wavelengths in metres...: R2 does not depend on the unit, the others scale with it.
    rng = np.random.default_rng(4)
    y = offset + spread * rng.normal(size=(ROWS, 1))
    p = y + spread * np.array([0.1, 0.5, 2.0])[:, None, None] * rng.normal(size=(3, ROWS, 1))
    expected = [REFERENCE["regression", name](y, member) for member in p]
    np.testing.assert_allclose(measured(name, "regression", p, y), expected, rtol=1e-3)


def test_perfect_and_constant_predictions() -> None:
    y = np.array([[1.0], [2.0], [6.0]])
    p = np.stack([y, np.full((3, 1), 3.0), np.zeros((3, 1))])
    assert measured("r2", "regression", p, y).tolist() == pytest.approx([1, 0, 1 - 41 / 14])
    assert measured("mean_squared_error", "regression", p, y).tolist() == pytest.approx([0, 14 / 3, 41 / 3])
    assert measured("mean_absolute_error", "regression", p, y).tolist() == pytest.approx([0, 2, 3])


def test_binary_by_hand() -> None:
    y = np.array([[0.0], [0.0], [1.0], [1.0]])
    # Right; all positive; all at the threshold, which counts as negative; two of six pairs... in the wrong order.
    p = np.array([[0.1, 0.2, 0.8, 0.9], [0.9] * 4, [0.5] * 4, [0.7, 0.2, 0.6, 0.9]])[:, :, None]
    assert measured("accuracy", "binary", p, y).tolist() == pytest.approx([1, 0.5, 0.5, 0.75])
    assert measured("f1", "binary", p, y).tolist() == pytest.approx([1, 2 / 3, 0, 0.8])
    # Ties count one half.
    assert measured("auroc", "binary", p, y).tolist() == pytest.approx([1, 0.5, 0.5, 0.75])


def test_f1_is_0_where_nothing_is_predicted_or_present() -> None:
    y = np.zeros((4, 1))
    p = np.array([[0.1] * 4, [0.1, 0.1, 0.9, 0.1]])[:, :, None]
    expected = [reference.f1_score(y[:, 0], m[:, 0] > 0.5, zero_division=0) for m in p]
    assert measured("f1", "binary", p, y).tolist() == expected == [0, 0]

    traits = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    q = np.array([[[0.1, 0.9]] * 3, [[0.9, 0.9]] * 3])
    expected = [f1(traits, labels("multilabel", m), "macro") for m in q]
    assert measured("f1", "multilabel", q, traits).tolist() == pytest.approx(expected)


def test_classes_that_are_absent() -> None:
    # Class 3 is in no row; the second member predicts it once, the first never.
    y = np.array([0, 1, 2, 0, 1, 2])
    p = np.stack([np.eye(4)[[0, 1, 2, 0, 1, 1]], np.eye(4)[[0, 1, 3, 0, 1, 2]]]) * 0.7 + 0.075
    for name in ("accuracy", "f1"):
        expected = [REFERENCE["multiclass", name](y, member) for member in p]
        np.testing.assert_allclose(measured(name, "multiclass", p, y), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("problem", "name", "y"),
    [
        ("binary", "auroc", np.zeros((ROWS, 1))),
        ("binary", "auroc", np.ones((ROWS, 1))),
        ("multiclass", "auroc", np.arange(ROWS) % 3),
        ("multilabel", "auroc", np.stack([np.arange(ROWS) % 2, np.zeros(ROWS), np.arange(ROWS) % 2], axis=1)),
        ("regression", "r2", np.stack([np.arange(ROWS), np.full(ROWS, 4.0)], axis=1)),
        ("unit_regression", "r2", np.full((ROWS, 1), 0.25)),
    ],
    ids=["no positive", "no negative", "class absent", "label constant", "target constant", "unit target constant"],
)
def test_undefined_is_nan(problem: Problem, name: str, y: Array) -> None:
    p, _ = draw(problem)
    assert measured(name, problem, p, y).isnan().tolist() == [True] * len(QUALITIES)
    # What is defined goes on being measured.
    for other in TABLE[problem].metrics:
        if other not in ("auroc", "r2"):
            expected = [REFERENCE[problem, other](y, member) for member in p]
            np.testing.assert_allclose(measured(other, problem, p, y), expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_single_row(problem: Problem, name: str) -> None:
    p, y = draw(problem)
    found = measured(name, problem, p[:, :1], y[:1])
    if name in ("auroc", "r2"):
        assert found.isnan().all()
    else:
        expected = [REFERENCE[problem, name](y[:1], member[:1]) for member in p]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
