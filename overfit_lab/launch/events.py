"""What happens while cohorts train, wherever they do."""

from __future__ import annotations

import sys
from typing import NamedTuple

from overfit_lab.claim import is_alive, owners
from overfit_lab.cohort import Cohort
from overfit_lab.launch.job import Outcome


class Progress(NamedTuple):
    """A cohort has got so far, in epochs of all its parts."""

    cohort: Cohort
    epoch: float


class Finished(NamedTuple):
    """A cohort is done; there is an outcome for each of its runs."""

    cohort: Cohort
    outcomes: list[Outcome]


def say_busy(cohort: Cohort) -> None:
    """Tell a person why nothing seems to happen."""
    claim = cohort.study.cohorts.claim(cohort.name)
    if not is_alive(claim):
        return  # it has ended meanwhile
    who = owners(claim)
    where = f" ({who[-1].place})" if who else ""
    count = len(cohort.missing)
    runs = "1 run is" if count == 1 else f"{count} runs are"
    print(f"overfit-lab: {runs} being trained by another command{where}; waiting for it", file=sys.stderr)
