"""What the inputs of a source may be, and what is asked of each kind: a check, a copy, a hash, a hash of each row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Numbers, `rows x features`; or for a source with a preparation raw values, `rows` or `rows x columns`, of numbers,
# strings and None.
Inputs: TypeAlias = NDArray[Any]

_CHUNK_BYTES = 2**23
_CELLS = (str, bool, int, float, type(None))


def find_raw_fault(x: Inputs) -> str | None:
    """Say in words why inputs cannot be prepared, or None."""
    if x.ndim not in (1, 2):
        return f"x has shape {x.shape}; raw inputs are rows or rows x columns"
    if x.size == 0:
        return f"x has shape {x.shape}; at least one row and one column are needed"
    if x.dtype.kind in "buifU":
        return None
    if x.dtype.kind != "O":
        return f"x holds {x.dtype} values; allowed are numbers, strings and None"
    for value in x.flat:
        if not isinstance(value, _CELLS):
            return f"x holds a {type(value).__name__}; allowed are numbers, strings and None"
    return None


def copy_raw(x: Inputs) -> Inputs:
    """Copy raw inputs; a cell of an array of objects becomes a plain value of Python."""
    if x.dtype.kind != "O":
        return np.array(x, order="C")
    cells = np.empty(x.shape, dtype=object)
    for place, value in np.ndenumerate(x):
        cells[place] = value.item() if isinstance(value, np.generic) else value
    return cells


def update_hash(digest: hashlib._Hash, array: Inputs) -> None:
    """Add shape, type and values of an array to a hash."""
    digest.update(f"{array.shape}{array.dtype}".encode())
    if array.dtype.kind != "O":
        digest.update(array.tobytes())
    else:
        for row in digest_rows(array):
            digest.update(row)


def digest_rows(x: Inputs) -> Iterator[bytes]:
    """Yield a hash of each row: 128 bits in its place, which may be long. 0.0 and -0.0 are equal."""
    if x.dtype.kind in "OU":
        for row in x:
            # Texts are told from numbers, and where one cell ends and the next begins.
            yield hashlib.blake2b(repr(row.tolist() if x.ndim > 1 else row).encode(), digest_size=16).digest()
        return
    step = max(1, _CHUNK_BYTES // x[:1].nbytes)
    for start in range(0, len(x), step):
        # Adding 0 makes 0.0 of -0.0.
        for row in x[start : start + step] + 0:
            yield hashlib.blake2b(row, digest_size=16).digest()
