from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
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


def predictions(problem: Problem, z: Array) -> Array:
    """Apply the last-layer activation."""
    if problem == "multiclass":
        return softmax(z)
    return z if problem == "regression" else sigmoid(z)


def draw(problem: Problem, rows: int = ROWS, seed: int = 0) -> tuple[Array, Array]:
    """Logits `members x rows x outputs` of members of different quality, and targets."""
    rng = np.random.default_rng(seed)
    quality = np.array(QUALITIES)[:, None, None]
    if problem == "binary":
        y = rng.permutation(np.arange(rows) % 3 == 0).astype(float)[:, None]
        return quality * (2 * y - 1) + rng.normal(size=(5, rows, 1)), y
    if problem == "multiclass":
        y = rng.permutation(np.minimum(np.arange(rows) % 6, 3))
        return quality * np.eye(4)[y] + rng.normal(size=(5, rows, 4)), y
    if problem == "multilabel":
        y = (rng.uniform(size=(rows, 3)) < [0.2, 0.5, 0.8]).astype(float)
        return quality * (2 * y - 1) + rng.normal(size=(5, rows, 3)), y
    if problem == "regression":
        y = rng.normal([1, -20], [2, 5], (rows, 2))
        return y + (5 - quality) * rng.normal(size=(5, rows, 2)), y
    y = rng.uniform(size=(rows, 1))
    return quality * (y - 0.5) + rng.normal(size=(5, rows, 1)), y


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


def by_reference(problem: Problem, name: str, z: Array, y: Array) -> list[float]:
    return [REFERENCE[problem, name](y, predictions(problem, member)) for member in z]


def measured(name: str, problem: Problem, z: Array, y: Array) -> Tensor:
    return measure_members([name], problem, torch.tensor(z), torch.tensor(y))[name]


def test_every_metric_that_a_task_may_name_is_tested_here() -> None:
    assert {(problem, name) for problem, row in TABLE.items() for name in row.metrics} == set(REFERENCE)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scikit_learn_member_by_member(problem: Problem, name: str, dtype: type[np.floating[Any]]) -> None:
    z, y = draw(problem)
    expected = by_reference(problem, name, z, y)
    assert len({round(value, 6) for value in expected}) == len(QUALITIES)
    found = measured(name, problem, z.astype(dtype), y if problem == "multiclass" else y.astype(dtype))
    assert found.shape == (len(QUALITIES),)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_one_member_alone(problem: Problem, name: str) -> None:
    z, y = draw(problem, seed=1)
    found = measured(name, problem, z[2:3], y)
    np.testing.assert_allclose(found, by_reference(problem, name, z[2:3], y), rtol=1e-12)


@pytest.mark.parametrize("problem", list(TABLE))
def test_only_what_is_asked_for(problem: Problem) -> None:
    z, y = (torch.tensor(values) for values in draw(problem))
    every = measure_members(TABLE[problem].metrics, problem, z, y)
    assert tuple(every) == TABLE[problem].metrics
    assert measure_members([], problem, z, y) == {}
    for name, values in every.items():
        alone = measure_members([name], problem, z, y)
        assert list(alone) == [name]
        assert torch.equal(alone[name], values)


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_member_that_is_not_finite_disturbs_no_other(problem: Problem, name: str, bad: float) -> None:
    z, y = draw(problem)
    z[1, 3, 0] = bad
    z[3] = bad
    found = measured(name, problem, z, y)
    healthy = [0, 2, 4]
    assert found.isnan().tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(found[healthy], by_reference(problem, name, z[healthy], y), rtol=1e-12)


def by_torchmetrics(problem: Problem, name: str, p: Tensor, y: Tensor) -> float:
    """Measure one member's predictions, `rows x outputs`; NaN where torchmetrics makes a value up, or refuses."""
    columns = torch.eye(p.shape[-1])[y] if problem == "multiclass" else y
    if name in ("auroc", "r2") and (columns == columns[0]).all(0).any():
        return float("nan")
    if problem in ("regression", "unit_regression"):
        if name == "r2":
            # It has no unit; torchmetrics takes a small variance for 0.
            p, y = 1000 * p, 1000 * y
        metric = {
            "mean_squared_error": torchmetrics.MeanSquaredError(),
            "mean_absolute_error": torchmetrics.MeanAbsoluteError(),
            "r2": torchmetrics.R2Score(),
        }[name]
    else:
        of_class = {"accuracy": torchmetrics.Accuracy, "f1": torchmetrics.F1Score, "auroc": torchmetrics.AUROC}[name]
        average = "micro" if (problem, name) == ("multiclass", "accuracy") else "macro"
        outputs = p.shape[-1]
        metric = of_class(task=problem, num_classes=outputs, num_labels=outputs, average=average)
        p, y = (p[:, 0], y[:, 0].long()) if problem == "binary" else (p, y.long())
    return float(metric.set_dtype(torch.float64)(p, y))


def rows_adjacent(values: Tensor) -> Tensor:
    """Lay a cohort's logits out as its network does: rows adjacent in memory, outputs not."""
    return values.transpose(-1, -2).contiguous().transpose(-1, -2)


def draw_streams(
    problem: Problem, kind: str, leading: tuple[int, ...], shared: tuple[int, ...], rows: int
) -> list[Array]:
    """Logits `leading x rows x outputs` and targets `shared x rows [x outputs]`."""
    rng = np.random.default_rng([len(leading), len(shared), rows])
    outputs = {"binary": 1, "unit_regression": 1, "multiclass": 4}.get(problem, 3)
    if kind == "ties":
        # Few rows, many times each, so that rows tie; in some of them outputs tie, one at the threshold.
        distinct = rng.normal(size=(*leading, 6, outputs))
        distinct[..., :3, :2] = distinct[..., :3, :1]
        distinct[..., 3, 0] = 0
        z = np.take_along_axis(distinct, rng.integers(0, 6, (*leading, rows, 1)), axis=-2)
    else:
        z = rng.normal(size=(*leading, rows, outputs))
    if problem == "multiclass":
        if kind == "absent":
            # Of four classes, one that is only predicted, and one that is neither predicted nor a target.
            z[..., 3] = -9
        return [z, rng.integers(0, 2 if kind == "absent" else 4, (*shared, rows))]
    if problem in ("binary", "multilabel"):
        y = rng.integers(0, 2, (*shared, rows, outputs)).astype(float)
        if kind == "absent":
            z[..., 0], y[..., 0] = -abs(z[..., 0]), 0
        return [z, y]
    y = rng.uniform(size=(*shared, rows, outputs))
    if kind == "absent":
        y[..., 0] = 0.1
    return [z, y]


@pytest.mark.parametrize("problem", list(TABLE))
@pytest.mark.parametrize("kind", ["random", "ties", "absent"])
@pytest.mark.parametrize(
    ("leading", "shared"), [((), ()), ((3,), ()), ((2, 3), (2, 1)), ((2, 3), (2, 3)), ((2, 2, 3), (2, 1))], ids=str
)
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_agrees_with_torchmetrics_member_by_member(
    problem: Problem, kind: str, leading: tuple[int, ...], shared: tuple[int, ...], rows: int
) -> None:
    z, y = (torch.tensor(values) for values in draw_streams(problem, kind, leading, shared, rows))
    if leading:
        # The first member predicts one and the same for every row.
        z[(0,) * len(leading)] = 0.25
    p = torch.tensor(predictions(problem, z.numpy()))
    own = y.expand(*leading, *y.shape[len(shared) :])
    for layout in (Tensor.contiguous, rows_adjacent):
        for name, values in measure_members(TABLE[problem].metrics, problem, layout(z), y).items():
            assert values.shape == leading
            assert values.dtype == torch.float64
            expected = [by_torchmetrics(problem, name, p[m], own[m]) for m in np.ndindex(*leading)]
            np.testing.assert_allclose(values.flatten(), expected, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("problem", ["regression", "unit_regression"])
@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "r2"])
def test_regression_with_one_and_several_targets(problem: Problem, name: str, outputs: int) -> None:
    rng = np.random.default_rng(3)
    y = rng.uniform(size=(ROWS, outputs)) * np.arange(1, outputs + 1) / outputs
    z = rng.uniform(size=(4, ROWS, outputs))
    np.testing.assert_allclose(measured(name, problem, z, y), by_reference(problem, name, z, y), rtol=1e-12)


@pytest.mark.parametrize(
    ("offset", "spread"), [(2000, 5), (1e4, 1), (1e4, 1e-3), (1e6, 10), (0, 1e-2), (0, 1e-4), (1e-3, 1e-6), (0, 1e6)]
)
@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "r2"])
def test_regression_in_any_units(name: str, offset: float, spread: float) -> None:
    # Years, altitudes, wavelengths in metres...: R2 does not depend on the unit, the others scale with it.
    rng = np.random.default_rng(4)
    y = offset + spread * rng.normal(size=(ROWS, 1))
    p = y + spread * np.array([0.1, 0.5, 2.0])[:, None, None] * rng.normal(size=(3, ROWS, 1))
    np.testing.assert_allclose(measured(name, "regression", p, y), by_reference("regression", name, p, y), rtol=1e-9)


def test_perfect_and_constant_predictions() -> None:
    y = np.array([[1.0], [2.0], [6.0]])
    p = np.stack([y, np.full((3, 1), 3.0), np.zeros((3, 1))])
    assert measured("r2", "regression", p, y).tolist() == pytest.approx([1, 0, 1 - 41 / 14])
    assert measured("mean_squared_error", "regression", p, y).tolist() == pytest.approx([0, 14 / 3, 41 / 3])
    assert measured("mean_absolute_error", "regression", p, y).tolist() == pytest.approx([0, 2, 3])


def test_binary_by_hand() -> None:
    y = np.array([[0.0], [0.0], [1.0], [1.0]])
    # Right; all positive; all at the threshold, which counts as negative; one of four pairs in the wrong order.
    z = np.array([[-4.0, -3, 3, 4], [4] * 4, [0] * 4, [2, -3, 1, 4]])[:, :, None]
    assert measured("accuracy", "binary", z, y).tolist() == pytest.approx([1, 0.5, 0.5, 0.75])
    assert measured("f1", "binary", z, y).tolist() == pytest.approx([1, 2 / 3, 0, 0.8])
    # Ties count one half.
    assert measured("auroc", "binary", z, y).tolist() == pytest.approx([1, 0.5, 0.5, 0.75])


def test_auroc_ranks_logits_whose_probabilities_are_all_rounded_to_1() -> None:
    y = np.array([[0.0], [1.0], [1.0]])
    assert measured("auroc", "binary", np.array([[[100.0], [200.0], [300.0]]]), y).tolist() == [1]


def test_multiclass_by_hand() -> None:
    # Nothing but ties, which are for the first class; one of each class; the last of 300 classes alone.
    assert measured("accuracy", "multiclass", np.zeros((1, 4, 3)), np.array([0, 1, 2, 0])).tolist() == [0.5]
    assert measured("f1", "multiclass", np.eye(3)[None], np.array([0, 1, 1])).tolist() == [(1 + 2 / 3 + 0) / 3]
    assert measured("accuracy", "multiclass", np.eye(300)[None], np.arange(300)).tolist() == [1]


def test_f1_is_0_where_nothing_is_predicted_or_present() -> None:
    y = np.zeros((4, 1))
    z = np.array([[-2.0] * 4, [-2.0, -2.0, 2.0, -2.0]])[:, :, None]
    assert measured("f1", "binary", z, y).tolist() == by_reference("binary", "f1", z, y) == [0, 0]

    traits = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    z = np.array([[[-2.0, 2.0]] * 3, [[2.0, 2.0]] * 3])
    expected = by_reference("multilabel", "f1", z, traits)
    assert measured("f1", "multilabel", z, traits).tolist() == pytest.approx(expected)


def test_classes_that_are_absent() -> None:
    # Class 3 is in no row; the second member predicts it once, the first never.
    y = np.array([0, 1, 2, 0, 1, 2])
    z = np.stack([np.eye(4)[[0, 1, 2, 0, 1, 1]], np.eye(4)[[0, 1, 3, 0, 1, 2]]])
    for name in ("accuracy", "f1"):
        np.testing.assert_allclose(measured(name, "multiclass", z, y), by_reference("multiclass", name, z, y))


@pytest.mark.parametrize(
    ("problem", "name", "y"),
    [
        ("binary", "auroc", np.zeros((ROWS, 1))),
        ("binary", "auroc", np.ones((ROWS, 1))),
        ("multiclass", "auroc", np.arange(ROWS) % 3),
        ("multilabel", "auroc", np.stack([np.arange(ROWS) % 2, np.zeros(ROWS), np.arange(ROWS) % 2], axis=1)),
        ("regression", "r2", np.stack([np.arange(ROWS), np.full(ROWS, 4.0)], axis=1)),
        # Its mean is not quite 0.1.
        ("unit_regression", "r2", np.full((ROWS, 1), 0.1)),
    ],
    ids=["no positive", "no negative", "class absent", "label constant", "target constant", "unit target constant"],
)
def test_undefined_is_nan(problem: Problem, name: str, y: Array) -> None:
    z, _ = draw(problem)
    assert measured(name, problem, z, y).isnan().tolist() == [True] * len(QUALITIES)
    # What is defined goes on being measured.
    for other in TABLE[problem].metrics:
        if other not in ("auroc", "r2"):
            np.testing.assert_allclose(measured(other, problem, z, y), by_reference(problem, other, z, y), rtol=1e-12)


def test_undefined_in_one_stream_alone() -> None:
    z, y = draw("binary")
    found = measure_members(
        ["auroc"], "binary", torch.tensor(np.stack([z, z])), torch.tensor(np.stack([y, 0 * y]))[:, None]
    )["auroc"]
    assert found[1].isnan().all()
    np.testing.assert_allclose(found[0], by_reference("binary", "auroc", z, y), rtol=1e-12)


@EVERY
def test_single_row(problem: Problem, name: str) -> None:
    z, y = draw(problem)
    found = measured(name, problem, z[:, :1], y[:1])
    if name in ("auroc", "r2"):
        assert found.isnan().all()
    else:
        np.testing.assert_allclose(found, by_reference(problem, name, z[:, :1], y[:1]), rtol=1e-12)
