"""Texts as inputs: which of the most frequent words are in them [Chollet 2017, section 3.4]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from overfit_lab.data.inputs import Inputs
from overfit_lab.errors import UserError


def mark_words(texts: Sequence[str], place: str) -> Inputs:
    """Mark which words are in each text, by scikit-learn's vectorizer: two letters or more, in small letters.

    Nothing is fitted here: a column for each word that there is says no more than the texts do. Which of them a network
    is given is the preparation's part.

    Args:
        texts: One for each row.
        place: What a message begins with: where the texts come from.

    Raises:
        UserError: There is no word in them.

    Returns:
        `rows x words`, 1 where a word is in a text, in compressed rows; the words in alphabetical order.
    """
    try:
        marks = CountVectorizer(binary=True, dtype=np.float64).fit_transform(texts)
    except ValueError as error:
        raise UserError(f"{place} holds no word; allowed are texts with words of two letters or more") from error
    return sparse.csr_array(marks)


@dataclass(frozen=True)
class FrequentWords:
    """Keeps the words that most train rows have; of equally frequent ones, the first in the alphabet.

    It gives what scikit-learn's `CountVectorizer(binary=True, max_features=count)` gives that is fitted on the texts of
    the train rows, without taking these apart again in each fold.

    Args:
        count: How many words. Where the train rows have fewer, the last inputs are 0 everywhere.
    """

    count: int

    @property
    def features(self) -> int:
        """How many inputs come out."""
        return self.count

    def fit(self, train: Inputs) -> KeptWords:
        """Choose words by `rows x words`."""
        rows_with = np.bincount(train.indices, minlength=train.shape[1])
        chosen = np.argsort(-rows_with, kind="stable")[: self.count]
        return KeptWords(np.sort(chosen[rows_with[chosen] > 0]), self.count)


@dataclass(frozen=True, eq=False)
class KeptWords:
    """The words that were frequent among some train rows.

    Args:
        words: Their numbers, sorted.
        count: How many were asked for.
    """

    words: NDArray[np.int64]
    count: int

    def apply(self, rows: Inputs) -> Inputs:
        """Keep these columns: `rows x count`."""
        place = np.full(rows.shape[1], -1, dtype=rows.indices.dtype)
        place[self.words] = np.arange(len(self.words))
        columns = place[rows.indices]
        kept = columns >= 0
        # How many are kept before each entry: a row begins where its first entry does. SciPy takes ten times as long.
        starts = np.concatenate([[0], np.cumsum(kept, dtype=rows.indptr.dtype)])[rows.indptr].astype(rows.indptr.dtype)
        return sparse.csr_array((rows.data[kept], columns[kept], starts), shape=(rows.shape[0], self.count))
