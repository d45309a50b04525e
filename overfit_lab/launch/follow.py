"""Following cohorts that train elsewhere, in processes or batch jobs that need nobody to lead them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from overfit_lab.claim import is_alive, owners
from overfit_lab.cohort import Cohort
from overfit_lab.launch.deaths import Deaths, fail_cohort
from overfit_lab.launch.events import Finished, Progress
from overfit_lab.launch.job import found
from overfit_lab.plan import Plan

LOOK_SECONDS = 1.0
"""How often to look how far they are."""


class Place(Protocol):
    """Where cohorts train."""

    patience: float
    """Seconds for which a cohort may seem to be in nobody's hands before it is given up for dead."""

    def start(self, cohorts: Sequence[Cohort]) -> None:
        """Have cohorts trained that are written down."""

    def has(self, cohort: Cohort) -> bool:
        """Say whether something that was started is going to train a cohort, or is training it."""

    def out_of_memory(self, cohort: Cohort) -> bool | None:
        """Say whether memory ran out for a cohort whose process has died; None where nobody has told."""

    def obituary(self, cohort: Cohort) -> str:
        """Say in words what has ended, and where to look for the reason."""


def follow(
    cohorts: Sequence[Cohort],
    overrides: Mapping[str, Sequence[str]],
    place: Place,
    regroup: Callable[[Sequence[Plan]], Sequence[Cohort]],
) -> Iterator[Progress | Finished]:
    """Wait until cohorts are trained, and start again what has died.

    Args:
        cohorts: What is being trained.
        overrides: For each run by its id, what the command line changed.
        place: Where.
        regroup: Finds the cohorts that runs belong to now, where those that they were in are no more.

    Yields:
        What happens. If whoever listens leaves, the training goes on.
    """
    deaths, pending, unseen = Deaths(), {cohort.name: cohort for cohort in cohorts}, dict[str, float]()
    for cohort in cohorts:
        deaths.watch(cohort)
    while pending:
        time.sleep(LOOK_SECONDS)
        for cohort in list(pending.values()):
            files = cohort.study.cohorts
            again: Sequence[Cohort] = ()
            if not files.record(cohort.name).exists():
                del pending[cohort.name]
                done = {plan: found(plan, overrides.get(plan.run_id, ())) for plan in cohort.plans}
                yield Finished(cohort, [outcome for outcome in done.values() if outcome is not None])
                # It was divided, or given up.
                again = regroup([plan for plan, outcome in done.items() if outcome is None])
            elif place.has(cohort) or is_alive(files.claim(cohort.name)):
                unseen.pop(cohort.name, None)
                if claims := owners(files.claim(cohort.name)):
                    yield Progress(cohort, claims[-1].epoch)
            elif time.monotonic() - unseen.setdefault(cohort.name, time.monotonic()) >= place.patience:
                del pending[cohort.name], unseen[cohort.name]
                what = place.obituary(cohort)
                again, error = deaths.after_death(cohort, out_of_memory=place.out_of_memory(cohort))
                if not again:
                    error = type(error)(f"{error}; {what}")
                    yield Finished(cohort, fail_cohort(cohort, overrides, error))
                else:
                    print(f"overfit-lab: {what}; it goes on from its checkpoint", file=sys.stderr)
            for successor in again:
                deaths.watch(successor)
                pending[successor.name] = successor
            place.start([cohort for cohort in again if not place.has(cohort)])
