"""Training a cohort, whatever happens: what becomes of each of its runs."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from overfit_lab.cohort import Cohort
from overfit_lab.errors import UserError, is_out_of_memory
from overfit_lab.launch.job import Outcome, fail, finish
from overfit_lab.run import execute
from overfit_lab.training.history import Listener


def train_runs(
    cohort: Cohort, overrides: Mapping[str, Sequence[str]], command: str, listeners: Sequence[Listener] = ()
) -> list[Outcome]:
    """Train a cohort; if it fails, its halves, so that a run fails for itself alone.

    A run that fails leaves `failure.json` and an outcome, not an exception: the others are not its fault.

    Args:
        cohort: Prepared runs that are not finished.
        overrides: For each run by its id, what the command line changed.
        command: The whole command line.
        listeners: Called with the history after each measured epoch.

    Raises:
        UserError: The study has become another one meanwhile.
        OSError: Nothing can be written.
    """
    try:
        records = execute(cohort, overrides=overrides, command=command, listeners=listeners)
    except (UserError, OSError):
        raise
    except Exception as error:
        # Its weights may come from code that is being mended: the next try starts from scratch.
        cohort.end()
        halves = cohort.halves(smaller=is_out_of_memory(error))
        if not halves:
            return [fail(plan, overrides[plan.run_id], error) for plan in cohort.plans]
    else:
        return [
            finish(plan, overrides[plan.run_id], "trained", record=record)
            for plan, record in zip(cohort.plans, records, strict=True)
        ]
    # Not inside the handler, where the error's frames hold on to the memory that ran out; Trainer and module hold on to
    # each other.
    gc.collect()
    return [outcome for half in halves for outcome in train_runs(half, overrides, command, listeners)]
