"""How time and memory grow with the number of fits of one sweep.

    scripts/bench scale [--fits 100,1000,10000] [--epochs 20]

The digits, two hidden layers of 16, 5 folds x 4 alphas x as many seeds as it takes, in one command. Memory is the
largest resident memory of the process and its children together. The exponents are those of a power law between one
row and the next: 1 is linear growth, 0 none.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.competitors import overfit_lab_sweep
from scripts.benchmarks.processes import Measured, OneLineParser, positive, run, tell
from scripts.benchmarks.sweep_competitors.grid import Work

ALPHAS = (0.0, 1e-4, 1e-3, 1e-2)
FITS_OF_A_SEED = Work(widths=(16,), alphas=ALPHAS).fits
WIDTH = 120


def measure(fits: int, epochs: int, launcher: str) -> Measured:
    """Train so many fits by one command.

    Args:
        fits: a multiple of what one seed makes.
        epochs: passes over the train rows.
        launcher: Hydra's.
    """
    work = Work(widths=(16,), alphas=ALPHAS, epochs=epochs)
    with tempfile.TemporaryDirectory() as root:
        command = overfit_lab_sweep(work, Path(root), launcher, f"seed=range({fits // FITS_OF_A_SEED})")
        measured = run(command)
        runs = len(list(Path(root).glob("*/runs/*/run.json")))
    if runs * work.folds != fits:
        raise SystemExit(f"{runs} runs were written, not {fits // work.folds}")
    return measured


def tabulate(found: dict[int, Measured], epochs: int) -> Table:
    """Set the sizes beside each other.

    Args:
        found: by number of fits, ascending.
        epochs: of each fit.
    """
    table = Table(title=f"One sweep of w=16, {epochs} epochs")
    for column in ("fits", "seconds", "ms per fit", "peak MB", "exponent of time", "exponent of memory"):
        table.add_column(column, justify="right")
    before: tuple[int, Measured] | None = None
    for fits, measured in found.items():
        exponents = ("", "")
        if before is not None:
            ratio, last = math.log(fits / before[0]), before[1]
            exponents = (
                f"{math.log(measured.seconds / last.seconds) / ratio:.2f}",
                f"{math.log(measured.peak / last.peak) / ratio:.2f}" if measured.peak and last.peak else "-",
            )
        before = fits, measured
        per_fit = 1000 * measured.seconds / fits
        table.add_row(f"{fits}", f"{measured.seconds:.1f}", f"{per_fit:.1f}", f"{measured.peak / 1e6:.0f}", *exponents)
    return table


def _sizes(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 and int(word) % FITS_OF_A_SEED == 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are multiples of {FITS_OF_A_SEED}, separated by commas")
    return sorted({int(word) for word in words})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the sweeps and print the table.

    Args:
        arguments: of the command line.
    """
    parser = OneLineParser(
        prog="scripts/bench scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--fits", type=_sizes, default=[100, 1000, 10000], help="default 100,1000,10000")
    parser.add_argument("--epochs", type=positive, default=20, help="default 20")
    parser.add_argument("--launcher", default="cohort", help="Hydra's launcher (default cohort)")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="of ours and plain Lightning")
    options = parser.parse_args(arguments)
    os.environ["BENCH_ACCELERATOR"] = options.accelerator
    found = {}
    for fits in options.fits:
        found[fits] = measure(fits, options.epochs, options.launcher)
        tell(f"{fits} fits: {found[fits].seconds:.1f} s")
    Console(width=WIDTH).print(tabulate(found, options.epochs))


if __name__ == "__main__":
    main()
