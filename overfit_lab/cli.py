"""The command line: `overfit-lab train | status | report | finalize | nested`.

Exit codes: 0 done, 1 a run failed, 2 a mistake of the user's.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from overfit_lab.errors import UserError, first_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from overfit_lab.records import Rule

WIDE = 200
WATCH_SECONDS = 2.0
RULES: tuple[Rule, ...] = ("min", "one_se")
INTERRUPTED = "overfit-lab: interrupted; what is finished is kept, and the same command goes on from there"

# What is heavy to import (torch, Lightning, Hydra, matplotlib) is imported by the command that needs it.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `overfit-lab`; those of the process if not given.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Everything after `train` is Hydra's, --help among it.
    if arguments[:1] == ["train"]:
        return _guarded(lambda: _train(arguments[1:]))
    if arguments[:1] == ["nested"] and not {"-h", "--help"} & set(arguments):
        return _guarded(lambda: _nested(arguments[1:]))
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes an optional word only where it follows the study at once.
    if len(rest) == 1 and parsed.command == "finalize" and "=" in rest[0] and not rest[0].startswith("-"):
        parsed.selection = rest[0]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if parsed.command == "status":
        return _guarded(lambda: _status(parsed.study, watch=parsed.watch))
    if parsed.command == "report":
        return _guarded(lambda: _report(parsed.study, watch=parsed.watch))
    return _guarded(lambda: _finalize(parsed))


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as all of the commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"overfit-lab: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="overfit-lab",
        description="Find the epoch where overfitting begins, for every network size and weight decay, "
        "with an error bar.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train one run, or with -m a sweep of runs; see overfit-lab train --help")
    status = commands.add_parser("status", help="show how far a study is: what runs, waits, has failed or is lost")
    status.add_argument("study", type=Path, metavar="STUDY", help="the study's directory, such as studies/NAME")
    status.add_argument("--watch", action="store_true", help="show it anew every few seconds, until all is done")
    report = commands.add_parser("report", help="rebuild a study's report from the runs that are there")
    report.add_argument("study", type=Path, metavar="STUDY", help="the study's directory, such as studies/NAME")
    report.add_argument("--watch", action="store_true", help="rebuild it whenever a run ends, until Ctrl-C")
    finalize = commands.add_parser(
        "finalize",
        help="select by validation, retrain from scratch on all non-test rows, test once",
        description="Select a configuration and a number of epochs by validation alone, retrain from scratch on all "
        "rows but the test rows, and open the test rows once. The opening is written to the study's test ledger first.",
    )
    finalize.add_argument("study", type=Path, metavar="STUDY", help="the study's directory, such as studies/NAME")
    finalize.add_argument(
        "selection",
        nargs="?",
        default="selection=min",
        metavar="selection=min|one_se",
        help="the lowest validation loss (default), or the simplest configuration within one standard error of it",
    )
    finalize.add_argument("--again", action="store_true", help="open the test rows although they were opened before")
    finalize.add_argument("--reason", metavar="TEXT", help="why; it is written to the ledger")
    finalize.add_argument("--partial", action="store_true", help="leave out runs that are unfinished or unreadable")
    nested = commands.add_parser(
        "nested",
        help="nested cross-validation of a sweep: a final test in each outer fold",
        description="Train the sweep in each of split.outer_folds outer folds (5 unless given), finalize each of these "
        "studies on its outer fold, and average what the folds gave.",
    )
    nested.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train -m, and selection=min|one_se")
    return parser


def _guarded(command: Callable[[], int]) -> int:
    """Turn a user's mistake into one line on stderr and exit code 2."""
    try:
        return command()
    except UserError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, Terminated) as interruption:
        print(INTERRUPTED, file=sys.stderr)
        return 128 + (interruption.signal if isinstance(interruption, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        # Whoever read our output has seen enough (| head); the rest has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A folder that cannot be written, a full disk: files are written whole, so nothing is half there.
        return _refuse(f"{error.filename or 'input/output'}: {error.strerror or error}")


class Terminated(BaseException):
    """A signal other than Ctrl-C asks the process to end."""

    def __init__(self, number: int) -> None:
        self.signal = number


@contextmanager
def _terminated_by_signals() -> Iterator[None]:
    """Let what batch systems send end a command as Ctrl-C does: in order, with all that is trained saved."""

    def end(number: int, _: object) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _ending_at_once_on_ctrl_c() -> Iterator[None]:
    """Begin nothing: a KeyboardInterrupt is lost where an import swallows it or calls it an error."""

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"{INTERRUPTED}\n".encode())
        os._exit(128 + signal.SIGINT)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse(message: str) -> int:
    print(f"overfit-lab: {message}", file=sys.stderr)
    return 2


def _train(arguments: list[str]) -> int:
    # Without this Hydra prints errors in its own words and ends the process with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A user's own network or data lies beside where he works, as with `python -m`; last, so that it shadows nothing.
    sys.path.append(str(Path.cwd()))
    with _ending_at_once_on_ctrl_c():
        from overfit_lab.launch.processes import warm_up

        elsewhere = any(word.startswith("hydra/launcher=") and word != "hydra/launcher=cohort" for word in arguments)
        if {"-m", "--multirun"} & set(arguments) and not elsewhere:
            # Beside what this process is about to import.
            warm_up()
        import hydra
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
        from rich.console import Console

        from overfit_lab.config import conf_directory
        from overfit_lab.launch.callback import JobCallback, Refusal
        from overfit_lab.launch.display import Display
        from overfit_lab.launch.explain import explain
        from overfit_lab.launch.job import register_resolvers
        from overfit_lab.launch.session import Session
        from overfit_lab.launch.words import check_flags, choose_groups

    for argument in arguments:
        if argument.startswith("="):
            raise UserError(f"{argument} cannot be read as KEY=VALUE")
    check_flags(arguments)
    arguments = choose_groups(arguments)
    register_resolvers()
    sys.argv = ["overfit-lab train", *arguments]
    console = Console()
    display = Display(console)
    session = Session(display)
    JobCallback.jobs = session
    run_hydra = hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")(session.run)
    try:
        with _terminated_by_signals(), display:
            run_hydra()
    except Refusal as refusal:
        return _refuse(str(refusal.error))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(explain(error))
    except ValueError as error:
        # Hydra's own flags, in a combination that it does not take; and a choice of a group that is no name.
        if str(error).startswith(("Only one of --", "The --resolve flag", "Config group override must be")):
            return _refuse(str(error))
        # Optuna's sweeper asks for the best run where all have failed, which is said below.
        if not str(error).startswith("No trials are completed"):
            raise
        if not session.all_outcomes():
            return _refuse("none of the jobs of the search could be run; hydra.sweeper.max_failure_rate=0 says why")
    except Exception as error:
        # Hydra's own launchers for submitit raise what has become of the first job that was killed. What has become of
        # all of them stands in the study.
        if not type(error).__module__.startswith("submitit"):
            raise
        print(f"overfit-lab: {first_line(error)}", file=sys.stderr)
    outcomes = session.all_outcomes()
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print(f"overfit-lab: run {outcome.run_id} failed: {outcome.error}", file=sys.stderr)
    for study in dict.fromkeys(outcome.study for outcome in outcomes if outcome.status == "submitted"):
        print(f"watch: overfit-lab status {study} --watch; results so far: overfit-lab report {study}")
    for study in session.studies_to_report:
        _show_report(study, console)
    return 1 if failed else 0


def _report(path: Path, *, watch: bool) -> int:
    from rich.console import Console

    from overfit_lab.records import StudyFiles

    console = Console()
    if not watch:
        _show_report(path, console)
        return 0
    shown: object = None
    # Ctrl-C is how it is meant to end.
    with suppress(KeyboardInterrupt):
        while True:
            state = StudyFiles(path).state()
            if state != shown:
                if console.is_terminal:
                    console.clear()
                _show_report(path, console)
                shown = state
            time.sleep(WATCH_SECONDS)
    return 0


def _status(path: Path, *, watch: bool) -> int:
    from rich.console import Console

    from overfit_lab.launch.slurm import queued
    from overfit_lab.records import StudyFiles
    from overfit_lab.report.status import status_line, status_table
    from overfit_lab.study.status import study_status

    console, files = Console(), StudyFiles(path)
    _fit_to_a_file(console)
    # Ctrl-C is how it may end.
    with suppress(KeyboardInterrupt):
        while True:
            unknown = None
            try:
                jobs = queued(files.cohorts.jobs())
            except UserError as error:
                jobs, unknown = {}, str(error)
            status = study_status(files, jobs)
            if watch and console.is_terminal:
                console.clear()
            if (table := status_table(status)) is not None:
                console.print(table)
            console.print(status_line(status), highlight=False, markup=False, soft_wrap=True)
            if unknown is not None:
                print(f"overfit-lab: {unknown}: what waits there is shown as lost", file=sys.stderr)
            if not watch or not (status.running or status.waiting):
                break
            time.sleep(WATCH_SECONDS)
    return 0


def _finalize(parsed: argparse.Namespace) -> int:
    rule = _rule(parsed.selection)
    if parsed.again != bool((parsed.reason or "").strip()):
        raise UserError('--again and --reason go together: --again --reason "why the test rows are opened again"')
    # As in `train`: the study may be on a user's own network or data.
    sys.path.append(str(Path.cwd()))
    with _ending_at_once_on_ctrl_c():
        from rich.console import Console

        from overfit_lab.launch.display import retraining_bar
        from overfit_lab.launch.job import command_line
        from overfit_lab.report.final import final_lines, final_tables
        from overfit_lab.study.finalize import finalize

    console = Console()
    with retraining_bar(console) as listener:
        record = finalize(
            parsed.study,
            rule=rule,
            reason=parsed.reason if parsed.again else None,
            partial=parsed.partial,
            command=command_line(),
            listeners=[listener],
        )
    _show(console, final_tables(record), final_lines(record))
    return 0


def _nested(arguments: list[str]) -> int:
    words = [word for word in arguments if word.startswith("selection=")]
    rule = _rule(words[-1] if words else "selection=min")
    sys.path.append(str(Path.cwd()))
    with _ending_at_once_on_ctrl_c():
        from rich.console import Console

        from overfit_lab.launch.display import retraining_bar
        from overfit_lab.launch.job import command_line
        from overfit_lab.launch.nested import nested_sweep
        from overfit_lab.launch.words import choose_groups
        from overfit_lab.report.final import nested_lines, nested_table
        from overfit_lab.study.nested import finalize_outer_folds

    command = command_line()
    sweep = nested_sweep(choose_groups([word for word in arguments if word not in words]))
    code = _train(["-m", *sweep.overrides])
    if code == 2:
        return code
    console = Console()
    with retraining_bar(console) as listener:
        record = finalize_outer_folds(sweep.studies, rule=rule, command=command, listeners=[listener])
    _show(console, [nested_table(record)], nested_lines(record))
    return code


def _rule(word: str) -> Rule:
    rules = {f"selection={rule}": rule for rule in RULES}
    if word not in rules:
        raise UserError(f"{word}: allowed are {' and '.join(rules)}")
    return rules[word]


def _show(console: Console, tables: Sequence[Table], lines: Sequence[str]) -> None:
    _fit_to_a_file(console)
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _fit_to_a_file(console: Console) -> None:
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE  # a file has no width that a table would have to be cut to


def _show_report(path: Path, console: Console) -> None:
    from overfit_lab.report import results_table, seeds_table, write_report
    from overfit_lab.study import load_study

    study = load_study(path)
    written = write_report(study)
    _fit_to_a_file(console)
    console.print(results_table(study))
    if (seeds := seeds_table(study)) is not None:
        console.print(seeds)
    for note in written.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print(f"report: {written.page}", highlight=False, markup=False, soft_wrap=True)
