"""The command line: `overfit-lab train | report`. Exit codes: 0 done, 1 a run failed, 2 a mistake of the user's."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overfit_lab.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200
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
    parsed = _parser().parse_args(arguments)
    return _guarded(lambda: _report(parsed.study))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="overfit-lab",
        description="Find the epoch where overfitting begins, for every network size and weight decay, "
        "with an error bar.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train one run, or with -m a sweep of runs; see overfit-lab train --help")
    report = commands.add_parser("report", help="rebuild a study's report from the runs that are there")
    report.add_argument("study", type=Path, metavar="STUDY", help="the study's directory, such as studies/NAME")
    return parser


def _guarded(command: Callable[[], int]) -> int:
    """Turn a user's mistake into one line on stderr and exit code 2."""
    try:
        return command()
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough (| head); the rest has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A folder that cannot be written, a full disk: files are written whole, so nothing is half there.
        return _refuse(f"{error.filename or 'input/output'}: {error.strerror or error}")


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

        if {"-m", "--multirun"} & set(arguments):
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

    for argument in arguments:
        if argument.startswith("="):
            raise UserError(f"{argument} cannot be read as KEY=VALUE")
    register_resolvers()
    sys.argv = ["overfit-lab train", *arguments]
    console = Console()
    display = Display(console)
    session = Session(display)
    JobCallback.jobs = session
    run_hydra = hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")(session.run)
    try:
        with display:
            run_hydra()
    except Refusal as refusal:
        return _refuse(str(refusal.error))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(explain(error))
    except ValueError as error:
        # Hydra's own flags, in a combination that it does not take.
        if str(error).startswith(("Only one of --", "The --resolve flag")):
            return _refuse(str(error))
        raise
    failed = [outcome for outcome in session.outcomes if outcome.status == "failed"]
    for outcome in failed:
        print(f"overfit-lab: run {outcome.run_id} failed: {outcome.error}", file=sys.stderr)
    for study in session.studies_to_report:
        _show_report(study, console)
    return 1 if failed else 0


def _report(path: Path) -> int:
    from rich.console import Console

    _show_report(path, Console())
    return 0


def _show_report(path: Path, console: Console) -> None:
    from overfit_lab.report import results_table, write_report
    from overfit_lab.study import load_study

    study = load_study(path)
    written = write_report(study)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE  # a file has no width that a table would have to be cut to
    console.print(results_table(study))
    console.print(f"report: {written}", highlight=False, markup=False, soft_wrap=True)
