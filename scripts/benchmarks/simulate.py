"""What the benchmarks have in common that draw their data: the words of the command, and tables on paper."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


def print_tables(
    description: str,
    tabulate: Callable[[int, int], Iterable[Table]],
    arguments: Sequence[str] | None,
    *,
    repeats: int,
    width: int,
) -> None:
    """Print the tables, and write them to a file if asked to.

    Args:
        description: of the command.
        tabulate: from the number of draws and a seed to tables.
        arguments: of the command line.
        repeats: draws, unless the command line says otherwise.
        width: of the tables, in characters.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"draws of each simulation (default {repeats})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="text file to write the tables to as well")
    options = parser.parse_args(arguments)
    tables = list(tabulate(options.repeats, options.seed))
    Console(width=width).print(*tables)
    if options.out is not None:
        with options.out.open("w", encoding="utf-8") as file:
            Console(file=file, width=width).print(*tables)
