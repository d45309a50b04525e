from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from overfit_lab.analysis.onset import Onset
from overfit_lab.report.figure import house_style
from overfit_lab.report.grid import make_grid
from overfit_lab.report.loss_curves import LossCurves, load_loss_curves
from overfit_lab.report.plot_capacity import capacity_lines, draw_capacity, has_capacity
from overfit_lab.report.plot_curves import draw_overview, draw_run
from overfit_lab.study import load_study
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep


def drawn(axes: Axes, color: str) -> list[np.ndarray]:
    """The curves of a colour of the style, as [x, y]."""
    with house_style():
        return [
            np.asarray(line.get_data(), dtype=float)
            for line in axes.lines
            if to_hex(line.get_color()) == to_hex(color) and len(np.asarray(line.get_xdata())) > 2
        ]


def axes_of(root: Path, name: str) -> tuple[Axes, LossCurves]:
    study = load_study(make_sweep(root).directory)
    curves = load_loss_curves(study)[name]
    run = next(run for run in study.runs if run.run_id == name)
    with house_style():
        return draw_run(run, curves, name=name, loss_label="loss").axes[0], curves


def test_curves_are_the_means_over_fits_from_epoch_0_in_their_colours(tmp_path: Path) -> None:
    axes, curves = axes_of(tmp_path, "narrow0")
    [train], [val] = drawn(axes, "C0"), drawn(axes, "C1")
    np.testing.assert_allclose(val, [np.arange(21), (curves.val[0] + curves.val[1]) / 2])
    np.testing.assert_allclose(train, [np.arange(21), (curves.train[0] + curves.train[1]) / 2])


def test_the_onset_is_a_line_and_its_interval_a_band(tmp_path: Path) -> None:
    axes, _ = axes_of(tmp_path, "narrow0")
    assert [12, 12] in [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    [band] = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert band.get_x() <= 9
    assert band.get_x() + band.get_width() >= 15


def test_a_run_without_onset_has_neither(tmp_path: Path) -> None:
    axes, _ = axes_of(tmp_path, "decayed0")
    assert not axes.patches
    assert len(axes.lines) == 3


def test_of_a_diverged_run_what_is_finite_is_drawn(tmp_path: Path) -> None:
    axes, _ = axes_of(tmp_path, "wide0")
    [val] = drawn(axes, "C1")
    assert np.isfinite(val[1]).tolist() == [True] * 7 + [False] * 14
    assert all(np.isfinite(axes.get_ylim()))


def test_an_explosion_does_not_flatten_the_rest(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    val = losses(5)
    val[:, 15:] = 1e30
    run = add_run(files.run("one"), configuration(4, 0.0), Onset("diverged", best_epoch=5), val)
    curves = LossCurves(np.arange(21), 0.5 * val, val, np.zeros(len(val), int))
    with house_style():
        axes = draw_run(run, curves, name="", loss_label="loss").axes[0]
    assert axes.get_ylim()[1] < 20 * val[0, 0]


def test_the_curve_against_the_right_labels_is_dashed_and_in_the_legend(tmp_path: Path) -> None:
    run = add_run(make_study(tmp_path).run("one"), configuration(4, 0.0), Onset("not_reached"), losses(5))
    val = losses(5)
    curves = LossCurves(np.arange(21), 0.5 * val, val, np.zeros(len(val), int), val_clean=0.8 * val)
    with house_style():
        figure = draw_run(run, curves, name="", loss_label="loss")
    (dashed,) = (line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(np.asarray(dashed.get_ydata()), 0.8 * val.mean(axis=0))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["train", "validation (range over 2 fits)", "right labels", "best epoch"]


@pytest.mark.parametrize(("turn", "floor", "scale"), [(5, 1.0, "linear"), (10, 0.02, "log")])
def test_the_loss_axis_is_logarithmic_where_the_range_is_wide(
    tmp_path: Path, turn: int, floor: float, scale: str
) -> None:
    run = add_run(
        make_study(tmp_path).run("one"), configuration(4, 0.0), Onset("not_reached"), losses(turn, floor=floor)
    )
    val = losses(turn, floor=floor)
    with house_style():
        axes = draw_run(
            run, LossCurves(np.arange(21), val, val, np.zeros(len(val), int)), name="", loss_label="loss"
        ).axes[0]
    assert axes.get_yscale() == scale


@pytest.mark.parametrize(
    ("onset", "epochs", "scale"),
    [(20, 2000, "symlog"), (200, 2000, "linear"), (20, 400, "linear"), (0, 2000, "linear")],
)
def test_an_onset_that_is_early_in_a_long_training_is_seen(tmp_path: Path, onset: int, epochs: int, scale: str) -> None:
    found = Onset("overfit", onset, (onset - 5, onset + 5), onset + 9, 5, 0.01) if onset else Onset("not_reached")
    run = add_run(make_study(tmp_path).run("one"), configuration(4, 0.0), found, losses(5))
    val = np.linspace(2, 1, epochs + 1)[None]
    with house_style():
        axes = draw_run(
            run, LossCurves(np.arange(epochs + 1), val, val, np.zeros(1, int)), name="", loss_label=""
        ).axes[0]
    assert axes.get_xscale() == scale
    assert axes.get_xlim() == (0, epochs)


def test_no_number_of_an_overview_is_written_over_anything(tmp_path: Path) -> None:
    """Losses of seven digits, and epochs of four."""
    files, curves = make_study(tmp_path), {}
    for width in (4, 8, 16):
        run = add_run(files.run(f"w{width}"), configuration(width, 0.0), Onset("not_reached"), losses(5))
        val = 0.1 * 0.99 ** np.arange(1001.0)[None]
        curves[run.run_id] = LossCurves(4 * np.arange(1001), 0.1 * val, val, np.zeros(1, int))
    with house_style():
        grid = make_grid(load_study(files.directory), "model.width", None)
        figure = draw_overview(grid, curves, title="", loss_label="mean squared error")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
    first, *_ = figure.axes
    low, high = first.get_ylim()
    numbers = [first.yaxis.get_ticklabels()[i] for i, at in enumerate(first.get_yticks()) if low <= at <= high]
    assert max(len(number.get_text()) for number in numbers) >= 6
    label = figure._supylabel.get_window_extent()  # type: ignore[attr-defined]
    assert not any(label.overlaps(number.get_window_extent()) for number in numbers)
    epochs = [
        text.get_window_extent()
        for axes in figure.axes
        for text, at in zip(axes.xaxis.get_ticklabels(), axes.get_xticks(), strict=True)
        if 0 <= at <= 4000
    ]
    assert len(epochs) >= 6
    assert not any(a.overlaps(b) for i, a in enumerate(epochs) for b in epochs[:i])


def test_capacity_has_a_line_for_each_alpha_in_order_of_parameters(tmp_path: Path) -> None:
    lines = capacity_lines(load_study(make_sweep(tmp_path).directory))
    assert list(lines) == ["alpha 0", "alpha 0.1"]
    assert [point.parameters for point in lines["alpha 0"]] == [40, 160, 640]
    assert [point.val for point in lines["alpha 0"]] == pytest.approx([0.2, 0.15, 0.2])
    assert [point.se for point in lines["alpha 0"]] == [0.0123] * 3
    assert lines["alpha 0.1"][0].train == pytest.approx(0.5 * 1.3 * 0.9**20)


def test_seeds_are_one_point(tmp_path: Path) -> None:
    lines = capacity_lines(load_study(make_sweep(tmp_path, seeds=[0, 1]).directory))
    assert list(lines) == ["alpha 0", "alpha 0.1"]
    # With seed 1 the curve turns one epoch later: its loss at the best epoch of the record is 0.05 higher.
    assert [point.val for point in lines["alpha 0"]] == pytest.approx([0.225, 0.15, 0.2])


def test_dropout_makes_lines_and_not_sizes(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for dropout in (0.0, 0.5):
        config = configuration(4, 0.0, dropout=dropout)
        add_run(files.run(f"d{dropout}"), config, Onset("not_reached", best_epoch=9), losses(9))
    study = load_study(files.directory)
    assert list(capacity_lines(study)) == ["dropout 0", "dropout 0.5"]
    assert not has_capacity(study)


def test_a_key_of_the_data_that_sets_the_number_of_inputs_is_a_size(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    for degree, width in ((1, 4), (2, 16), (3, 64)):
        config = configuration(width, 0.0)
        config["data"]["degree"] = degree
        add_run(files.run(f"d{degree}"), config, Onset("not_reached", best_epoch=9), losses(9))
    lines = capacity_lines(load_study(files.directory))
    assert {label: [point.parameters for point in line] for label, line in lines.items()} == {"": [40, 160, 640]}


def test_capacity_labels_widths(tmp_path: Path) -> None:
    study = load_study(make_sweep(tmp_path).directory)
    with house_style():
        figure = draw_capacity(study, title="", loss_label="loss")
        figure.draw_without_rendering()
        labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["40\nwidth 4", "160\nwidth 16", "640\nwidth 64"]
