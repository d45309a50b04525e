"""The seal: there is one place that hands test rows out, and it writes that down first."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import overfit_lab
from overfit_lab.config import KFoldSplit
from overfit_lab.data import load_source, make_split
from overfit_lab.data.unseal import unseal

SOURCE = load_source("iris")
SPLIT = make_split(SOURCE, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))


class Watched:
    """A source that notes when its rows are asked for."""

    problem = SOURCE.problem

    def __init__(self, log: list[str]) -> None:
        self.log = log

    @property
    def x(self) -> object:
        self.log.append("x")
        return SOURCE.x

    @property
    def y(self) -> object:
        self.log.append("y")
        return SOURCE.y


def test_the_opening_is_written_down_before_a_row_is_read() -> None:
    log: list[str] = []
    opened = unseal(Watched(log), SPLIT, lambda: log.append("written down"))  # type: ignore[arg-type]
    assert log == ["written down", "x", "y"]
    assert opened.problem == "multiclass"
    np.testing.assert_array_equal(opened.rows, SPLIT.test)
    for row, x, y in zip(opened.rows, opened.x, opened.y, strict=True):
        np.testing.assert_array_equal(x, SOURCE.x[row])
        assert y == SOURCE.y[row]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_cannot_be_written_down_is_not_opened(error: BaseException) -> None:
    log: list[str] = []

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        unseal(Watched(log), SPLIT, fail)  # type: ignore[arg-type]
    assert log == []


# Who may say `split.test`, or take rows by it. To cut and to count needs no look at a target; plan.py and finalize.py
# write down which rows they are.
ALLOWED = {
    "data/split.py": 0,
    "data/duplicates.py": 1,
    "data/unseal.py": 3,
    "plan.py": 1,
    "study/finalize.py": 5,
}


def test_no_other_module_names_the_test_rows() -> None:
    package = Path(overfit_lab.__file__).parent
    found = {}
    for path in sorted(package.rglob("*.py")):
        # Not `split.test_fraction`, and not the `test` of a final record.
        uses = re.findall(r"(?:\bsplit|\bcut)\.test\b|getattr\([^)]*[\"']test[\"']", path.read_text(encoding="utf-8"))
        if uses:
            found[str(path.relative_to(package))] = len(uses)
    assert {name: ALLOWED.get(name) for name in found} == found
    reading = re.compile(r"\b(?:x|y|groups\[[^]]*\]|inputs)\[[^]]*\.test\]")
    readers = {
        str(path.relative_to(package)): len(reading.findall(path.read_text(encoding="utf-8")))
        for path in sorted(package.rglob("*.py"))
        if reading.search(path.read_text(encoding="utf-8"))
    }
    assert readers == {"data/duplicates.py": 1, "data/unseal.py": 2}


def test_only_finalize_opens() -> None:
    package = Path(overfit_lab.__file__).parent
    users = {str(p.relative_to(package)) for p in package.rglob("*.py") if "unseal(" in p.read_text(encoding="utf-8")}
    assert users == {"data/unseal.py", "study/finalize.py"}
