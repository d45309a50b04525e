"""A process that trains cohorts which are written down: what Slurm runs, and what goes on when a command ends.

    python -m overfit_lab.launch.task FOLDER COHORTS TOKEN NAME [NAME ...]

FOLDER is where the command was given, COHORTS the folder of the study's cohorts, seen from there, TOKEN what this
process claims of the sweep, and NAME is what a cohort is called. It takes one after another, leaves out what others are
training, and ends with 0, with 1 if a run has failed, or with 128 and the number of the signal that has stopped it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overfit_lab.errors import UserError


def train_task(folder: str, cohorts: str, names: Sequence[str], token: str | None = None) -> int:
    """Train cohorts that are written down; see the module for the arguments and what is returned.

    A cohort that somebody else trains is left to him, unless it is the only one: then there is nothing better to do
    than to wait until he is done, or is known to be dead.
    """
    os.chdir(folder)
    # A user's own network or data lies there, as with `python -m`; last, so that it shadows nothing.
    sys.path.append(folder)
    from overfit_lab.claim import acquire, wait_while_alive
    from overfit_lab.records import CohortFiles

    files, failed = CohortFiles(Path(cohorts)), False
    # Whoever looks sees that what waits is going to be trained. Before all that takes seconds to import, as whoever has
    # started this process waits for it.
    leading = None if token is None else acquire(files.sweep(token))

    import torch

    from overfit_lab.cohort import cohort_of
    from overfit_lab.launch.supervise import batch_job, heeding_signals
    from overfit_lab.launch.training import Busy, train_runs
    from overfit_lab.training.supervision import Stopped

    for name in names:
        if len(names) == 1:
            wait_while_alive(files.claim(name), **batch_job()._asdict())
        record = files.find(name)
        if record is None:
            continue  # it has been trained
        with heeding_signals() as flag:
            try:
                cohort = cohort_of(record)
                torch.set_num_threads(record.threads)
                print(f"overfit-lab: cohort {name}: {len(cohort.missing)} runs, {cohort.fits} fits", flush=True)
                outcomes = train_runs(cohort, record.overrides, record.command, flag=flag)
            except Busy:
                print(f"overfit-lab: cohort {name} is being trained by another process", flush=True)
            except Stopped:
                # By a signal, which is handed on at the end of this block; or others have gone on with the cohort.
                print(f"overfit-lab: cohort {name} has stopped and is saved", flush=True)
            else:
                for outcome in outcomes:
                    what = outcome.status if outcome.record is None else outcome.record.onset
                    print(f"overfit-lab: run {outcome.run_id}: {outcome.error or what}", flush=True)
                failed = failed or any(outcome.status == "failed" for outcome in outcomes)
    if leading is not None:
        leading.release()
        files.end(leading.path.name)
    return 1 if failed else 0


@dataclass(frozen=True)
class SlurmTask:
    """What submitit carries to a node: names alone, as the configurations are written down in the study.

    Args:
        folder: See the module, as for the others.
    """

    folder: str
    cohorts: str
    name: str

    def __call__(self) -> None:
        """Train the cohort; Slurm hears of a failure by the exit code."""
        code = guarded(lambda: train_task(self.folder, self.cohorts, [self.name]))
        if code:
            # Past submitit, which would keep an exception for its own parent and end with 0.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def checkpoint(self) -> Any:  # noqa: ANN401 - submitit's class, which is only there on a node
        """Say what is to be queued again: the same. The cohort's checkpoint is on disk by now."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def guarded(task: Any) -> int:  # noqa: ANN401
    """Turn a user's mistake, or a disk that cannot be written, into a line and an exit code."""
    try:
        return int(task())
    except UserError as error:
        print(f"overfit-lab: {error}", file=sys.stderr)
    except OSError as error:
        print(f"overfit-lab: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(guarded(lambda: train_task(sys.argv[1], sys.argv[2], sys.argv[4:], sys.argv[3])))
