"""Whether the tests, corrections and intervals of a study keep what they promise, on data whose truth is known.

    scripts/bench statistics [--repeats 1000] [--seed 0] [--out FILE]

Every figure is a mean over repeated draws, with its Monte-Carlo standard error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import norm

from overfit_lab.analysis.comparison import corrected_t_test
from overfit_lab.analysis.interval import Index, Interval, bootstrap_interval, proportion_interval
from overfit_lab.analysis.selection_bias import bootstrap_bias_corrected, tibshirani_tibshirani
from overfit_lab.analysis.survival import median_onset
from scripts.benchmarks.simulate import print_tables

Array = NDArray[np.float64]
Split = tuple[Index, Index]

WIDTH = 120
LEVEL = 0.05
JUNK = 10
BATCH = 50
"""Draws that share their splits, so that the learners are fitted to all of them at once."""


@dataclass(frozen=True)
class Estimate:
    """A mean over repeated draws.

    Attributes:
        mean: of the draws.
        se: its Monte-Carlo standard error.
    """

    mean: float
    se: float

    def __str__(self) -> str:
        """Say it with its error: `.050 (.007)`."""
        return f"{self.mean:.3f} ({self.se:.3f})"


def estimate(draws: Sequence[float] | Sequence[bool] | Array) -> Estimate:
    """Average the draws.

    Args:
        draws: a number for each, or whether something held.
    """
    values = np.asarray(draws, dtype=np.float64)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


@dataclass(frozen=True)
class Scheme:
    """How the rows are split for a test of two learners.

    Attributes:
        name: in the table.
        folds: of one repeat.
        repeats: of the folds, reshuffled.
        hold_out: whether only the first fold of each repeat is used.
    """

    name: str
    folds: int
    repeats: int = 1
    hold_out: bool = False

    def splits(self, rows: int, rng: np.random.Generator) -> list[Split]:
        """Draw train and validation rows of all splits.

        Args:
            rows: to split.
            rng: where the order of the rows comes from.
        """
        splits = []
        for _ in range(self.repeats):
            parts = np.array_split(rng.permutation(rows), self.folds)
            for fold in range(1 if self.hold_out else self.folds):
                train = np.concatenate([part for other, part in enumerate(parts) if other != fold])
                splits.append((train, parts[fold]))
        return splits


SCHEMES = (
    Scheme("5 folds", 5),
    Scheme("10 folds", 10),
    Scheme("15 hold-outs of 1/5", 5, repeats=15, hold_out=True),
    Scheme("10 times 5 folds", 5, repeats=10),
)


def rejections(scheme: Scheme, repeats: int, seed: int, rows: int = 40) -> tuple[Estimate, Estimate]:
    """Compare two learners that are equally good: how often is one called better?

    The target is x1 + x2 + noise. One learner sees x1, the other x2, each beside junk of its own: least squares of both
    have the same expected risk by symmetry.

    Args:
        scheme: of the splits.
        repeats: draws of the data.
        seed: of the draws.
        rows: of each draw.

    Returns:
        Rate of rejections by the corrected test and by the plain paired one, both at a level of .05.
    """
    corrected, plain = [], []
    for start in range(0, repeats, BATCH):
        rng = np.random.default_rng([seed, start])
        draws = min(BATCH, repeats - start)
        seen = rng.normal(size=(2, draws, rows, 1 + JUNK))
        target = seen[0, :, :, 0] + seen[1, :, :, 0] + rng.normal(size=(draws, rows))
        splits = scheme.splits(rows, rng)
        losses = np.array([[_validation_loss(x, target, split) for split in splits] for x in seen])
        for differences in (losses[0] - losses[1]).T:
            ratio = 1 / (scheme.folds - 1)
            corrected.append(corrected_t_test(differences, val_train_ratio=ratio).p_value <= LEVEL)
            plain.append(corrected_t_test(differences, val_train_ratio=0).p_value <= LEVEL)
    return estimate(corrected), estimate(plain)


def _validation_loss(x: Array, target: Array, split: Split) -> Array:
    train, val = split
    seen, y = x[:, train], target[:, train, None]
    weights = np.linalg.solve(seen.transpose(0, 2, 1) @ seen, seen.transpose(0, 2, 1) @ y)
    loss: Array = np.square((x[:, val] @ weights)[..., 0] - target[:, val]).mean(axis=1)
    return loss


@dataclass(frozen=True)
class Sweep:
    """A sweep whose true risks are known: the loss of a row is a risk, what is hard for all, and what is hard for one.

    Attributes:
        name: in the table.
        folds: that validate the rows; None for a hold-out.
        spread: standard deviation of the true risk between configurations.
        rows: validated.
        configurations: compared.
        epochs: of each; the risk has its minimum in their middle.
        fold_sd: how far the model of a fold is off the mean model of its configuration.
    """

    name: str
    folds: int | None
    spread: float
    rows: int = 100
    configurations: int = 50
    epochs: int = 8
    fold_sd: float = 0.05

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array, Index | None]:
        """Draw losses, [configurations, epochs, rows], true risks, [configurations, epochs], and folds, [rows].

        Args:
            rng: where they come from.
        """
        epoch = np.linspace(-1, 1, self.epochs)
        level = rng.normal(0.5, self.spread, self.configurations)
        risk = level[:, None] + 0.02 * epoch**2
        hard_for_all = rng.exponential(size=self.rows) - 1
        hard_for_one = rng.exponential(size=(self.configurations, 1, self.rows)) - 1
        jitter = rng.normal(size=(*risk.shape, self.rows))
        losses = risk[..., None] + 0.35 * hard_for_all + 0.32 * hard_for_one + 0.16 * jitter
        if self.folds is None:
            return losses, risk, None
        fold = np.arange(self.rows) % self.folds
        models = rng.normal(0, self.fold_sd, (self.configurations, 1, self.folds))
        return losses + models[:, :, fold], risk, fold


SWEEPS = (
    Sweep("5 folds, equal risks", 5, 0),
    Sweep("5 folds, sd of risks .03", 5, 0.03),
    Sweep("5 folds, sd of risks .06", 5, 0.06),
    Sweep("10 folds, sd of risks .06", 10, 0.06),
    Sweep("hold-out, equal risks", None, 0),
    Sweep("hold-out, sd of risks .03", None, 0.03),
    Sweep("hold-out, sd of risks .06", None, 0.06),
)


@dataclass(frozen=True)
class Optimism:
    """How far an estimate of the selected configuration's risk is above its true risk.

    Attributes:
        minimum: of the lowest validation loss, uncorrected.
        corrected: of the bootstrap bias-corrected one.
        tibshirani: of the lowest plus the estimate of Tibshirani and Tibshirani; for a hold-out none.
        two_level: of a bootstrap with Poisson weights for the rows of the drawn folds as well; for a hold-out none.
    """

    minimum: Estimate
    corrected: Estimate
    tibshirani: Estimate | None
    two_level: Estimate | None


def optimism(sweep: Sweep, repeats: int, seed: int, replicates: int = 200) -> Optimism:
    """Select from a sweep repeatedly, and set each estimate beside the true risk of what was selected.

    Args:
        sweep: to draw from.
        repeats: number of draws.
        seed: of the draws.
        replicates: of the bootstrap.
    """
    off: dict[str, list[float]] = {"minimum": [], "corrected": [], "tibshirani": [], "two_level": []}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        losses, risk, fold = sweep.draw(rng)
        truth = float(risk.flat[losses.mean(axis=2).argmin()])
        bias = bootstrap_bias_corrected(losses, fold, seed=repeat, replicates=replicates)
        off["minimum"].append(bias.minimum - truth)
        off["corrected"].append(bias.corrected - truth)
        if fold is not None:
            choices = losses.reshape(-1, sweep.rows)
            folds = [choices[:, fold == number].mean(axis=1) for number in np.unique(fold)]
            off["tibshirani"].append(bias.minimum + tibshirani_tibshirani(np.stack(folds, axis=1)) - truth)
            off["two_level"].append(_two_level(choices, fold, replicates, rng) - truth)
    found = {name: estimate(values) if values else None for name, values in off.items()}
    assert found["minimum"] is not None
    assert found["corrected"] is not None
    return Optimism(found["minimum"], found["corrected"], found["tibshirani"], found["two_level"])


def _two_level(choices: Array, fold: Index, replicates: int, rng: np.random.Generator) -> float:
    folds = int(fold.max()) + 1
    drawn = rng.multinomial(folds, np.full(folds, 1 / folds), replicates)[:, fold]
    left_out = (drawn == 0).astype(np.float64)
    weights = drawn * rng.poisson(1.0, drawn.shape)
    sound = weights.any(axis=1) & left_out.any(axis=1)
    chosen = (choices @ weights[sound].T / weights[sound].sum(axis=1)).argmin(axis=0)
    scores = choices @ left_out[sound].T / left_out[sound].sum(axis=1)
    return float(scores[chosen, np.arange(len(chosen))].mean())


Metric = Literal["cross-entropy", "accuracy .9", "accuracy .97", "AUROC .8", "AUROC .95"]
METRICS: tuple[Metric, ...] = ("cross-entropy", "accuracy .9", "accuracy .97", "AUROC .8", "AUROC .95")
SIZES = (100, 200, 500)


def coverage(metric: Metric, rows: int, repeats: int, seed: int) -> tuple[Estimate, Estimate]:
    """Measure a metric on test sets, each with its interval of 95 %: how often does that hold the true value?

    Args:
        metric: the mean of skewed losses, a proportion, or the area under the ROC curve of two normal classes.
        rows: of a test set.
        repeats: number of test sets.
        seed: of the draws.

    Returns:
        Rate of intervals that hold the true value, and their width.
    """
    draw, truth = _METRICS[metric]
    hits, widths = [], []
    for repeat in range(repeats):
        interval = draw(np.random.default_rng([seed, rows, repeat]), rows, repeat)
        hits.append(interval.low <= truth <= interval.high)
        widths.append(interval.high - interval.low)
    return estimate(hits), estimate(widths)


def _mean_loss(rng: np.random.Generator, rows: int, seed: int) -> Interval:
    losses = np.logaddexp(0, -rng.normal(2, 2, rows))
    return bootstrap_interval(lambda index: losses[index].mean(axis=1), rows, seed=seed)


def _accuracy(rate: float) -> Callable[[np.random.Generator, int, int], Interval]:
    return lambda rng, rows, seed: proportion_interval(int(rng.binomial(rows, rate)), rows)


def _auroc(area: float) -> Callable[[np.random.Generator, int, int], Interval]:
    def draw(rng: np.random.Generator, rows: int, seed: int) -> Interval:
        positive = np.arange(rows) % 2 == 0
        score = rng.normal(size=rows) + positive * norm.ppf(area) * np.sqrt(2)
        return bootstrap_interval(lambda index: area_under_roc(score, positive, index), rows, seed=seed)

    return draw


def area_under_roc(score: Array, positive: NDArray[np.bool_], index: Index) -> Array:
    """Compute the area under the ROC curve of samples of rows, not a number where a sample holds one class only.

    Args:
        score: [rows], no two of them the same.
        positive: class, [rows].
        index: row numbers, [samples, drawn rows].

    Returns:
        [samples].
    """
    order = np.argsort(score)
    rank = np.argsort(order)
    rows, samples = len(score), len(index)
    cells = rank[index] + rows * np.arange(samples)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=rows * samples).reshape(samples, rows)
    above, below = counts * positive[order], counts * ~positive[order]
    with np.errstate(invalid="ignore"):
        area: Array = (above * below.cumsum(axis=1)).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
    return area


def _expected_loss() -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(weights @ np.logaddexp(0, -(2 + 2 * points)) / weights.sum())


_METRICS: dict[Metric, tuple[Callable[[np.random.Generator, int, int], Interval], float]] = {
    "cross-entropy": (_mean_loss, _expected_loss()),
    "accuracy .9": (_accuracy(0.9), 0.9),
    "accuracy .97": (_accuracy(0.97), 0.97),
    "AUROC .8": (_auroc(0.8), 0.8),
    "AUROC .95": (_auroc(0.95), 0.95),
}

HORIZONS = (600, 280, 210)
FITS = (10, 30)


def median_coverage(fits: int, horizon: int, repeats: int, seed: int) -> tuple[Estimate, Estimate, Estimate]:
    """Estimate the median onset of seeds whose true median is 196, from fits that end at a horizon.

    Args:
        fits: independent seeds.
        horizon: epochs of each.
        repeats: number of draws.
        seed: of the draws.

    Returns:
        Rate of intervals that hold the true median, of intervals with an open end, and of censored fits.
    """
    hits, opened, censored = [], [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, fits, repeat])
        onset = np.ceil(195.5 * np.exp(0.5 * rng.normal(size=fits)))
        found = median_onset(np.minimum(onset, horizon), onset <= horizon)
        low, high = found.ci
        hits.append((low is None or low <= 196) and (high is None or high >= 196))
        opened.append(low is None or high is None)
        censored.append(float(np.mean(onset > horizon)))
    return estimate(hits), estimate(opened), estimate(censored)


def tabulate(repeats: int, seed: int) -> list[Table]:
    """Run all simulations.

    Args:
        repeats: draws of each.
        seed: of all of them.
    """
    tests = _table("Two learners of the same risk: rejections at .05", "splits", "corrected t", "plain t")
    for scheme in SCHEMES:
        tests.add_row(scheme.name, *map(str, rejections(scheme, repeats, seed)))

    columns = ("minimum", "bootstrap corrected", "Tibshirani", "with row weights")
    sweeps = _table("50 configurations, 8 epochs, 100 rows: estimate less true risk of the selected", "sweep", *columns)
    for sweep in SWEEPS:
        off = optimism(sweep, repeats, seed)
        cells = (off.minimum, off.corrected, off.tibshirani, off.two_level)
        sweeps.add_row(sweep.name, *("" if cell is None else str(cell) for cell in cells))

    intervals = _table("Intervals of the test set: how often 95 % hold the truth", "metric", *(f"n={n}" for n in SIZES))
    for metric in METRICS:
        intervals.add_row(metric, *(str(coverage(metric, rows, repeats, seed)[0]) for rows in SIZES))

    medians = _table("Median onset: how often 95 % hold the truth", "fits", "censored", "coverage", "open end")
    for fits in FITS:
        for horizon in HORIZONS:
            held, opened, censored = median_coverage(fits, horizon, repeats, seed)
            medians.add_row(str(fits), f"{censored.mean:.2f}", str(held), str(opened))
    return [tests, sweeps, intervals, medians]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them to a file if asked to.

    Args:
        arguments: of the command line.
    """
    print_tables(
        "Measure whether tests, corrections and intervals keep their promise.",
        tabulate,
        arguments,
        repeats=1000,
        width=WIDTH,
    )


if __name__ == "__main__":
    main()
