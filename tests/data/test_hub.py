"""Data sets of the hub: folders of parquet files, what was downloaded before, and that nothing else is fetched."""

from __future__ import annotations

import io
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from overfit_lab.data.load import load
from overfit_lab.data.split import make_split
from overfit_lab.errors import UserError
from tests.data.files import file_data, hub_data
from tests.data.test_datamodule import kfold

datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

RNG = np.random.default_rng(0)


def table(rows: int, start: int = 0) -> pl.DataFrame:
    numbers = range(start, start + rows)
    return pl.DataFrame({"a": [float(i) for i in numbers], "label": [i % 2 for i in numbers]})


def write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


def huge() -> bytes:
    """A small file that says that its image is huge."""
    content = bytearray(encoded(np.zeros((4, 5), np.uint8), "BMP"))
    content[18:26] = (10_000).to_bytes(4, "little") * 2
    return bytes(content)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        (
            "data/train-00000-of-00002-8f.parquet",
            "data/train-00001-of-00002-9a.parquet",
            "data/test-00000-of-00001.parquet",
        ),
        ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
        ("plain/train/0000.parquet", "plain/train/0001.parquet", "plain/test/0000.parquet"),
    ],
)
def test_layouts_of_the_hub(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, frame in zip(names, (table(20), table(10, 20), table(8, 30)), strict=True):
        write(frame, tmp_path / name)
    source = load(hub_data(tmp_path))
    assert (source.problem, source.rows) == ("binary", 38)
    assert source.x[:, 0].tolist() == list(range(38))
    assert source.official_test is not None
    assert source.official_test.tolist() == list(range(30, 38))
    assert source.said == ("target label is binary: 2 classes", "8 rows of test are the test rows", "input column a")
    assert make_split(source, kfold(test_fraction=0.0)).test.tolist() == list(range(30, 38))


def test_validation_rows_are_development_rows_and_others_are_left_out(tmp_path: Path) -> None:
    for name, frame in (("train", table(20)), ("validation", table(6, 20)), ("unsupervised", table(9))):
        write(frame, tmp_path / f"{name}-00000-of-00001.parquet")
    source = load(hub_data(tmp_path))
    assert (source.rows, source.official_test) == (26, None)
    assert source.said[1:3] == ("6 rows of validation are joined with those of train", "left out: unsupervised")


def test_a_single_split_of_any_name(tmp_path: Path) -> None:
    write(table(20), tmp_path / "everything.parquet")
    assert load(hub_data(tmp_path)).rows == 20


def test_test_rows_without_labels_are_left_out(tmp_path: Path) -> None:
    write(table(20), tmp_path / "train.parquet")
    for nothing in (None, -1):
        write(table(5).with_columns(pl.lit(nothing, pl.Int64).alias("label")), tmp_path / "test.parquet")
        source = load(hub_data(tmp_path))
        assert (source.rows, source.official_test) == (20, None)
        assert "5 rows of test have no target and are left out" in source.said


def test_names_of_classes_may_stand_in_one_split_alone(tmp_path: Path) -> None:
    features = datasets.Features(
        {"a": datasets.Value("float64"), "mood": datasets.ClassLabel(names=["sad", "fair", "glad"])}
    )
    rows = {"a": [0.5] * 18, "mood": [2, 0, 1] * 6}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    write(pl.DataFrame({"a": [0.5] * 3, "mood": [0, 1, 2]}), tmp_path / "test-00000-of-00001.parquet")
    source = load(hub_data(tmp_path))
    assert source.y.tolist() == [*[2, 0, 1] * 6, 0, 1, 2]
    assert source.said[0] == "target mood is multiclass: sad, fair, glad are classes 0, 1, 2"


def test_names_of_classes_are_read_and_keep_their_order(tmp_path: Path) -> None:
    """As the library itself writes them, also where a test set hides its labels."""
    features = datasets.Features(
        {"a": datasets.Value("float64"), "mood": datasets.ClassLabel(names=["sad", "fair", "glad"])}
    )
    for name, labels in (("train", [2, 0, 1] * 6), ("test", [-1] * 4)):
        rows = {"a": [0.5] * len(labels), "mood": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    source = load(hub_data(tmp_path))
    assert (source.problem, source.y.tolist()) == ("multiclass", [2, 0, 1] * 6)
    assert source.said[0] == "target mood is multiclass: sad, fair, glad are classes 0, 1, 2"


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("P", 3), ("1", 1)])
def test_image_columns(tmp_path: Path, mode: str, channels: int) -> None:
    pixels = RNG.integers(0, 2, (12, 4, 5)).astype(np.uint8) * 255
    cells = [{"bytes": encoded(own, mode=mode), "path": None} for own in pixels]
    write(pl.DataFrame({"id": range(12), "image": cells, "label": [0, 1] * 6}), tmp_path / "train.parquet")
    source = load(hub_data(tmp_path))
    assert source.shape == (channels, 4, 5)
    expected = np.repeat(pixels[:, None], channels, axis=1) / 255
    np.testing.assert_allclose(source.x.reshape(12, channels, 4, 5), expected, atol=1e-12)
    assert source.said[-1].startswith(f"images of 4 x 5 pixels and {channels} channel")
    # The same in a file, with its files beside it.
    assert load(file_data(tmp_path / "train.parquet")).fingerprint == source.fingerprint


def test_colours_are_kept_apart(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 3, 2, 3)).astype(np.uint8)
    cells = [{"bytes": encoded(own), "path": None} for own in pixels]
    write(pl.DataFrame({"image": cells, "label": [0, 1] * 3}), tmp_path / "train.parquet")
    source = load(hub_data(tmp_path))
    np.testing.assert_allclose(source.x.reshape(6, 3, 3, 2), np.moveaxis(pixels, 3, 1) / 255, atol=1e-12)


def test_image_files_lie_in_the_folder_or_are_not_opened(tmp_path: Path) -> None:
    folder, pixels = tmp_path / "set", RNG.integers(0, 256, (2, 4, 5)).astype(np.uint8)
    (folder / "images").mkdir(parents=True)
    for place in ("set/images/a.png", "set/b.png", "secret.png"):
        (tmp_path / place).write_bytes(encoded(pixels[0]))
    inside = pl.DataFrame({"image": [{"bytes": None, "path": "images/a.png"}, {"bytes": None, "path": "b.png"}]})
    write(inside.with_columns(label=pl.Series([0, 1])), folder / "train.parquet")
    assert load(hub_data(folder)).shape == (1, 4, 5)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for path in ("../secret.png", "images/../../secret.png", str(tmp_path / "secret.png"), "link.png"):
        cells = [{"bytes": None, "path": "b.png"}, {"bytes": None, "path": path}]
        write(pl.DataFrame({"image": cells, "label": [0, 1]}), folder / "train.parquet")
        with pytest.raises(UserError, match=r"names the file .*, which is not in .*; it is not opened"):
            load(hub_data(folder))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"bytes": b"no image", "path": None}, "the image in row 1 of column image cannot be read: cannot identify"),
        (
            {"bytes": encoded(np.zeros((4, 5), np.uint8))[:40], "path": None},
            "the image in row 1 of column image cannot",
        ),
        ({"bytes": encoded(np.zeros((9, 5), np.uint8)), "path": None}, "have 2 sizes (5 x 4, 5 x 9); needed is one"),
        (
            {"bytes": encoded(np.zeros((4, 5), np.uint16)), "path": None},
            # Older versions of Pillow say I where newer ones say I;16.
            ", L; allowed are those with a byte for each pixel",
        ),
        (
            {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n", "path": None},
            "cannot be read: cannot identify",
        ),
        ({"bytes": huge(), "path": None}, "cannot be read: Image size (100000000 pixels) exceeds limit of"),
        ({"bytes": None, "path": None}, "the image in row 1 of column image cannot be read: it has no content"),
        ({"bytes": None, "path": "gone.png"}, "the image in row 1 of column image cannot be read: [Errno 2]"),
        (None, "the image in row 1 of column image cannot be read: it"),
    ],
)
def test_images_that_cannot_be_read(tmp_path: Path, cell: Any, message: str) -> None:  # noqa: ANN401 - a cell
    cells = [{"bytes": encoded(np.zeros((4, 5), np.uint8)), "path": None}, cell]
    write(pl.DataFrame({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(UserError) as caught:
        load(hub_data(tmp_path))
    assert message in str(caught.value)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no parquet files; they are called train-\*\.parquet"):
        load(hub_data(tmp_path / "empty"))
    for subset in ("first", "second"):
        write(table(20), tmp_path / "several" / subset / "train-00000-of-00001.parquet")
    with pytest.raises(
        UserError, match=r"data\.subset is missing; .*several holds several data sets: 'first', 'second'"
    ):
        load(hub_data(tmp_path / "several"))
    assert load(hub_data(tmp_path / "several", subset="second")).rows == 20
    with pytest.raises(UserError, match=r"data\.subset=\.\./first: allowed are 'first', 'second'"):
        load(hub_data(tmp_path / "several", subset="../first"))
    write(table(20), tmp_path / "parts" / "left.parquet")
    write(table(20), tmp_path / "parts" / "right.parquet")
    with pytest.raises(UserError, match="there is no split train; it has left, right"):
        load(hub_data(tmp_path / "parts"))
    write(table(20), tmp_path / "unlike" / "train-00000-of-00002.parquet")
    write(table(20).select("a"), tmp_path / "unlike" / "train-00001-of-00002.parquet")
    with pytest.raises(UserError, match="its parts do not fit together: "):
        load(hub_data(tmp_path / "unlike"))
    file = tmp_path / "unlike" / "train-00000-of-00002.parquet"
    with pytest.raises(UserError, match="is a file; allowed with data=hub is a folder or a name, see data=file"):
        load(hub_data(file))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train-00000-of-00002\.parquet is missing or damaged: "):
        load(hub_data(tmp_path / "unlike"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what the library downloads, and no network: who connects fails the test."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))

    def connect(*arguments: object) -> None:
        pytest.fail(f"reached for the network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    yield folder
    assert not datasets.config.HF_HUB_OFFLINE


def test_nothing_is_downloaded_without_being_told(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(hub_data("somebody/nothing"))
    message = str(caught.value)
    assert message.startswith("data.path=somebody/nothing: there is no such folder, and it was not downloaded before (")
    assert "; data.download=true fetches it from the hub, or put its parquet files (train-*.parquet, " in message
    assert "into a folder and give that: data.path=FOLDER" in message
    assert "\n" not in message


def test_where_there_is_no_network_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a machine without one: no name is found. The library tries again for half a minute."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError) as caught:
        load(hub_data("somebody/nothing", download=True))
    message = str(caught.value)
    assert message.startswith("data.path=somebody/nothing: it cannot be fetched from the hub (ConnectionError: ")
    assert message.endswith(
        "try again, or put its parquet files (train-*.parquet, test-*.parquet) into a folder and "
        "give that: data.path=FOLDER"
    )
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_what_was_downloaded_before_is_read_without_a_network(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own cache, as it leaves it: of a data set OWNER/NAME in a folder that is called after it."""
    for name, frame in (("train", table(20)), ("test", table(6, 20))):
        write(frame, tmp_path / "set" / f"{name}-00000-of-00001.parquet")
    files = {split: str(tmp_path / "set" / f"{split}-00000-of-00001.parquet") for split in ("train", "test")}
    with monkeypatch.context() as patch:
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))
    (own,) = (cache / "parquet").iterdir()
    shutil.move(own, cache / "owner___name" / "default")
    for path in (cache / "owner___name").rglob("parquet-*.arrow"):
        path.rename(path.with_name(path.name.replace("parquet-", "name-")))
    source = load(hub_data("owner/name"))
    assert source.fingerprint == load(hub_data(tmp_path / "set")).fingerprint
    assert source.official_test is not None
    assert source.official_test.tolist() == list(range(20, 26))


def test_half_a_download_is_not_used(cache: Path) -> None:
    """While the library writes, the folder has another name; what is left of that is no data set."""
    half = cache / "owner___name" / "default" / "0.0.0" / "abc.incomplete"
    half.mkdir(parents=True)
    (half / "name-train.arrow").write_bytes(b"half")
    with pytest.raises(UserError, match="it was not downloaded before"):
        load(hub_data("owner/name"))


@pytest.mark.parametrize(
    "path", ["../elsewhere", "/nowhere/at/all", "a/b/c", "~/nothing", "https://x.example/y", "a b"]
)
def test_what_is_no_name(cache: Path, path: str) -> None:
    with pytest.raises(UserError, match="there is no such folder, and no data set of the hub is called so"):
        load(hub_data(path, download=True))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the library datasets \(.*\); install overfit_lab\[hub\], or put its"):
        load(hub_data("owner/name"))


def test_test_rows_alone_are_not_trained_on(tmp_path: Path) -> None:
    write(table(20), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"there is no split train; it has test$"):
        load(hub_data(tmp_path))


def test_splits_whose_columns_differ(tmp_path: Path) -> None:
    """As competitions publish them: a test set without targets; or with columns of its own, in an order of its own."""
    write(table(20), tmp_path / "train.parquet")
    write(table(5).select("a"), tmp_path / "test.parquet")
    source = load(hub_data(tmp_path))
    assert (source.rows, source.official_test) == (20, None)
    assert "5 rows of test have no target and are left out" in source.said
    write(table(5, 20).select("label", pl.lit("x").alias("id"), "a"), tmp_path / "test.parquet")
    source = load(hub_data(tmp_path))
    assert source.x[:, 0].tolist() == list(range(25))
    assert source.y[:, 0].tolist() == [i % 2 for i in range(25)]
    write(table(20).with_columns(pl.lit(1.0).alias("b")), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"split test has no column b, which train has; name columns that both have by"):
        load(hub_data(tmp_path))
    assert load(hub_data(tmp_path, inputs=["a"])).x.shape == (25, 1)
