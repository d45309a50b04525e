"""What an epoch on bags of words costs, beside a dense loop in plain PyTorch.

    scripts/bench sparse [--path FOLDER] [--widths 4,16,512] [--alphas 0,0.002] [--epochs 3] [--repeats 3] [--keras]

Networks of two hidden layers on 10 000 words, 24 980 rows to train and 24 980 to validate on: the reviews of IMDB, in
the folder that --path names, or else rows that are drawn to be as long and as sparse. Seconds are those of one epoch of
all alphas, with the losses of all rows after it; each is measured in a process of its own on all cores, by turns, and
the median is taken. Beside them stands the validation loss of the first alpha after the last epoch, the median and
between which losses it lies; the loops draw new initial weights each time, while ours are those of seed 0. Memory is
the largest resident memory of the process and its children together, imports and data included; pages that they share
are counted for each. With --keras the dense loop is trained once more, as Keras would: from its initial weights, and
with probabilities cut off at 1e-7, also while it trains.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from scripts.benchmarks.processes import Measured, OneLineParser, positive, run, tell

ROWS, WORDS, LENGTH = 24_980, 10_000, 127
KINDS = {"ours": "overfit-lab", "dense": "dense loop, plain PyTorch"}
KERAS = {"keras": "dense loop, as Keras"}
WIDTH = 120


def lay_out(folder: Path, reviews: Path | None) -> None:
    """Write the matrices that both read.

    Args:
        folder: where to.
        reviews: the folder of IMDB's reviews, if there is one.
    """
    if reviews is None:
        generator = np.random.default_rng(0)
        parts = [draw(generator) for _ in range(2)]
        labels = generator.integers(0, 2, 2 * ROWS)
    else:
        frames = [pl.read_parquet(reviews / f"{name}-00000-of-00001.parquet") for name in ("train", "test")]
        vectorizer = CountVectorizer(binary=True, max_features=WORDS).fit(frames[0]["text"].to_list())
        parts = [sparse.csr_array(vectorizer.transform(frame["text"].to_list())) for frame in frames]
        labels = np.concatenate([frame["label"].to_numpy() for frame in frames])
    for name, matrix in zip(("train", "val"), parts, strict=True):
        sparse.save_npz(folder / f"{name}.npz", matrix)
    np.save(folder / "labels.npy", labels)


def draw(generator: np.random.Generator) -> sparse.csr_array:
    """Draw rows whose words are as frequent as words are, one over their rank."""
    chances = 1 / np.arange(1, WORDS + 1)
    lengths = np.maximum(1, generator.gamma(2, LENGTH * 0.75, ROWS)).astype(np.int64)
    words = generator.choice(WORDS, lengths.sum(), p=chances / chances.sum())
    rows = np.repeat(np.arange(ROWS), lengths)
    matrix = sparse.csr_array((np.ones(len(words)), (rows, words)), shape=(ROWS, WORDS))
    matrix.data[:] = 1  # a word that comes twice is there
    return matrix


@dataclass(frozen=True)
class Epoch(Measured):
    """What an epoch cost, and what came of it.

    Attributes:
        loss: validation loss of the first alpha after the last epoch.
    """

    loss: float


def measure(kind: str, folder: Path, width: int, alphas: str, epochs: int) -> Epoch:
    """Measure one epoch in a process of its own: the seconds that it tells, and the memory that it took."""
    told = folder / "told.json"
    program = f"{sys.executable} -m scripts.benchmarks.sparse_epochs {kind} {folder} {width} {alphas} {epochs} > {told}"
    measured = run(["bash", "-c", program])
    return Epoch(peak=measured.peak, **json.loads(told.read_text().splitlines()[-1]))


def tabulate(found: dict[int, dict[str, list[Epoch]]], alphas: str, epochs: int) -> Table:
    """Set ours beside the dense loops, width by width."""
    kinds = [*next(iter(found.values()))]
    names = [(KINDS | KERAS)[kind] for kind in kinds]
    first, *others = alphas.split(",")
    table = Table(
        title=f"One epoch of {1 + len(others)} alphas, with its curves; loss: at alpha {first}, epoch {epochs}"
    )
    seconds_of, gigabytes_of, loss_of = (
        [f"{name}, {unit}" for name in shown] for shown, unit in ((names, "s"), (kinds, "GB"), (kinds, "loss"))
    )
    for column in ("width", *seconds_of, "ratio", *gigabytes_of, *loss_of):
        table.add_column(column, justify="right")
    for width, by_kind in found.items():
        seconds = {kind: statistics.median(one.seconds for one in own) for kind, own in by_kind.items()}
        peaks = [max(one.peak for one in own) / 1e9 for own in by_kind.values()]
        ratio = seconds["dense"] / seconds["ours"]
        table.add_row(
            str(width),
            *(f"{value:.2f}" for value in seconds.values()),
            f"{ratio:.1f}",
            *(f"{peak:.1f}" for peak in peaks),
            *(_spread([one.loss for one in own]) for own in by_kind.values()),
        )
    return table


def _spread(values: list[float]) -> str:
    several = f" [{min(values):.2f}, {max(values):.2f}]" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}{several}"


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are whole numbers from 1, separated by commas")
    return [int(word) for word in words]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table.

    Args:
        arguments: of the command line.
    """
    parser = OneLineParser(
        prog="scripts/bench sparse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--path", type=Path, help="folder of IMDB's reviews")
    parser.add_argument("--widths", type=_numbers, default=[4, 16, 512], help="default 4,16,512")
    parser.add_argument("--alphas", default="0,0.002", help="default 0,0.002")
    parser.add_argument("--epochs", type=positive, default=3, help="of each measurement, default 3")
    parser.add_argument("--repeats", type=positive, default=3, help="measurements of each, default 3")
    parser.add_argument("--keras", action="store_true", help="train the dense loop as Keras would, too")
    options = parser.parse_args(arguments)
    kinds = KINDS | KERAS if options.keras else KINDS
    if options.path is not None and not options.path.is_dir():
        parser.error(f"--path {options.path}: there is no such folder")
    found: dict[int, dict[str, list[Epoch]]] = {width: {kind: [] for kind in kinds} for width in options.widths}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(folder, options.path)
        for repeat in range(options.repeats):
            for width in options.widths:
                for kind in kinds:
                    measured = measure(kind, folder, width, options.alphas, options.epochs)
                    found[width][kind].append(measured)
                    tell(f"w={width}, {kinds[kind]}, {repeat + 1} of {options.repeats}: {measured.seconds:.2f} s")
    Console(width=int(os.environ.get("COLUMNS", WIDTH))).print(tabulate(found, options.alphas, options.epochs))


if __name__ == "__main__":
    main()
