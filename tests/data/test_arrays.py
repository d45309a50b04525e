"""NPZ and IDX files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overfit_lab.data.arrays import read_idx, read_idx_folder, read_npz
from overfit_lab.data.load import load
from overfit_lab.data.split import make_split
from overfit_lab.errors import UserError
from tests.data.files import file_data, write_idx, write_mnist
from tests.data.test_datamodule import kfold

RNG = np.random.default_rng(0)


def npz(path: Path, **arrays: Any) -> Path:  # noqa: ANN401 - whatever NumPy saves
    np.savez(path, **arrays)
    return path


def test_x_and_y(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(20, 3)), np.arange(20) % 2
    source = load(file_data(npz(tmp_path / "a.npz", x=x, y=y)))
    assert (source.name, source.problem, source.rows, source.features) == ("mine", "binary", 20, 3)
    np.testing.assert_array_equal(source.x, x)
    np.testing.assert_array_equal(source.y[:, 0], y)
    assert source.official_test is None
    assert source.said == ("the target is binary: 2 classes",)


def test_test_rows_stay_test_rows(tmp_path: Path) -> None:
    parts = {"x_train": RNG.normal(size=(20, 3)), "x_test": RNG.normal(size=(5, 3))}
    labels = {"y_train": 1 + np.arange(20) % 3, "y_test": np.array([1, 1, 2, 3, 2])}
    source = load(file_data(npz(tmp_path / "a.npz", **parts, **labels)))
    assert source.problem == "multiclass"
    np.testing.assert_array_equal(source.x, np.concatenate([parts["x_train"], parts["x_test"]]))
    np.testing.assert_array_equal(source.y, np.concatenate([labels["y_train"], labels["y_test"]]) - 1)
    assert source.said == ("the target is multiclass: 1, 2, 3 are classes 0, 1, 2",)
    split = make_split(source, kfold(test_fraction=0.0))
    assert split.test.tolist() == [20, 21, 22, 23, 24]


@pytest.mark.parametrize(("last", "shape"), [((), (1, 4, 5)), ((3,), (3, 4, 5)), ((1,), (1, 4, 5))])
def test_images_are_laid_out_channels_first_and_bytes_become_fractions(
    tmp_path: Path, last: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    x = RNG.integers(0, 256, (12, 4, 5, *last)).astype(np.uint8)
    source = load(file_data(npz(tmp_path / "a.npz", x=x, y=np.arange(12) % 2)))
    assert source.shape == shape
    channels_first = x[:, None] if not last else np.moveaxis(x, -1, 1)
    np.testing.assert_allclose(source.x.reshape(12, *shape), channels_first / 255, rtol=1e-15)
    assert source.said[1].startswith(f"images of 4 x 5 pixels and {shape[0]} channel")


def test_images_with_channels_first_stay_so(tmp_path: Path) -> None:
    x = RNG.normal(size=(12, 3, 4, 5))
    source = load(file_data(npz(tmp_path / "a.npz", x=x, y=np.arange(12) % 2)))
    assert source.shape == (3, 4, 5)
    np.testing.assert_array_equal(source.x, x.reshape(12, 60))


def test_names_as_labels_and_one_column(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "owl"] * 5)
    for y in (names, names.astype("S")):
        source = load(file_data(npz(tmp_path / "a.npz", x=np.arange(15), y=y)))
        assert (source.features, source.y.tolist()) == (1, [0, 1, 2] * 5)


def test_several_targets(tmp_path: Path) -> None:
    y = RNG.normal(size=(10, 2))
    source = load(file_data(npz(tmp_path / "a.npz", x=RNG.normal(size=(10, 3)), y=y)))
    assert source.problem == "regression"
    np.testing.assert_array_equal(source.y, y)


def test_groups_of_an_npz(tmp_path: Path) -> None:
    arrays = {"x": RNG.normal(size=(12, 3)), "y": np.arange(12) % 2, "patient": np.arange(12) // 3}
    source = load(file_data(npz(tmp_path / "a.npz", **arrays), group="patient"))
    assert source.groups["patient"].tolist() == (np.arange(12) // 3).tolist()
    split = {f"{name}{part}": array for name, array in arrays.items() for part in ("_train", "_test")}
    source = load(file_data(npz(tmp_path / "b.npz", **split), group=["patient"]))
    assert source.groups["patient"].tolist() == 2 * (np.arange(12) // 3).tolist()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    bomb = np.array([Bomb(tmp_path / "exploded"), None], dtype=object)
    path = npz(tmp_path / "a.npz", x=bomb, y=np.arange(2))
    with pytest.raises(UserError, match="x holds Python objects, which are never unpickled; allowed are numbers and"):
        load(file_data(path))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(UserError, match=r"b\.npz: is missing, damaged, or no NPZ file"):
        load(file_data(tmp_path / "b.npz"))
    assert not (tmp_path / "exploded").exists()


X, Y = np.zeros((4, 2)), np.arange(4) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "there is no array y; it holds x, and allowed are x and y, or x_train, y_train"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "there is no array y_test; it holds x_train, y_train, x_test"),
        ({}, "there is no array x; it holds none"),
        ({"x": X, "y": Y[:3]}, "x has 4 rows and y 3; they must be as many"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y},
            "x has the shapes (4, 2) and (4, 1); train and",
        ),
        ({"x": X[:0], "y": Y[:0]}, "has no row; at least one is needed"),
        ({"x": np.full((4, 2), np.nan), "y": Y}, "data=mine: x holds NaN or infinite values in 4 of 4 rows"),
        ({"x": X, "y": np.array([0, 1, np.nan, 1])}, "the target: no target in 1 of 4 rows (NaN"),
        ({"x": X, "y": np.zeros(4)}, "the target: holds one class only (0.0); binary needs two or more"),
        ({"x": X.astype(str), "y": Y}, "data=mine: x holds <U32 values; allowed are numbers"),
        ({"x": X, "y": Y.astype("M8[s]")}, "the target has shape (4,) and holds datetime64[s]; allowed are rows"),
        ({"x": np.zeros((4, 2, 5, 6)), "y": Y}, "inputs have shape (4, 2, 5, 6); allowed are rows x features and im"),
        ({"x": np.float64(3), "y": Y}, "x is a single value; allowed is an array"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, arrays: dict[str, NDArray[Any]], message: str) -> None:
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError) as caught:
        load(file_data(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_an_npz_have_no_names(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(UserError, match=r"data\.target=price: .*a\.npz has no columns with names; allowed is null"):
        load(file_data(path, target="price"))
    with pytest.raises(UserError, match=r"there is no array writer; it holds x, y"):
        load(file_data(path, group="writer"))


@pytest.mark.parametrize("keep", [0, 10, 200, -40])
def test_an_npz_that_ends_too_early(tmp_path: Path, keep: int) -> None:
    whole = npz(tmp_path / "a.npz", x=RNG.normal(size=(40, 3)), y=np.arange(40) % 2).read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:keep])
    with pytest.raises(UserError, match=r"b\.npz: is missing, damaged, or no NPZ file"):
        load(file_data(tmp_path / "b.npz"))


def test_an_npz_whose_bytes_have_changed(tmp_path: Path) -> None:
    content = bytearray(npz(tmp_path / "a.npz", x=RNG.normal(size=(40, 3)), y=np.arange(40) % 2).read_bytes())
    content[300] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        load(file_data(tmp_path / "a.npz"))


def test_a_header_that_promises_more_than_there_is_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", buffer.getvalue())
        file.writestr("y.npy", buffer.getvalue())
    with pytest.raises(UserError, match="is missing, damaged, or no NPZ file"):
        read_npz(tmp_path / "a.npz")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match="it holds one array without a name; allowed is an NPZ with x and y"):
        load(file_data(tmp_path / "a.npz"))


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "f4"])
@pytest.mark.parametrize("name", ["a-idx2-x", "a-idx2-x.gz"])
def test_idx_of_each_type(tmp_path: Path, kind: str, name: str) -> None:
    array = np.array([[0, 1, 2], [100, 50, 7]]).astype(kind)
    if kind[0] != "u":
        array[1, 1] = -3
    write_idx(tmp_path / name, array)
    found = read_idx(tmp_path / name)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_as_mnist_has_it(tmp_path: Path, compressed: bool) -> None:
    write_mnist(tmp_path / "mnist", compressed=compressed)
    source = load(file_data(tmp_path / "mnist"))
    assert (source.problem, source.rows, source.features, source.shape) == ("multiclass", 40, 12, (1, 4, 3))
    # The first pixel of each is its label.
    np.testing.assert_allclose(source.x[:, 0] * 255, source.y, atol=1e-12)
    assert source.official_test is not None
    assert source.official_test.tolist() == list(range(30, 40))
    assert source.said == (
        "the target is multiclass: 5 classes",
        "images of 4 x 3 pixels and 1 channel, bytes divided by 255",
    )


def test_a_folder_without_test_images(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    for path in (tmp_path / "mnist").glob("t10k*"):
        path.unlink()
    source = load(file_data(tmp_path / "mnist"))
    assert (source.rows, source.official_test) == (30, None)


def test_a_folder_that_is_not_whole(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    write_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="there is no t10k-labels-idx1-ubyte beside t10k-images-idx3-ubyte"):
        read_idx_folder(folder)
    write_mnist(folder)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(3, dtype=np.uint8))
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte has 10 images and 3 labels"):
        read_idx_folder(folder)
    write_mnist(folder)
    (folder / "train-images-idx3-ubyte").rename(folder / "train-other-idx3-ubyte")
    with pytest.raises(UserError, match=r"needed is one file train-images-idx3-ubyte, with or without \.gz"):
        read_idx_folder(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without IDX files; allowed are those of MNIST, and with data=hub"):
        load(file_data(tmp_path / "empty"))


def test_idx_files_that_are_damaged(tmp_path: Path) -> None:
    whole, packed = tmp_path / "a-idx1-x", tmp_path / "b-idx1-x.gz"
    write_idx(whole, np.arange(200, dtype=np.uint8))
    write_idx(packed, np.random.default_rng(0).integers(0, 256, 2000).astype(np.uint8))
    content, compressed = whole.read_bytes(), packed.read_bytes()
    for path, damaged, message in (
        (whole, content[:100], "is damaged: its header tells of 200 bytes, and it has only 92"),
        (whole, content + b"x", "is damaged: its header tells of 200 bytes, and it has more"),
        (whole, content[:6], "is missing or damaged: it ends within its header"),
        (whole, b"", "is no IDX file: it begins with nothing"),
        (whole, b"\x89PNG" + content, "is no IDX file: it begins with 89504e47"),
        (packed, compressed[:500], "is missing or damaged: Compressed file ended before the end-of-stream marker"),
        (packed, compressed[:700] + bytes(9) + compressed[709:], "is missing or damaged"),
        (packed, content, "is missing or damaged: Not a gzipped file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            read_idx(path)
        assert message in str(caught.value)


def test_what_is_compressed_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    """A small file may hold gigabytes."""
    path = tmp_path / "a-idx1-x.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"\0\0\x08\x01" + (10).to_bytes(4, "big") + bytes(50_000_000))
    with pytest.raises(UserError, match="its header tells of 10 bytes, and it has more"):
        read_idx(path)


def test_arrays_that_nobody_reads_are_named(tmp_path: Path) -> None:
    arrays = {
        "x": RNG.normal(size=(20, 3)),
        "y": np.arange(20) % 2,
        "x_val": RNG.normal(size=(5, 3)),
        "names": np.eye(2),
    }
    source = load(file_data(npz(tmp_path / "a.npz", **arrays)))
    assert source.said == ("the target is binary: 2 classes", "left out: x_val, names")


@pytest.mark.parametrize(
    ("x_test", "y_test", "message"),
    [
        (np.zeros((5, 4, 4)), np.arange(5) % 2, "x holds uint8 and float64; train and test rows must be alike"),
        (np.zeros((5, 4, 4), np.uint8), np.array(list("ababa")), "y holds int64 and <U1; train and test rows must be"),
    ],
)
def test_parts_that_are_not_alike(tmp_path: Path, x_test: NDArray[Any], y_test: NDArray[Any], message: str) -> None:
    train = {"x_train": np.zeros((20, 4, 4), np.uint8), "y_train": np.arange(20) % 2}
    path = npz(tmp_path / "a.npz", **train, x_test=x_test, y_test=y_test)
    with pytest.raises(UserError, match=message):
        load(file_data(path))
