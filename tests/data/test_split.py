import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data import Source, Split, make_split
from overfit_lab.errors import UserError

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)

KFOLD = KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=5)
HOLDOUT = HoldoutSplit(kind="holdout", test_fraction=0.2, repeats=1, seed=0, stratify="auto", val_fraction=0.25)


def kfold(**changes: object) -> KFoldSplit:
    return KFoldSplit.model_validate({**KFOLD.model_dump(), **changes})


def holdout(**changes: object) -> HoldoutSplit:
    return HoldoutSplit.model_validate({**HOLDOUT.model_dump(), **changes})


def classified(*sizes: int, seed: int = 0) -> Source:
    """Rows of as many classes as there are sizes, in random order."""
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Source("classes", "multiclass", np.arange(float(sum(sizes)))[:, None], y)


def numbers(rows: int) -> Source:
    return Source("numbers", "regression", np.arange(float(rows))[:, None], np.arange(float(rows)))


# Classes large enough for every fold and every cut below to hold each.
SOURCES = st.one_of(
    st.lists(st.integers(14, 40), min_size=2, max_size=3).map(lambda sizes: classified(*sizes)),
    st.integers(20, 90).map(numbers),
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "test_fraction": st.one_of(st.just(0.0), st.floats(0.2, 0.5)),
    "repeats": st.integers(1, 3),
    "seed": st.integers(0, 2**62),
    "stratify": st.sampled_from(["auto", False]),
}
KFOLDS = st.fixed_dictionaries({**COMMON, "folds": st.integers(2, 6)}).map(lambda changes: kfold(**changes))
HOLDOUTS = st.fixed_dictionaries({**COMMON, "val_fraction": st.floats(0.2, 0.5)}).map(
    lambda changes: holdout(**changes)
)


def listed(split: Split) -> list[list[int]]:
    """All row numbers of a split, to compare two of them."""
    rows = [split.test, split.development, *(part for f in split.folds for part in (f.train, f.val))]
    return [part.tolist() for part in rows]


def counts(source: Source, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(source.y[rows], minlength=source.outputs)


@PROPERTY
@given(source=SOURCES, config=st.one_of(KFOLDS, HOLDOUTS))
def test_every_row_is_either_a_test_row_or_a_development_row(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    split = make_split(source, config)
    assert sorted([*split.test, *split.development]) == list(range(source.rows))
    assert split.test.tolist() == sorted(split.test)
    assert split.development.tolist() == sorted(split.development)
    assert config.test_fraction * source.rows - 1e-9 <= len(split.test) < config.test_fraction * source.rows + 1


@PROPERTY
@given(source=SOURCES, config=st.one_of(KFOLDS, HOLDOUTS))
def test_train_and_val_of_a_fold_make_up_the_development_rows(
    source: Source, config: KFoldSplit | HoldoutSplit
) -> None:
    split = make_split(source, config)
    for fold in split.folds:
        assert len(fold.train) > 0
        assert len(fold.val) > 0
        # As lists: a row that is in both, or twice in one, would be there twice.
        assert sorted([*fold.train, *fold.val]) == split.development.tolist()
        assert fold.train.tolist() == sorted(fold.train)
        assert fold.val.tolist() == sorted(fold.val)


@PROPERTY
@given(source=SOURCES, config=KFOLDS)
def test_every_development_row_is_validated_once_a_repeat(source: Source, config: KFoldSplit) -> None:
    split = make_split(source, config)
    assert [(f.repeat, f.fold) for f in split.folds] == [
        (repeat, fold) for repeat in range(config.repeats) for fold in range(config.folds)
    ]
    for repeat in range(config.repeats):
        vals = [fold.val for fold in split.folds if fold.repeat == repeat]
        assert sorted(np.concatenate(vals)) == split.development.tolist()
        sizes = [len(val) for val in vals]
        assert max(sizes) - min(sizes) <= 1


@PROPERTY
@given(source=SOURCES, config=HOLDOUTS)
def test_hold_out_takes_its_fraction_of_the_development_rows(source: Source, config: HoldoutSplit) -> None:
    split = make_split(source, config)
    assert [(f.repeat, f.fold) for f in split.folds] == [(repeat, 0) for repeat in range(config.repeats)]
    for fold in split.folds:
        wanted = config.val_fraction * len(split.development)
        assert wanted - 1e-9 <= len(fold.val) < wanted + 1


@pytest.mark.parametrize(
    ("rows", "test_fraction", "val_fraction", "expected"),
    [(100, 0.2, 0.25, (20, 60, 20)), (10, 0.25, 0.5, (3, 3, 4)), (7, 0.0, 0.1, (0, 6, 1))],
)
def test_sizes_of_a_hold_out_by_hand(
    rows: int, test_fraction: float, val_fraction: float, expected: tuple[int, int, int]
) -> None:
    config = holdout(test_fraction=test_fraction, val_fraction=val_fraction)
    split = make_split(numbers(rows), config)
    assert (len(split.test), len(split.folds[0].train), len(split.folds[0].val)) == expected


@PROPERTY
@given(sizes=st.lists(st.integers(14, 60), min_size=2, max_size=4), folds=st.integers(2, 6), seed=st.integers(0, 2**62))
def test_classes_keep_their_proportions(sizes: list[int], folds: int, seed: int) -> None:
    source = classified(*sizes, seed=seed % 2**32)
    split = make_split(source, kfold(seed=seed, folds=folds, repeats=2))
    share = counts(source, np.arange(source.rows)) / source.rows
    assert (np.abs(counts(source, split.test) - share * len(split.test)) < 1).all()
    for repeat in range(2):
        in_folds = np.array([counts(source, fold.val) for fold in split.folds if fold.repeat == repeat])
        assert (in_folds.max(0) - in_folds.min(0) <= 1).all()


@PROPERTY
@given(sizes=st.lists(st.integers(14, 60), min_size=2, max_size=4), seed=st.integers(0, 2**62))
def test_classes_keep_their_proportions_in_a_hold_out(sizes: list[int], seed: int) -> None:
    source = classified(*sizes)
    split = make_split(source, holdout(seed=seed))
    share = counts(source, split.development) / len(split.development)
    val = split.folds[0].val
    assert (np.abs(counts(source, val) - share * len(val)) < 1).all()


def test_stratification_holds_for_binary_targets_too() -> None:
    y = np.random.default_rng(3).permutation(np.repeat([0, 1], [90, 10]))
    split = make_split(Source("rare", "binary", np.zeros((100, 1)), y), kfold(test_fraction=0.5))
    assert y[split.test].sum() == 5
    assert [y[fold.val].sum() for fold in split.folds] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("config", [kfold(stratify=False), holdout(stratify=False)], ids=["kfold", "holdout"])
def test_classes_fall_as_they_may_without_stratification(config: KFoldSplit | HoldoutSplit) -> None:
    # Of ten seeds, all would keep the proportions only if the classes were looked at.
    source = classified(40, 40)
    splits = [make_split(source, config.model_copy(update={"seed": seed})) for seed in range(10)]
    assert len({counts(source, split.test)[0] for split in splits}) > 2
    assert len({counts(source, fold.val)[0] for split in splits for fold in split.folds}) > 2


@pytest.mark.parametrize("config", [KFOLD, HOLDOUT], ids=["kfold", "holdout"])
def test_stratify_true_is_auto_where_classes_are(config: KFoldSplit | HoldoutSplit) -> None:
    source = classified(20, 30)
    forced = make_split(source, config.model_copy(update={"stratify": True}))
    assert listed(forced) == listed(make_split(source, config))
    assert listed(forced) != listed(make_split(source, config.model_copy(update={"stratify": False})))


@PROPERTY
@given(source=SOURCES, config=st.one_of(KFOLDS, HOLDOUTS))
def test_split_is_determined_by_its_seed(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    np.random.seed(0)  # noqa: NPY002 - scikit-learn falls back to the global generator
    first = listed(make_split(source, config))
    np.random.seed(1)  # noqa: NPY002
    assert listed(make_split(source, config)) == first


@pytest.mark.parametrize("source", [classified(30, 30, 40), numbers(100)], ids=["stratified", "plain"])
@pytest.mark.parametrize("config", [kfold(repeats=3), holdout(repeats=3)], ids=["kfold", "holdout"])
def test_seeds_and_repeats_shuffle_anew(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    splits = [make_split(source, config.model_copy(update={"seed": seed})) for seed in (0, 1, 2**62)]
    assert len({tuple(split.test) for split in splits}) == 3
    for split in splits:
        assert len({tuple(fold.val) for fold in split.folds}) == len(split.folds)
    # With the test rows out of the way, too.
    everything = config.model_copy(update={"test_fraction": 0.0})
    folds = [make_split(source, everything.model_copy(update={"seed": seed})).folds for seed in range(3)]
    assert len({tuple(fold.val) for split in folds for fold in split}) == 3 * len(folds[0])


@pytest.mark.parametrize("config", [kfold(), holdout()], ids=["kfold", "holdout"])
def test_rows_are_shuffled(config: KFoldSplit | HoldoutSplit) -> None:
    split = make_split(numbers(100), config)
    for rows in (split.test, *(fold.val for fold in split.folds)):
        assert (np.diff(rows) > 1).any()


@pytest.mark.parametrize("config", [kfold(repeats=2), holdout(repeats=2)], ids=["kfold", "holdout"])
@pytest.mark.parametrize("stratify", ["auto", False])
def test_split_sees_nothing_but_rows_and_classes(config: KFoldSplit | HoldoutSplit, stratify: object) -> None:
    config = config.model_copy(update={"stratify": stratify})
    source = classified(25, 25, 30)
    other_inputs = replace(source, name="another", x=np.random.default_rng(1).normal(size=(80, 7)))
    assert listed(make_split(other_inputs, config)) == listed(make_split(source, config))


@pytest.mark.parametrize("config", [kfold(repeats=2), holdout(repeats=2)], ids=["kfold", "holdout"])
def test_split_does_not_see_real_targets(config: KFoldSplit | HoldoutSplit) -> None:
    source = numbers(60)
    other = replace(source, y=np.random.default_rng(1).normal(size=(60, 2)))
    assert listed(make_split(other, config)) == listed(make_split(source, config))


@pytest.mark.parametrize("source", [classified(30, 30, 40), numbers(100)], ids=["stratified", "plain"])
def test_test_rows_do_not_depend_on_how_the_rest_is_cut(source: Source) -> None:
    expected = make_split(source, KFOLD).test.tolist()
    for config in (kfold(folds=2), kfold(repeats=4), holdout(), holdout(val_fraction=0.5)):
        assert make_split(source, config).test.tolist() == expected


@pytest.mark.parametrize("config", [kfold(repeats=3), holdout(repeats=3)], ids=["kfold", "holdout"])
def test_more_repeats_keep_the_first_ones(config: KFoldSplit | HoldoutSplit) -> None:
    source = classified(30, 30)
    once = listed(make_split(source, config.model_copy(update={"repeats": 1})))
    assert listed(make_split(source, config))[: len(once)] == once


@pytest.mark.parametrize("config", [kfold(test_fraction=0.0), holdout(test_fraction=0.0)], ids=["kfold", "holdout"])
def test_no_test_rows_on_request(config: KFoldSplit | HoldoutSplit) -> None:
    split = make_split(classified(20, 20), config)
    assert split.test.tolist() == []
    assert split.development.tolist() == list(range(40))


def test_as_many_folds_as_development_rows_leave_one_out() -> None:
    split = make_split(numbers(10), kfold(test_fraction=0.2, folds=8))
    assert [len(fold.val) for fold in split.folds] == [1] * 8


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (
            numbers(10),
            kfold(test_fraction=0.2, folds=9),
            r"^split\.folds=9: there are 8 development rows; allowed is 2 to 8$",
        ),
        (numbers(5), kfold(test_fraction=0.9), r"^split\.test_fraction=0\.9: takes all of 5 rows"),
        (numbers(4), holdout(test_fraction=0.0, val_fraction=0.99), r"^split\.val_fraction=0\.99: takes all of 4 rows"),
        (numbers(11), holdout(test_fraction=0.5, val_fraction=0.9), r"^split\.val_fraction=0\.9: takes all of 5 rows"),
        (numbers(1), kfold(test_fraction=0.1), r"^split\.test_fraction=0\.1: takes all of 1 rows"),
        (
            classified(20, 4),
            kfold(test_fraction=0.0),
            r"^split\.folds=5: class 1 has 4 row\(s\), stratifying needs 5; allowed with split\.stratify=false$",
        ),
        (
            classified(20, 1, 20),
            kfold(),
            r"^split\.test_fraction=0\.2: class 1 has 1 row\(s\), stratifying needs 2; allowed with",
        ),
        (
            classified(1, 20),
            holdout(test_fraction=0.0),
            r"^split\.val_fraction=0\.25: class 0 has 1 row\(s\), stratifying needs 2",
        ),
        (
            classified(2, 2, 2, 2),
            kfold(),
            r"^split\.test_fraction=0\.2: 2 and 6 rows cannot both hold each of 4 classes; .*split\.stratify=false",
        ),
        (
            classified(2, 2, 2),
            kfold(test_fraction=0.6),
            r"^split\.test_fraction=0\.6: 4 and 2 rows cannot both hold each of 3 classes",
        ),
        (
            numbers(20),
            kfold(stratify=True),
            r"^split\.stratify=true: numbers is regression; only binary and multiclass allow it$",
        ),
        (
            Source("traits", "multilabel", np.zeros((9, 1)), np.eye(9)),
            holdout(stratify=True),
            r"^split\.stratify=true: traits is multilabel",
        ),
    ],
)
def test_impossible_splits_are_named(source: Source, config: KFoldSplit | HoldoutSplit, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_split(source, config)


@pytest.mark.parametrize("rare", [1, 2, 4])
def test_small_classes_are_allowed_without_stratification(rare: int) -> None:
    split = make_split(classified(20, rare), kfold(stratify=False))
    assert len(split.folds) == 5
    assert len(split.test) == math.ceil(0.2 * (20 + rare))
