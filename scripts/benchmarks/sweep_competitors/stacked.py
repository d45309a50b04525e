"""What the competitors that stack their fits by hand have in common: a cohort for each width, and how it is timed."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from scripts.benchmarks.sweep_competitors import grid


class Cohort(Protocol):
    """Fits that differ in alpha and fold.

    Attributes:
        fits: how many.
        steps: optimizer steps of an epoch.
    """

    fits: int
    steps: int

    def train_epoch(self) -> None:
        """One pass over the train rows."""

    def measure(self) -> Any:  # noqa: ANN401 - arrays of the competitor's own library
        """Loss and accuracy on train and validation rows."""

    def val_losses(self, measured: Any) -> list[float]:  # noqa: ANN401 - as above
        """The validation loss of each fit, from what `measure` gave."""

    def wait(self, done: list[Any]) -> None:
        """Wait until epochs that have been asked for are computed; `done` is what they gave."""


# From width, alphas and fold numbers, the latter two for each fit.
Make: TypeAlias = Callable[[int, Sequence[float], Sequence[int]], Cohort]
# From the folds: what all cohorts share is prepared once.
Prepare: TypeAlias = Callable[[Sequence[grid.Fold]], Make]


def train_grid(work: grid.Work, prepare: Prepare) -> grid.Trained:
    """Train a part of the grid, one cohort for each width."""
    make = prepare(grid.load_folds()[: work.folds])
    pairs = [(alpha, fold) for alpha in work.alphas for fold in range(work.folds)]
    epochs, val_losses = 0, []
    for width in work.widths:
        cohort = make(width, [alpha for alpha, _ in pairs], [fold for _, fold in pairs])
        curves = []
        for _ in range(work.epochs):
            cohort.train_epoch()
            curves.append(cohort.measure())
        epochs += len(curves) * cohort.fits
        val_losses += cohort.val_losses(curves[-1])
    return grid.Trained(work.fits, epochs, val_losses)


def time_steps(prepare: Prepare, fits: int, width: int, steps: int, repeats: int) -> dict[str, float]:
    """Milliseconds for an optimizer step of one cohort, without and with the measurement after each epoch."""
    alphas = [grid.ALPHAS[i % len(grid.ALPHAS)] for i in range(fits)]
    cohort = prepare(grid.load_folds())(width, alphas, [i % grid.FOLDS for i in range(fits)])
    epochs = max(1, round(steps / cohort.steps))

    def timed(epoch: Callable[[], Any]) -> float:
        cohort.wait([epoch()])  # the first one may compile
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            cohort.wait([epoch() for _ in range(epochs)])
            seconds.append(time.perf_counter() - started)
        return 1000 * statistics.median(seconds) / (epochs * cohort.steps)

    def measured_epoch() -> object:
        cohort.train_epoch()
        return cohort.measure()

    return {"training": timed(cohort.train_epoch), "with_measurement": timed(measured_epoch)}


def run(description: str | None, prepare: Prepare, arguments: Sequence[str] | None) -> None:
    """Train or time what a command line asks for, and write down what was done."""
    options = grid.parser(description, single_cohort=True).parse_args(arguments)
    if options.fits is None:
        train_grid(grid.work_of(options), prepare).save(options.out)
        return
    found = time_steps(prepare, options.fits, options.width, options.steps, options.repeats)
    options.out.write_text(json.dumps(found), encoding="utf-8")
