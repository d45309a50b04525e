"""Texts as inputs: which words are kept is decided by the train rows, as scikit-learn's vectorizer decides it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from overfit_lab.config import KFoldSplit
from overfit_lab.data import Source, make_split
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.data.development import Stream, seal
from overfit_lab.data.sparse_rows import SparseRows
from overfit_lab.data.unseal import unseal
from overfit_lab.data.words import FrequentWords, mark_words
from overfit_lab.errors import UserError

VOCABULARY = [f"{first}{second}" for first in "abcdefgh" for second in "aeiou"]


def texts(rows: int, seed: int = 0) -> list[str]:
    """Texts of 0 to 30 words, of which some are frequent and most are rare, with signs, digits and large letters."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, len(VOCABULARY) + 1)
    found = []
    for row in range(rows):
        words = rng.choice(VOCABULARY, rng.integers(0, 30), p=chances / chances.sum())
        found.append(
            " ".join(str(word).title() if row % 2 else str(word) for word in words) + f", a! 7 <br /> row{row % 5}."
        )
    return found


def source(given: list[str], count: int) -> Source:
    return Source(
        "texts", "binary", mark_words(given, "data"), np.arange(len(given)) % 2, preparation=FrequentWords(count)
    )


def module(own: Source) -> tuple[CohortDataModule, list[np.ndarray]]:
    split = make_split(own, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))
    data = CohortDataModule(
        seal(own, split),
        [Stream(0, fold.repeat, fold.fold) for fold in split.folds],
        batch_size=8,
        max_train_rows_measured=10_000,
        scale_inputs=False,
        scale_targets=False,
    )
    tests = data.prepare(unseal(own, split, lambda: None)).x
    found = []
    for i, fold in enumerate(split.folds):
        for part, rows in (
            (data.train.x, fold.train),
            (data.val.x if data.val else None, fold.val),
            (tests, split.test),
        ):
            assert isinstance(part, SparseRows)
            found.append(part.dense(torch.device("cpu"))[i, : len(rows)].numpy())
    return data, found


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(rows=st.integers(30, 80), seed=st.integers(0, 99), count=st.integers(1, 60))
def test_each_fold_has_the_words_of_its_train_rows(rows: int, seed: int, count: int) -> None:
    own, given = source(texts(rows, seed), count), np.array(texts(rows, seed), dtype=object)
    split = make_split(own, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))
    _, found = module(own)
    for fold in split.folds:
        # All words of the train rows, and from them the most frequent, the slow way.
        vectorizer = CountVectorizer(binary=True).fit(given[fold.train])
        names = vectorizer.get_feature_names_out()
        frequency = vectorizer.transform(given[fold.train]).sum(axis=0).A1
        chosen = sorted(range(len(names)), key=lambda i: (-frequency[i], names[i]))[:count]
        expected = CountVectorizer(binary=True, vocabulary=sorted(names[i] for i in chosen))
        for part in (fold.train, fold.val, split.test):
            ours = found.pop(0)
            theirs = expected.transform(given[part]).toarray()
            assert ours.shape == (len(part), count)
            np.testing.assert_array_equal(ours[:, : theirs.shape[1]], theirs)
            assert not ours[:, theirs.shape[1] :].any()
        if count >= len(names) or frequency[chosen[-1]] > sorted(frequency)[-count - 1]:
            # Without a tie at the end of the list it is scikit-learn's own choice.
            limited = CountVectorizer(binary=True, max_features=count).fit(given[fold.train])
            assert sorted(limited.vocabulary_) == sorted(names[i] for i in chosen)


def test_words_of_other_rows_play_no_part() -> None:
    given = texts(60)
    own = source(given, 20)
    split = make_split(own, KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=3))
    _, expected = module(own)
    poisoned = list(given)
    for row in (*split.test, *split.folds[0].val):
        # Alphabetically before and after all others, and in every one of these rows.
        poisoned[row] = "aaa zzz zzzz " + poisoned[row]
    _, found = module(source(poisoned, 20))
    for part in range(3):
        np.testing.assert_array_equal(found[part], expected[part])
    assert not np.array_equal(found[3], expected[3]), "in the other folds, they are train rows"


@pytest.mark.parametrize("given", [["", "a b c"], ["1 2 3", "!"]])
def test_texts_without_words(given: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"^column text holds no word; allowed are texts with words of two letters or more$"
    ):
        mark_words(given, "column text")
