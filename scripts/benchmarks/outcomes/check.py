"""An outcome beside what was expected, and how curves are read out of studies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.records import RunRecord
from overfit_lab.report.notebook import NotebookStudy

TOLERANCE = 0.10  # of a closed form


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        what: was looked at.
        expected: in words or figures.
        measured: the same.
        passed: whether they agree.
    """

    what: str
    expected: str
    measured: str
    passed: bool


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run with its curves.

    Attributes:
        record: its record.
        study: where it is.
    """

    record: RunRecord
    study: NotebookStudy

    def key(self, dotted: str) -> float:
        """The value of a configuration key that holds a number."""
        value: object = self.record.config
        for part in dotted.split("."):
            assert isinstance(value, dict)
            value = value[part]
        assert isinstance(value, int | float)
        return value

    def curve(self, metric: str = "loss", split: str = "val") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A curve of all fits: `epochs` measured, and `fits x epochs` by repeat and fold."""
        wanted = (pl.col("metric") == metric) & (pl.col("split") == split)
        rows = self.study.curves(self.record.run_id).filter(wanted).sort("repeat", "fold", "epoch")
        epochs = rows["epoch"].unique().sort().to_numpy()
        return epochs, rows["value"].to_numpy().reshape(-1, len(epochs))

    def last(self, metric: str = "loss", split: str = "val") -> NDArray[np.float64]:
        """The value of each fit at the horizon."""
        return self.curve(metric, split)[1][:, -1]


def runs_of(studies: Iterable[NotebookStudy], key: str) -> dict[float, list[Run]]:
    """All runs of some studies by the value of a key, which is ascending."""
    found: dict[float, list[Run]] = {}
    for study in studies:
        for record in study.runs:
            run = Run(record, study)
            found.setdefault(run.key(key), []).append(run)
    return dict(sorted(found.items()))


def within(what: str, expected: Sequence[float], measured: Sequence[float], places: Sequence[object]) -> Check:
    """Compare values with those of a closed form: the one that differs most is shown.

    Args:
        what: they are.
        expected: by the closed form.
        measured: beside it.
        places: what each is called.
    """
    ratios = np.array(measured) / np.array(expected)
    worst = int(np.abs(np.log(ratios)).argmax())
    difference = ratios[worst] - 1
    return Check(
        what,
        f"within {TOLERANCE:.0%} of the closed form, {len(ratios)} values",
        f"at most {difference:+.1%}: {measured[worst]:.4g} for {expected[worst]:.4g} at {places[worst]}",
        bool((np.abs(ratios - 1) <= TOLERANCE).all()),
    )
