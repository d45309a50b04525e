"""Experiments whose outcome is known: what is expected, beside what this project measures.

    scripts/bench experiments [NAME ...] [--seeds 5] [--imdb PATH] [--keep FOLDER] [--figures FOLDER]

Each experiment of conf/experiment is run by its own command, `overfit-lab train -m experiment=NAME seed=0,1,...`, and
its studies are read. The exit code is 1 where an outcome differs.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from overfit_lab import load_study
from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes import capacity, grokking, imdb, linear
from scripts.benchmarks.outcomes.check import Check
from scripts.benchmarks.processes import OVERFIT_LAB, OneLineParser, positive, run, tell

WIDTH = 150
DPI = 110
Outcome = Callable[[Sequence[NotebookStudy]], list[Check]]
Draw = Callable[[NotebookStudy], Figure]


@dataclass(frozen=True)
class Experiment:
    """An experiment and what is asked of it.

    Attributes:
        outcome: from its studies, one for each draw of the data, to lines of the table.
        imdb: whether it needs the reviews.
        first: overrides of a part that is trained before the rest.
        figure: of its first study, where one tells something.
    """

    outcome: Outcome
    figure: Draw | None = None
    imdb: bool = False
    first: tuple[str, ...] = ()


_WITHOUT_512 = ("model.width=4,16",)


def _plot_only_run(study: NotebookStudy) -> Figure:
    return study.plot_run(study.runs[0].run_id)


EXPERIMENTS = {
    "ridge_optimum": Experiment(linear.ridge_optimum),
    "early_stopping": Experiment(linear.early_stopping),
    "polynomial_u_curve": Experiment(capacity.polynomial_u_curve, NotebookStudy.plot_capacity),
    "modelwise_double_descent": Experiment(capacity.modelwise_double_descent, NotebookStudy.plot_capacity),
    "epochwise_double_descent": Experiment(linear.epochwise_double_descent, _plot_only_run),
    "memorisation": Experiment(capacity.memorisation),
    "grokking": Experiment(grokking.grokking, NotebookStudy.plot_curves),
    "imdb_network_size": Experiment(imdb.network_size, NotebookStudy.plot_curves, imdb=True, first=_WITHOUT_512),
    "imdb_regularisation": Experiment(imdb.regularisation, imdb=True),
}
IMDB_SECONDS = 300  # on two idle cores, for 4 and 16 units, with decay and dropout; without 512 units


@dataclass(frozen=True)
class Result:
    """What an experiment showed.

    Attributes:
        checks: lines of the table.
        first: seconds that the part took that is trained first; all where there is no such part.
        seconds: that all of it took.
    """

    checks: list[Check]
    first: float
    seconds: float


def measure(name: str, folder: Path, seeds: int, reviews: Path | None, figures: Path | None) -> Result:
    """Run an experiment and look at what it left.

    Args:
        name: of the experiment.
        folder: for its studies; what lies there is not trained again.
        seeds: how many, from 0.
        reviews: folder of the film reviews.
        figures: folder for its figure.
    """
    experiment = EXPERIMENTS[name]
    seeded = f"seed={','.join(map(str, range(seeds)))}"
    command = [OVERFIT_LAB, "train", "-m", f"experiment={name}", seeded, f"study.root={folder}", "study.report=false"]
    if experiment.imdb:
        command.append(f"data.path={reviews}")
    parts = [run([*command, *more]).seconds for more in ([experiment.first, ()] if experiment.first else [()])]
    studies = [load_study(path.parent) for path in sorted(folder.glob("*/study.json"))]
    if figures is not None and experiment.figure is not None:
        experiment.figure(studies[0]).savefig(figures / f"{name}.png", dpi=DPI)
    return Result(experiment.outcome(studies), parts[0], sum(parts))


def tabulate(found: dict[str, Result], seeds: int) -> Table:
    """Set what was expected beside what was measured."""
    table = Table(title=f"Experiments with known outcomes, {seeds} seeds")
    for column in ("experiment", "outcome", "expected", "measured", ""):
        table.add_column(column)
    for name, result in found.items():
        for i, check in enumerate(result.checks):
            table.add_row(
                f"{name}\n{result.seconds:.0f} s" if i == 0 else "",
                check.what,
                check.expected,
                check.measured,
                "pass" if check.passed else "differ",
                end_section=i == len(result.checks) - 1,
            )
    return table


def _speed(found: dict[str, Result]) -> list[Check]:
    """How long the reviews took, where all of them were trained."""
    parts = [result.first for name, result in found.items() if EXPERIMENTS[name].imdb]
    if len(parts) < sum(experiment.imdb for experiment in EXPERIMENTS.values()):
        return []
    seconds = sum(parts)
    expected = f"under {IMDB_SECONDS} s on two idle cores"
    return [Check("all of IMDB without 512 units", expected, f"{seconds:.0f} s", seconds < IMDB_SECONDS)]


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
    parser.add_argument("--figures", type=Path, help="folder for figures of the first seed's studies")
    options = parser.parse_args(arguments)
    if options.imdb is not None and not options.imdb.is_dir():
        parser.error(f"--imdb {options.imdb}: there is no such folder")
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) if options.keep is None else options.keep.resolve()
        for name in options.names or EXPERIMENTS:
            if EXPERIMENTS[name].imdb and options.imdb is None:
                tell(f"{name} is left out: --imdb names the folder of the reviews")
                continue
            reviews = None if options.imdb is None else options.imdb.resolve()
            found[name] = measure(name, root / name, options.seeds, reviews, options.figures)
            tell(f"{name}: {found[name].seconds:.0f} s")
    if not found:
        return
    last = list(found)[-1]
    found[last] = replace(found[last], checks=[*found[last].checks, *_speed(found)])
    Console(width=int(os.environ.get("COLUMNS", WIDTH))).print(tabulate(found, options.seeds))
    if not all(check.passed for result in found.values() for check in result.checks):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
