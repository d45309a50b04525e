"""A source: a named data set with its problem type."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from overfit_lab.config import BundledData, CustomData, Problem, import_object
from overfit_lab.data.bundled import BUNDLED, SHAPES
from overfit_lab.data.inputs import (
    Inputs,
    arrays_of,
    as_inputs,
    copy_inputs,
    find_raw_fault,
    is_sparse,
    update_hash,
    values_of,
)
from overfit_lab.data.preparation import Preparation
from overfit_lab.errors import UserError


class Sizes(NamedTuple):
    """What a network is built for.

    Args:
        inputs: Number of features.
        outputs: Number of logits.
        shape: The shape of one row where it has one, such as (channels, height, width).
        tokens: Where inputs are token numbers: they lie below this.
    """

    inputs: int
    outputs: int
    shape: tuple[int, ...] | None = None
    tokens: int | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A named data set with its problem type, checked when it is made.

    Args:
        name: What it is called in tables and records.
        problem: One of the five problem types.
        x: Inputs, `rows x features`, finite; of SciPy's sparse kinds, or dense. With a preparation raw ones, `rows` or
            `rows x columns`, of numbers, strings and None, or sparse numbers.
        y: Targets by problem type. binary: `rows`, 0 or 1. multiclass: `rows`, class indices from 0; those from 1
            are mapped. multilabel: `rows x labels`, 0 or 1. regression: `rows` or `rows x targets`, finite.
            unit_regression: the same, in [0, 1].
        groups: Columns by name, each of `rows` strings or integers, that are no inputs but say which rows belong
            together: those of one patient, of one writer. `split.group` names the one that a split keeps whole.
        shape: The shape of one row, if it is more than a list of features: (channels, height, width) of an image.
            Its product is the number of features; networks that need it unflatten their inputs.
        tokens: Where inputs are the numbers of tokens: how many tokens there are. Networks with an embedding need it.
        bayes_risk: Where it is known, the lowest risk that there can be, under the default loss of the problem type
            and in the units of y: of regression the variance of the noise.
        preparation: What makes numbers of raw inputs, fitted on the train rows of each fold.
        official_test: Numbers of the rows that whoever published the data has set aside to test on; None where nobody
            has. They are the test rows of every split.
        official_val: The same for rows to validate on: those of a hold-out without `split.val_fraction`. Where these
            are test rows, too, nothing is left to test on.
        said: What was inferred from a file or done to it, in sentences; it is shown and recorded, and nothing else.

    Raises:
        UserError: The arrays do not fit together or not the problem type.
    """

    name: str
    problem: Problem
    x: Inputs
    y: NDArray[Any]
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    tokens: int | None = None
    bayes_risk: float | None = None
    preparation: Preparation | None = None
    official_test: NDArray[np.int64] | None = None
    official_val: NDArray[np.int64] | None = None
    said: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        raw = self.preparation is not None
        try:
            given = as_inputs(self.x)
            problem = _find_fault(self.problem, given, np.asarray(self.y), raw=raw)
        except ValueError as error:
            problem = f"x or y is no array: {error}"
        if problem is None:
            problem = _find_group_fault(self.groups, given.shape[0])
        if problem is None:
            problem = _find_layout_fault(given, self.preparation, self.shape, self.tokens)
        for name, rows in (("official_test", self.official_test), ("official_val", self.official_val)):
            problem = problem or _find_rows_fault(name, rows, given.shape[0])
        problem = problem or _find_official_fault(_rows(self.official_test), _rows(self.official_val), given.shape[0])
        if problem is not None:
            raise UserError(f"data={self.name}: {problem}")
        # Copies: the caller's arrays stay writable, and what he writes there does not reach a checked source.
        x = copy_inputs(given, raw=raw)
        dtype = np.int64 if self.problem == "multiclass" else np.float64
        y = np.array(self.y, dtype=dtype, order="C")
        said = tuple(self.said)
        if self.problem == "multiclass" and np.array_equal(np.unique(y), np.arange(1, y.max() + 1)):
            said = (*said, f"labels 1 to {y.max()} are classes 0 to {y.max() - 1}")
            y -= 1
        if self.problem != "multiclass" and y.ndim == 1:
            y = y[:, None]
        groups = {name: np.array(_objects(column).tolist()) for name, column in self.groups.items()}
        shape = None if self.shape is None else tuple(map(int, self.shape))
        official = {
            name: None if rows is None else np.unique(rows).astype(np.int64)
            for name, rows in (("official_test", self.official_test), ("official_val", self.official_val))
        }
        self.__setstate__({"x": x, "y": y, "groups": groups, "shape": shape, "said": said, **official})

    def __getstate__(self) -> dict[str, Any]:
        # A read-only mapping cannot be pickled.
        return {**vars(self), "groups": dict(self.groups)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Shared by every run of a sweep, so nobody may write to them. Pickled arrays come back writable.
        official = [state[name] for name in ("official_test", "official_val") if state.get(name) is not None]
        for array in (*arrays_of(state["x"]), state["y"], *state["groups"].values(), *official):
            array.flags.writeable = False
        vars(self).update(state, groups=MappingProxyType(state["groups"]))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.x.shape[0])

    @property
    def sparse(self) -> bool:
        """Whether inputs are mostly 0 and stay in compressed rows, prepared or not."""
        return is_sparse(self.x)

    @property
    def values_per_row(self) -> int:
        """How many numbers are kept of a row, on average: of a sparse one each value that is not 0, and its column."""
        return self.features if not self.sparse else 2 * math.ceil(self.x.nnz / self.rows)

    @property
    def validates_on_test(self) -> bool:
        """Whether official test rows are validated on: then they are no test any more."""
        return bool(np.isin(_rows(self.official_val), _rows(self.official_test)).any())

    @property
    def features(self) -> int:
        """The number of inputs of a network for this source."""
        return int(self.x.shape[1]) if self.preparation is None else self.preparation.features

    @property
    def outputs(self) -> int:
        """The number of outputs of a network for this source."""
        return int(self.y.max()) + 1 if self.problem == "multiclass" else int(self.y.shape[1])

    @property
    def sizes(self) -> Sizes:
        """What a network for this source is built for."""
        return Sizes(self.features, self.outputs, self.shape, self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the rows and of what they mean: not of the name, a row's shape, or how it is prepared."""
        digest = hashlib.sha256(self.problem.encode())
        for array in (self.x, self.y):
            update_hash(digest, array)
        for name in sorted(self.groups):
            numbers = self.number_groups(name)
            digest.update(f"{name!r}{numbers.shape}{numbers.dtype}".encode())
            digest.update(numbers.tobytes())
        if self.tokens is not None:
            digest.update(f"tokens{self.tokens}".encode())
        for name, rows in (("test", self.official_test), ("val", self.official_val)):
            if rows is not None:
                digest.update(f"official {name}{rows.shape}".encode())
                digest.update(rows.tobytes())
        return digest.hexdigest()

    def number_groups(self, name: str) -> NDArray[np.int64]:
        """Number the groups of a column in the order in which they appear: what they are called makes no difference.

        Returns:
            `rows`, the number of each row's group, from 0.
        """
        _, first, inverse = np.unique(self.groups[name], return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first)).astype(np.int64)[inverse]


def _rows(rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64) if rows is None else np.asarray(rows)


def _find_official_fault(test: NDArray[np.int64], val: NDArray[np.int64], count: int) -> str | None:
    """Say in words why official rows to test and to validate on do not go together, or None."""
    both = len(np.intersect1d(test, val))
    if both and not both == len(test) == len(val):
        return f"official_test and official_val share {both} rows; allowed is none, or that they are the same"
    if len(test) + len(val) - both >= count:
        return f"official_test and official_val are all of {count} rows; at least one must be left to train on"
    return None


def _find_rows_fault(name: str, rows: object, count: int) -> str | None:
    """Say in words what is wrong with the numbers of official rows, or None."""
    if rows is None:
        return None
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or numbers.dtype.kind not in "ui" or not 0 < len(numbers) < count:
        return f"{name} has shape {numbers.shape} and type {numbers.dtype}; allowed are numbers of some of {count} rows"
    if numbers.min() < 0 or numbers.max() >= count or len(np.unique(numbers)) < len(numbers):
        return (
            f"{name} goes from {numbers.min()} to {numbers.max()}; allowed are the numbers of {count} rows, each once"
        )
    return None


def _find_fault(problem: str, x: Inputs, y: NDArray[Any], *, raw: bool) -> str | None:
    """Say in words what is wrong with the arrays of a source, or None."""
    if problem not in get_args(Problem):
        return f"problem type {problem!r} is unknown; allowed are {', '.join(get_args(Problem))}"
    faults = find_raw_fault(x) if raw else _find_number_fault("x", x), _find_number_fault("y", y)
    if any(faults):
        return faults[0] or faults[1]
    if x.ndim != 2 and not raw:
        return f"x has shape {x.shape}; allowed is rows x features"
    if x.shape[0] != len(y):
        return f"x has {x.shape[0]} rows and y has {len(y)}; they must be as many"
    return _find_target_fault(problem, y)


def _find_number_fault(name: str, array: Inputs) -> str | None:
    if array.ndim == 0:
        return f"{name} has shape (); allowed is an array with a row for each example"
    if array.dtype.kind not in "buif":
        return f"{name} holds {array.dtype} values; allowed are numbers"
    if 0 in array.shape:
        return f"{name} has shape {array.shape}; at least one row and one column are needed"
    if not np.isfinite(values_of(array)).all():
        return f"{name} holds NaN or infinite values in {_bad_rows(array)} of {array.shape[0]} rows"
    return None


def _find_target_fault(problem: str, y: NDArray[Any]) -> str | None:
    allowed_ndim = {"binary": (1,), "multiclass": (1,), "multilabel": (2,)}.get(problem, (1, 2))
    if y.ndim not in allowed_ndim:
        return f"y has shape {y.shape}; a {problem} target has {' or '.join(map(str, allowed_ndim))} dimension(s)"
    if problem in ("binary", "multilabel") and not np.isin(y, (0, 1)).all():
        return f"y holds values other than 0 and 1 (from {y.min():g} to {y.max():g}), which {problem} does not allow"
    if problem == "multiclass" and ((y < 0).any() or (y != np.floor(y)).any()):
        return "y holds values other than 0, 1, 2, ..., which multiclass needs as class indices"
    if problem in ("binary", "multiclass") and len(np.unique(y)) < 2:
        return f"y holds one class only ({y.flat[0]:g}); {problem} needs two or more"
    if problem == "unit_regression" and ((y < 0) | (y > 1)).any():
        return f"y reaches from {y.min():g} to {y.max():g}; a unit_regression target must lie in [0, 1]"
    return None


def _find_group_fault(groups: object, rows: int) -> str | None:
    """Say in words what is wrong with the groups of a source, or None."""
    if not isinstance(groups, Mapping):
        return f"groups is a {type(groups).__name__}; allowed is a mapping from names to columns"
    for name, column in groups.items():
        if not isinstance(name, str) or not name:
            return f"groups has the key {name!r}; allowed is a name"
        try:
            values = _objects(column)
        except ValueError as error:
            return f"groups[{name!r}] is no array: {error}"
        if values.shape != (rows,):
            return f"groups[{name!r}] has shape {values.shape}; allowed is one value for each of {rows} rows"
        missing = sum(value is None or (isinstance(value, float) and value != value) for value in values)
        if missing:
            return f"groups[{name!r}] holds NaN or None in {missing} of {rows} rows"
        kinds = {_kind(value) for value in values}
        if kinds not in ({"str"}, {"int"}):
            held = " and ".join(sorted(kinds))
            return f"groups[{name!r}] holds {held} values; allowed are strings alone or integers alone"
        if kinds == {"int"} and not all(-(2**63) <= value < 2**63 for value in values):
            return f"groups[{name!r}] holds integers of more than 64 bits; allowed are smaller ones, or strings"
    return None


def _find_layout_fault(x: Inputs, preparation: Preparation | None, shape: object, tokens: object) -> str | None:
    """Say in words what is wrong with the shape of a row or the number of tokens, or None."""
    features = x.shape[1] if preparation is None else preparation.features
    if shape is not None:
        sides = tuple(shape) if isinstance(shape, list | tuple) else ()
        if not sides or not all(_kind(side) == "int" and side > 0 for side in sides):
            return f"shape is {shape!r}; allowed are whole numbers above 0, such as (channels, height, width)"
        if math.prod(sides) != features:
            return f"shape {sides} is that of {math.prod(sides)} features; a row of x has {features}"
    if tokens is not None:
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            return f"tokens is {tokens!r}; allowed is a whole number above 0"
        if is_sparse(x):
            return f"tokens is {tokens}, but x is sparse; allowed are token numbers in an array"
        if preparation is None and ((x < 0).any() or (x >= tokens).any() or (x != np.floor(x)).any()):
            return f"x holds values from {x.min():g} to {x.max():g}; allowed are token numbers 0, 1, ..., {tokens - 1}"
    return None


def _objects(column: object) -> NDArray[np.object_]:
    # As objects: NumPy would make the string "nan" of a NaN among strings, and a string of a number.
    return np.asarray(column, dtype=object)


def _kind(value: object) -> str:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return "int"
    return "str" if isinstance(value, str) else type(value).__name__


def _bad_rows(array: Inputs) -> int:
    if is_sparse(array):
        return len(np.unique(array.tocoo().row[~np.isfinite(array.tocoo().data)]))
    return int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())


@lru_cache
def load_source(name: str) -> Source:
    """Load a bundled data set by its name; the same object for every run of a process.

    Raises:
        UserError: There is no bundled data set of this name.
    """
    if name not in BUNDLED:
        raise UserError(f"data.name={name}: allowed are {', '.join(BUNDLED)}, or data=custom with your own function")
    problem, load = BUNDLED[name]
    return Source(name, problem, *load(), shape=SHAPES.get(name))


def source_of(config: BundledData | CustomData) -> Source:
    """Load the source that a config names.

    Raises:
        UserError: It cannot be imported or called, returns something else than a Source, or its arrays are at fault.
    """
    if isinstance(config, BundledData):
        return load_source(config.name)
    assert config.target is not None  # else the schema had read it as bundled
    function = import_object("data._target_", config.target)
    try:
        source = function(**config.arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{k}={v}" for k, v in config.arguments.items()) or "no arguments"
        raise UserError(f"data._target_={config.target} with {given}: {type(error).__name__}: {error}") from error
    if not isinstance(source, Source):
        raise UserError(f"data._target_={config.target} returned {type(source).__name__}; allowed is a Source")
    return source
