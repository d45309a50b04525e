import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from overfit_lab.data.scaling import fit_scaling, no_scaling

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "train",
    [
        RNG.normal(size=(50, 3)),
        RNG.normal(loc=[0, 1e4, -3], scale=[1e-3, 2, 1e5], size=(50, 3)),
        RNG.integers(0, 9, size=(20, 4)),
        RNG.normal(size=(2, 2)),
        # Picofarads in farads: small numbers are no reason to take a column for constant.
        RNG.normal(loc=5e-13, scale=1e-13, size=(30, 1)),
        RNG.normal(scale=1e-20, size=(30, 1)),
    ],
    ids=["standard", "mixed units", "integers", "two rows", "small units", "tiny units"],
)
def test_agrees_with_scikit_learn(train: NDArray[np.float64]) -> None:
    other = RNG.normal(size=(10, train.shape[1]))
    reference = StandardScaler().fit(train)
    scaling = fit_scaling(train)
    np.testing.assert_allclose(scaling.apply(train), reference.transform(train), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaling.apply(other), reference.transform(other), rtol=1e-9, atol=1e-9)


def test_by_hand() -> None:
    # Train columns 0, 4 and 3, 3, 3...: mean 2 and population deviation 2; the second is only centred.
    scaling = fit_scaling(np.array([[0.0, 3.0], [4.0, 3.0]]))
    assert scaling.mean.tolist() == [2, 3]
    assert scaling.scale.tolist() == [2, 1]
    assert scaling.apply(np.array([[10.0, 5.0]])).tolist() == [[4, 2]]


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5, 0.1, 1e6 + 0.1, 1e-9, 123456789.123])
def test_constant_column_is_only_centred(value: float) -> None:
    # 0.1 and its like have a deviation of some 1e-17 instead of 0: the mean is rounded.
    scaling = fit_scaling(np.full((37, 1), value))
    assert scaling.scale.tolist() == [1]
    np.testing.assert_allclose(scaling.apply(np.array([[value], [value + 2]])), [[0], [2]], atol=1e-7)


def test_single_row_is_only_centred() -> None:
    scaling = fit_scaling(np.array([[5.0, -3.0]]))
    assert scaling.apply(np.array([[6.0, -3.0]])).tolist() == [[1, 0]]


def test_columns_are_scaled_on_their_own() -> None:
    train = RNG.normal(size=(20, 3))
    changed = train.copy()
    changed[:, 1] = 100 * RNG.normal(size=20)
    before, after = fit_scaling(train).apply(train), fit_scaling(changed).apply(changed)
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not np.allclose(before[:, 1], after[:, 1])


def test_no_scaling_leaves_values_as_they_are() -> None:
    values = RNG.normal(loc=1e6, size=(5, 3))
    np.testing.assert_array_equal(no_scaling(3).apply(values), values)
