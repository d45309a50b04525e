"""Damaged Parquet files: one line, whatever the damage, and nothing of the library's own on the terminal."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import polars as pl
import pytest

from overfit_lab.data.parquet import read_parquet
from overfit_lab.errors import UserError


def test_damage_gives_one_line_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Some of these damages make polars panic, which prints before it raises."""
    buffer = io.BytesIO()
    pl.DataFrame({"a": range(300), "t": ["x" * (i % 7) for i in range(300)]}).write_parquet(buffer)
    whole, path = buffer.getvalue(), tmp_path / "a.parquet"
    messages = []
    for seed in range(60):
        rng, damaged = random.Random(seed), bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_parquet(path)
        except UserError as error:
            messages.append(str(error))
    assert all(message.startswith(f"{path} is missing or damaged: ") and "\n" not in message for message in messages)
    assert len(messages) > 30  # the rest hit values, which no checksum guards
    assert capfd.readouterr() == ("", "")


def test_what_others_print_meanwhile_is_handed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    read = pl.read_parquet

    def talking(source: io.BytesIO) -> pl.DataFrame:
        os.write(2, b"said\n")
        return read(source)

    monkeypatch.setattr(pl, "read_parquet", talking)
    assert read_parquet(path)["a"].to_list() == [1]
    assert capfd.readouterr().err == "said\n"
