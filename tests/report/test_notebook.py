"""A study in Python: records, frames, and plots that return figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import overfit_lab
from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError
from overfit_lab.report.notebook import NotebookStudy
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep


@pytest.fixture
def study(tmp_path: Path) -> NotebookStudy:
    return overfit_lab.load_study(make_sweep(tmp_path).directory)


def _words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))  # type: ignore[attr-defined]


def test_plots_are_figures_that_say_what_the_records_say(study: NotebookStudy) -> None:
    assert "12 [9, 15]" in _words(study.plot_curves())
    assert "overfitting begins at epoch 12 [9, 15]" in _words(study.plot_run("narrow0"))
    assert "Loss at the best epoch against capacity" in _words(study.plot_capacity())
    assert "0.150" in _words(study.plot_val_loss())
    assert "[9, 15]" in _words(study.plot_onset())


def test_frames_go_to_pandas(study: NotebookStudy) -> None:
    frame = study.frame().to_pandas()
    assert frame["val_loss"].tolist() == pytest.approx([0.2, 0.3, 0.15, 0.2])
    assert list(study.curves("narrow0").to_pandas().columns) == ["repeat", "fold", "epoch", "split", "metric", "value"]


def test_what_cannot_be_drawn_is_a_sentence(study: NotebookStudy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is nothing to draw; this figure needs split\.repeats above 1"):
        study.plot_shuffles()
    with pytest.raises(UserError, match="run_id=nobody: there is no such finished run"):
        study.plot_run("nobody")
    files = make_study(tmp_path / "other")
    add_run(files.run("one"), configuration(4, 0.0), Onset("not_reached", best_epoch=5), losses(5))
    alone = overfit_lab.load_study(files.directory)
    assert alone.plot_run("one").axes
    for plot in (alone.plot_curves, alone.plot_capacity, alone.plot_val_loss, alone.plot_onset):
        with pytest.raises(UserError, match="there is nothing to draw"):
            plot()
