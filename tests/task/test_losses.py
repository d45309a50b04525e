import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from sklearn.metrics import mean_squared_error as sklearn_mean_squared_error
from torch import Tensor

from overfit_lab.task.losses import (
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
    one_hot_mean_squared_error,
    sigmoid_mean_squared_error,
)

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def binary_row(z: Array, t: Array) -> float:
    # log(1 + e^z) - t z, written so that nothing overflows.
    terms = [max(a, 0.0) + math.log1p(math.exp(-abs(a))) - b * a for a, b in zip(z, t, strict=True)]
    return float(np.mean(terms))


def categorical_row(z: Array, t: Array) -> float:
    top = max(z)
    return float(math.log(sum(math.exp(a - top) for a in z)) + top - z[int(t)])


def squared_row(z: Array, t: Array) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(z, t, strict=True))) / len(z)


def one_hot_squared_row(z: Array, t: Array) -> float:
    return squared_row(z, np.eye(len(z))[int(t)])


def sigmoid_squared_row(z: Array, t: Array) -> float:
    return squared_row(np.array([sigmoid(a) for a in z]), t)


# The loss, its value for one row, and targets of a shape: vectors, or class indices out of four.
CASES: dict[str, tuple[Loss, Callable[[Array, Array], float], Callable[[tuple[int, ...]], Array]]] = {
    "binary": (binary_cross_entropy, binary_row, lambda shape: RNG.integers(0, 2, shape).astype(float)),
    "binary, soft": (binary_cross_entropy, binary_row, lambda shape: RNG.uniform(size=shape)),
    "categorical": (categorical_cross_entropy, categorical_row, lambda shape: RNG.integers(0, 4, shape[:-1])),
    "squared": (mean_squared_error, squared_row, lambda shape: RNG.normal(size=shape)),
    "one-hot, squared": (
        one_hot_mean_squared_error,
        one_hot_squared_row,
        lambda shape: RNG.integers(0, 4, shape[:-1]),
    ),
    "sigmoid, squared": (sigmoid_mean_squared_error, sigmoid_squared_row, lambda shape: RNG.uniform(size=shape)),
}


def by_rows(row: Callable[[Array, Array], float], logits: Array, targets: Array) -> Array:
    """Apply a row's formula in a loop over all leading dimensions."""
    losses = np.empty(logits.shape[:-1])
    for index in np.ndindex(*logits.shape[:-1]):
        losses[index] = row(logits[index], targets[index])
    return losses


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("leading", [(5,), (3, 5), (2, 3, 5)], ids=str)
def test_agrees_with_a_loop_over_rows(name: str, leading: tuple[int, ...]) -> None:
    loss, row, draw = CASES[name]
    logits = 3 * RNG.normal(size=(*leading, 4))
    targets = draw((*leading, 4))
    found = loss(torch.tensor(logits), torch.tensor(targets))
    assert found.shape == leading
    np.testing.assert_allclose(found, by_rows(row, logits, targets), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", list(CASES))
def test_configurations_share_the_targets_of_their_stream(name: str) -> None:
    # Two streams of five rows, three configurations each: logits 2 x 3 x 5 x 4, targets 2 x 1 x 5 [x 4].
    loss, row, draw = CASES[name]
    logits, targets = 3 * RNG.normal(size=(2, 3, 5, 4)), draw((2, 5, 4))
    found = loss(torch.tensor(logits), torch.tensor(targets)[:, None])
    expected = np.stack([by_rows(row, logits[:, c], targets) for c in range(3)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", list(CASES))
def test_rows_without_leading_dimensions_serve_every_member(name: str) -> None:
    loss, row, draw = CASES[name]
    logits, targets = RNG.normal(size=(3, 5, 4)), draw((5, 4))
    found = loss(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(found, [by_rows(row, member, targets) for member in logits], rtol=1e-12, atol=1e-14)


def test_mean_over_rows_agrees_with_scikit_learn() -> None:
    logits = RNG.normal(size=(40, 1))
    y = RNG.integers(0, 2, (40, 1)).astype(float)
    found = binary_cross_entropy(torch.tensor(logits), torch.tensor(y)).mean().item()
    assert found == pytest.approx(log_loss(y[:, 0], 1 / (1 + np.exp(-logits[:, 0]))), rel=1e-12)

    logits, classes = RNG.normal(size=(40, 3)), np.arange(40) % 3
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = categorical_cross_entropy(torch.tensor(logits), torch.tensor(classes)).mean().item()
    assert found == pytest.approx(log_loss(classes, probabilities), rel=1e-12)

    logits, y = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 3))
    found = mean_squared_error(torch.tensor(logits), torch.tensor(y)).mean().item()
    assert found == pytest.approx(sklearn_mean_squared_error(y, logits), rel=1e-12)

    squashed, y = 1 / (1 + np.exp(-logits)), RNG.uniform(size=(40, 3))
    found = sigmoid_mean_squared_error(torch.tensor(logits), torch.tensor(y)).mean().item()
    assert found == pytest.approx(sklearn_mean_squared_error(y, squashed), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("loss", "logits", "target", "expected"),
    [
        (binary_cross_entropy, [1000.0], [1.0], 0.0),
        (binary_cross_entropy, [1000.0], [0.0], 1000.0),
        (binary_cross_entropy, [-1000.0], [1.0], 1000.0),
        (binary_cross_entropy, [0.0], [1.0], math.log(2)),
        # One output right, one wrong: the mean over outputs, not the sum.
        (binary_cross_entropy, [500.0, -500.0], [1.0, 1.0], 250.0),
        (binary_cross_entropy, [-30.0], [0.0], math.exp(-30)),
        (categorical_cross_entropy, [1000.0, -1000.0, 0.0], 0, 0.0),
        (categorical_cross_entropy, [1000.0, -1000.0, 0.0], 1, 2000.0),
        (categorical_cross_entropy, [-1000.0, -1000.0], 1, math.log(2)),
        (mean_squared_error, [1000.0, 0.0], [0.0, 0.0], 500_000.0),
        (sigmoid_mean_squared_error, [1000.0], [0.0], 1.0),
        (sigmoid_mean_squared_error, [-1000.0], [0.25], 0.0625),
    ],
)
def test_extreme_logits(
    loss: Loss, logits: list[float], target: list[float] | int, expected: float, dtype: torch.dtype
) -> None:
    found = loss(torch.tensor([logits], dtype=dtype), torch.tensor([target]))
    assert found.dtype == dtype
    assert found.tolist() == [pytest.approx(expected, rel=1e-6)]


@pytest.mark.parametrize("name", list(CASES))
def test_losses_are_differentiable(name: str) -> None:
    loss, _, draw = CASES[name]
    logits = torch.tensor(2 * RNG.normal(size=(2, 3, 4)), requires_grad=True)
    targets = torch.tensor(draw((2, 3, 4)))
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits)


def binary_formula(z: Tensor, t: Tensor) -> Tensor:
    return -(t * z.sigmoid().log() + (1 - t) * (-z).sigmoid().log()).mean(-1)


def categorical_formula(z: Tensor, t: Tensor) -> Tensor:
    one_hot = F.one_hot(t, z.shape[-1])
    return -(one_hot * z.softmax(-1).log()).sum(-1)


# By torch's own operations, for autograd.
FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary": binary_formula,
    "binary, soft": binary_formula,
    "categorical": categorical_formula,
    "squared": lambda z, t: ((z - t) ** 2).mean(-1),
    "one-hot, squared": lambda z, t: (z - F.one_hot(t, 4)).square().mean(-1),
    "sigmoid, squared": lambda z, t: ((z.sigmoid() - t) ** 2).mean(-1),
}


def rows_adjacent(values: Tensor) -> Tensor:
    """Lay a cohort's values out as its network does: rows adjacent in memory, outputs not."""
    return values.transpose(-1, -2).contiguous().transpose(-1, -2)


LAYOUTS = pytest.mark.parametrize(
    "layout", [Tensor.contiguous, rows_adjacent], ids=["outputs adjacent", "rows adjacent"]
)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize(
    ("leading", "shared"),
    [((), ()), ((3,), (3,)), ((3,), ()), ((2, 3), (2, 1)), ((2, 3), (2, 3)), ((2, 1, 3), (1, 3))],
    ids=str,
)
@LAYOUTS
def test_gradient_agrees_with_autograd(
    name: str, leading: tuple[int, ...], shared: tuple[int, ...], layout: Callable[[Tensor], Tensor]
) -> None:
    loss, _, draw = CASES[name]
    logits = layout(torch.tensor(3 * RNG.normal(size=(*leading, 5, 4))))
    targets = torch.tensor(draw((*shared, 5, 4)))
    before = logits.clone(), targets.clone()
    losses, gradient = loss.with_gradient(logits, targets)

    by_autograd = logits.clone().requires_grad_()
    expected = FORMULAS[name](by_autograd, targets)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert by_autograd.grad is not None
    assert gradient.stride() == logits.stride()
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient, by_autograd.grad, rtol=1e-10, atol=1e-12)
    # What the two share must be neither the arguments nor the losses.
    assert torch.equal(losses, loss(logits, targets))
    assert torch.equal(logits, before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@LAYOUTS
def test_gradient_has_the_type_and_the_layout_of_the_logits(
    name: str, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    loss, _, draw = CASES[name]
    logits = layout(torch.tensor(RNG.normal(size=(2, 3, 5, 4)), dtype=dtype)).requires_grad_()
    # Targets for every configuration, in double precision, in the other layout.
    targets = torch.tensor(draw((2, 3, 5, 4)))
    losses, gradient = loss.with_gradient(logits, targets)
    assert losses.dtype == gradient.dtype == dtype
    assert gradient.stride() == logits.stride()
    assert not losses.requires_grad
    assert not gradient.requires_grad
    with torch.no_grad():
        assert torch.equal(gradient, loss.with_gradient(logits, targets)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("loss", "logits", "target", "expected"),
    [
        # (sigmoid(z) - t) / outputs, and softmax(z) - one-hot.
        (binary_cross_entropy, [800.0, -800.0, 0.0], [0.0, 0.0, 1.0], [1 / 3, 0.0, -1 / 6]),
        (binary_cross_entropy, [1000.0, -1000.0], [0.25, 1.0], [3 / 8, -1 / 2]),
        (categorical_cross_entropy, [800.0, -800.0, 0.0], 1, [1.0, -1.0, 0.0]),
        (categorical_cross_entropy, [800.0, -800.0, 0.0], 0, [0.0, 0.0, 0.0]),
        (categorical_cross_entropy, [-1e30, -1e30], 0, [-0.5, 0.5]),
        (categorical_cross_entropy, [1e30, -1e30], 1, [1.0, -1.0]),
        (mean_squared_error, [1e12, -1.0], [0.0, 1.0], [1e12, -2.0]),
        (sigmoid_mean_squared_error, [800.0, -800.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, -1 / 12]),
    ],
)
def test_gradients_at_extreme_logits(
    loss: Loss, logits: list[float], target: list[float] | int, expected: list[float], dtype: torch.dtype
) -> None:
    z = torch.tensor([logits], dtype=dtype, requires_grad=True)
    loss(z, torch.tensor([target])).sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    for gradient in (z.grad, loss.with_gradient(z, torch.tensor([target]))[1]):
        assert gradient[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("loss", [binary_cross_entropy, mean_squared_error, sigmoid_mean_squared_error])
def test_targets_take_the_type_of_the_logits(loss: Loss) -> None:
    logits = torch.tensor([[0.5, -1.0]], dtype=torch.float32)
    from_integers = loss(logits, torch.tensor([[0, 1]]))
    from_doubles = loss(logits, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert from_integers.dtype == from_doubles.dtype == torch.float32
    assert torch.equal(from_integers, from_doubles)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_member_that_is_not_finite_leaves_the_others_as_they_are(name: str, bad: float) -> None:
    loss, row, draw = CASES[name]
    logits, targets = RNG.normal(size=(3, 5, 4)), draw((5, 4))
    healthy = [0, 2]
    expected = np.stack([by_rows(row, logits[member], targets) for member in healthy])
    gradient_of_healthy = loss.with_gradient(torch.tensor(logits), torch.tensor(targets))[1][healthy]
    logits[1, 2:] = bad
    losses, gradient = loss.with_gradient(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(losses[healthy], expected, rtol=1e-12)
    assert torch.equal(gradient[healthy], gradient_of_healthy)
    if np.isnan(bad):
        assert losses[1].isnan().tolist() == [False, False, True, True, True]
