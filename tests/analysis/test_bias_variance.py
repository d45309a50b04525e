"""Bias and variance against plain loops, and against populations in which both are known."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.special import log_expit, log_softmax

from overfit_lab.analysis.bias_variance import decompose_cross_entropy, decompose_squared_error


@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
def test_squared_error_is_that_of_loops(outputs: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(4, 6, *outputs)), rng.normal(size=(6, *outputs))
    found = decompose_squared_error(predictions, targets)
    flat, wanted = predictions.reshape(4, -1), targets.reshape(-1)
    errors, variances = [], []
    for cell in range(flat.shape[1]):
        of_models = [float(flat[model, cell]) for model in range(4)]
        mean = sum(of_models) / 4
        variances.append(sum((p - mean) ** 2 for p in of_models) / 3)
        errors.append(sum((p - wanted[cell]) ** 2 for p in of_models) / 4)
    error, variance = sum(errors) / len(errors), sum(variances) / len(variances)
    np.testing.assert_allclose(
        [found.error, found.bias, found.variance], [error, error - variance, variance], rtol=1e-12
    )


def test_squared_error_of_ridge_is_that_of_its_population() -> None:
    """Ridge on a fixed design is linear in Gaussian targets: bias and variance have closed forms."""
    rng = np.random.default_rng(0)
    rows, features, alpha, sigma, trials = 40, 8, 6.0, 0.7, 4000
    x, test, w = rng.normal(size=(rows, features)), rng.normal(size=(50, features)), rng.normal(size=features)
    ridge = np.linalg.solve(x.T @ x + alpha * np.eye(features), x.T)
    variance = sigma**2 * np.square(test @ ridge).sum(axis=1).mean()
    bias = np.square(test @ (ridge @ x @ w - w)).mean() + sigma**2
    found = []
    for _ in range(trials):
        train = x @ w + sigma * rng.normal(size=(3, rows))
        predictions = train @ ridge.T @ test.T
        found.append(decompose_squared_error(predictions, test @ w + sigma * rng.normal(size=50)))
    np.testing.assert_allclose(np.mean([f.variance for f in found]), variance, rtol=0.02)
    np.testing.assert_allclose(np.mean([f.bias for f in found]), bias, rtol=0.02)
    np.testing.assert_allclose(np.mean([f.error for f in found]), bias + variance, rtol=0.02)


def test_cross_entropy_is_that_of_loops() -> None:
    rng = np.random.default_rng(1)
    models, rows, count = 3, 5, 4
    log_p = log_softmax(rng.normal(0, 2, size=(models, rows, count)), axis=2)
    classes = rng.integers(count, size=rows)
    error = divergence = bias_of_average = 0.0
    for row in range(rows):
        unnormalised = [exp(sum(log_p[m, row, c] for m in range(models)) / models) for c in range(count)]
        average = [u / sum(unnormalised) for u in unnormalised]
        bias_of_average -= log(average[classes[row]]) / rows
        for m in range(models):
            error -= log_p[m, row, classes[row]] / (models * rows)
            divergence += sum(average[c] * (log(average[c]) - log_p[m, row, c]) for c in range(count)) / (models * rows)
    # What holds exactly for the average of these models.
    np.testing.assert_allclose(error, bias_of_average + divergence, rtol=1e-12)
    found = decompose_cross_entropy(log_p, classes)
    np.testing.assert_allclose([found.error, found.variance], [error, 1.5 * divergence], rtol=1e-12)
    np.testing.assert_allclose(found.bias, bias_of_average - found.variance / models, rtol=1e-12)


@pytest.mark.parametrize("models", [2, 5])
@pytest.mark.parametrize(("spread", "tolerance"), [(0.5, 0.003), (1.0, 0.006)])
def test_cross_entropy_of_gaussian_logits_is_that_of_its_population(
    models: int, spread: float, tolerance: float
) -> None:
    """Binary: the geometric mean of sigmoids is the sigmoid of the mean logit."""
    rows, mean = 100_000, 1.0
    logits = mean + spread * np.random.default_rng(0).normal(size=(models, rows))
    found = decompose_cross_entropy(np.stack([log_expit(-logits), log_expit(logits)], axis=2), np.ones(rows, dtype=int))
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    error = -float(weights @ log_expit(mean + spread * points) / weights.sum())
    bias = -float(log_expit(mean))
    np.testing.assert_allclose(found.error, error, atol=0.004)
    np.testing.assert_allclose([found.bias, found.variance], [bias, error - bias], atol=tolerance)
    # Without the correction for the average of few models, bias would be too high by more than that.
    average = -float(log_expit(logits.mean(axis=0)).mean())
    assert average - bias > 1.3 * abs(found.bias - bias)


def test_equal_models_have_no_variance() -> None:
    log_p = np.repeat(log_softmax(np.random.default_rng(0).normal(size=(1, 6, 3)), axis=2), 4, axis=0)
    found = decompose_cross_entropy(log_p, np.arange(6) % 3)
    np.testing.assert_allclose([found.variance, found.bias], [0, found.error], atol=1e-15)
    equal = decompose_squared_error(np.ones((4, 6)), np.zeros(6))
    assert (equal.error, equal.bias, equal.variance) == (1, 1, 0)


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        (np.ones((1, 3)), np.ones(3), r"predictions has shape \(1, 3\); it must be \[models >= 2, rows >= 1"),
        (np.ones(3), np.ones(3), r"predictions has shape \(3,\)"),
        (np.ones((2, 0)), np.ones(0), r"predictions has shape \(2, 0\)"),
        (np.ones((2, 3)), np.ones((3, 1)), r"targets has shape \(3, 1\); it must be \(3,\)"),
        (np.full((2, 3), np.nan), np.ones(3), "predictions hold a number that is not finite"),
        (np.ones((2, 3)), np.full(3, np.inf), "targets hold a number that is not finite"),
    ],
)
def test_mistakes_in_squared_error_are_named(predictions: ArrayLike, targets: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompose_squared_error(predictions, targets)


@pytest.mark.parametrize(
    ("log_p", "classes", "message"),
    [
        (np.log(np.full((2, 3), 0.5)), [0, 1, 1], r"it must be \[models >= 2, rows >= 1, classes\]"),
        (np.full((2, 3, 2), 0.5), [0, 1, 1], "it must be the log-softmax of the logits"),
        (np.log(np.full((2, 3, 2), 0.5)), [0, 1], r"classes has shape \(2,\); it must be \(3,\)"),
        (np.log(np.full((2, 3, 2), 0.5)), [0, 1, 2], "classes must be whole numbers from 0 to 1"),
        (np.log(np.full((2, 3, 2), 0.5)), [0, -1, 1], "classes must be whole numbers from 0 to 1"),
        (np.log(np.full((2, 3, 2), 0.5)), [0.0, 1.0, 1.0], "classes must be whole numbers from 0 to 1"),
        (np.full((2, 3, 2), -np.inf), [0, 1, 1], "log_probabilities hold a number that is not finite"),
    ],
)
def test_mistakes_in_cross_entropy_are_named(log_p: ArrayLike, classes: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompose_cross_entropy(log_p, classes)
