"""The bias of the selected loss, against a loop over replicates, worked examples and properties."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from overfit_lab.analysis import selection_bias as package
from overfit_lab.analysis.selection_bias import bootstrap_bias_corrected, tibshirani_tibshirani

Array = NDArray[np.float64]


def sweep(seed: int = 0, rows: int = 30) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 0.3, size=(epochs, rows)) for epochs in (3, 1, 5, 2)]


def slow(candidates: list[Array], bags: NDArray[np.uint8], of_row: NDArray[np.int64]) -> tuple[float, float]:
    """Every replicate chooses from all epochs of all candidates; loops only."""
    choices = [epoch for candidate in candidates for epoch in candidate]
    minimum = min(float(np.mean(choice)) for choice in choices)
    scores = []
    for replicate in range(bags.shape[1]):
        weight = [int(bags[of_row[row], replicate]) for row in range(len(of_row))]
        inside = [sum(w * loss for w, loss in zip(weight, c, strict=True)) / sum(weight) for c in choices]
        outside = [row for row, w in enumerate(weight) if w == 0]
        chosen = choices[int(np.argmin(inside))]
        best = choices[int(np.argmin([np.mean(c) for c in choices]))]
        scores.append(np.mean([chosen[row] - best[row] for row in outside]))
    return minimum, float(np.mean(scores))


@pytest.mark.parametrize("folds", [None, 5])
@pytest.mark.parametrize("block", [package.BLOCK, 70])
def test_bias_is_that_of_the_loop(folds: int | None, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "BLOCK", block)
    candidates = sweep()
    # Folds of different sizes, not in order, and with numbers of their own.
    of_row = np.arange(30) if folds is None else np.random.default_rng(3).integers(folds, size=30)
    found = bootstrap_bias_corrected(iter(candidates), None if folds is None else 10 + of_row, seed=4, replicates=40)
    bags = package._draw_bags(folds or 30, folds is not None, 40, np.random.default_rng(4))
    minimum, bias = slow(candidates, bags, of_row)
    np.testing.assert_allclose([found.minimum, found.bias], [minimum, bias], rtol=1e-12)
    assert found.corrected == found.minimum + found.bias
    assert found.bias > 0


def test_bags_are_those_of_the_bootstrap() -> None:
    folds = package._draw_bags(4, True, 20_000, np.random.default_rng(0)).astype(int)
    assert (folds.sum(axis=0) == 4).all()
    assert ((folds == 0).sum(axis=0) >= 1).all()
    # All 4 folds are drawn once in 4! / 4^4 of the draws; of the others, 3/4 to the 4th of all leave a fold out.
    np.testing.assert_allclose((folds == 0).mean(), 0.75**4 / (1 - 24 / 256), atol=0.01)
    rows = package._draw_bags(200, False, 500, np.random.default_rng(0)).astype(int)
    np.testing.assert_allclose([(rows == k).mean() for k in range(3)], np.exp(-1) / np.array([1, 1, 2]), atol=0.01)


def test_candidates_are_read_once_and_one_at_a_time() -> None:
    alive = 0

    class Losses:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1
            assert alive <= 2

        def __array__(self, dtype: object = None, copy: object = None) -> Array:
            return np.random.default_rng(alive).normal(1, 0.3, size=(4, 20))

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[Losses]:
        for _ in range(5):
            yield Losses()

    bootstrap_bias_corrected(stream(), None, replicates=10)


def test_one_choice_has_no_bias() -> None:
    losses = np.random.default_rng(0).random((1, 50))
    for folds in (None, np.arange(50) % 5):
        found = bootstrap_bias_corrected([losses], folds, replicates=30)
        assert found.bias == 0
        assert found.corrected == found.minimum == losses.mean()


def test_a_clear_winner_has_no_bias() -> None:
    losses = np.random.default_rng(0).random((4, 50)) + np.array([[0.0], [5], [6], [7]])
    assert bootstrap_bias_corrected([losses + 3, losses], np.arange(50) % 5, replicates=30).bias == 0


def test_order_of_the_candidates_is_of_no_matter() -> None:
    candidates = sweep()
    forward, backward = (bootstrap_bias_corrected(c, None, seed=1) for c in (candidates, candidates[::-1]))
    np.testing.assert_allclose(forward.corrected, backward.corrected, rtol=1e-12)


def test_an_epoch_that_is_not_finite_is_never_chosen() -> None:
    clean = sweep()
    broken = [np.vstack([c, np.full(c.shape[1], -9.0)]) for c in clean]
    for value, candidate in zip((np.nan, np.inf, -np.inf, np.nan), broken, strict=True):
        candidate[-1, 7] = value
    lost = np.full((3, 30), np.nan)
    assert bootstrap_bias_corrected([lost, *broken, lost], None) == bootstrap_bias_corrected(clean, None)


def test_two_folds_and_two_rows_are_enough() -> None:
    losses = np.array([[0.0, 2.0], [2.0, 1.0]])
    # Each fold or row chooses for the other: 2 and 2, where the choice of both has 0 and 2.
    for folds in (None, [0, 1]):
        found = bootstrap_bias_corrected([losses], folds, replicates=2000)
        assert found.minimum == 1
        np.testing.assert_allclose(found.bias, 1, atol=0.1)


def test_tibshirani_by_hand() -> None:
    # Means 2, 5/3, 3: the second is chosen. Excess over the minima of the folds: 0, 3, 0.
    assert tibshirani_tibshirani([[2, 1, 3], [1, 4, 0], [3, 3, 3]]) == pytest.approx(1)
    broken = np.array([[2, 1, 3], [1, 4, 0], [3, 3, 3], [0, 0, np.nan], [-9, np.inf, 0]])
    assert tibshirani_tibshirani(broken) == pytest.approx(1)
    assert tibshirani_tibshirani([[2, 1, 3]]) == 0


def test_mistakes_are_named() -> None:
    losses = np.ones((3, 4))
    cases: list[tuple[list[Array], Array | None, str]] = [
        ([np.ones(4)], None, r"a candidate has shape \(4,\); it must be \[epochs, rows\]"),
        ([losses, np.ones((3, 5))], None, "a candidate has 5 rows; the first has 4"),
        ([np.ones((3, 1))], None, "there is 1 row; at least 2"),
        ([losses], np.zeros(4), "there is 1 fold; at least 2"),
        ([losses], np.arange(3.0), r"folds has shape \(3,\); it must be \(4,\)"),
        ([losses * np.nan], None, "candidates hold no epoch with finite losses"),
        ([], None, "candidates hold no epoch with finite losses"),
    ]
    for candidates, folds, message in cases:
        with pytest.raises(ValueError, match=message):
            bootstrap_bias_corrected(candidates, folds)
    with pytest.raises(ValueError, match="replicates is 0"):
        bootstrap_bias_corrected([losses], None, replicates=0)
    for shape in ((3,), (3, 1)):
        with pytest.raises(ValueError, match="fold_losses has shape"):
            tibshirani_tibshirani(np.ones(shape))
    with pytest.raises(ValueError, match="fold_losses hold no choice"):
        tibshirani_tibshirani(np.full((2, 3), np.nan))
