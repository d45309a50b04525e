"""Sources with known truth, against what is known of them."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from overfit_lab.config import CustomData
from overfit_lab.data.source import Source, source_of
from overfit_lab.data.synthetic import (
    linear_gaussian,
    mnist1d,
    modular_addition,
    polynomial,
    random_labels,
    teacher_student,
)
from overfit_lab.data.synthetic.mnist_1d import templates
from overfit_lab.data.synthetic.polynomials import OrthogonalPolynomials
from overfit_lab.errors import UserError

BLOCKS: dict[str, Any] = {"features": [30, 10], "scales": [1.0, 0.08], "signal": [0.5, 1.0]}
DRAWN: dict[str, Any] = {
    "linear_gaussian": {"rows": 50, **BLOCKS, "noise": 1.5},
    "teacher_student": {"rows": 50, "features": 5, "width": 3, "noise": 0.5},
    "polynomial": {"rows": 50, "degree": 4, "noise": 0.3},
    "random_labels": {"rows": 50, "features": 5, "classes": 3},
    "mnist1d": {"rows": 50},
}


def of(name: str, **arguments: object) -> Source:
    """A source as a config names it."""
    values = {"name": name, "_target_": f"overfit_lab.data.synthetic.{name}", "scale_inputs": False}
    return source_of(CustomData.model_validate({**values, "scale_targets": False, **arguments}))


@pytest.mark.parametrize("name", list(DRAWN))
def test_the_same_seed_gives_the_same_rows_and_another_one_others(name: str) -> None:
    first, again, other = (of(name, **DRAWN[name], seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.name == name


@pytest.mark.parametrize("name", ["linear_gaussian", "teacher_student", "polynomial"])
def test_noise_is_all_that_noise_changes_and_its_variance_is_the_bayes_risk(name: str) -> None:
    arguments = {**DRAWN[name], "rows": 20_000, "seed": 3}
    clean, noisy = of(name, **{**arguments, "noise": 0.0}), of(name, **{**arguments, "noise": 0.7})
    np.testing.assert_array_equal(clean.x, noisy.x)
    noise = (noisy.y - clean.y)[:, 0]
    assert clean.bayes_risk == 0
    assert noisy.bayes_risk == pytest.approx(0.49)
    # Standard errors of 20 000 rows: of the mean .005, of the variance .005, of a correlation .007.
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.var() == pytest.approx(0.49, abs=0.02)
    assert np.corrcoef(noise, clean.y[:, 0])[0, 1] == pytest.approx(0, abs=0.03)


def test_blocks_of_linear_gaussian_have_their_scale_and_their_signal() -> None:
    source = linear_gaussian(rows=20_000, **BLOCKS, noise=0.0, seed=0)
    w = LinearRegression(fit_intercept=False).fit(source.x, source.y[:, 0]).coef_
    np.testing.assert_allclose(source.x @ w, source.y[:, 0], atol=1e-10)
    np.testing.assert_allclose(source.x.std(axis=0), [1.0] * 30 + [0.08] * 10, rtol=0.03)
    # The variance that a block adds is scale^2 |w|^2.
    assert np.sum(w[:30] ** 2) == pytest.approx(0.5, rel=1e-9)
    assert 0.08**2 * np.sum(w[30:] ** 2) == pytest.approx(1.0, rel=1e-9)
    assert source.y.var() == pytest.approx(1.5, rel=0.05)


def test_a_teacher_is_a_network_of_its_width() -> None:
    source = teacher_student(rows=4_000, features=2, width=1, noise=0.0, seed=1)
    y = source.y[:, 0]
    # One ReLU unit: nothing on one side of a line, linear on the other.
    active = y != 0
    assert 0.4 < active.mean() < 0.6
    fit = LinearRegression(fit_intercept=False).fit(source.x[active], y[active])
    np.testing.assert_allclose(fit.predict(source.x[active]), y[active], atol=1e-10)
    assert (np.sign(source.x @ fit.coef_) == np.where(active, np.sign(y[active][0]), -np.sign(y[active][0]))).all()


def test_variance_of_a_wide_teacher_is_of_order_one() -> None:
    variances = [teacher_student(rows=2_000, features=20, width=50, noise=0.0, seed=s).y.var() for s in range(10)]
    # relu(z) with z ~ N(0, 2) has variance 1 - 1/pi, and the units are nearly independent.
    assert np.mean(variances) == pytest.approx(1 - 1 / math.pi, rel=0.25)


def test_a_sine_and_its_polynomials() -> None:
    source = polynomial(rows=500, degree=3, noise=0.0, seed=0)
    assert source.features == 3
    np.testing.assert_allclose(source.y[:, 0], np.sin(2 * np.pi * source.x[:, 0]), atol=1e-12)
    assert 0 <= source.x.min() < 0.05
    assert 0.95 < source.x.max() <= 1
    assert source.fingerprint == polynomial(rows=500, degree=9, noise=0.0, seed=0).fingerprint


@pytest.mark.parametrize("degree", [1, 3, 8, 15])
def test_polynomials_are_orthogonal_on_the_train_rows_and_span_the_powers(degree: int) -> None:
    rng = np.random.default_rng(degree)
    train, other = rng.uniform(size=(20, 1)), rng.uniform(size=(50, 1))
    fitted = OrthogonalPolynomials(degree).fit(train)
    features = fitted.apply(train)
    assert features.shape == (20, degree)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(features.T @ features / 20, np.eye(degree), atol=1e-7)
    # Each is a polynomial of its degree: fitted to its own values at other inputs, it has the same on the train rows.
    for number, column in enumerate(fitted.apply(other).T, start=1):
        power = Polynomial.fit(other[:, 0], column, number)
        np.testing.assert_allclose(power(train[:, 0]), features[:, number - 1], atol=1e-4 * np.abs(column).max())


def test_a_row_is_prepared_as_if_it_were_alone() -> None:
    x = np.random.default_rng(0).uniform(size=(30, 1))
    fitted = OrthogonalPolynomials(5).fit(x[:20])
    np.testing.assert_allclose(fitted.apply(x)[7:8], fitted.apply(x[7:8]), rtol=1e-12)


@pytest.mark.parametrize(("train", "known"), [([0.1, 0.4, 0.9], 2), ([0.1, 0.1, 0.9], 1), ([0.5, 0.5, 0.5], 0)])
def test_degrees_that_the_rows_cannot_tell_apart_are_zero(train: list[float], known: int) -> None:
    rows = np.array(train)[:, None]
    fitted = OrthogonalPolynomials(4).fit(rows)
    features = fitted.apply(np.array([[0.1], [0.3], [0.7]]))
    assert np.isfinite(features).all()
    assert (features[:, known:] == 0).all()
    assert (features[:, :known] != 0).any(axis=0).all()


def test_random_labels_are_balanced_and_say_nothing() -> None:
    source = random_labels(rows=3_001, features=4, classes=3, seed=0)
    assert sorted(np.bincount(source.y).tolist()) == [1000, 1000, 1001]
    assert source.bayes_risk == pytest.approx(math.log(3))
    train, val = np.arange(0, 3_001, 2), np.arange(1, 3_001, 2)
    guess = KNeighborsClassifier(9).fit(source.x[train], source.y[train]).score(source.x[val], source.y[val])
    assert guess == pytest.approx(1 / 3, abs=0.05)


def test_two_random_labels_are_a_binary_problem() -> None:
    source = random_labels(rows=10, features=4, classes=2, seed=0)
    assert source.problem == "binary"
    assert source.y.sum() == 5


def test_all_sums_modulo_a_number() -> None:
    source = modular_addition(modulus=7)
    assert (source.rows, source.features, source.outputs) == (49, 14, 7)
    pairs = []
    for row, label in zip(source.x, source.y, strict=True):
        (a, b) = np.flatnonzero(row)
        assert (int(a) + int(b) - 7) % 7 == label
        pairs.append((a, b))
    assert len(set(pairs)) == 49


def test_mnist1d_has_the_published_form() -> None:
    source = mnist1d(rows=2_003, seed=0)
    assert (source.rows, source.features, source.outputs) == (2_003, 40, 10)
    assert sorted(np.bincount(source.y).tolist()) == [200] * 7 + [201] * 3
    assert source.x.mean() == pytest.approx(0, abs=1e-12)
    assert source.x.std() == pytest.approx(1, abs=1e-12)
    assert source.bayes_risk is None


def test_mnist1d_strokes_are_normalised() -> None:
    strokes = templates()
    assert strokes.shape == (10, 12)
    np.testing.assert_allclose(strokes[:, 0], 0, atol=1e-15)
    np.testing.assert_allclose(strokes.std(axis=1), 1 / 6, rtol=1e-12)
    # A nought rises at once and ends where it began; a one falls first.
    assert strokes[0, 1:11].min() > 0
    assert strokes[1, 1] < 0


def test_mnist1d_is_as_hard_as_published() -> None:
    # Greydanus & Kobak 2024, table 1: logistic regression has 32 % of the test rows right.
    source = mnist1d(rows=5_000, seed=0)
    linear = LogisticRegression(C=0.01, max_iter=1_000).fit(source.x[:4_000], source.y[:4_000])
    assert linear.score(source.x[4_000:], source.y[4_000:]) == pytest.approx(0.32, abs=0.03)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("linear_gaussian", {"rows": 0}, r"^data\.rows=0: must be greater than or equal to 1$"),
        ("linear_gaussian", {"rows": 2.5}, r"^data\.rows=2\.5: must be a valid integer$"),
        ("linear_gaussian", {"noise": -1.0}, r"^data\.noise=-1\.0: must be greater than or equal to 0$"),
        ("linear_gaussian", {"seed": "x"}, r"^data\.seed=x: must be a valid integer$"),
        (
            "linear_gaussian",
            {"scales": [1.0]},
            r"^data\.scales=\[1\.0\]: has 1 values; allowed is one for each of 2 block",
        ),
        ("linear_gaussian", {"features": [3, 0]}, r"^data\.features\.1=0: must be greater than or equal to 1$"),
        ("linear_gaussian", {"features": []}, r"^data\.features=\[\]: must have at least 1 item"),
        ("teacher_student", {"depth": 2}, r"^data\.depth=2: there is no such key$"),
        ("polynomial", {"degree": 0}, r"^data\.degree=0: must be greater than or equal to 1$"),
        ("random_labels", {"classes": 1}, r"^data\.classes=1: must be greater than or equal to 2$"),
        ("mnist1d", {"rows": 19}, r"^data\.rows=19: must be greater than or equal to 20$"),
    ],
)
def test_what_is_not_allowed_is_named(name: str, changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(name, **{**DRAWN[name], "seed": 0, **changed})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UserError, match=r"^data\.seed is missing; give it as data\.seed=\.\.\.$"):
        of("mnist1d", rows=20)
    with pytest.raises(UserError, match=r"^data\.modulus=1: must be greater than or equal to 2$"):
        of("modular_addition", modulus=1)
