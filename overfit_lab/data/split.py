"""Splits: the test rows are set aside first, the development rows are cut into a hold-out or into K folds.

Either cut keeps groups whole, on request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data.deal import deal_groups
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


class _Keep(NamedTuple):
    """What cuts keep.

    Args:
        classes: `rows`, the class of every row where each part has its share of them, or None.
        groups: `rows`, the number of every row's group where groups stay whole, or None.
        column: What the groups are called.
        about: What the numbers of classes stand for, for messages.
    """

    classes: NDArray[Any] | None
    groups: NDArray[np.int64] | None
    column: str | None
    about: str = ""


def make_split(source: Source, config: HoldoutSplit | KFoldSplit) -> Split:
    """Cut a source's rows.

    The split depends on the rows and on `config.seed` alone, not on the seed of a fit: fits with different seeds
    are validated on the same rows. With `config.group` no group is on two sides of a cut, and the sizes are as near to
    what is asked as whole groups allow.

    Raises:
        UserError: There are too few rows or groups, or too few of a class, for what is asked; or the source has no
            such groups.
    """
    about = f" ({source.said[0]})" if source.said else ""
    keep = _Keep(classes_to_stratify(source, config), _groups_to_keep(source, config), config.group, about)
    development, test = _set_aside(source, config, keep)
    official = _official_fold(source, config, development)
    if official is not None:
        return Split(test, development, (official,))
    folds: list[Fold] = []
    for repeat in range(config.repeats):
        seed = derive_seed("folds", config.seed, repeat, bits=32)
        if isinstance(config, HoldoutSplit):
            assert config.val_fraction is not None  # else the fold is official
            train, val = _cut(development, config.val_fraction, keep, "split.val_fraction", seed)
            folds.append(Fold(repeat, 0, train, val))
        else:
            pairs = _k_folds(development, config.folds, keep, "split.folds", seed)
            folds.extend(Fold(repeat, fold, train, val) for fold, (train, val) in enumerate(pairs))
    return Split(test, development, tuple(folds))


def _set_aside(source: Source, config: HoldoutSplit | KFoldSplit, keep: _Keep) -> tuple[Rows, Rows]:
    """Cut the development rows and the test rows apart."""
    rows = np.arange(source.rows)
    if source.official_test is not None:
        its_own = f"{source.name} brings {len(source.official_test)} test rows of its own"
        if config.outer_folds is not None:
            raise UserError(f"split.outer_folds={config.outer_folds}: {its_own}; allowed is null")
        if config.test_fraction:
            raise UserError(f"split.test_fraction={config.test_fraction:g}: {its_own}; allowed is 0")
        if source.validates_on_test:
            return rows, rows[:0]
        _refuse_shared_groups(source, keep)
        return np.setdiff1d(rows, source.official_test), source.official_test
    if config.outer is not None and config.outer_folds is not None:
        asked = f"split.outer={config.outer}"
        seed = derive_seed("outer", config.seed, bits=32)
        pairs = list(_k_folds(rows, config.outer_folds, keep, "split.outer_folds", seed))
        development, test = pairs[config.outer]
    elif config.test_fraction > 0:
        asked = f"split.test_fraction={config.test_fraction:g}"
        seed = derive_seed("test", config.seed, bits=32)
        development, test = _cut(rows, config.test_fraction, keep, "split.test_fraction", seed)
    else:
        asked = "split.test_fraction=0"
        development, test = rows, rows[:0]
    if len(development) < 2:
        raise UserError(
            f"{asked}: leaves {len(development)} of {len(rows)} rows for development; at least 2 are needed"
        )
    return development, test


def _refuse_shared_groups(source: Source, keep: _Keep) -> None:
    """Whoever asks for whole groups must hear that whoever published the test rows did not."""
    assert source.official_test is not None
    if keep.groups is not None:
        test = np.isin(np.arange(source.rows), source.official_test)
        shared = np.intersect1d(keep.groups[test], keep.groups[~test])
        if len(shared):
            raise UserError(
                f"split.group={keep.column}: {len(shared)} of its groups have rows both among the "
                f"{len(source.official_test)} test rows that {source.name} brings and among the others; allowed is "
                "null, or data without test rows of its own"
            )


def _official_fold(source: Source, config: HoldoutSplit | KFoldSplit, development: Rows) -> Fold | None:
    """Validate on the rows that the source brings for it, where that is asked for; None where it is not."""
    asked = isinstance(config, HoldoutSplit) and config.val_fraction is None
    if source.official_val is None:
        if asked:
            raise UserError(
                f"split.val_fraction=null: {source.name} brings no rows to validate on; allowed is above 0 and below 1"
            )
        return None
    its_own = f"{source.name} brings {len(source.official_val)} rows of its own to validate on"
    if not isinstance(config, HoldoutSplit):
        raise UserError(f"split=kfold: {its_own}; allowed is split=holdout split.val_fraction=null")
    if config.val_fraction is not None:
        raise UserError(f"split.val_fraction={config.val_fraction:g}: {its_own}; allowed is null")
    if config.repeats > 1:
        raise UserError(f"split.repeats={config.repeats}: {its_own}, the same in each repeat; allowed is 1")
    if config.group is not None:
        raise UserError(f"split.group={config.group}: {its_own}; allowed is null")
    return Fold(0, 0, np.setdiff1d(development, source.official_val), source.official_val)


def classes_to_stratify(source: Source, config: HoldoutSplit | KFoldSplit) -> NDArray[Any] | None:
    """The class of every row where the split keeps their proportions, or None."""
    possible = source.problem in ("binary", "multiclass")
    if config.stratify is True and not possible:
        raise UserError(f"split.stratify=true: {source.name} is {source.problem}; only binary and multiclass allow it")
    return source.y.reshape(-1).astype(np.int64) if possible and config.stratify else None


def _groups_to_keep(source: Source, config: HoldoutSplit | KFoldSplit) -> NDArray[np.int64] | None:
    """The number of every row's group where the split keeps groups whole, or None."""
    if config.group is None:
        return None
    if config.group not in source.groups:
        names = ", ".join(source.groups)
        has = f"no such groups; allowed are {names}" if names else "no groups; allowed is null"
        raise UserError(f"split.group={config.group}: {source.name} has {has}")
    return source.number_groups(config.group)


def _cut(rows: Rows, fraction: float, keep: _Keep, key: str, seed: int) -> tuple[Rows, Rows]:
    """Cut rows in two, shuffled: (the rest, the fraction rounded up as scikit-learn does, or to whole groups)."""
    if keep.groups is not None:
        first_rows, second_rows = _deal(rows, (1 - fraction, fraction), keep, f"{key}={fraction:g}", seed)
        return first_rows, second_rows
    second = int(np.ceil(fraction * len(rows)))
    if second >= len(rows):
        raise UserError(f"{key}={fraction:g}: takes all of {len(rows)} rows; at least one must be left")
    labels = None if keep.classes is None else keep.classes[rows]
    if labels is not None:
        _check_classes(labels, 2, f"{key}={fraction:g}", keep.about)
        parts = len(np.unique(labels))
        if min(second, len(rows) - second) < parts:
            raise UserError(
                f"{key}={fraction:g}: {second} and {len(rows) - second} rows cannot both hold each of {parts} classes; "
                "give another fraction or split.stratify=false"
            )
    first_rows, second_rows = train_test_split(rows, test_size=second, random_state=seed, stratify=labels)
    return np.sort(first_rows), np.sort(second_rows)


def _k_folds(rows: Rows, folds: int, keep: _Keep, key: str, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (the rest, the part) of K parts, shuffled; sizes differ by one row at most, but where groups stay whole."""
    if folds > len(rows):
        what = "rows" if key == "split.outer_folds" else "development rows"
        raise UserError(f"{key}={folds}: there are {len(rows)} {what}; allowed is 2 to {len(rows)}")
    if keep.groups is not None:
        for part in _deal(rows, [1 / folds] * folds, keep, f"{key}={folds}", seed):
            yield np.setdiff1d(rows, part, assume_unique=True), part
        return
    if keep.classes is None:
        pairs = KFold(folds, shuffle=True, random_state=seed).split(rows)
    else:
        _check_classes(keep.classes[rows], folds, f"{key}={folds}", keep.about)
        pairs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, keep.classes[rows])
    for rest, part in pairs:
        yield rows[rest], rows[part]


def _deal(rows: Rows, shares: Sequence[float], keep: _Keep, asked: str, seed: int) -> list[Rows]:
    """Cut rows into parts that hold whole groups, with shares of the rows as near as can be to those wished."""
    assert keep.groups is not None
    names, groups = np.unique(keep.groups[rows], return_inverse=True)
    if len(names) < len(shares):
        raise UserError(
            f"{asked}: split.group={keep.column} has {len(names)} group(s) among the rows to cut; "
            f"at least {len(shares)} are needed"
        )
    counts = np.bincount(groups)[:, None]
    if keep.classes is not None:
        names, labels = np.unique(keep.classes[rows], return_inverse=True)
        by_class = np.zeros((len(counts), len(names)), dtype=np.int64)
        np.add.at(by_class, (groups, labels), 1)
        holders = (by_class > 0).sum(axis=0)
        if holders.min() < len(shares):
            raise UserError(
                f"{asked}: class {names[holders.argmin()]} is in {holders.min()} group(s) of "
                f"split.group={keep.column}, stratifying needs {len(shares)}; allowed with "
                f"split.stratify=false{keep.about}"
            )
        counts = np.concatenate([counts, by_class], axis=1)
    parts = deal_groups(counts, shares, seed)
    if parts is None:
        raise UserError(
            f"{asked}: no cut into {len(shares)} was found that has each class in each part and keeps "
            f"split.group={keep.column} whole; allowed with split.stratify=false"
        )
    return [rows[parts[groups] == part] for part in range(len(shares))]


def _check_classes(labels: NDArray[Any], needed: int, asked: str, about: str) -> None:
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < needed:
        raise UserError(
            f"{asked}: class {names[counts.argmin()]} has {counts.min()} row(s), stratifying needs {needed}; "
            f"allowed with split.stratify=false{about}"
        )
