"""The closed forms that experiments are compared with, each against something slower; and how outcomes are judged."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from scripts.benchmarks.outcomes.check import within
from scripts.benchmarks.outcomes.imdb import _overfit
from scripts.benchmarks.outcomes.linear import MOST, _lowest, _turns
from scripts.benchmarks.outcomes.truth import Fold, Truth, descend, ridge

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
W = np.array([1.0, -2.0, 0.0, 0.5])
FOLD = Fold(X, X @ W + RNG.normal(size=20), 1.0)


@pytest.mark.parametrize("alpha", [0.01, 0.25, 4.0])
def test_ridge_is_that_of_scikit_learn(alpha: float) -> None:
    # Its penalty stands beside the sum of squares, without the half.
    expected = Ridge(alpha=20 * alpha / 2, fit_intercept=False).fit(FOLD.x, FOLD.y).coef_
    np.testing.assert_allclose(ridge(FOLD, alpha), expected, rtol=1e-10)


def test_descent_is_gradient_descent_in_a_loop() -> None:
    found = descend(FOLD, 0.05, np.array([0, 1, 7, 60]))
    w = np.zeros(4)
    for step in range(61):
        if step in (0, 1, 7, 60):
            np.testing.assert_allclose(found[[0, 1, 7, 60].index(step)], w, atol=1e-12)
        w = w - 0.05 * 2 * FOLD.x.T @ (FOLD.x @ w - FOLD.y) / 20


def test_excess_risk_is_the_error_on_new_inputs() -> None:
    truth = Truth(W, np.array([1.0, 4.0, 0.25, 1.0]), (FOLD,))
    estimate = W + np.array([0.1, -0.2, 0.3, 0.0])
    new = np.random.default_rng(1).normal(size=(400_000, 4)) * np.sqrt(truth.variances)
    assert truth.excess(estimate) == pytest.approx(np.mean((new @ (estimate - W)) ** 2), rel=0.01)


def test_the_bound_of_early_stopping() -> None:
    x = np.geomspace(1e-3, 1e3, 100_001)
    assert np.max(((1 - np.exp(-x)) * (1 + x) / x) ** 2) == pytest.approx(MOST, abs=1e-3)


def test_the_lowest_of_a_curve_between_its_points() -> None:
    alphas = [0.0, 0.0625, 0.125, 0.18, 0.25, 0.36, 0.5, 1.0]
    assert _lowest(alphas, [(np.log(max(a, 1e-3)) - np.log(0.3)) ** 2 for a in alphas]) == pytest.approx(0.3, rel=0.01)


def test_turns_of_a_curve() -> None:
    t = np.arange(200)
    curve: NDArray[np.float64] = np.interp(t, [0, 10, 60, 150, 199], [3.0, 1.0, 2.0, 0.5, 0.7])
    assert _turns(curve) == (10, 60, 150)


@pytest.mark.parametrize(("measured", "passed"), [([1.0, 2.1], True), ([1.0, 2.3], False), ([0.85, 2.0], False)])
def test_all_values_must_be_near_the_closed_form(measured: list[float], passed: bool) -> None:
    check = within("risk", [1.0, 2.0], measured, ["a", "b"])
    assert check.passed == passed


def test_the_value_that_differs_most_is_shown() -> None:
    assert within("risk", [1.0, 2.0], [1.01, 1.5], ["a", "b"]).measured == "at most -25.0%: 1.5 for 2 at b"


@pytest.mark.parametrize(
    ("curve", "passed"),
    [
        ([0.69, 0.35, 0.29, 0.28, 0.5, 0.8], [True, True]),
        ([0.69, 0.28, 0.29, 0.30, 0.5, 0.8], [False, True]),
        ([0.69, 0.35, 0.31, 0.30, 0.5, 0.6], [False, False]),
    ],
)
def test_outcome_of_sixteen_units(curve: list[float], passed: list[bool]) -> None:
    assert [check.passed for check in _overfit(np.array([curve, curve]))] == passed
