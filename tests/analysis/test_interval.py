"""Intervals of a test set against the formulas of BCa and Wilson, plain loops and known standard errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from overfit_lab.analysis import interval as package
from overfit_lab.analysis.interval import Index, Interval, bootstrap_interval, proportion_interval
from scripts.benchmarks.statistics import area_under_roc

Array = NDArray[np.float64]


def mean_of(values: Array) -> Callable[[Index], Array]:
    return lambda index: values[index].mean(axis=1)


def test_bca_is_the_formula() -> None:
    """With its own replicates: agreement is up to the chance of 20 000 of them."""
    values = np.random.default_rng(0).exponential(size=60)
    rng = np.random.default_rng(1)
    replicates = np.sort([values[rng.integers(60, size=60)].mean() for _ in range(20_000)])
    z0 = norm.ppf((replicates < values.mean()).mean())
    left_out = np.array([np.delete(values, row).mean() for row in range(60)])
    u = left_out.mean() - left_out
    a = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    z = norm.ppf([0.05, 0.95])
    wanted = np.quantile(replicates, norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))))
    found = bootstrap_interval(mean_of(values), 60, seed=2, level=0.9, replicates=20_000)
    assert found.method == "bca"
    np.testing.assert_allclose([found.low, found.high], wanted, atol=0.012)
    # Skewed to the right: further above the mean than below.
    assert found.high - values.mean() > 1.1 * (values.mean() - found.low)


def test_many_rows_have_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=package.BCA_ROWS + 1)
    found = bootstrap_interval(mean_of(values), len(values))
    assert found.method == "percentile"
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose([found.low, found.high], values.mean() + np.array([-half, half]), atol=0.1 * half)


def test_the_samples_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_interval(mean_of(values), 50)
    monkeypatch.setattr(package, "BATCH", 5000)
    largest = 0

    def statistic(index: Index) -> Array:
        nonlocal largest
        largest = max(largest, index.size)
        assert index.dtype == np.intp
        result: Array = values[index].mean(axis=1)
        return result

    batched = bootstrap_interval(statistic, 50)
    assert largest == 5000
    # The same generator, drawn from in other portions.
    np.testing.assert_allclose([batched.low, batched.high], [whole.low, whole.high], atol=0.03)
    assert bootstrap_interval(mean_of(values), 50) == batched
    assert bootstrap_interval(mean_of(values), 50, seed=1) != batched


@pytest.mark.parametrize("rows", [30, package.BCA_ROWS + 1])
def test_a_statistic_without_variation_has_no_width(rows: int) -> None:
    for clusters in (None, np.arange(rows) // 7):
        found = bootstrap_interval(mean_of(np.full(rows, 0.1)), rows, clusters=clusters, replicates=200)
        np.testing.assert_allclose([found.low, found.high], 0.1, rtol=1e-12)
        assert found.low == found.high


def test_clusters_are_drawn_whole() -> None:
    clusters = np.array([5, 9, 5, 2, 9, 9, 2])
    seen = []

    def statistic(index: Index) -> Array:
        assert len(index) == 1
        seen.append(index[0])
        return np.array([float(index.shape[1])])

    found = bootstrap_interval(statistic, 7, clusters=clusters, replicates=300)
    assert found == Interval(6.0, 9.0, "percentile")
    for sample in seen:
        times = np.bincount(sample, minlength=7)
        for label in (2, 5, 9):
            assert len(set(times[clusters == label])) == 1
        assert sum(times[clusters == label][0] for label in (2, 5, 9)) == 3


def test_clusters_have_the_standard_error_of_their_means() -> None:
    """Rows of one cluster are copies: there are as many independent rows as clusters."""
    of_cluster = np.random.default_rng(0).normal(size=100)
    values = np.repeat(of_cluster, 8)
    found = bootstrap_interval(mean_of(values), 800, clusters=np.repeat(np.arange(100), 8))
    half = 1.96 * of_cluster.std(ddof=1) / 10
    np.testing.assert_allclose([found.low, found.high], of_cluster.mean() + np.array([-half, half]), atol=0.15 * half)
    alone = bootstrap_interval(mean_of(values), 800)
    assert alone.high - alone.low < 0.5 * (found.high - found.low)


def test_clusters_of_one_row_are_rows() -> None:
    values = np.random.default_rng(0).normal(size=80)
    rows, clusters = (bootstrap_interval(mean_of(values), 80, clusters=c) for c in (None, np.arange(80)))
    np.testing.assert_allclose([rows.low, rows.high], [clusters.low, clusters.high], atol=0.05)


def test_samples_of_a_single_class_are_left_out() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(40) < 3
    score = rng.normal(size=40) + positive
    found = bootstrap_interval(lambda index: area_under_roc(score, positive, index), 40)
    # One sample in twenty holds no positive row.
    assert found.method == "percentile"
    assert 0 <= found.low < roc_auc_score(positive, score) < found.high <= 1
    values: list[float] = []
    while len(values) < 1500:
        index = rng.integers(40, size=40)
        if positive[index].any():
            values.append(roc_auc_score(positive[index], score[index]))
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]), atol=0.03)
    by_cluster = bootstrap_interval(
        lambda index: area_under_roc(score, positive, index), 40, clusters=np.arange(40), replicates=500
    )
    np.testing.assert_allclose([by_cluster.low, by_cluster.high], [found.low, found.high], atol=0.05)


def test_a_single_class_has_no_interval() -> None:
    score, positive = np.arange(20.0), np.zeros(20, dtype=bool)
    for clusters in (None, np.arange(20)):
        found = bootstrap_interval(
            lambda index: area_under_roc(score, positive, index), 20, clusters=clusters, replicates=50
        )
        assert np.isnan([found.low, found.high]).all()
        assert found.method == "percentile"


@pytest.mark.parametrize(("successes", "rows"), [(0, 20), (20, 20), (7, 20), (970, 1000), (0, 1)])
def test_wilson_is_that_of_statsmodels(successes: int, rows: int) -> None:
    for level in (0.9, 0.95):
        found = proportion_interval(successes, rows, level)
        wanted = proportion_confint(successes, rows, alpha=1 - level, method="wilson")
        np.testing.assert_allclose([found.low, found.high], wanted, atol=1e-12)
        assert found.method == "wilson"
        assert found.high > found.low


def test_mistakes_are_named() -> None:
    ten = mean_of(np.arange(10.0))
    with pytest.raises(ValueError, match="rows is 1; a bootstrap needs at least 2"):
        bootstrap_interval(ten, 1)
    with pytest.raises(ValueError, match="level is 95; it must be between 0 and 1"):
        bootstrap_interval(ten, 10, level=95)
    with pytest.raises(ValueError, match="replicates is 0"):
        bootstrap_interval(ten, 10, replicates=0)
    with pytest.raises(ValueError, match=r"clusters has shape \(9,\); it must be \(10,\)"):
        bootstrap_interval(ten, 10, clusters=np.arange(9))
    with pytest.raises(ValueError, match="clusters holds one label"):
        bootstrap_interval(ten, 10, clusters=np.zeros(10))
    with pytest.raises(ValueError, match=r"statistic gave shape \(\)"):
        bootstrap_interval(lambda index: 1.0, 10)
    for successes in (-1, 11):
        with pytest.raises(ValueError, match=f"successes is {successes}; it must be from 0 to rows, 10"):
            proportion_interval(successes, 10)
    with pytest.raises(ValueError, match="rows is 0"):
        proportion_interval(0, 0)
    with pytest.raises(ValueError, match="level is 0"):
        proportion_interval(1, 2, 0)
