"""Image columns: encoded images of one size as rows of numbers."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow knows others, of which one hands its content to another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GREY = ("1", "L")
COLOUR = ("RGB", "RGBA", "P", "PA", "LA", "La", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size.

    Args:
        x: `rows x features`, from 0 to 1, channels first.
        shape: Channels, height, width.
        said: What they are, in words.
    """

    x: NDArray[np.float64]
    shape: tuple[int, int, int]
    said: str


def is_image(column: pl.Series) -> bool:
    """Say whether a column holds encoded images, as the library `datasets` writes them."""
    return isinstance(column.dtype, pl.Struct) and {field.name for field in column.dtype.fields} == {"bytes", "path"}


def read_images(column: pl.Series, folder: Path | None, place: str) -> Images:
    """Decode a column of images; one channel where all are grey, three otherwise.

    Args:
        column: Structs of the encoded `bytes`, or of the `path` of a file.
        folder: Where such files lie; None where there can be none.
        place: What messages begin with: where the column comes from.

    Raises:
        UserError: Pillow is missing, an image is damaged or missing, they differ in size, or a path leads elsewhere.
    """
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise UserError(f"{place}: images need Pillow; install overfit_lab[hub]") from error
    bombs = pillow.DecompressionBombError, pillow.DecompressionBombWarning
    pictures: list[Image] = []
    with warnings.catch_warnings():
        # What a file says oddly is no matter if it can be read; but a small one may say that it is huge.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        for number, cell in enumerate(column):
            try:
                picture = pillow.open(io.BytesIO(_bytes_of(cell, folder, place)), formats=FORMATS)
                picture.load()
            except (OSError, ValueError, SyntaxError, *bombs) as error:
                raise UserError(
                    f"{place}: the image in row {number} of column {column.name} cannot be read: {first_line(error)}"
                ) from error
            pictures.append(picture)
        return _stack(pictures, column.name, place)


def _bytes_of(cell: Any, folder: Path | None, place: str) -> bytes:  # noqa: ANN401 - a cell of a struct
    if cell is None:
        raise ValueError("it is empty")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    if cell["path"] is None or folder is None:
        raise ValueError("it has no content")
    path: Path = (folder / cell["path"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{place}: names the file {cell['path']}, which is not in {folder}; it is not opened")
    return path.read_bytes()


def _stack(pictures: list[Image], name: str, place: str) -> Images:
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sizes[:5])
        raise UserError(f"{place}: the images of column {name} have {len(sizes)} sizes ({shown}); needed is one")
    modes = {picture.mode for picture in pictures}
    if not modes <= {*GREY, *COLOUR}:
        raise UserError(
            f"{place}: the images of column {name} are of kind {', '.join(sorted(modes))}; allowed are those with "
            "a byte for each pixel and channel"
        )
    mode = "L" if modes <= set(GREY) else "RGB"
    bytes_of = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    channels_first = bytes_of[:, None] if mode == "L" else np.moveaxis(bytes_of, 3, 1)
    _, channels, height, width = channels_first.shape
    said = f"images of {height} x {width} pixels and {channels} channel{'' if channels == 1 else 's'}"
    x = channels_first.reshape(len(bytes_of), -1) / 255
    return Images(x, (channels, height, width), f"{said}, bytes divided by 255")
