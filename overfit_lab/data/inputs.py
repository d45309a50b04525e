"""What the inputs of a source may be, and what is asked of each kind: a check, a copy, a hash, a hash of each row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    from typing_extensions import Buffer  # of collections.abc from Python 3.12 on

# Numbers, `rows x features`, dense or in compressed rows (`scipy.sparse.csr_array`, of which the type checker knows
# nothing); or for a source with a preparation raw values, `rows` or `rows x columns`, of numbers, strings and None.
Inputs: TypeAlias = Any

_CHUNK_BYTES = 2**23
_CELLS = (str, bool, int, float, type(None))


def is_sparse(x: Inputs) -> bool:
    """Say whether inputs are of one of SciPy's sparse kinds."""
    return bool(sparse.issparse(x))


def as_inputs(x: object) -> Inputs:
    """Take what a user gives as an array: a sparse one in compressed rows, or a dense one."""
    return sparse.csr_array(x) if is_sparse(x) else np.asarray(x)


def values_of(x: Inputs) -> NDArray[Any]:
    """Return the values; of a sparse array those that are stored."""
    values: NDArray[Any] = x.data if is_sparse(x) else x
    return values


def arrays_of(x: Inputs) -> tuple[NDArray[Any], ...]:
    """Return the NumPy arrays that hold the inputs."""
    return (x.data, x.indices, x.indptr) if is_sparse(x) else (x,)


def find_raw_fault(x: Inputs) -> str | None:
    """Say in words why inputs cannot be prepared, or None."""
    if x.ndim not in (1, 2):
        return f"x has shape {x.shape}; raw inputs are rows or rows x columns"
    if 0 in x.shape:
        return f"x has shape {x.shape}; at least one row and one column are needed"
    if x.dtype.kind in ("buif" if is_sparse(x) else "buifU"):
        return None
    if x.dtype.kind != "O" or is_sparse(x):
        return f"x holds {x.dtype} values; allowed are numbers, strings and None"
    for value in x.flat:
        if not isinstance(value, _CELLS):
            return f"x holds a {type(value).__name__}; allowed are numbers, strings and None"
    return None


def copy_inputs(x: Inputs, *, raw: bool) -> Inputs:
    """Copy inputs: numbers in double precision, a cell of an array of objects as a plain value of Python.

    Of a sparse array only values other than 0 are stored, in the order of the columns.
    """
    if is_sparse(x):
        copy = sparse.csr_array(x, dtype=np.float64, copy=True)
        copy.sum_duplicates()
        copy.eliminate_zeros()
        return copy
    if not raw:
        return np.array(x, dtype=np.float64, order="C")
    if x.dtype.kind != "O":
        return np.array(x, order="C")
    cells = np.empty(x.shape, dtype=object)
    for place, value in np.ndenumerate(x):
        cells[place] = value.item() if isinstance(value, np.generic) else value
    return cells


def update_hash(digest: hashlib._Hash, x: Inputs) -> None:
    """Add shape, type and values to a hash."""
    if is_sparse(x):
        digest.update(f"sparse{x.shape}{x.dtype}".encode())
        for array, dtype in ((x.indptr, np.int64), (x.indices, np.int64), (x.data, x.dtype)):
            digest.update(array.astype(dtype).tobytes())
        return
    digest.update(f"{x.shape}{x.dtype}".encode())
    if x.dtype.kind != "O":
        digest.update(x.tobytes())
    else:
        for row in digest_rows(x):
            digest.update(row)


def digest_rows(x: Inputs) -> Iterator[bytes]:
    """Yield a hash of each row: 128 bits in its place, which may be long. 0.0 and -0.0 are equal."""
    if is_sparse(x):
        # Columns as 64 bits, so that they stand apart from the values, of which there are as many.
        columns, values = x.indices.astype(np.int64), x.data
        for start, end in zip(x.indptr[:-1], x.indptr[1:], strict=True):
            yield _digest(columns[start:end].tobytes() + values[start:end].tobytes())
        return
    if x.dtype.kind in "OU":
        for row in x:
            # Texts are told from numbers, and where one cell ends and the next begins.
            yield _digest(repr(row.tolist() if x.ndim > 1 else row).encode())
        return
    step = max(1, _CHUNK_BYTES // x[:1].nbytes)
    for start in range(0, len(x), step):
        # Adding 0 makes 0.0 of -0.0.
        for row in x[start : start + step] + 0:
            yield _digest(row)


def _digest(row: Buffer) -> bytes:
    return hashlib.blake2b(row, digest_size=16).digest()
