"""How much a sweep has overfitted its validation set: the lowest of many validation losses is lower than the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = NDArray[np.float64]

REPLICATES = 500
BLOCK = 2**22
"""Weights that stand in memory as floating-point numbers at once: 32 MiB of them."""


@dataclass(frozen=True)
class SelectionBias:
    """The validation loss of what a sweep has selected, as it is and without the optimism of the selection.

    Attributes:
        minimum: lowest validation loss of all configurations and epochs.
        corrected: what that choice is expected to lose on rows that did not choose it.
        bias: corrected less minimum.
    """

    minimum: float
    corrected: float
    bias: float


def bootstrap_bias_corrected(
    candidates: Iterable[ArrayLike], folds: ArrayLike | None, *, seed: int = 0, replicates: int = REPLICATES
) -> SelectionBias:
    """Repeat the selection in bootstrap samples of the validation set, and score each choice on what was left out.

    With folds, a replicate draws as many folds as there are, with replacement, and scores on the folds that were not
    drawn: the rows of one fold share its model. Without, every row has a Poisson(1) weight, and those of weight 0
    score [after Tsamardinos, Greasidou and Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient
    and accurate cross-validation, section 3].

    The bias is the mean difference, out of the bag, between the choice of a replicate and the choice of all rows. The
    latter's mean alone is the minimum, so this is the corrected loss less the minimum, without the chance of which
    rows happened to be left out: a sweep that has but one choice has no bias at all.

    Args:
        candidates: validation losses of one configuration after the other, each [epochs, rows]; the number of epochs
            may differ, rows and their order may not. An epoch with a loss that is not finite is never chosen. Only
            one candidate at a time is held; without folds, beside a table of rows x replicates bytes.
        folds: number of the fold that validates each row, [rows]; None for a hold-out, and where a row is validated
            more than once. What the rows of one fold share through its model is then not corrected for.
        seed: of the bootstrap.
        replicates: number of bootstrap samples.

    Raises:
        ValueError: if an array has the wrong shape, there are fewer than two rows or folds, no replicate is asked
            for, or no candidate has an epoch with finite losses.
    """
    if replicates < 1:
        raise ValueError(f"replicates is {replicates}; it must be 1 or more")
    rows: int | None = None
    minimum = np.inf
    # For every replicate: the lowest loss in the bag so far, the same choice's loss out of it, and that of the choice
    # of all rows.
    in_bag, out_of_bag, reference = (np.full(replicates, np.inf) for _ in range(3))
    for candidate in candidates:
        losses = np.asarray(candidate, dtype=np.float64)
        if losses.ndim != 2:
            raise ValueError(f"a candidate has shape {losses.shape}; it must be [epochs, rows]")
        if rows is None:
            rows = losses.shape[1]
            members = None if folds is None else _members(folds, rows)
            sizes = np.ones(rows) if members is None else members.sum(axis=0)
            if len(sizes) < 2:
                unit = "row" if members is None else "fold"
                raise ValueError(f"there is {len(sizes)} {unit}; at least 2 are needed to leave one out")
            bags = _draw_bags(len(sizes), members is not None, replicates, np.random.default_rng(seed))
        if losses.shape[1] != rows:
            raise ValueError(f"a candidate has {losses.shape[1]} rows; the first has {rows}")
        losses = losses[np.isfinite(losses).all(axis=1)]
        if not len(losses):
            continue
        pooled = losses.mean(axis=1)
        lowest = int(pooled.argmin())
        lowest_so_far = bool(pooled[lowest] < minimum)
        if lowest_so_far:
            minimum = float(pooled[lowest])
        sums = losses if members is None else losses @ members
        for block in _blocks(len(sizes), replicates):
            inside = _mean(sums, sizes, bags[:, block])
            epochs = inside.argmin(axis=0)
            inside = inside[epochs, np.arange(len(epochs))]
            better = np.flatnonzero(inside < in_bag[block])
            # Few epochs of few candidates are ever chosen: the others need no score.
            scored = np.unique(np.append(epochs[better], lowest))
            outside = _mean(sums[scored], sizes, bags[:, block] == 0)
            in_bag[block][better] = inside[better]
            out_of_bag[block][better] = outside[np.searchsorted(scored, epochs[better]), better]
            if lowest_so_far:
                reference[block] = outside[np.searchsorted(scored, lowest)]
    if not np.isfinite(minimum):
        raise ValueError("candidates hold no epoch with finite losses; one is needed to choose")
    bias = float(np.mean(out_of_bag - reference))
    return SelectionBias(minimum=minimum, corrected=minimum + bias, bias=bias)


def tibshirani_tibshirani(fold_losses: ArrayLike) -> float:
    """Estimate the optimism of the lowest cross-validated loss from the minimum of every fold, without resampling.

    The mean over folds of e_k(choice of all folds) - e_k(choice of fold k) [Tibshirani and Tibshirani 2009, A bias
    correction for the minimum error rate in cross-validation]. To be added to the lowest loss.

    Args:
        fold_losses: mean validation loss of every choice, a configuration and an epoch, [choices, folds]. A choice with
            a loss that is not finite is never chosen.

    Raises:
        ValueError: if the array has the wrong shape or fewer than two folds, or no choice has finite losses.
    """
    losses = np.asarray(fold_losses, dtype=np.float64)
    if losses.ndim != 2 or losses.shape[1] < 2:
        raise ValueError(f"fold_losses has shape {losses.shape}; it must be [choices, folds >= 2]")
    losses = losses[np.isfinite(losses).all(axis=1)]
    if not len(losses):
        raise ValueError("fold_losses hold no choice with finite losses; one is needed")
    return float(np.mean(losses[losses.mean(axis=1).argmin()] - losses.min(axis=0)))


def _draw_bags(units: int, folds: bool, replicates: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    # [units, replicates], how often a replicate holds each fold or row. Bytes, because 500 floating-point numbers for
    # each of a million rows do not fit into memory.
    # Rejected: Poisson weights for the rows of a drawn fold as well. The means of the folds hold the chance of their
    # rows already. Counted twice, it makes the choices of the replicates worse than that of all rows, and the corrected
    # loss too high by up to .02, a third of the bias [scripts/bench statistics shows it].
    bags = np.empty((units, replicates), dtype=np.uint8)
    block = _blocks(units, replicates)[0].stop
    filled = 0
    while filled < replicates:
        size = min(block, replicates - filled)
        shares = np.full(units, 1 / units)
        drawn = rng.multinomial(units, shares, size).T if folds else rng.poisson(1.0, (units, size))
        # One that holds nothing, or leaves nothing out, is drawn again.
        drawn = drawn[:, drawn.any(axis=0) & ~drawn.all(axis=0)]
        bags[:, filled : filled + drawn.shape[1]] = drawn
        filled += drawn.shape[1]
    return bags


def _blocks(units: int, replicates: int) -> list[slice]:
    size = max(1, BLOCK // units)
    return [slice(start, min(start + size, replicates)) for start in range(0, replicates, size)]


def _mean(sums: Array, sizes: Array, weights: NDArray[Any]) -> Array:
    # [epochs, units] and [units, replicates] to the mean over rows, [epochs, replicates].
    numbers = weights.astype(np.float64)
    mean: Array = sums @ numbers / (sizes @ numbers)
    return mean


def _members(folds: ArrayLike, rows: int) -> Array:
    # [rows, folds]: 1 where a fold validates the row.
    of_row = np.asarray(folds)
    if of_row.shape != (rows,):
        raise ValueError(f"folds has shape {of_row.shape}; it must be ({rows},), one for each row")
    members: Array = (of_row[:, None] == np.unique(of_row)).astype(np.float64)
    return members
