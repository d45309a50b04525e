"""How far a study is, as it is printed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from overfit_lab.report.status import duration, status_line, status_table
from overfit_lab.study.status import CohortStatus, StudyStatus

RUNNING = CohortStatus(
    name="0123456789",
    runs=12,
    state="running",
    job="17_3",
    place="node7, process 42",
    epoch=12.75,
    horizon=100.0,
    seconds_left=3723.4,
    job_left="1:02:03",
    begun=1,
)
WAITING = CohortStatus("abc", 1, "waiting", None, "", None, None, None, None, 0)
LOST = CohortStatus("xyz", 3, "lost", None, "laptop, process 7", 7.0, 9.0, None, None, 2)


def status_of(*cohorts: CohortStatus) -> StudyStatus:
    return StudyStatus(finished=1, running=2, waiting=3, failed=4, lost=0, cohorts=cohorts)


def rendered(*cohorts: CohortStatus) -> list[list[str]]:
    """The cells of the table as a terminal shows them, its heading among them."""
    table = status_table(status_of(*cohorts))
    assert table is not None
    screen = io.StringIO()
    Console(file=screen, width=200).print(table)
    rows = [line for line in screen.getvalue().splitlines() if set(line) & set("│┃")]
    return [[cell.strip() for cell in row.replace("┃", "│").strip("│").split("│")] for row in rows]


HEADING = ["task", "job", "state", "runs", "epoch", "to train", "job's time", "where"]


def test_the_table() -> None:
    assert rendered(RUNNING, WAITING, LOST) == [
        HEADING,
        ["0123456789", "17_3", "running", "12", "12 of 100", "1:02:03", "1:02:03", "node7, process 42"],
        ["abc", "-", "waiting", "1", "-", "-", "-", "-"],
        ["xyz", "-", "lost (2nd time)", "3", "7 of 9", "-", "-", "laptop, process 7"],
    ]


def test_where_all_is_done_there_is_no_table() -> None:
    assert status_table(status_of()) is None


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[bold]", "node[1-3]", ":smile:", "a\\[b]"])
@pytest.mark.parametrize("field", ["job", "place", "job_left", "name"])
def test_names_are_shown_as_they_are(field: str, name: str) -> None:
    """Slurm itself writes node[1-3]."""
    changed = CohortStatus(**{**vars(WAITING), field: name})
    column = {"name": 0, "job": 1, "job_left": 6, "place": 7}[field]
    assert rendered(changed)[1][column] == name


@pytest.mark.parametrize(
    ("begun", "state"),
    [
        (0, "running"),
        (1, "running"),
        (2, "running (2nd time)"),
        (3, "running (3rd time)"),
        (4, "running (4th time)"),
        (11, "running (11th time)"),
        (12, "running (12th time)"),
        (13, "running (13th time)"),
        (20, "running (20th time)"),
        (21, "running (21st time)"),
        (22, "running (22nd time)"),
        (103, "running (103rd time)"),
        (111, "running (111th time)"),
        (112, "running (112th time)"),
    ],
)
def test_how_often_it_was_begun(begun: int, state: str) -> None:
    assert rendered(CohortStatus(**{**vars(RUNNING), "begun": begun}))[1][2] == state


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0:00"),
        (0.4, "0:00"),
        (9.0, "0:09"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (61.0, "1:01"),
        (3599.0, "59:59"),
        (3599.7, "1:00:00"),
        (3723.0, "1:02:03"),
        (360000.0, "100:00:00"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_has_nothing_left_to_train_is_not_what_nobody_knows() -> None:
    cells = rendered(CohortStatus(**{**vars(RUNNING), "seconds_left": 0.0, "epoch": 0.0}))[1]
    assert (cells[4], cells[5]) == ("0 of 100", "0:00")


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((0, 0, 0, 0, 0), "0 runs: 0 finished, 0 running, 0 waiting, 0 failed, 0 lost"),
        ((1, 0, 0, 0, 0), "1 run: 1 finished, 0 running, 0 waiting, 0 failed, 0 lost"),
        ((10, 2, 30, 4, 0), "46 runs: 10 finished, 2 running, 30 waiting, 4 failed, 0 lost"),
        (
            (0, 0, 0, 0, 2),
            "2 runs: 0 finished, 0 running, 0 waiting, 0 failed, 2 lost; "
            "the command that began them goes on with what is lost",
        ),
    ],
)
def test_the_line(counts: tuple[int, int, int, int, int], line: str) -> None:
    assert status_line(StudyStatus(*counts, cohorts=())) == line
