"""How far a study is, as a table and a sentence."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from overfit_lab.study.status import CohortStatus, StudyStatus

NONE = "-"


def status_line(status: StudyStatus) -> str:
    """Count the runs, in one line."""
    counts = {
        "finished": status.finished,
        "running": status.running,
        "waiting": status.waiting,
        "failed": status.failed,
        "lost": status.lost,
    }
    total = sum(counts.values())
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    line = f"{total} run{'' if total == 1 else 's'}: {said}"
    if status.lost:
        line += "; the command that began them goes on with what is lost"
    return line


def status_table(status: StudyStatus) -> Table | None:
    """List what the runs that are not done belong to; None where all are."""
    if not status.cohorts:
        return None
    table = Table("task", "job", "state", title="tasks", title_justify="left")
    for name in ("runs", "epoch", "to train", "job's time"):
        table.add_column(name, justify="right")
    table.add_column("where")
    for cohort in status.cohorts:
        state = cohort.state if cohort.begun < 2 else f"{cohort.state} ({_ordinal(cohort.begun)} time)"
        # Whatever a batch system or a host is called: Text, which is not markup.
        table.add_row(
            Text(cohort.name),
            Text(cohort.job or NONE),
            state,
            str(cohort.runs),
            _epoch(cohort),
            NONE if cohort.seconds_left is None else duration(cohort.seconds_left),
            Text(cohort.job_left or NONE),
            Text(cohort.place or NONE),
        )
    return table


def duration(seconds: float) -> str:
    """Write a time as 1:02:03 or 2:03, hours or minutes first."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _epoch(cohort: CohortStatus) -> str:
    if cohort.epoch is None or cohort.horizon is None:
        return NONE
    return f"{int(cohort.epoch)} of {int(cohort.horizon)}"


def _ordinal(count: int) -> str:
    ending = "th" if 10 <= count % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"
