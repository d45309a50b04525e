"""Arrays of files: NPZ as NumPy and Keras write them, and the IDX files of MNIST. Nothing is ever unpickled."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overfit_lab.errors import UserError, first_line

# What Python's readers raise where a file ends too early, or is something else.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    OverflowError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Inputs and targets as they stand in a file.

    Args:
        x: `rows x features`.
        y: `rows` or `rows x targets`, of any type.
        shape: The shape of a row where it is an image: channels, height, width.
        official_test: Rows of a test set that the file sets apart; None where it does not.
        groups: Further columns by name, `rows` each.
        said: What was done to read them, in words.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    shape: tuple[int, int, int] | None = None
    official_test: NDArray[np.int64] | None = None
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def read_npz(path: Path, groups: Sequence[str] = ()) -> ArrayData:
    """Read an NPZ file that holds `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`.

    Args:
        path: The file.
        groups: Names of further arrays, with a value for each row; with `_train` and `_test` at their ends in a file
            that sets test rows apart.

    Raises:
        UserError: It is missing or damaged, lacks an array, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise UserError(f"data.path={path}: it holds one array without a name; allowed is an NPZ with x and y")
            with loaded:
                return _from_npz(path, loaded, groups)
    except DAMAGE as error:
        raise UserError(f"data.path={path}: is missing, damaged, or no NPZ file: {first_line(error)}") from error


def _from_npz(path: Path, loaded: np.lib.npyio.NpzFile, groups: Sequence[str]) -> ArrayData:
    parts = ("_train", "_test") if {"x_train", "x_test"} & set(loaded.files) else ("",)

    def read(name: str) -> list[NDArray[Any]]:
        return [_read_member(path, loaded, name + part) for part in parts]

    xs, ys = read("x"), read("y")
    for part, x, y in zip(parts, xs, ys, strict=True):
        if len(x) != len(y):
            raise UserError(f"data.path={path}: x{part} has {len(x)} rows and y{part} {len(y)}; they must be as many")
    x, shape, said = _flatten_images(path, _join(path, "x", xs))
    read_names = {name + part for name in ("x", "y", *groups) for part in parts}
    left_out = [name for name in loaded.files if name not in read_names]
    if left_out:
        said += (f"left out: {', '.join(left_out)}",)
    return ArrayData(
        x,
        _join(path, "y", ys),
        shape,
        _last_rows(xs) if len(xs) > 1 else None,
        {name: _join(path, name, read(name)) for name in groups},
        said,
    )


def _read_member(path: Path, loaded: np.lib.npyio.NpzFile, name: str) -> NDArray[Any]:
    if name not in loaded.files:
        raise UserError(
            f"data.path={path}: there is no array {name}; it holds {', '.join(loaded.files) or 'none'}, and allowed "
            "are x and y, or x_train, y_train, x_test and y_test"
        )
    try:
        array: NDArray[Any] = loaded[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"data.path={path}: {name} holds Python objects, which are never unpickled; allowed are numbers and text"
        ) from error
    if array.ndim == 0:
        raise UserError(f"data.path={path}: {name} is a single value; allowed is an array with a row for each example")
    return np.char.decode(array) if array.dtype.kind == "S" else array


def _join(path: Path, name: str, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = " and ".join(str(part.shape) for part in parts)
        raise UserError(f"data.path={path}: {name} has the shapes {shapes}; train and test rows must be alike")
    # Bytes of images are divided by 255, and words are no numbers: neither may come from one part alone.
    if len({(part.dtype.kind == "U", name != "y" and part.dtype == np.uint8) for part in parts}) > 1:
        types = " and ".join(str(part.dtype) for part in parts)
        raise UserError(f"data.path={path}: {name} holds {types}; train and test rows must be alike")
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _last_rows(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    rows = sum(map(len, parts))
    return np.arange(rows - len(parts[-1]), rows)


def read_idx_folder(folder: Path) -> ArrayData:
    """Read the images and labels of a folder as MNIST has them, `*-images-idx3-ubyte` and `*-labels-idx1-ubyte`.

    Files whose name says `train` are joined with those that say `t10k` or `test`, which become test rows. Either may
    end with `.gz`.

    Raises:
        UserError: There are none, labels are missing, or a file is damaged.
    """
    images = sorted(path for path in folder.iterdir() if _is_idx(path) and "images" in path.name)
    train = [path for path in images if "train" in path.name] or [path for path in images if not _is_test(path)]
    test = [path for path in images if _is_test(path)]
    if len(train) != 1 or len(test) > 1:
        names = ", ".join(path.name for path in images) or "none"
        raise UserError(
            f"data.path={folder}: needed is one file train-images-idx3-ubyte, with or without .gz, and at most one of "
            f"test images; there are {names}"
        )
    pairs = [(read_idx(path), read_idx(_labels_of(path))) for path in (*train, *test)]
    for path, (x, y) in zip((*train, *test), pairs, strict=True):
        if len(x) != len(y):
            raise UserError(f"data.path={folder}: {path.name} has {len(x)} images and {len(y)} labels")
    x, shape, said = _flatten_images(folder, _join(folder, "images", [x for x, _ in pairs]))
    y = _join(folder, "labels", [y for _, y in pairs])
    return ArrayData(x, y, shape, _last_rows([x for x, _ in pairs]) if test else None, said=said)


def has_idx(folder: Path) -> bool:
    """Say whether a folder holds IDX files."""
    return any(_is_idx(path) for path in folder.iterdir())


class _Type(NamedTuple):
    size: int
    dtype: str


# Big-endian, as the format has it [LeCun, Cortes, Burges: the MNIST database].
_TYPES = {
    0x08: _Type(1, ">u1"),
    0x09: _Type(1, ">i1"),
    0x0B: _Type(2, ">i2"),
    0x0C: _Type(4, ">i4"),
    0x0D: _Type(4, ">f4"),
    0x0E: _Type(8, ">f8"),
}


def read_idx(path: Path) -> NDArray[Any]:
    """Read an array of an IDX file, compressed by gzip or not.

    Raises:
        UserError: It is missing, or its content is not what its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
                raise UserError(f"{path} is no IDX file: it begins with {magic.hex() or 'nothing'}")
            kind, dimensions = _TYPES[magic[2]], magic[3]
            header = file.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise EOFError("it ends within its header")
            shape = tuple(np.frombuffer(header, dtype=">u4").tolist())
            size = math.prod(shape) * kind.size
            # Not more than the header says: what is compressed may be of any length.
            content = file.read(size + 1)
    except DAMAGE as error:
        raise UserError(f"{path} is missing or damaged: {first_line(error)}") from error
    if len(content) != size:
        has = f"only {len(content)}" if len(content) < size else "more"
        raise UserError(f"{path} is damaged: its header tells of {size} bytes, and it has {has}")
    array = np.frombuffer(content, dtype=kind.dtype).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))


def _is_idx(path: Path) -> bool:
    return path.is_file() and any(f"{dash}idx{n}" in path.name for n in range(1, 5) for dash in "-.")


def _is_test(path: Path) -> bool:
    return "t10k" in path.name or "test" in path.name


def _labels_of(images: Path) -> Path:
    name = images.name.replace("images", "labels")
    for dimensions in (2, 3, 4):
        name = name.replace(f"idx{dimensions}", "idx1")
    plain = name.removesuffix(".gz")
    found = [images.with_name(own) for own in (name, plain, f"{plain}.gz") if images.with_name(own).is_file()]
    if not found:
        raise UserError(f"data.path={images.parent}: there is no {name} beside {images.name}")
    return found[0]


def _flatten_images(path: Path, x: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int, int] | None, tuple[str, ...]]:
    """Lay images out as `rows x features`, channels first."""
    if x.ndim < 3:
        return (x[:, None] if x.ndim == 1 else x), None, ()
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in CHANNELS:
        x = np.moveaxis(x, 3, 1)
    elif x.ndim > 4 or x.shape[1] not in CHANNELS:
        raise UserError(
            f"data.path={path}: inputs have shape {x.shape}; allowed are rows x features and images, rows x height x "
            "width, with 1, 3 or 4 channels before or after"
        )
    _, channels, height, width = x.shape
    said = f"images of {height} x {width} pixels and {channels} channel{'' if channels == 1 else 's'}"
    if x.dtype == np.uint8:
        x, said = x / 255, f"{said}, bytes divided by 255"
    return x.reshape(len(x), channels * height * width), (channels, height, width), (said,)
