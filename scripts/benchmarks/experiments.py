"""Experiments whose outcome is known: what is expected, beside what this project measures.

    scripts/bench experiments [NAME ...] [--seeds 5] [--imdb PATH] [--keep FOLDER] [--figures FOLDER]

Each experiment of conf/experiment is run by its own command, `overfit-lab train -m experiment=NAME seed=0,1,...`, and its
studies are read. The exit code is 1 where an outcome differs.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from overfit_lab import load_study
from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes import capacity, grokking, linear
from scripts.benchmarks.outcomes.check import Check
from scripts.benchmarks.processes import OVERFIT_LAB, OneLineParser, positive, run, tell

WIDTH = 150
Outcome = Callable[[Sequence[NotebookStudy]], list[Check]]


@dataclass(frozen=True)
class Experiment:
    """An experiment and what is asked of it.

    Attributes:
        outcome: from its studies, one for each draw of the data, to lines of the table.
        imdb: whether it needs the reviews.
        more: overrides that the bench adds to its command.
    """

    outcome: Outcome
    imdb: bool = False
    more: tuple[str, ...] = field(default=())


EXPERIMENTS = {
    "ridge_optimum": Experiment(linear.ridge_optimum),
    "early_stopping": Experiment(linear.early_stopping),
    "polynomial_u_curve": Experiment(capacity.polynomial_u_curve),
    "modelwise_double_descent": Experiment(capacity.modelwise_double_descent),
    "epochwise_double_descent": Experiment(linear.epochwise_double_descent),
    "memorisation": Experiment(capacity.memorisation),
    "grokking": Experiment(grokking.grokking),
}


def measure(name: str, folder: Path, seeds: int, imdb: Path | None) -> tuple[list[Check], float]:
    """Run an experiment and look at what it left.

    Args:
        name: of the experiment.
        folder: for its studies; what lies there is not trained again.
        seeds: how many, from 0.
        imdb: folder of the reviews.

    Returns:
        Its lines of the table, and the seconds that its command took.
    """
    experiment = EXPERIMENTS[name]
    overrides = [f"seed={','.join(map(str, range(seeds)))}", f"study.root={folder}", "study.report=false"]
    if experiment.imdb:
        overrides.append(f"data.path={imdb}")
    command = [OVERFIT_LAB, "train", "-m", f"experiment={name}", *overrides, *experiment.more]
    seconds = run(command).seconds
    studies = [load_study(path.parent) for path in sorted(folder.glob("*/study.json"))]
    return experiment.outcome(studies), seconds


def tabulate(found: dict[str, list[Check]], seconds: dict[str, float], seeds: int) -> Table:
    """Set what was expected beside what was measured."""
    table = Table(title=f"Experiments with known outcomes, {seeds} seeds", show_lines=True)
    for column in ("experiment", "outcome", "expected", "measured", ""):
        table.add_column(column)
    for name, checks in found.items():
        for i, check in enumerate(checks):
            label = f"{name}\n{seconds[name]:.0f} s" if i == 0 else ""
            table.add_row(
                label,
                check.what,
                check.expected,
                check.measured,
                "pass" if check.passed else "differ",
                end_section=i == len(checks) - 1,
            )
    return table


def _name(text: str) -> str:
    if text not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are {', '.join(EXPERIMENTS)}")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiments and print the table.

    Args:
        arguments: of the command line.
    """
    parser = OneLineParser(
        prog="scripts/bench experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="NAME", help=f"of {', '.join(EXPERIMENTS)}; all if none"
    )
    parser.add_argument("--seeds", type=positive, default=5, help="default 5")
    parser.add_argument("--imdb", type=Path, help="folder of the IMDB reviews; what needs them is left out without")
    parser.add_argument("--keep", type=Path, help="folder to keep the studies in, and to find finished ones")
    options = parser.parse_args(arguments)
    if options.imdb is not None and not options.imdb.is_dir():
        parser.error(f"--imdb {options.imdb}: there is no such folder")
    found: dict[str, list[Check]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) if options.keep is None else options.keep.resolve()
        for name in options.names or EXPERIMENTS:
            if EXPERIMENTS[name].imdb and options.imdb is None:
                tell(f"{name} is left out: --imdb names the folder of the reviews")
                continue
            imdb = None if options.imdb is None else options.imdb.resolve()
            found[name], seconds[name] = measure(name, root / name, options.seeds, imdb)
            tell(f"{name}: {seconds[name]:.0f} s")
    Console(width=int(os.environ.get("COLUMNS", WIDTH))).print(tabulate(found, seconds, options.seeds))
    if not all(check.passed for checks in found.values() for check in checks):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
