import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from overfit_lab.config import HoldoutSplit, KFoldSplit
from overfit_lab.data import Source, Split, make_split
from overfit_lab.data.deal import deal_groups
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


def in_groups(source: Source, groups: NDArray[Any]) -> Source:
    """The same rows, some of which belong together."""
    return Source(source.name, source.problem, source.x, source.y, {"patient": groups, "ward": groups % 2})


def classes_of(y: list[int]) -> Source:
    return Source("classes", "multiclass", np.zeros((len(y), 1)), np.array(y))


def visits(*sizes: int, seed: int = 0) -> Source:
    """Patients with as many rows as there are sizes, in random order."""
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return in_groups(numbers(sum(sizes)), groups)


def patients(number: int, classes: int, seed: int = 0) -> Source:
    """Patients whose rows are of all classes, each in shares of his own."""
    rng = np.random.default_rng(seed)
    of_patient = [
        np.r_[:classes, rng.choice(classes, rng.integers(0, 9), p=rng.dirichlet([1] * classes))] for _ in range(number)
    ]
    y = np.concatenate(of_patient)
    groups = np.repeat(np.arange(number), [len(of) for of in of_patient])
    order = rng.permutation(len(y))
    return in_groups(Source("patients", "multiclass", np.zeros((len(y), 1)), y[order]), groups[order])


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
        assert config.val_fraction is not None
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


# Groups enough for every fold and every cut below.
GROUPED_SOURCES = st.one_of(
    st.lists(st.integers(1, 12), min_size=14, max_size=30).map(lambda sizes: visits(*sizes)),
    st.tuples(st.integers(14, 24), st.integers(2, 3), st.integers(0, 99)).map(lambda some: patients(*some)),
)
GROUPED = st.tuples(
    st.one_of(KFOLDS, HOLDOUTS), st.one_of(st.none(), st.tuples(st.integers(2, 5), st.integers(0, 1)))
).map(lambda pair: grouped(pair[0]) if pair[1] is None else nested(grouped(pair[0]), *pair[1]))


def grouped(config: KFoldSplit | HoldoutSplit) -> KFoldSplit | HoldoutSplit:
    return config.model_copy(update={"group": "patient"})


def nested(config: KFoldSplit | HoldoutSplit, outer_folds: int, outer: int) -> KFoldSplit | HoldoutSplit:
    return config.model_copy(update={"test_fraction": 0.0, "outer_folds": outer_folds, "outer": outer})


@PROPERTY
@given(source=GROUPED_SOURCES, config=GROUPED)
def test_no_group_is_on_two_sides_of_a_cut(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    split = make_split(source, config)
    patient = source.groups["patient"]
    assert sorted([*split.test, *split.development]) == list(range(source.rows))
    assert not set(patient[split.test]) & set(patient[split.development])
    assert len(split.test) > 0 or (config.test_fraction == 0 and config.outer is None)
    for fold in split.folds:
        assert sorted([*fold.train, *fold.val]) == split.development.tolist()
        assert not set(patient[fold.train]) & set(patient[fold.val])
        assert len(fold.train) > 0
        assert len(fold.val) > 0
    if isinstance(config, KFoldSplit):
        for repeat in range(config.repeats):
            vals = [fold.val for fold in split.folds if fold.repeat == repeat]
            assert sorted(np.concatenate(vals)) == split.development.tolist()


@PROPERTY
@given(source=GROUPED_SOURCES, config=GROUPED)
def test_every_part_has_every_class_where_groups_stay_whole(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    if source.problem != "multiclass" or config.stratify is False:
        return
    split = make_split(source, config)
    parts = [split.development, *(part for f in split.folds for part in (f.train, f.val))]
    for part in [*parts, split.test] if len(split.test) else parts:
        assert counts(source, part).min() > 0


@PROPERTY
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=25),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**62),
)
def test_a_cut_misses_its_fraction_by_half_a_group_at_most(sizes: list[int], fraction: float, seed: int) -> None:
    split = make_split(visits(*sizes), grouped(holdout(test_fraction=0.0, val_fraction=fraction, seed=seed)))
    missed = abs(len(split.folds[0].val) - fraction * sum(sizes))
    # But for a side that has one group only, since it must have one.
    patient = visits(*sizes).groups["patient"]
    alone = 1 in {len(set(patient[side])) for side in (split.folds[0].train, split.folds[0].val)}
    assert alone or missed <= max(sizes) / 2 + 1e-9


@PROPERTY
@given(sizes=st.lists(st.integers(1, 30), min_size=6, max_size=25), folds=st.integers(2, 6), seed=st.integers(0, 2**62))
def test_folds_of_whole_groups_differ_by_a_group_at_most(sizes: list[int], folds: int, seed: int) -> None:
    split = make_split(visits(*sizes), grouped(kfold(test_fraction=0.0, folds=folds, seed=seed)))
    in_folds = [len(fold.val) for fold in split.folds]
    assert max(in_folds) - min(in_folds) <= max(sizes)


def test_a_cut_of_whole_groups_is_nearer_than_one_that_counts_groups() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(20):
        source = visits(*rng.integers(1, 40, size=20))
        split = make_split(source, grouped(kfold(seed=seed)))
        _, test = next(
            GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(source.x, groups=source.groups["patient"])
        )
        ours.append(abs(len(split.test) / source.rows - 0.2))
        theirs.append(abs(len(test) / source.rows - 0.2))
    assert np.mean(ours) < 0.01
    assert np.mean(ours) < np.mean(theirs) / 3


def test_whole_groups_keep_the_proportions_of_classes() -> None:
    """Most patients have one class only, so without stratification the classes fall as they may."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    y = (rng.random(40) < 0.3).astype(np.int64)[groups] ^ (np.arange(200) % 50 == 0)
    source = in_groups(Source("visits", "multiclass", np.zeros((200, 1)), y), groups)

    def farthest(stratify: object) -> float:
        splits = [make_split(source, grouped(kfold(stratify=stratify, seed=seed))) for seed in range(10)]
        shares = [y[part].mean() for s in splits for part in (s.test, *(fold.val for fold in s.folds))]
        return float(np.abs(np.array(shares) - y.mean()).max())

    assert farthest("auto") < 0.09
    assert farthest(False) > 0.2


@pytest.mark.parametrize("config", [kfold(), holdout()], ids=["kfold", "holdout"])
@pytest.mark.parametrize("source", [classified(31, 30, 40), numbers(101)], ids=["stratified", "plain"])
def test_groups_of_one_row_are_cut_like_rows(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    own = in_groups(source, np.arange(101))
    split, plain = make_split(own, grouped(config)), make_split(source, config)
    assert abs(len(split.test) - len(plain.test)) <= 1
    for fold, like in zip(split.folds, plain.folds, strict=True):
        assert abs(len(fold.val) - len(like.val)) <= 2
        if source.problem == "multiclass":
            assert np.abs(counts(source, fold.val) - counts(source, like.val)).max() <= 2


@pytest.mark.parametrize("config", [kfold(repeats=3), holdout(repeats=3)], ids=["kfold", "holdout"])
@pytest.mark.parametrize("source", [visits(*range(3, 23)), patients(20, 3)], ids=["plain", "stratified"])
def test_groups_are_shuffled_anew_though_none_is_like_another(
    source: Source, config: KFoldSplit | HoldoutSplit
) -> None:
    splits = [make_split(source, grouped(config.model_copy(update={"seed": seed}))) for seed in range(3)]
    assert len({tuple(split.test) for split in splits}) == 3
    for split in splits:
        repeats = [frozenset(tuple(fold.val) for fold in split.folds if fold.repeat == repeat) for repeat in range(3)]
        assert len(set(repeats)) == 3


@pytest.mark.parametrize("config", [kfold(repeats=2), holdout(repeats=2)], ids=["kfold", "holdout"])
def test_what_groups_are_called_makes_no_difference(config: KFoldSplit | HoldoutSplit) -> None:
    source = patients(20, 2)
    renamed = np.array([f"patient {-number}" for number in source.groups["patient"]])
    other = Source("another", source.problem, source.x, source.y, {"patient": renamed})
    assert listed(make_split(other, grouped(config))) == listed(make_split(source, grouped(config)))
    assert listed(make_split(source, config.model_copy(update={"group": "ward", "test_fraction": 0.0, "folds": 2})))


@PROPERTY
@given(source=GROUPED_SOURCES, config=GROUPED)
def test_a_grouped_split_is_determined_by_its_seed(source: Source, config: KFoldSplit | HoldoutSplit) -> None:
    assert listed(make_split(source, config)) == listed(make_split(source, config))


def test_grouped_test_rows_stay_the_same_over_versions() -> None:
    # Written down once: a study that goes on must not find others sealed.
    split = make_split(visits(5, 3, 4, 1, 2, 6), grouped(kfold(folds=2)))
    assert split.test.tolist() == [0, 9, 10, 18]
    parts = deal_groups(np.array([[5, 1], [3, 2], [4, 4], [1, 0], [2, 1], [6, 3]]), [0.5, 0.25, 0.25], 0)
    assert parts is not None
    assert parts.tolist() == [0, 2, 0, 0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.2,) * 5])
def test_what_few_groups_have_is_in_every_part(shares: tuple[float, ...], seed: int) -> None:
    """As many of a hundred groups have something of the second column as there are parts, and each gets one of them."""
    table = np.ones((100, 2), dtype=np.int64)
    table[len(shares) :, 1] = 0
    parts = deal_groups(table, shares, seed)
    assert parts is not None
    assert sorted(parts[: len(shares)]) == list(range(len(shares)))


@pytest.mark.parametrize("shares", [(0.9, 0.1), (1 / 3, 1 / 3, 1 / 3)])
def test_no_part_is_empty(shares: tuple[float, ...]) -> None:
    for seed in range(20):
        parts = deal_groups(np.array([[1], [100], [100], [100]]), shares, seed)
        assert parts is not None
        assert set(parts) == set(range(len(shares)))


def test_nothing_is_dealt_where_no_part_can_have_all() -> None:
    # Three parts, and one group has all there is of the second column.
    assert deal_groups(np.array([[1, 5], [1, 0], [1, 0]]), [1 / 3] * 3, 0) is None


@pytest.mark.parametrize("config", [kfold(folds=2), holdout()], ids=["kfold", "holdout"])
@pytest.mark.parametrize("group", [None, "patient"])
@pytest.mark.parametrize("source", [patients(20, 3), visits(*range(1, 21))], ids=["stratified", "plain"])
@pytest.mark.parametrize("outer_folds", [2, 5])
def test_outer_folds_are_disjoint_and_cover_all_rows(
    source: Source, config: KFoldSplit | HoldoutSplit, group: str | None, outer_folds: int
) -> None:
    config = config.model_copy(update={"group": group})
    splits = [make_split(source, nested(config, outer_folds, outer)) for outer in range(outer_folds)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(source.rows))
    for split in splits:
        assert len(split.test) > 0
        assert sorted([*split.test, *split.development]) == list(range(source.rows))
    if group is None:
        sizes = [len(split.test) for split in splits]
        assert max(sizes) - min(sizes) <= 1
        if source.problem == "multiclass":
            in_folds = np.array([counts(source, split.test) for split in splits])
            assert (in_folds.max(0) - in_folds.min(0) <= 1).all()


def test_an_outer_fold_depends_on_its_number_and_the_seed_alone() -> None:
    source = numbers(50)
    expected = make_split(source, nested(kfold(), 5, 1)).test.tolist()
    for config in (kfold(folds=3), kfold(repeats=2), holdout(), kfold(stratify=False)):
        assert make_split(source, nested(config, 5, 1)).test.tolist() == expected
    assert make_split(source, nested(kfold(seed=1), 5, 1)).test.tolist() != expected
    assert make_split(source, nested(kfold(), 5, 2)).test.tolist() != expected
    assert (np.diff(expected) > 1).any()


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (numbers(10), grouped(kfold()), r"^split\.group=patient: numbers has no groups; allowed is null$"),
        (
            visits(2, 2, 2),
            kfold(group="patiant"),
            r"^split\.group=patiant: numbers has no such groups; allowed are patient, ward$",
        ),
        (
            visits(9, 9, 9),
            grouped(kfold(test_fraction=0.0)),
            r"^split\.folds=5: split\.group=patient has 3 group\(s\) among the rows to cut; at least 5 are needed$",
        ),
        (
            visits(9, 9, 9, 9, 9),
            grouped(kfold()),
            r"^split\.folds=5: split\.group=patient has 4 group\(s\) among the rows to cut; at least 5 are needed$",
        ),
        (visits(9), grouped(kfold()), r"^split\.test_fraction=0\.2: split\.group=patient has 1 group\(s\) among"),
        (visits(9, 9), grouped(holdout()), r"^split\.val_fraction=0\.25: split\.group=patient has 1 group\(s\) among"),
        (
            visits(9, 9, 9),
            nested(grouped(kfold()), 4, 0),
            r"^split\.outer_folds=4: split\.group=patient has 3 group\(s\) among the rows to cut; at least 4 are",
        ),
        (
            in_groups(classes_of([0, 1, 0, 0]), np.array([7, 7, 8, 9])),
            grouped(holdout(test_fraction=0.0)),
            r"^split\.val_fraction=0\.25: class 1 is in 1 group\(s\) of split\.group=patient, stratifying needs 2; "
            r"allowed with split\.stratify=false$",
        ),
        (
            # Whichever two patients are on one side, the third has one class too few for the other.
            in_groups(classes_of([0, 1, 1, 2, 0, 2]), np.array([7, 7, 8, 8, 9, 9])),
            grouped(kfold(test_fraction=0.0, folds=2)),
            r"^split\.folds=2: no cut into 2 was found that has each class in each part and keeps split\.group=patient "
            r"whole; allowed with split\.stratify=false$",
        ),
        (numbers(3), nested(kfold(), 4, 0), r"^split\.outer_folds=4: there are 3 rows; allowed is 2 to 3$"),
        (numbers(2), nested(kfold(), 2, 0), r"^split\.outer=0: leaves 1 of 2 rows for development; at least 2 are"),
        (
            classified(9, 3),
            nested(kfold(), 4, 0),
            r"^split\.outer_folds=4: class 1 has 3 row\(s\), stratifying needs 4; allowed with split\.stratify=false$",
        ),
    ],
)
def test_impossible_groups_and_outer_folds_are_named(
    source: Source, config: KFoldSplit | HoldoutSplit, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_split(source, config)


def test_a_class_that_is_too_small_is_called_as_in_the_file() -> None:
    said = "target kind is multiclass: a, b, rare are classes 0, 1, 2"
    y = np.repeat([0, 1, 2], [20, 20, 1])
    with pytest.raises(UserError) as caught:
        make_split(Source("mine", "multiclass", np.zeros((41, 1)), y, said=(said,)), kfold())
    assert str(caught.value).endswith(
        f"class 2 has 1 row(s), stratifying needs 2; allowed with split.stratify=false ({said})"
    )
