"""Files as others write them, and configurations that name them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overfit_lab.config import FileData, HubData

# The types of IDX: number, and format of one value.
IDX_TYPES = {"u1": (0x08, "B"), "i1": (0x09, "b"), "i2": (0x0B, "h"), "i4": (0x0C, "i"), "f4": (0x0D, "f")}


def write_idx(path: Path, array: NDArray[Any]) -> None:
    """Write an array as the format is described, value by value; compressed where the name says so."""
    number, letter = IDX_TYPES[array.dtype.str[1:]]
    content = bytes([0, 0, number, array.ndim])
    for size in array.shape:
        content += struct.pack(">I", size)
    for value in array.ravel().tolist():
        content += struct.pack(f">{letter}", value)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, *, train: int = 30, test: int = 10, compressed: bool = False) -> None:
    """Write a folder as MNIST's, of images of 4 x 3 pixels whose first pixel is their label."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, rows in (("train", train), ("t10k", test)):
        labels = (np.arange(rows) % 5).astype(np.uint8)
        images = rng.integers(0, 256, (rows, 4, 3)).astype(np.uint8)
        images[:, 0, 0] = labels
        end = ".gz" if compressed else ""
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", labels)


def file_data(path: Path | str, **keys: object) -> FileData:
    """Name a file."""
    values = {"kind": "file", "path": str(path), "name": "mine", "scale_inputs": True, "scale_targets": False}
    return FileData.model_validate({**values, **keys})


def hub_data(path: Path | str, **keys: object) -> HubData:
    """Name a data set of the hub, or a folder."""
    values = {"kind": "hub", "path": str(path), "name": "mine", "scale_inputs": True, "scale_targets": False}
    return HubData.model_validate({**values, **keys})
