"""A study for a notebook: records, frames, and figures as methods."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from matplotlib.figure import Figure

from overfit_lab.errors import UserError
from overfit_lab.report.figure import house_style
from overfit_lab.report.figures import StudyFigures
from overfit_lab.report.loss_curves import load_loss_curves
from overfit_lab.report.shuffles import shuffles
from overfit_lab.study import Study
from overfit_lab.study import load_study as load_records


class NotebookStudy(Study):
    """A study with its plots; all else is as in `Study`. Its curves are read when the first figure is drawn."""

    def plot_run(self, run_id: str) -> Figure:
        """Draw the train and validation loss of a run, with the onset of overfitting.

        Raises:
            UserError: There is no finished run of that id.
        """
        if run_id not in {run.run_id for run in self.runs}:
            raise UserError(f"run_id={run_id}: there is no such finished run in {self.files.directory}")
        with house_style():
            return self._figures.run(run_id)

    def plot_curves(self) -> Figure:
        """Draw the curves of all runs as small multiples.

        Raises:
            UserError: There are too many, or they do not lie on one or two swept keys.
        """
        with house_style():
            return self._there(self._figures.overview(), "one or two swept keys, with at most 8 values each")

    def plot_capacity(self) -> Figure:
        """Draw the loss at the best epoch against the number of parameters.

        Raises:
            UserError: All networks have the same size, or there are too many lines to tell apart.
        """
        with house_style():
            return self._there(self._figures.capacity(), "networks of several sizes, in at most 8 lines")

    def plot_val_loss(self) -> Figure:
        """Draw the best validation loss over two swept keys.

        Raises:
            UserError: There are no two, or more than 12 values of one.
        """
        with house_style():
            return self._there(self._figures.val_loss(), "two swept keys, with at most 12 values each")

    def plot_onset(self) -> Figure:
        """Draw the onset of overfitting over two swept keys; raises as `plot_val_loss`."""
        with house_style():
            return self._there(self._figures.onset(), "two swept keys, with at most 12 values each")

    def plot_shuffles(self) -> Figure:
        """Draw how far the validation losses move from one reshuffle of the rows to the next.

        Raises:
            UserError: The rows were shuffled once.
        """
        with house_style():
            return self._there(self._figures.shuffles(), "split.repeats above 1")

    @cached_property
    def _figures(self) -> StudyFigures:
        curves = load_loss_curves(self)
        return StudyFigures(self, curves, shuffles(self, curves))

    def _there(self, figure: Figure | None, needed: str) -> Figure:
        if figure is None:
            raise UserError(f"{self.files.directory}: there is nothing to draw; this figure needs {needed}")
        return figure


def load_study(path: Path | str) -> NotebookStudy:
    """Load a study from its directory, finished or not.

    Raises:
        UserError: The directory is no study, or was written by a newer version.
    """
    study = load_records(path)
    return NotebookStudy(study.files, study.record, study.runs, study.failed, study.unfinished)
