"""The work that the competitors share: which networks are trained on which rows, and for how long.

Imports no torch, so that a competitor pays only for its own tool.
"""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

WIDTHS = (4, 8, 16, 32, 64, 128, 256)
ALPHAS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
EPOCHS = 100
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
FEATURES, CLASSES = 64, 10
TEST_FRACTION = 0.2  # set aside by overfit_lab, so by everybody


@dataclass(frozen=True)
class Work:
    """A part of the grid.

    Attributes:
        widths: of both hidden layers.
        alphas: of the penalty alpha/2 ||w||^2.
        folds: how many of the five are trained.
        epochs: passes over the train rows.
    """

    widths: tuple[int, ...] = WIDTHS
    alphas: tuple[float, ...] = ALPHAS
    folds: int = FOLDS
    epochs: int = EPOCHS

    @property
    def fits(self) -> int:
        """How many networks are trained."""
        return len(self.widths) * len(self.alphas) * self.folds

    @property
    def words(self) -> list[str]:
        """The part as a command line."""
        return [
            f"--widths={','.join(map(str, self.widths))}",
            f"--alphas={','.join(f'{alpha:g}' for alpha in self.alphas)}",
            f"--folds={self.folds}",
            f"--epochs={self.epochs}",
        ]


@dataclass(frozen=True)
class Trained:
    """What a competitor says it has done.

    Attributes:
        fits: networks trained.
        epochs: passes over the train rows, summed over the fits.
        val_losses: cross-entropy on the validation rows after the last epoch, of each fit.
    """

    fits: int
    epochs: int
    val_losses: list[float]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of one fold, float32; inputs have mean 0 and deviation 1 on its train rows."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_val: NDArray[np.float32]
    y_val: NDArray[np.int64]


def development_rows() -> tuple[NDArray[np.float32], NDArray[np.int64], list[tuple[NDArray[np.int64], ...]]]:
    """Load the digits without the test rows: inputs, classes, and the row numbers (train, val) of every fold."""
    x, y = load_digits(return_X_y=True)
    x, _, y, _ = train_test_split(x.astype(np.float32), y, test_size=TEST_FRACTION, random_state=0, stratify=y)
    return x, y, list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))


def load_folds() -> list[Fold]:
    """Cut and scale the rows of every fold."""
    x, y, parts = development_rows()
    folds = []
    for train, val in parts:
        mean, deviation = x[train].mean(0), x[train].std(0)
        scaled = (x - mean) / np.where(deviation > 0, deviation, 1)
        folds.append(Fold(scaled[train], y[train], scaled[val], y[val]))
    return folds


def steps_per_epoch(train_rows: int) -> int:
    """How many optimizer steps a pass takes."""
    return math.ceil(train_rows / BATCH_SIZE)


def padded(rows: Sequence[NDArray[np.generic]], length: int) -> NDArray[np.generic]:
    """Stack arrays of unlike length, padded at the end by their first row."""
    return np.stack([np.concatenate([part, np.repeat(part[:1], length - len(part), axis=0)]) for part in rows])


def row_weights(sizes: Sequence[int], length: int) -> NDArray[np.float32]:
    """The weights that make a weighted sum over padded rows a mean over the real ones."""
    return np.stack([(np.arange(length) < size) / size for size in sizes]).astype(np.float32)


def batch_weights(sizes: Sequence[int], steps: int) -> NDArray[np.float32]:
    """The same within each batch of an epoch whose padding comes last, `steps x folds x batch`."""
    real = np.stack([np.arange(steps * BATCH_SIZE) < size for size in sizes]).reshape(len(sizes), steps, BATCH_SIZE)
    weights: NDArray[np.float32] = (real / real.sum(2, keepdims=True)).swapaxes(0, 1).astype(np.float32)
    return weights


def accelerator() -> str:
    """Name the device that ours and plain Lightning train on; the processes of a bench inherit the choice."""
    return os.environ.get("BENCH_ACCELERATOR", "cpu")


def parser(description: str | None, *, single_cohort: bool = False) -> argparse.ArgumentParser:
    """Build the command line of a competitor.

    Args:
        description: for its help.
        single_cohort: whether it can also time the optimizer steps of a cohort of a given size.
    """
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--widths", type=_integers, default=WIDTHS, help="4,8,...")
    options.add_argument("--alphas", type=_numbers, default=ALPHAS, help="0,1e-4,...")
    options.add_argument("--folds", type=int, default=FOLDS, help="how many of the five are trained")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--out", type=Path, required=True, help="JSON file for what was done")
    if single_cohort:
        options.add_argument("--fits", type=int, help="time a cohort of so many fits instead")
        options.add_argument("--width", type=int, default=16, help="of that cohort")
        options.add_argument("--steps", type=int, default=180, help="for one timing, in whole epochs")
        options.add_argument("--repeats", type=int, default=5, help="timings, of which the median is taken")
    return options


def work_of(options: argparse.Namespace) -> Work:
    """Read the part of the grid from a parsed command line."""
    return Work(options.widths, options.alphas, options.folds, options.epochs)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(",") if word)
