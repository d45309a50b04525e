import copy
import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn import datasets

from overfit_lab.config import BundledData, CustomData, Problem
from overfit_lab.data import Source, load_source
from overfit_lab.data.source import source_of
from overfit_lab.errors import UserError

X = np.array([[0.5, 1.0], [-2.0, 3.0], [4.0, 0.0], [1.0, 1.0]])
TARGETS: dict[Problem, NDArray[Any]] = {
    "binary": np.array([0, 1, 1, 0]),
    "multiclass": np.array([0, 2, 1, 0]),
    "multilabel": np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]]),
    "regression": np.array([-1.5, 20.0, 3.0, 0.0]),
    "unit_regression": np.array([0.0, 1.0, 0.25, 0.5]),
}


# Rows, columns and ranges as the data sets' descriptions give them.
@pytest.mark.parametrize(
    ("name", "problem", "x_shape", "y_shape", "outputs", "x_range", "y_range"),
    [
        ("breast_cancer", "binary", (569, 30), (569, 1), 1, (0, 4254), (0, 1)),
        ("digits", "multiclass", (1797, 64), (1797,), 10, (0, 16), (0, 9)),
        ("wine", "multiclass", (178, 13), (178,), 3, (0.13, 1680), (0, 2)),
        ("iris", "multiclass", (150, 4), (150,), 3, (0.1, 7.9), (0, 2)),
        ("diabetes", "regression", (442, 10), (442, 1), 1, (1, 301), (25, 346)),
        ("linnerud", "regression", (20, 3), (20, 3), 3, (1, 251), (31, 247)),
        ("digits_traits", "multilabel", (1797, 64), (1797, 4), 4, (0, 16), (0, 1)),
        ("digits_ink", "unit_regression", (1797, 32), (1797, 1), 1, (0, 16), (56 / 512, 260 / 512)),
    ],
)
def test_bundled_source(
    name: str,
    problem: Problem,
    x_shape: tuple[int, int],
    y_shape: tuple[int, ...],
    outputs: int,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    source = load_source(name)
    assert (source.name, source.problem) == (name, problem)
    assert (source.x.shape, source.y.shape) == (x_shape, y_shape)
    assert (source.rows, source.features, source.outputs) == (*x_shape, outputs)
    assert (source.x.min(), source.x.max()) == x_range
    assert (source.y.min(), source.y.max()) == y_range
    assert source.x.dtype == np.float64
    assert source.y.dtype == (np.int64 if problem == "multiclass" else np.float64)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("breast_cancer", [212, 357]), ("wine", [59, 71, 48]), ("iris", [50, 50, 50])],
)
def test_bundled_classes_have_the_documented_sizes(name: str, classes: list[int]) -> None:
    assert np.unique(load_source(name).y, return_counts=True)[1].tolist() == classes


def test_first_linnerud_row() -> None:
    # Chin-ups, sit-ups and jumps of the first man, then his weight, waist and pulse.
    source = load_source("linnerud")
    assert source.x[0].tolist() == [5, 162, 60]
    assert source.y[0].tolist() == [191, 36, 50]


def test_diabetes_is_unscaled() -> None:
    # scikit-learn's default copy is scaled with the statistics of all rows, test rows included.
    raw = load_source("diabetes").x
    scaled, _ = datasets.load_diabetes(return_X_y=True)
    np.testing.assert_allclose((raw - raw.mean(0)) / raw.std(0) / np.sqrt(442), scaled, atol=1e-9)
    assert np.abs(raw.mean(0)).min() > 1


def test_digits_traits_of_the_ten_digits() -> None:
    # even, prime, five or more, closed loop
    by_hand = {
        0: [1, 0, 0, 1],
        1: [0, 0, 0, 0],
        2: [1, 1, 0, 0],
        3: [0, 1, 0, 0],
        4: [1, 0, 0, 0],
        5: [0, 1, 1, 0],
        6: [1, 0, 1, 1],
        7: [0, 1, 1, 0],
        8: [1, 0, 1, 1],
        9: [0, 0, 1, 1],
    }
    digits, traits = load_source("digits"), load_source("digits_traits")
    np.testing.assert_array_equal(traits.x, digits.x)
    assert traits.y.tolist() == [by_hand[digit] for digit in digits.y.tolist()]


def test_digits_ink_is_the_lower_half_seen_from_the_upper() -> None:
    images = datasets.load_digits().images
    source = load_source("digits_ink")
    for row in (0, 7, 1796):
        upper = [pixel for line in images[row][:4] for pixel in line]
        lower = [pixel for line in images[row][4:] for pixel in line]
        assert source.x[row].tolist() == upper
        assert source.y[row, 0] == pytest.approx(sum(lower) / (32 * 16), rel=1e-15)


def test_unknown_bundled_name() -> None:
    with pytest.raises(UserError, match=r"data\.name=iriss: allowed are breast_cancer, digits, .*digits_ink"):
        load_source("iriss")


def test_bundled_source_is_loaded_once() -> None:
    assert load_source("iris") is load_source("iris")


@pytest.mark.parametrize(
    ("problem", "shape", "outputs"),
    [
        ("binary", (4, 1), 1),
        ("multiclass", (4,), 3),
        ("multilabel", (4, 3), 3),
        ("regression", (4, 1), 1),
        ("unit_regression", (4, 1), 1),
    ],
)
def test_targets_of_each_problem_type(problem: Problem, shape: tuple[int, ...], outputs: int) -> None:
    source = Source("mine", problem, X, TARGETS[problem])
    assert source.y.shape == shape
    assert source.y.reshape(-1).tolist() == TARGETS[problem].reshape(-1).tolist()
    assert source.outputs == outputs


def test_labels_from_1_become_classes_from_0_and_it_is_said() -> None:
    source = Source("mine", "multiclass", X, np.array([3, 1, 2, 1]))
    assert (source.y.tolist(), source.outputs) == ([2, 0, 1, 0], 3)
    assert source.said == ("labels 1 to 3 are classes 0 to 2",)
    assert source.fingerprint == Source("mine", "multiclass", X, np.array([2, 0, 1, 0])).fingerprint
    # One that nobody has is a class all the same.
    gap = Source("mine", "multiclass", X, np.array([0, 2, 2, 0]))
    assert (gap.y.tolist(), gap.outputs, gap.said) == ([0, 2, 2, 0], 3, ())


@pytest.mark.parametrize("problem", ["regression", "unit_regression"])
def test_real_targets_may_have_several_columns(problem: Problem) -> None:
    y = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    source = Source("mine", problem, X, y)
    assert source.outputs == 2
    np.testing.assert_array_equal(source.y, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.tolist(), [0, 1, 1, 0]),
        (X.astype(np.float32), np.array([0, 1, 1, 0], dtype=np.uint8)),
        (np.asfortranarray(X), np.array([False, True, True, False])),
        (np.repeat(X, 2, axis=0)[::2], np.array([0.0, 1.0, 1.0, 0.0])),
    ],
    ids=["lists", "float32", "column-major", "strided"],
)
def test_layout_and_type_of_the_arrays_do_not_matter(x: Any, y: Any) -> None:  # noqa: ANN401
    source = Source("mine", "binary", x, y)
    np.testing.assert_array_equal(source.x, X)
    assert source.fingerprint == Source("mine", "binary", X, TARGETS["binary"]).fingerprint


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("problem", list(TARGETS))
def test_arrays_are_read_only(problem: Problem, name: str) -> None:
    array = getattr(Source("mine", problem, X.copy(), TARGETS[problem].copy()), name)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_bundled_arrays_are_read_only() -> None:
    source = load_source("wine")
    with pytest.raises(ValueError, match="read-only"):
        source.x[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        source.y[0] = 1


@pytest.mark.parametrize(("problem", "ndim"), [("regression", 1), ("regression", 2), ("multiclass", 1)])
def test_source_does_not_share_memory_with_the_callers_arrays(problem: Problem, ndim: int) -> None:
    x, y = X.copy(), np.array([0, 2, 1, 0], dtype=np.int64 if problem == "multiclass" else np.float64)
    y = y.reshape(-1, 1) if ndim == 2 else y
    source = Source("mine", problem, x, y)
    fingerprint = source.fingerprint
    # The caller's arrays are the caller's: they stay writable, and writing to them reaches no sealed row.
    x[0, 0], y[0] = 7, 1
    assert source.x[0, 0] == 0.5
    assert source.y.reshape(-1)[0] == 0
    assert source.fingerprint == fingerprint


def _changed(array: NDArray[Any], value: float, *at: int) -> NDArray[Any]:
    copy = array.astype(np.float64)
    copy[at] = value
    return copy


def test_fingerprint_stays_the_same_over_versions() -> None:
    # sha256 of "binary", "(2, 1)float64", 0.5 and -2.0, "(2, 1)float64", 0.0 and 1.0; doubles in little-endian order.
    source = Source("mine", "binary", np.array([[0.5], [-2.0]]), np.array([0, 1]))
    assert source.fingerprint == "94300b451e784cfff24755280df72dac06b1ec850d1c92213a26a89b042bf5a3"


def test_fingerprint_does_not_depend_on_the_name() -> None:
    y = TARGETS["unit_regression"]
    assert Source("a", "regression", X, y).fingerprint == Source("b", "regression", X, y).fingerprint


@pytest.mark.parametrize(
    ("problem", "x", "y"),
    [
        ("unit_regression", _changed(X, 1 + 1e-15, 3, 1), TARGETS["unit_regression"]),
        ("unit_regression", _changed(X, 0, 0, 0), TARGETS["unit_regression"]),
        ("unit_regression", X, _changed(TARGETS["unit_regression"], 0.75, 3)),
        ("unit_regression", X[[1, 0, 2, 3]], TARGETS["unit_regression"][[1, 0, 2, 3]]),
        ("unit_regression", X[:3], TARGETS["unit_regression"][:3]),
        ("regression", X, TARGETS["unit_regression"]),
    ],
    ids=["last x", "first x", "last y", "order of rows", "fewer rows", "problem type"],
)
def test_fingerprint_changes_with_the_content(problem: Problem, x: NDArray[Any], y: NDArray[Any]) -> None:
    original = Source("mine", "unit_regression", X, TARGETS["unit_regression"])
    assert Source("mine", problem, x, y).fingerprint != original.fingerprint


def test_fingerprint_tells_the_shape_of_equal_numbers() -> None:
    wide = Source("mine", "regression", np.arange(8.0).reshape(2, 4), np.array([[1.0], [2.0]]))
    tall = Source("mine", "regression", np.arange(8.0).reshape(4, 2), np.array([[1.0], [2.0], [3.0], [4.0]]))
    same_numbers = Source("mine", "regression", np.arange(8.0).reshape(2, 4), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert len({wide.fingerprint, tall.fingerprint, same_numbers.fingerprint}) == 3


@pytest.mark.parametrize(
    ("problem", "x", "y", "message"),
    [
        ("ranking", X, [0, 1, 1, 0], r"'ranking' is unknown; allowed are binary, multiclass, multilabel, regression"),
        ("binary", _changed(X, np.nan, 2, 0), [0, 1, 1, 0], r"x holds NaN or infinite values in 1 of 4 rows"),
        ("binary", _changed(_changed(X, np.inf, 2), np.nan, 0, 1), [0, 1, 1, 0], r"infinite values in 2 of 4 rows"),
        ("regression", X, [0.0, np.nan, -np.inf, 1.0], r"y holds NaN or infinite values in 2 of 4 rows"),
        ("binary", X, [0, 1, 1], r"x has 4 rows and y has 3"),
        ("binary", X[:, 0], [0, 1, 1, 0], r"x has shape \(4,\); allowed is rows x features"),
        ("binary", X.reshape(2, 2, 2), [0, 1], r"x has shape \(2, 2, 2\); allowed is rows x features"),
        ("binary", np.zeros((0, 2)), np.zeros(0), r"x has shape \(0, 2\); at least one row"),
        ("binary", np.zeros((4, 0)), [0, 1, 1, 0], r"x has shape \(4, 0\); at least one row and one column"),
        ("regression", X, np.zeros((4, 0)), r"y has shape \(4, 0\); at least one row and one column"),
        ("binary", X, [1, 1, 1, 1], r"y holds one class only \(1\); binary needs two"),
        ("multiclass", X, [2, 2, 2, 2], r"y holds one class only \(2\); multiclass needs two"),
        ("binary", X, [0, 1, 2, 1], r"y holds values other than 0 and 1 \(from 0 to 2\), which binary"),
        ("binary", X, [-1, 1, 1, -1], r"y holds values other than 0 and 1 \(from -1 to 1\), which binary"),
        ("binary", X, [0, 0.5, 1, 1], r"y holds values other than 0 and 1"),
        ("binary", X, [[0], [1], [1], [0]], r"y has shape \(4, 1\); a binary target has 1 dimension"),
        ("multilabel", X, [0, 1, 1, 0], r"y has shape \(4,\); a multilabel target has 2 dimension"),
        ("multilabel", X, [[0, 1], [1, 2], [0, 0], [1, 1]], r"y holds values other than 0 and 1.*multilabel"),
        ("multiclass", X, [-1, 0, 1, 2], r"y holds values other than 0, 1, 2, \.\.\."),
        ("multiclass", X, [0, 1.5, 1, 2], r"y holds values other than 0, 1, 2, \.\.\."),
        ("multiclass", X, [[1, 0], [0, 1], [1, 0], [1, 0]], r"y has shape \(4, 2\); a multiclass target has 1 dim"),
        ("regression", X, np.zeros((4, 1, 1)), r"y has shape \(4, 1, 1\); a regression target has 1 or 2 dim"),
        ("unit_regression", X, [0, 0.5, 1.001, 1], r"y reaches from 0 to 1\.001; .* must lie in \[0, 1\]"),
        ("unit_regression", X, [0, 0.5, -0.25, 1], r"y reaches from -0\.25 to 1; .* must lie in \[0, 1\]"),
        ("binary", X.astype(str), [0, 1, 1, 0], r"x holds <U\d+ values; allowed are numbers"),
        ("binary", X.astype(object), [0, 1, 1, 0], r"x holds object values; allowed are numbers"),
        ("multiclass", X, ["cat", "dog", "cat", "dog"], r"y holds <U3 values; allowed are numbers"),
        ("regression", X, [1.0, None, 2.0, 3.0], r"y holds object values; allowed are numbers"),
        ("regression", X * 1j, [1.0, 2.0, 3.0, 4.0], r"x holds complex128 values; allowed are numbers"),
        ("regression", X, 3.0, r"y has shape \(\)"),
        ("regression", X, float("nan"), r"y (holds NaN|has shape \(\))"),
        ("binary", [[1, 2], [3]], [0, 1], r"x .*(inhomogeneous|rows x features|numbers)"),
    ],
)
def test_faulty_arrays_are_named(problem: Any, x: Any, y: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=f"^data=mine: .*{message}"):
        Source("mine", problem, x, np.asarray(y))


def with_groups(groups: Any) -> Source:  # noqa: ANN401
    return Source("mine", "binary", X, TARGETS["binary"], groups)


GROUPS: list[Any] = [
    ["b", "a", "b", "c"],
    np.array(["b", "a", "b", "c"], dtype="<U20"),
    np.array(["b", "a", "b", "c"], dtype=object),
    pl.Series(["b", "a", "b", "c"]),
    [9, 5, 9, -1],
    np.array([9, 5, 9, 1], dtype=np.uint8),
    pl.Series([9, 5, 9, 1]),
]


@pytest.mark.parametrize("column", GROUPS)
def test_groups_are_strings_or_integers(column: Any) -> None:  # noqa: ANN401
    source = with_groups({"patient": column})
    assert source.groups["patient"].tolist() == list(column)
    assert source.number_groups("patient").tolist() == [0, 1, 0, 2]
    # What groups are called makes no difference to a split, and none to the fingerprint.
    assert source.fingerprint == with_groups({"patient": ["q", "r", "q", "s"]}).fingerprint


def test_groups_enter_the_fingerprint() -> None:
    none = Source("mine", "binary", X, TARGETS["binary"])
    assert none.fingerprint == with_groups({}).fingerprint
    one, other = ["a", "a", "b", "b"], ["a", "b", "b", "b"]
    different: list[Any] = [{}, {"a": one}, {"b": one}, {"a": other}, {"a": one, "b": other}, {"a": other, "b": one}]
    assert len({with_groups(groups).fingerprint for groups in different}) == 6
    assert with_groups({"a": one, "b": other}).fingerprint == with_groups({"b": other, "a": one}).fingerprint


def test_groups_cannot_be_changed() -> None:
    column = np.array([1, 1, 2, 2])
    given = {"patient": column}
    source = with_groups(given)
    column[0] = 7
    given["ward"] = column
    assert source.groups.keys() == {"patient"}
    assert source.groups["patient"].tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="read-only"):
        source.groups["patient"][0] = 7
    with pytest.raises(TypeError, match="does not support item assignment"):
        source.groups["ward"] = column  # type: ignore[index]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda source: pickle.loads(pickle.dumps(source))])
def test_a_copy_is_as_whole_and_as_read_only(copied: Any) -> None:  # noqa: ANN401
    source = with_groups({"patient": [1, 1, 2, 2]})
    other = copied(source)
    assert other.fingerprint == source.fingerprint
    for array in (other.x, other.y, other.groups["patient"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        other.groups["ward"] = other.y


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [1, 2, 3]}, r"groups\['a'\] has shape \(3,\); allowed is one value for each of 4 rows$"),
        ({"a": [[1], [1], [2], [2]]}, r"groups\['a'\] has shape \(4, 1\); allowed is one value"),
        ({"a": "abcd"}, r"groups\['a'\] has shape \(\)"),
        ({"b": [1, 2, 3, 4], "a": [1, 2, float("nan"), 4]}, r"groups\['a'\] holds NaN or None in 1 of 4 rows$"),
        ({"a": ["x", float("nan"), None, "y"]}, r"groups\['a'\] holds NaN or None in 2 of 4 rows$"),
        ({"a": pl.Series(["x", None, "x", "y"])}, r"groups\['a'\] holds NaN or None in 1 of 4 rows$"),
        ({"a": np.arange(4.0)}, r"groups\['a'\] holds float values; allowed are strings alone or integers alone$"),
        ({"a": [1, "1", 2, "2"]}, r"groups\['a'\] holds int and str values; allowed are strings alone"),
        ({"a": [True, False, True, True]}, r"groups\['a'\] holds bool values"),
        ({"a": [[1], [2, 3], [4], [5]]}, r"groups\['a'\] holds list values"),
        ({"a": [np.zeros((2, 2)), np.zeros((2, 3)), 1, 2]}, r"groups\['a'\] "),
        ({"a": [0, 1, 2, 2**63]}, r"groups\['a'\] holds integers of more than 64 bits; allowed are smaller ones"),
        ({3: [1, 2, 3, 4]}, r"groups has the key 3; allowed is a name$"),
        ({"": [1, 2, 3, 4]}, r"groups has the key ''; allowed is a name$"),
        ([1, 2, 3, 4], r"groups is a list; allowed is a mapping from names to columns$"),
    ],
)
def test_faulty_groups_are_named(groups: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=f"^data=mine: {message}"):
        with_groups(groups)


def ramp(rows: int = 6, slope: float = 1.0) -> Source:
    x = np.arange(float(rows))[:, None]
    return Source("ramp", "regression", x, slope * x)


def not_a_source() -> list[int]:
    return [1, 2]


def faulty() -> Source:
    return Source("faulty", "binary", X, np.array([3, 3, 3, 3]))


NOT_CALLABLE = 3


def _custom(function: str, **arguments: object) -> CustomData:
    path = function if "." in function else f"{__name__}.{function}"
    values = {"name": "mine", "_target_": path, "scale_inputs": True, "scale_targets": False, **arguments}
    return CustomData.model_validate(values)


def test_source_of_a_bundled_name() -> None:
    config = BundledData(name="iris", scale_inputs=True, scale_targets=False)
    assert source_of(config).fingerprint == load_source("iris").fingerprint


@pytest.mark.parametrize(
    ("arguments", "expected"), [({}, [0, 1, 2, 3, 4, 5]), ({"rows": 3, "slope": -2.0}, [0, -2, -4])]
)
def test_custom_source_gets_the_further_keys(arguments: dict[str, object], expected: list[float]) -> None:
    source = source_of(_custom("ramp", **arguments))
    assert source.name == "ramp"
    assert source.y[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_custom("ramp", colour="red"), r"test_source\.ramp with colour=red: TypeError: .*colour"),
        (_custom("not_a_source"), r"test_source\.not_a_source returned list; allowed is a Source"),
        (_custom("NOT_CALLABLE"), r"test_source\.NOT_CALLABLE .*not callable"),
        (_custom("faulty"), r"^data=faulty: y holds values other than 0 and 1"),
        (_custom("no_such_module_anywhere.load"), r"^data\._target_=no_such_module_anywhere\.load: "),
        (_custom("numpy.no_such_name"), r"^data\._target_=numpy\.no_such_name: "),
    ],
    ids=["wrong argument", "wrong return type", "not callable", "faulty arrays", "no such module", "no such name"],
)
def test_custom_source_at_fault(config: CustomData, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source_of(config)


def test_the_shape_of_a_row_and_the_number_of_tokens() -> None:
    x = np.arange(24).reshape(2, 12)
    plain = Source("s", "binary", x, np.array([0, 1]))
    assert plain.sizes == (12, 1, None, None)
    image = Source("s", "binary", x, np.array([0, 1]), shape=[np.int64(3), 2, 2])  # type: ignore[arg-type]
    assert image.shape == (3, 2, 2)
    assert image.sizes == (12, 1, (3, 2, 2), None)
    # The rows are the same, however they are looked at; as numbers of tokens they are something else.
    assert image.fingerprint == plain.fingerprint
    text = Source("s", "binary", x, np.array([0, 1]), tokens=24)
    assert text.sizes == (12, 1, None, 24)
    assert text.fingerprint != plain.fingerprint
    for source in (image, text):
        again = pickle.loads(pickle.dumps(source))
        assert (again.sizes, again.fingerprint) == (source.sizes, source.fingerprint)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"shape": (1, 3)}, r"^data=s: shape \(1, 3\) is that of 3 features; a row of x has 2$"),
        ({"shape": ()}, r"^data=s: shape is \(\); allowed are whole numbers above 0, such as"),
        ({"shape": 2}, r"^data=s: shape is 2; allowed are whole numbers"),
        ({"shape": (-1, -2)}, r"^data=s: shape is \(-1, -2\); allowed are"),
        ({"shape": (1.0, 2)}, r"^data=s: shape is \(1\.0, 2\); allowed are"),
        ({"tokens": 0}, r"^data=s: tokens is 0; allowed is a whole number above 0$"),
        ({"tokens": True}, r"^data=s: tokens is True; allowed is"),
        ({"tokens": 5}, r"^data=s: x holds values from -2 to 4; allowed are token numbers 0, 1, \.\.\., 4$"),
    ],
)
def test_layout_at_fault(layout: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Source("s", "binary", X, TARGETS["binary"], **layout)


def test_token_numbers_are_whole_and_below_their_number() -> None:
    for x in ([[0.0], [1.5]], [[0.0], [2.0]]):
        with pytest.raises(UserError, match=r"allowed are token numbers 0, 1, \.\.\., 1$"):
            Source("s", "binary", np.array(x), np.array([0, 1]), tokens=2)


def test_bundled_images_have_a_shape() -> None:
    shapes = {name: load_source(name).shape for name in ("digits", "digits_traits", "digits_ink", "wine")}
    assert shapes == {"digits": (1, 8, 8), "digits_traits": (1, 8, 8), "digits_ink": (1, 4, 8), "wine": None}
