"""Splits: the test rows are set aside first, the development rows are cut into a hold-out or into K folds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data.source import Source
from overfit_lab.errors import UserError
from overfit_lab.seeding import derive_seed

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """One way to train and validate: row numbers of the source, sorted.

    Args:
        repeat: Which reshuffle, from 0.
        fold: Which part of it is the validation set, from 0.
        train: Rows to train on.
        val: Rows to validate on.
    """

    repeat: int
    fold: int
    train: Rows
    val: Rows


@dataclass(frozen=True, eq=False)
class Split:
    """Sealed test rows, and folds over the development rows."""

    test: Rows
    development: Rows
    folds: tuple[Fold, ...]


def make_split(source: Source, config: HoldoutSplit | KFoldSplit) -> Split:
    """Cut a source's rows.

    The split depends on the rows and on `config.seed` alone, not on the seed of a fit: fits with different seeds
    are validated on the same rows.

    Raises:
        UserError: There are too few rows, or too few of a class, for what is asked.
    """
    classes = _classes_to_stratify(source, config)
    everything = np.arange(source.rows)
    test = everything[:0]
    development = everything
    if config.test_fraction > 0:
        development, test = _cut(
            everything,
            config.test_fraction,
            classes,
            "split.test_fraction",
            derive_seed("test", config.seed, bits=32),
        )
    if len(development) < 2:
        raise UserError(
            f"split.test_fraction={config.test_fraction:g}: leaves {len(development)} of {source.rows} rows for "
            "development; at least 2 are needed"
        )
    folds: list[Fold] = []
    for repeat in range(config.repeats):
        seed = derive_seed("folds", config.seed, repeat, bits=32)
        if isinstance(config, HoldoutSplit):
            train, val = _cut(development, config.val_fraction, classes, "split.val_fraction", seed)
            folds.append(Fold(repeat, 0, train, val))
        else:
            pairs = _k_folds(development, config.folds, classes, seed)
            folds.extend(Fold(repeat, fold, train, val) for fold, (train, val) in enumerate(pairs))
    return Split(test, development, tuple(folds))


def _classes_to_stratify(source: Source, config: HoldoutSplit | KFoldSplit) -> NDArray[Any] | None:
    """The class of every row where the split keeps their proportions, or None."""
    possible = source.problem in ("binary", "multiclass")
    if config.stratify is True and not possible:
        raise UserError(f"split.stratify=true: {source.name} is {source.problem}; only binary and multiclass allow it")
    return source.y.reshape(-1).astype(np.int64) if possible and config.stratify else None


def _cut(rows: Rows, fraction: float, classes: NDArray[Any] | None, key: str, seed: int) -> tuple[Rows, Rows]:
    """Cut rows in two, shuffled: (the rest, the fraction rounded up as scikit-learn does)."""
    second = int(np.ceil(fraction * len(rows)))
    if second >= len(rows):
        raise UserError(f"{key}={fraction:g}: takes all of {len(rows)} rows; at least one must be left")
    labels = None if classes is None else classes[rows]
    if labels is not None:
        _check_classes(labels, 2, key, f"{fraction:g}")
        parts = len(np.unique(labels))
        if min(second, len(rows) - second) < parts:
            raise UserError(
                f"{key}={fraction:g}: {second} and {len(rows) - second} rows cannot both hold each of {parts} classes; "
                "give another fraction or split.stratify=false"
            )
    first_rows, second_rows = train_test_split(rows, test_size=second, random_state=seed, stratify=labels)
    return np.sort(first_rows), np.sort(second_rows)


def _k_folds(rows: Rows, folds: int, classes: NDArray[Any] | None, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (train, val) of K parts, shuffled, whose sizes differ by one row at most."""
    if folds > len(rows):
        raise UserError(f"split.folds={folds}: there are {len(rows)} development rows; allowed is 2 to {len(rows)}")
    if classes is None:
        pairs = KFold(folds, shuffle=True, random_state=seed).split(rows)
    else:
        _check_classes(classes[rows], folds, "split.folds", str(folds))
        pairs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, classes[rows])
    for train, val in pairs:
        yield rows[train], rows[val]


def _check_classes(labels: NDArray[Any], needed: int, key: str, value: str) -> None:
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < needed:
        raise UserError(
            f"{key}={value}: class {names[counts.argmin()]} has {counts.min()} row(s), stratifying needs {needed}; "
            "allowed with split.stratify=false"
        )
