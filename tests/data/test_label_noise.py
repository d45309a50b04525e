from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from overfit_lab.config import Problem
from overfit_lab.data import Source, load_source
from overfit_lab.data.label_noise import check_label_noise, with_label_noise
from overfit_lab.errors import UserError


def labelled(problem: Problem, rows: int, classes: int = 3) -> Source:
    y: NDArray[Any] = np.random.default_rng(1).permutation(np.arange(rows) % classes)
    if problem == "multilabel":
        y = np.random.default_rng(1).integers(0, 2, (rows, 4))
    return Source("made up", problem, np.arange(rows, dtype=float)[:, None], y)


SOURCES = [labelled("binary", 200, 2), labelled("multiclass", 301, 7), labelled("multilabel", 90)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.problem)
@pytest.mark.parametrize("share", [0.1, 0.333, 0.9])
def test_just_the_share_is_wrong_and_wrong_is_another_class(source: Source, share: float) -> None:
    rows = np.arange(0, source.rows, 2)
    noisy, right = with_label_noise(source, rows, share, seed=3), source.y[rows]
    assert (noisy.shape, noisy.dtype) == (right.shape, right.dtype)
    assert (noisy != right).sum() == round(share * right.size)
    assert set(np.unique(noisy)) <= set(np.unique(source.y))


def test_no_noise_changes_nothing() -> None:
    source = SOURCES[1]
    np.testing.assert_array_equal(with_label_noise(source, np.arange(source.rows), 0.0, 0), source.y)
    # Of 3 labels 10 % round to none.
    np.testing.assert_array_equal(with_label_noise(source, np.arange(3), 0.1, 0), source.y[:3])


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.problem)
def test_what_is_wrong_at_a_smaller_share_is_wrong_at_a_larger_one_in_the_same_way(source: Source) -> None:
    rows = np.arange(source.rows)
    less, more = (with_label_noise(source, rows, share, 0) for share in (0.2, 0.5))
    wrong = less != source.y
    np.testing.assert_array_equal(less[wrong], more[wrong])


def test_it_is_drawn_by_the_seed_of_the_split_alone() -> None:
    source, rows = SOURCES[1], np.arange(301)
    again, other = with_label_noise(source, rows, 0.5, 0), with_label_noise(source, rows, 0.5, 1)
    np.testing.assert_array_equal(with_label_noise(source, rows, 0.5, 0), again)
    # Independent draws: 1/4 of the rows is wrong in both; far from 1/2.
    both = ((again != source.y) & (other != source.y)).mean()
    assert 0.17 < both < 0.33


def test_every_other_class_is_alike_likely() -> None:
    source = labelled("multiclass", 20_000, 5)
    noisy = with_label_noise(source, np.arange(source.rows), 0.8, 0)
    for label in range(5):
        counts = np.bincount(noisy[(source.y == label) & (noisy != source.y)], minlength=5)
        assert counts[label] == 0
        assert chisquare(np.delete(counts, label)).pvalue > 1e-3


def test_the_source_keeps_the_right_labels() -> None:
    source = labelled("binary", 50, 2)
    before, name = source.y.copy(), source.fingerprint
    with_label_noise(source, np.arange(50), 0.5, 0)[:] = 0
    np.testing.assert_array_equal(source.y, before)
    assert Source("again", "binary", source.x, source.y[:, 0]).fingerprint == name


def test_rows_that_were_published_to_test_on_keep_their_labels() -> None:
    """Also where they are validated on, and with them no row is left to test on."""
    y, test = np.arange(60) % 3, np.arange(40, 60)
    source = Source("mine", "multiclass", np.zeros((60, 1)), y, official_test=test, official_val=test)
    noisy = with_label_noise(source, np.arange(60), 0.5, 0)
    np.testing.assert_array_equal(noisy[40:], y[40:])
    assert (noisy != y).sum() == 20


@pytest.mark.parametrize("name", ["diabetes", "digits_ink"])
def test_where_there_are_no_labels_it_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.label_noise=0\.2: {name} is (unit_)?regression; only binary, multic"):
        check_label_noise(load_source(name), 0.2)
    check_label_noise(load_source(name), 0.0)
    check_label_noise(load_source("digits_traits"), 0.2)
