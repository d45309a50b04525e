"""Which runs train together: written down before any of them trains, agreed with whoever works on the same study."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from overfit_lab.claim import acquire, exclusively
from overfit_lab.cohort import Cohort, cohort_of
from overfit_lab.plan import Plan, split_frame
from overfit_lab.records import CohortRecord, StudyFiles


@contextmanager
def leading(study: StudyFiles) -> Iterator[str]:
    """Lend the token of a command: what it writes down under it is seen to be in its hands for as long as it leads."""
    token = secrets.token_hex(5)
    sweep = study.cohorts.sweep(token)
    claim = acquire(sweep)
    assert claim is not None  # nobody else has this token
    try:
        yield token
    finally:
        claim.release()
        study.cohorts.end(sweep.name)


def write_down(
    plans: Sequence[Plan],
    overrides: Mapping[str, Sequence[str]],
    form: Callable[[Sequence[Plan]], list[Cohort]],
    threads: Callable[[Cohort, int], int],
    *,
    command: str,
    sweep: str | None = None,
    living_jobs: Collection[str] = (),
) -> list[Cohort]:
    """Write down which cohorts some runs are to train in.

    What was written down before stays together: after an interruption a cohort goes on from its checkpoint in the
    company that it was begun in, whatever is saved of it by then. Only where it has been given up, and not all of it is
    asked for now, what is asked for is grouped anew.

    Args:
        plans: The runs that are asked for, of one study, finished ones among them.
        overrides: For each run by its id, what the command line changed.
        form: Groups runs that belong to no cohort yet.
        threads: How many threads a cohort is given, among so many.
        command: The whole command line.
        sweep: The command's own token, see `leading`.
        living_jobs: Batch jobs that wait or run.

    Raises:
        UserError: The study has become another one meanwhile.

    Returns:
        The cohorts that hold a run that is asked for and not saved yet. Others may be training some of them.
    """
    if not plans:
        return []
    study = plans[0].study
    asked = {plan.run_id: plan for plan in plans}
    told = {"command": command, "folder": str(Path.cwd()), "sweep": sweep}
    study.create(plans[0].study_record, split_frame(plans[0].source, plans[0].split))
    with exclusively(study.planning):
        study.cohorts.clean()
        cohorts: list[Cohort] = []
        for name, record in study.cohorts.load_all().items():
            missing = [run_id for run_id in record.runs if not study.run(run_id).record.is_file()]
            if not missing:
                study.cohorts.end(name)
            elif asked.keys() & set(missing):
                cohort = _again(name, record, asked, living_jobs, study)
                if cohort is None:
                    study.cohorts.end(name)
                else:
                    cohorts.append(cohort)
                    if not record.configs:
                        # An older version wrote the runs down alone.
                        study.cohorts.save(name, cohort.record(overrides, **told, threads=record.threads))
                    elif study.cohorts.record(name).exists() and not study.cohorts.is_in_hands(
                        name, record, living_jobs
                    ):
                        # From now on it is in the hands of this command, before it comes to it. If its record is gone,
                        # whoever had it was done with it just now.
                        study.cohorts.save(name, record.model_copy(update={"sweep": sweep}))
                        _forget_failures(cohort)
        taken = {plan.run_id for cohort in cohorts for plan in cohort.plans}
        fresh = [plan for plan in plans if plan.run_id not in taken and not plan.files.record.is_file()]
        formed = form(fresh) if fresh else []
        count = len(cohorts) + len(formed)
        for cohort in formed:
            study.cohorts.save(cohort.name, cohort.record(overrides, **told, threads=threads(cohort, count)))
            _forget_failures(cohort)
    return cohorts + formed


def _forget_failures(cohort: Cohort) -> None:
    """What is to be trained has not failed: nobody may take what an earlier command left for what becomes of it now."""
    for plan in cohort.missing:
        plan.files.failure.unlink(missing_ok=True)


def _again(
    name: str, record: CohortRecord, asked: Mapping[str, Plan], living_jobs: Collection[str], study: StudyFiles
) -> Cohort | None:
    """Form a cohort that was written down before, if it is to go on as it is."""
    if asked.keys() >= set(record.runs):
        cohort = Cohort(tuple(asked[run_id] for run_id in record.runs), record.max_fits)
    elif record.configs and study.cohorts.is_in_hands(name, record, living_jobs):
        cohort = cohort_of(record, elsewhere=True)
    else:
        return None
    return cohort if cohort.name == name else None
