"""Tests and rules for comparing configurations, against SciPy, step-by-step Holm and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from overfit_lab.analysis.comparison import Comparison, corrected_t_test, holm, within_one_standard_error


def test_without_shared_train_rows_it_is_the_t_test() -> None:
    d = np.random.default_rng(0).normal(0.3, 1, size=(3, 5))
    found = corrected_t_test(d, val_train_ratio=0)
    wanted = stats.ttest_1samp(d.reshape(-1), 0)
    np.testing.assert_allclose([found.t, found.p_value], [wanted.statistic, wanted.pvalue], rtol=1e-12)
    assert found.df == 14
    np.testing.assert_allclose(found.se, stats.sem(d.reshape(-1)), rtol=1e-12)


def test_corrected_by_hand() -> None:
    # Mean 2, s^2 = 2.5; 1/5 + 1/4 = .45; se = sqrt(1.125); t with 4 degrees of freedom has a closed form.
    found = corrected_t_test([0, 1, 2, 3, 4], val_train_ratio=0.25)
    t = 2 / np.sqrt(1.125)
    u = t / np.sqrt(4 + t**2)
    assert found.df == 4
    np.testing.assert_allclose([found.mean, found.se, found.t], [2, np.sqrt(1.125), t], rtol=1e-12)
    np.testing.assert_allclose(found.p_value, 1 - 1.5 * (u - u**3 / 3), rtol=1e-10)
    turned = corrected_t_test([0, -1, -2, -3, -4], val_train_ratio=0.25)
    assert (turned.t, turned.p_value) == (-found.t, found.p_value)


@pytest.mark.parametrize(("value", "t", "p"), [(0.0, 0.0, 1.0), (0.1, np.inf, 0.0), (-0.1, -np.inf, 0.0)])
def test_differences_that_are_all_the_same(value: float, t: float, p: float) -> None:
    assert corrected_t_test(np.full(7, value), val_train_ratio=0.25) == Comparison(value, 0.0, t, 6, p)


def test_holm_is_the_step_down_procedure() -> None:
    rng = np.random.default_rng(1)
    for tests in (1, 2, 7):
        p = rng.random(tests) ** 3
        wanted = np.empty(tests)
        largest = 0.0
        for step, position in enumerate(np.argsort(p)):
            largest = max(largest, min(1.0, (tests - step) * p[position]))
            wanted[position] = largest
        np.testing.assert_allclose(holm(p), wanted, rtol=1e-12)
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)


def test_one_standard_error_by_hand() -> None:
    # Mean .2, sd .1: one standard error over 3 folds is .0577.
    d = np.array([0.1, 0.2, 0.3])
    assert not within_one_standard_error(d, folds=3)
    assert within_one_standard_error(d - 0.143, folds=3)
    assert not within_one_standard_error(d - 0.142, folds=3)


def test_repeats_of_the_folds_do_not_shrink_the_standard_error() -> None:
    d = np.random.default_rng(2).normal(0.4, 1, size=5)
    d = 0.38 + (d - d.mean()) / d.std(ddof=1)
    repeated = np.tile(d, (10, 1))
    assert within_one_standard_error(d, folds=5)
    assert within_one_standard_error(repeated, folds=5)
    assert not within_one_standard_error(repeated, folds=50)


def test_the_best_is_within_its_own_standard_error() -> None:
    assert within_one_standard_error(np.zeros(4), folds=4)
    assert within_one_standard_error([-0.1, -0.1], folds=2)
    assert not within_one_standard_error([0.1, 0.1], folds=2)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="there is 1 difference; at least 2"):
        corrected_t_test([1.0], val_train_ratio=0.25)
    with pytest.raises(ValueError, match="differences is empty"):
        within_one_standard_error([], folds=1)
    with pytest.raises(ValueError, match="differences hold a number that is not finite"):
        corrected_t_test([1.0, np.nan], val_train_ratio=0.25)
    for ratio in (-0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match="val_train_ratio is"):
            corrected_t_test([1.0, 2.0], val_train_ratio=ratio)
    for p in ([0.1, 1.1], [-0.1], [np.nan], [[0.1]]):
        with pytest.raises(ValueError, match="p_values is"):
            holm(p)
    for folds in (0, 3):
        with pytest.raises(ValueError, match=f"folds is {folds}; it must be from 1 to the number of differences, 2"):
            within_one_standard_error([1.0, 2.0], folds=folds)
