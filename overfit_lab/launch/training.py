"""Training a cohort, whatever happens: what becomes of each of its runs."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from overfit_lab.claim import acquire
from overfit_lab.cohort import Cohort, divide
from overfit_lab.errors import UserError, is_out_of_memory
from overfit_lab.launch.deaths import fail_cohort
from overfit_lab.launch.job import Outcome, finish
from overfit_lab.launch.supervise import ClaimSupervision, StopFlag, batch_job
from overfit_lab.run import execute
from overfit_lab.training.history import Listener
from overfit_lab.training.supervision import Stopped


class Busy(Exception):
    """Another process is training the cohort."""


def train_runs(
    cohort: Cohort,
    overrides: Mapping[str, Sequence[str]],
    command: str,
    listeners: Sequence[Listener] = (),
    flag: StopFlag | None = None,
) -> list[Outcome]:
    """Claim a cohort that is written down and train it; if it fails, its halves, so that a run fails for itself alone.

    A run that fails leaves `failure.json` and an outcome, not an exception: the others are not its fault.

    Args:
        cohort: Prepared runs; a cohort that is not written down any more has been trained, or divided, by others.
        overrides: For each run by its id, what the command line changed.
        command: The whole command line.
        listeners: Called with the history after each measured epoch.
        flag: Who may ask for a stop.

    Raises:
        Busy: Another process is training it, or has done so.
        Stopped: It was asked for, and the checkpoint is on disk; or another process has gone on with the cohort.
        UserError: The study has become another one meanwhile.
        OSError: Nothing can be written.
    """
    files, name = cohort.study.cohorts, cohort.name
    claim = acquire(files.claim(name), **batch_job()._asdict())
    if claim is None:
        raise Busy
    if not files.record(name).exists() or not cohort.missing:
        claim.release()
        files.end(name)
        raise Busy
    flag = flag or StopFlag()
    try:
        if flag.is_set:
            raise Stopped
        supervision = ClaimSupervision(claim, flag, cohort.epochs * len(cohort.parts))
        records = execute(cohort, overrides=overrides, command=command, listeners=listeners, supervision=supervision)
    except UserError:
        files.end(name)
        raise
    except OSError:
        raise
    except Exception as error:
        halves = cohort.halves(smaller=is_out_of_memory(error))
        if not halves:
            # Its weights may come from code that is being mended: the next try starts from scratch.
            return fail_cohort(cohort, overrides, error)
        divide(cohort, halves)
    else:
        return [
            finish(plan, overrides[plan.run_id], "trained", record=record)
            for plan, record in zip(cohort.plans, records, strict=True)
        ]
    finally:
        claim.release()
    # Not inside the handler, where the error's frames hold on to the memory that ran out; Trainer and module hold on to
    # each other.
    gc.collect()
    return [outcome for half in halves for outcome in train_runs(half, overrides, command, listeners, flag)]
