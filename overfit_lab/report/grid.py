"""The runs of a sweep laid out over two of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, failed_configurations, swept_keys
from overfit_lab.report.labels import short_names, value_label
from overfit_lab.study import Study

Cell = tuple[int, int]


@dataclass(frozen=True)
class GridAxis:
    """One key of a grid, with its values in order; without a key it has one value and no name."""

    key: str = ""
    name: str = ""
    values: Sequence[Any] = (None,)

    @property
    def labels(self) -> list[str]:
        """The values with the name of the key."""
        return [f"{self.name} {value_label(value)}" for value in self.values]


@dataclass(frozen=True)
class Grid:
    """Runs by cell: column along x, row along y.

    Args:
        x: The key along the columns.
        y: The key along the rows.
        runs: The finished runs of each cell that has any.
        failed: Cells in which a run failed.
    """

    x: GridAxis
    y: GridAxis
    runs: dict[Cell, list[RunRecord]] = field(default_factory=dict)
    failed: frozenset[Cell] = frozenset()

    def missing(self, cell: Cell) -> str:
        """Say why a cell has no finished run."""
        return "failed" if cell in self.failed else "no result"


def make_grid(study: Study, x: str, y: str | None) -> Grid:
    """Lay the runs of a study out over one or two of its swept keys."""
    swept, names = study.swept(), short_names(swept_keys(study))
    across = GridAxis(x, names[x], swept[x])
    down = GridAxis() if y is None else GridAxis(y, names[y], swept[y])

    def cell_of(config: dict[str, Any]) -> Cell | None:
        column, row = configured(config, across.key), configured(config, down.key)
        if column not in across.values or row not in down.values:
            return None
        return across.values.index(column), down.values.index(row)

    runs: dict[Cell, list[RunRecord]] = {}
    for run in study.runs:
        cell = cell_of(run.config)
        if cell is not None:
            runs.setdefault(cell, []).append(run)
    failed = {cell_of(config) for config in failed_configurations(study).values()}
    return Grid(across, down, runs, frozenset(cell for cell in failed if cell is not None))


def grid_keys(study: Study) -> list[str]:
    """Return the swept keys from the one that suits the columns of a grid best to the least; without the seed."""
    order = ("model.width", "penalty.alpha", "model.", "penalty.", "")

    def rank(key: str) -> int:
        return next(i for i, prefix in enumerate(order) if key.startswith(prefix))

    return sorted((key for key in swept_keys(study) if key != "seed"), key=rank)
