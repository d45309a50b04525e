"""The figures of a study, each drawn when it is asked for; None where a study gives nothing to draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from overfit_lab.errors import printable
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.grid import Grid, grid_keys, make_grid
from overfit_lab.report.labels import loss_label, short_names, study_title, value_label
from overfit_lab.report.loss_curves import LossCurves
from overfit_lab.report.plot_capacity import draw_capacity, has_capacity
from overfit_lab.report.plot_curves import draw_overview, draw_run
from overfit_lab.report.plot_heatmap import draw_onset, draw_val_loss
from overfit_lab.report.plot_shuffles import draw_shuffles
from overfit_lab.report.shuffles import Shuffles
from overfit_lab.study import Study

# Beyond these a grid is no picture any more.
MOST_PANELS_ALONG = 8
MOST_CELLS_ALONG = 12


@dataclass(frozen=True, eq=False)
class StudyFigures:
    """Draws what a study has shown; to be used, and its figures saved, while `house_style` is in force.

    Args:
        study: The study.
        curves: The losses of its runs, by run id.
        moves: What each reshuffle made of them, by run id.
    """

    study: Study
    curves: Mapping[str, LossCurves]
    moves: Mapping[str, Shuffles]

    @cached_property
    def names(self) -> dict[str, str]:
        """What tells each run from the others, by run id; the study's name where nothing does."""
        swept = short_names(swept_keys(self.study))
        names = {}
        for run in self.study.runs:
            values = [f"{name} {value_label(configured(run.config, key))}" for key, name in swept.items()]
            names[run.run_id] = ", ".join(values) or printable(self.study.record.name)
        return names

    def run(self, run_id: str) -> Figure:
        """Draw the curves of a finished run.

        Raises:
            KeyError: There is no such run.
        """
        run = {run.run_id: run for run in self.study.runs}[run_id]
        return draw_run(run, self.curves[run_id], name=self.names[run_id], loss_label=loss_label(self.study))

    def overview(self) -> Figure | None:
        """Draw the curves of all runs as small multiples."""
        swept, keys = swept_keys(self.study), grid_keys(self.study)
        if not (1 <= len(swept) <= 2 and keys):
            return None
        other = next((key for key in [*keys[1:], *swept] if key != keys[0]), None)
        grid = make_grid(self.study, keys[0], other)
        if max(len(grid.x.values), len(grid.y.values)) > MOST_PANELS_ALONG:
            return None
        return draw_overview(grid, self.curves, title=study_title(self.study), loss_label=loss_label(self.study))

    def capacity(self) -> Figure | None:
        """Draw the loss at the best epoch against the number of parameters."""
        if not has_capacity(self.study):
            return None
        return draw_capacity(self.study, title=study_title(self.study), loss_label=loss_label(self.study))

    def val_loss(self) -> Figure | None:
        """Draw the validation loss over two swept keys."""
        grid = self._grid()
        title, loss = study_title(self.study), loss_label(self.study)
        return None if grid is None else draw_val_loss(grid, title=title, loss_label=loss)

    def onset(self) -> Figure | None:
        """Draw the onset over two swept keys."""
        grid = self._grid()
        return None if grid is None else draw_onset(grid, title=study_title(self.study))

    def shuffles(self) -> Figure | None:
        """Draw how far the validation losses move from one reshuffle of the rows to the next."""
        if not self.moves:
            return None
        return draw_shuffles(self.moves, self.names, title=study_title(self.study), loss_label=loss_label(self.study))

    def of_the_study(self) -> Iterator[tuple[str, Figure]]:
        """Draw all that there is to draw of the study as a whole, each with the name of its file."""
        drawn = {
            "curves": self.overview,
            "capacity": self.capacity,
            "heatmap_val_loss": self.val_loss,
            "heatmap_onset": self.onset,
            "shuffles": self.shuffles,
        }
        for name, draw in drawn.items():
            figure = draw()
            if figure is not None:
                yield name, figure

    def _grid(self) -> Grid | None:
        keys = grid_keys(self.study)
        if len(keys) < 2:
            return None
        grid = make_grid(self.study, keys[0], keys[1])
        return grid if max(len(grid.x.values), len(grid.y.values)) <= MOST_CELLS_ALONG else None
