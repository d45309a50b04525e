"""Downloads by the library `datasets`, from a hub of our own: whole ones, broken ones, and none without being told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import overfit_lab
from tests.integration.conftest import COMMAND
from tests.integration.hub_server import HubServer

ROWS = {"train": 300, "test": 100}
WORDS = (
    "train",
    "data=hub",
    "data.path=owner/name",
    "split.test_fraction=0",
    "training.epochs=8",
    "study.report=false",
)
DOWNLOAD = "data.download=true"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "published"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Rows\n")
    for split, rows in ROWS.items():
        x = rng.normal(size=(rows, 2))
        frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "label": (x[:, 0] > 0).astype(int)})
        frame.write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    with HubServer(folder, "owner/name") as server:
        yield server


def start(hub: HubServer, folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home")}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *WORDS, *words], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def run(hub: HubServer, folder: Path, *words: str) -> tuple[int, str]:
    """Return the exit code, and what was said on stderr but for the bars of the download."""
    process = start(hub, folder, *words)
    _, said = process.communicate(timeout=300)
    return process.returncode, "\n".join(line for line in said.splitlines() if "examples" not in line)


def downloads(hub: HubServer) -> list[str]:
    return [request for request in hub.requests if request.startswith("GET") and request.endswith(".parquet")]


def check_study(folder: Path) -> str:
    """Make sure that all rows are there, those to test on sealed; return what the source is known by."""
    study = overfit_lab.load_study(folder / "studies" / "name-kfold")
    (record,) = study.runs
    assert record.status == "finished"
    assert study.record.source.rows == sum(ROWS.values())
    split = pl.read_parquet(folder / "studies" / "name-kfold" / "split.parquet")
    assert split.filter(role="test")["row"].to_list() == list(range(300, 400))
    return study.record.source.fingerprint


def test_a_data_set_is_downloaded_once_and_only_when_told(hub: HubServer, tmp_path: Path) -> None:
    code, said = run(hub, tmp_path)
    assert code == 2
    assert said.startswith("overfit-lab: data.path=owner/name: there is no such folder, and it was not downloaded bef")
    assert hub.requests == []

    code, said = run(hub, tmp_path, DOWNLOAD)
    assert code == 0, said
    assert "100 rows of test are the test rows" in said
    fingerprint = check_study(tmp_path)
    assert len(downloads(hub)) == 2

    hub.requests.clear()
    code, said = run(hub, tmp_path, "seed=1")
    assert code == 0, said
    assert hub.requests == []
    assert overfit_lab.load_study(tmp_path / "studies/name-kfold").record.source.fingerprint == fingerprint


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(hub: HubServer, tmp_path: Path) -> None:
    hub.cut = 1000
    code, said = run(hub, tmp_path, DOWNLOAD)
    assert code == 2
    assert said.startswith("overfit-lab: data.path=owner/name: it cannot be fetched from the hub (")
    assert said.count("\n") == 0
    assert not (tmp_path / "studies").exists()
    code, said = run(hub, tmp_path)
    assert (code, "it was not downloaded before" in said) == (2, True)

    hub.cut = None
    code, said = run(hub, tmp_path, DOWNLOAD)
    assert code == 0, said
    check_study(tmp_path)


def test_a_command_that_is_killed_while_it_downloads_leaves_nothing_that_is_taken_for_data(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.stall = 1000
    process = start(hub, tmp_path, DOWNLOAD)
    assert hub.stalled.wait(120)
    process.kill()
    process.communicate(timeout=60)
    code, said = run(hub, tmp_path)
    assert (code, "it was not downloaded before" in said) == (2, True)

    hub.stall = None
    code, said = run(hub, tmp_path, DOWNLOAD)
    assert code == 0, said
    check_study(tmp_path)


def test_a_name_that_the_hub_does_not_have(hub: HubServer, tmp_path: Path) -> None:
    code, said = run(hub, tmp_path, DOWNLOAD, "data.path=owner/other")
    assert code == 2
    assert said.startswith("overfit-lab: data.path=owner/other: it cannot be fetched from the hub (DatasetNotFoundErr")
    assert said.count("\n") == 0
