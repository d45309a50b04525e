"""Small versions of the simulations of `scripts/bench statistics`: rates on data whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scripts.benchmarks import statistics
from scripts.benchmarks.statistics import (
    SCHEMES,
    SWEEPS,
    Metric,
    area_under_roc,
    coverage,
    main,
    median_coverage,
    optimism,
    rejections,
)

BY_NAME = {sweep.name: sweep for sweep in SWEEPS}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_the_corrected_test_keeps_its_level(scheme: statistics.Scheme) -> None:
    corrected, plain = rejections(scheme, repeats=300, seed=1)
    assert corrected.mean <= 0.05 + 2.5 * 0.0126
    assert plain.mean > corrected.mean
    if scheme.repeats > 1:
        assert corrected.mean >= 0.01
        assert plain.mean >= 0.2


@pytest.mark.parametrize("name", ["5 folds, equal risks", "5 folds, sd of risks .03", "hold-out, sd of risks .03"])
def test_the_bias_of_the_selection_is_corrected(name: str) -> None:
    off = optimism(BY_NAME[name], repeats=150, seed=2, replicates=100)
    assert off.minimum.mean < -0.03
    assert abs(off.corrected.mean) <= 0.01 + 1.5 * off.corrected.se
    assert abs(off.corrected.mean) < 0.2 * abs(off.minimum.mean)


@pytest.mark.parametrize("metric", ["cross-entropy", "accuracy .9", "accuracy .97", "AUROC .8"])
def test_intervals_hold_the_truth(metric: Metric) -> None:
    held, width = coverage(metric, rows=100, repeats=200, seed=3)
    assert 0.9 <= held.mean <= 0.99
    assert 0 < width.mean < 1


@pytest.mark.parametrize("fits", [10, 30])
def test_medians_hold_the_truth(fits: int) -> None:
    held, opened, censored = median_coverage(fits, horizon=280, repeats=200, seed=4)
    assert held.mean >= 0.91
    assert 0.15 < censored.mean < 0.3
    assert opened.mean < 0.8


def test_area_under_roc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(30) < 0.4
    score = rng.normal(size=30) + positive
    index = rng.integers(30, size=(20, 30))
    wanted = [roc_auc_score(positive[sample], score[sample]) for sample in index]
    np.testing.assert_allclose(area_under_roc(score, positive, index), wanted, rtol=1e-12)


def test_benchmark_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(statistics, "SIZES", (100,))
    path = tmp_path / "table.txt"
    main(["--repeats", "3", "--out", str(path)])
    assert path.read_text(encoding="utf-8") == capsys.readouterr().out
    assert "10 times 5 folds" in path.read_text(encoding="utf-8")
