"""The sealed test rows: the one place that hands them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from overfit_lab.config import Problem
from overfit_lab.data.inputs import Inputs
from overfit_lab.data.source import Source
from overfit_lab.data.split import Rows, Split


@dataclass(frozen=True, eq=False)
class UnsealedRows:
    """Test rows that have been opened.

    Args:
        problem: The problem type.
        x: Inputs as they are in the source, a row for each.
        y: `rows` or `rows x targets`.
        rows: `rows`, their numbers in the source.
    """

    problem: Problem
    x: Inputs
    y: NDArray[Any]
    rows: Rows


def unseal(source: Source, split: Split, write_down: Callable[[], None]) -> UnsealedRows:
    """Open the test rows.

    Args:
        source: Where they are.
        split: Which they are.
        write_down: Called first: it writes down for good that they are opened. If it raises, they stay sealed.
    """
    write_down()
    return UnsealedRows(source.problem, source.x[split.test], source.y[split.test], split.test)
