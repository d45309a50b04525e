"""How far a loss moves with the shuffle, against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from numpy.typing import NDArray

from overfit_lab.analysis.onset import Onset
from overfit_lab.report.figure import house_style
from overfit_lab.report.loss_curves import LossCurves
from overfit_lab.report.plot_shuffles import MOST_ROWS, draw_shuffles
from overfit_lab.report.shuffles import Shuffles, shuffle_sentences, shuffles
from overfit_lab.study import Study, load_study
from tests.report.made_up import HORIZON, add_run, configuration, losses, make_study

BEST = 5
# Three shuffles of two folds: what the two widths lose at their best epoch.
NARROW = [[0.2, 0.4], [0.5, 0.3], [0.6, 0.8]]
WIDE = [[0.5, 0.5], [0.3, 0.3], [0.8, 0.8]]


def _study(root: Path) -> Study:
    files = make_study(root)
    for name, width in (("narrow", 4), ("wide", 16)):
        add_run(files.run(name), configuration(width, 0.0), Onset("not_reached", best_epoch=BEST), losses(BEST))
    return load_study(files.directory)


def _curves(at_best: list[list[float]]) -> LossCurves:
    values: NDArray[np.float64] = np.array(at_best).ravel()
    val = np.full((len(values), HORIZON + 1), 9.0)
    val[:, BEST] = values
    repeats = np.repeat(np.arange(len(at_best)), len(at_best[0]))
    return LossCurves(np.arange(HORIZON + 1), val, val, repeats)


def test_a_shuffle_is_the_mean_of_its_folds_at_the_best_epoch(tmp_path: Path) -> None:
    found = shuffles(_study(tmp_path), {"narrow": _curves(NARROW), "wide": _curves(WIDE)})
    np.testing.assert_allclose(found["narrow"].losses, [0.3, 0.4, 0.7])
    # Deviations from .4667: -.1667, -.0667, .2333; squared and summed .0867; over two, its root.
    assert found["narrow"].sd == pytest.approx(0.208167, abs=1e-6)


def test_sentences_count_how_often_the_best_wins(tmp_path: Path) -> None:
    study = _study(tmp_path)
    found = shuffles(study, {"narrow": _curves(NARROW), "wide": _curves(WIDE)})
    # Deviations .208 and .252, their median .230. Narrow is lower on average, and in shuffles 0 and 2.
    assert shuffle_sentences(study, found) == [
        "reshuffled 3 times: the validation loss of a configuration moves by 0.230 with the shuffle "
        "(standard deviation, median over runs)",
        "the best of 2 configurations over all shuffles is the best in 2 of 3",
    ]


def test_one_shuffle_says_nothing_and_a_loss_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    study = _study(tmp_path)
    once = {"narrow": _curves(NARROW[:1]), "wide": _curves(WIDE[:1])}
    assert shuffles(study, once) == {}
    assert shuffle_sentences(study, {}) == []
    broken = _curves([[0.1, np.inf], [0.2, 0.3]])
    assert list(shuffles(study, {"narrow": broken, "wide": _curves(WIDE)})) == ["wide"]


def test_the_figure_has_a_dot_for_each_shuffle_and_the_lowest_on_top() -> None:
    runs = {f"run{i}": Shuffles(np.array([1.0, 2.0, 6.0]) + i) for i in range(MOST_ROWS + 3)}
    with house_style():
        figure = draw_shuffles(dict(reversed(runs.items())), {name: name for name in runs}, title="", loss_label="loss")
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"run{i}" for i in range(MOST_ROWS)]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(np.asarray(dots[0].get_xdata()), [1.0, 2.0, 6.0])
    [container, *_] = axes.containers
    assert isinstance(container, ErrorbarContainer)
    low, high = container.lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((3 - np.sqrt(7), 3 + np.sqrt(7)))
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
