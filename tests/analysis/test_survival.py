"""The median onset against statsmodels, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from statsmodels.duration.survfunc import SurvfuncRight

from overfit_lab.analysis.survival import MedianOnset, median_onset


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("horizon", [15, 25, 200])
@pytest.mark.parametrize("fits", [9, 11, 31])
def test_median_is_that_of_statsmodels(fits: int, horizon: int, level: float) -> None:
    rng = np.random.default_rng([fits, horizon])
    for _ in range(20):
        # Many ties; horizons differ, so that fits are censored before, between and after the onsets.
        onset = np.ceil(20 * np.exp(0.5 * rng.normal(size=fits)))
        ends = rng.choice([0.6 * horizon, horizon], size=fits).round()
        epochs, observed = np.minimum(onset, ends), onset <= ends
        if not observed.any():
            continue
        found = median_onset(epochs, observed, level=level)
        curve = SurvfuncRight(epochs, observed)
        assert not np.isclose(curve.surv_prob, 0.5, rtol=0, atol=1e-9).any() or fits != 31
        wanted = curve.surv_times[curve.surv_prob <= 0.5 + 1e-9]
        assert found.median == (wanted[0] if len(wanted) else None)
        if not np.isclose(curve.surv_prob, 0.5).any():
            assert found.median == (None if np.isnan(curve.quantile(0.5)) else curve.quantile(0.5))
        with np.errstate(all="ignore"):
            low, high = curve.quantile_ci(0.5, alpha=1 - level, method="cloglog")
        if not np.isnan(low):
            assert found.ci[0] == low
            assert found.ci[1] == (high if np.isfinite(high) else None)


def test_median_by_hand() -> None:
    # S: 5/6 at 3, 4/6 at 5, then 3 are left after one is censored: 4/9 at 8. At 8 half is reached.
    found = median_onset([3, 5, 7, 8, 10, 10], [True, True, False, True, False, False])
    assert found.median == 8
    # var(log S) = 1/30, 1/20, 1/30 + 1/60... Greenwood: sums of d / (n (n - d)).
    greenwood = np.cumsum([1 / (6 * 5), 1 / (5 * 4), 1 / (3 * 2)])
    curve = np.array([5 / 6, 4 / 6, 4 / 9])
    half_width = 1.959964 * np.sqrt(greenwood) / np.abs(np.log(curve))
    z = np.log(-np.log(curve))
    low, high = np.exp(-np.exp(z + half_width)), np.exp(-np.exp(z - half_width))
    assert low[0] <= 0.5
    assert high[-1] > 0.5
    assert found.ci == (3, None)


def test_where_the_curve_is_one_half_the_median_is_reached() -> None:
    assert median_onset(np.arange(1, 11), np.ones(10, dtype=bool)).median == 5
    # Products of fractions: (1 - 1/10)(1 - 1/9)... is not exactly one half.
    for fits in range(2, 60, 2):
        assert median_onset(np.arange(1, fits + 1), np.ones(fits, dtype=bool)).median == fits // 2


def test_without_an_onset_there_is_neither_median_nor_interval() -> None:
    assert median_onset([20, 20, 30], [False, False, False]) == MedianOnset(None, (None, None))
    assert median_onset([20], [False]) == MedianOnset(None, (None, None))


def test_onsets_that_are_all_the_same() -> None:
    assert median_onset([7] * 12, [True] * 12) == MedianOnset(7, (7, 7))
    assert median_onset([7], [True]) == MedianOnset(7, (7, 7))


def test_fewer_than_half() -> None:
    found = median_onset([5] * 4 + [30] * 8, [True] * 4 + [False] * 8)
    assert found == MedianOnset(None, (5, None))
    assert median_onset([5] + [30] * 19, [True] + [False] * 19) == MedianOnset(None, (None, None))


def test_the_interval_narrows_with_the_level_and_holds_the_median() -> None:
    rng = np.random.default_rng(0)
    epochs = np.ceil(100 * rng.random(40))
    wide, narrow = (median_onset(epochs, np.ones(40, dtype=bool), level=level) for level in (0.99, 0.5))
    ends = (wide.ci[0], narrow.ci[0], wide.median, narrow.ci[1], wide.ci[1])
    assert all(end is not None for end in ends)
    assert list(ends) == sorted(end for end in ends if end is not None)
    assert wide.ci[0] != narrow.ci[0]


@pytest.mark.parametrize(
    ("epochs", "observed", "level", "message"),
    [
        ([], [], 0.95, "1 or more"),
        ([1, 2], [True], 0.95, r"epochs has shape \(2,\) and observed \(1,\)"),
        ([[1, 2]], [[True, True]], 0.95, r"epochs has shape \(1, 2\)"),
        ([1, 2.5], [True, True], 0.95, "whole numbers from 0"),
        ([1, -1], [True, True], 0.95, "whole numbers from 0"),
        ([1, np.inf], [True, True], 0.95, "whole numbers from 0"),
        ([1, 2], [True, True], 1.0, "level is 1.0; it must be between 0 and 1"),
    ],
)
def test_mistakes_are_named(epochs: ArrayLike, observed: ArrayLike, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        median_onset(epochs, observed, level=level)
