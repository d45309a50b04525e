"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overfit_lab.files import replacing, write_atomically


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fill_the_disk() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"half of the ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fill_the_disk()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from overfit_lab.files import write_atomically
path, size = Path(sys.argv[1]), 3_000_000
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomically(path, letter * size)
"""


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    """A real process, killed with -9 at changing moments of a write."""
    path = tmp_path / "file"
    write_atomically(path, b"a" * 3_000_000)
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.005 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert content in (b"a" * 3_000_000, b"b" * 3_000_000)
