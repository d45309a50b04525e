"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary name beside a file; at the end it is synced and takes the file's place.

    Whatever happens, either the old or the whole new content is there. If the writer raises, the old one stays and
    the temporary file is removed. The folder is not synced: where power fails at once, the old content may be there.
    """
    # A token keeps two writers apart, as process numbers do not on two machines; the last rename wins, as a whole.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file, its parts one after another, as a whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        for part in parts:
            file.write(part)
