"""`finalize` killed at any moment, and two at once: the ledger has the line, or no test row was read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overfit_lab.records import StudyFiles
from overfit_lab.study.ledger import read_ledger
from tests.integration.finalizing import finalized, numbers, trained

# Everything is imported once; each attempt is a fork of it. An attempt is killed just before its n-th sync, rename or
# removal of a folder, or after a while; then the same command runs undisturbed.
ATTEMPTS = """
import json, os, shutil, signal, sys, time
from pathlib import Path
import overfit_lab.data.unseal as unsealing
import overfit_lab.launch.display, overfit_lab.report.final, overfit_lab.study.finalize
from overfit_lab import cli

folder = Path(sys.argv[1])

def fork(study, log, nth=None):
    child = os.fork()
    if child:
        return child
    count = 0
    def counted(real):
        def call(*args, **settings):
            nonlocal count
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **settings)
        return call
    os.fsync, Path.replace, shutil.rmtree = counted(os.fsync), counted(Path.replace), counted(shutil.rmtree)
    handed_out = unsealing.UnsealedRows
    def seen(*args):
        study.with_suffix(".opened").touch()
        return handed_out(*args)
    unsealing.UnsealedRows = seen
    sys.stdout = sys.stderr = log.open("w")
    code = cli.main(["finalize", str(study)])
    sys.stdout.flush()
    os._exit(code)

def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def attempt(name, nth=None, delay=None):
    study = Path(shutil.copytree(folder / "template", folder / name / "study"))
    child = fork(study, folder / name / "first.log", nth)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    first = code_of(child)
    shutil.copytree(study, folder / name / "killed")
    opened = study.with_suffix(".opened").exists()
    second = code_of(fork(study, folder / name / "second.log"))
    print(json.dumps({"name": name, "first": first, "second": second, "opened": opened}), flush=True)
    return first

nth = 1
while attempt(f"before-{nth}", nth=nth) != 0:
    nth += 1
for delay in (0.02, 0.06, 0.1):
    attempt(f"after-{delay}", delay=delay)
for name in ("a", "b", "c"):
    study = Path(shutil.copytree(folder / "template", folder / name / "study"))
    children = [fork(study, folder / name / f"{i}.log") for i in (0, 1)]
    print(json.dumps({"name": name, "codes": [code_of(child) for child in children]}), flush=True)
"""


Attempts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def attempts(folder: Path) -> Attempts:
    """What became of each attempt, in the order in which they were made."""
    # A checkpoint after each epoch: the retraining goes on from it.
    (folder / "train").mkdir()
    path = trained(
        folder / "train",
        *("data=iris", "split.folds=2", "model.depth=1", "model.width=3", "model.dropout=0.2", "optimizer.lr=0.05"),
        *("training.epochs=2", "training.checkpoint_seconds=0", "study.report=false"),
    )
    shutil.copytree(path, folder / "template")
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def test_killed_at_any_moment(folder: Path, attempts: Attempts) -> None:
    attempts = [attempt for attempt in attempts if "first" in attempt]
    expected = numbers(finalized(Path(shutil.copytree(folder / "template", folder / "undisturbed"))))
    seen = set()
    for attempt in attempts:
        killed, after = (StudyFiles(folder / attempt["name"] / name) for name in ("killed", "study"))
        final, ledger = killed.load_final(), read_ledger(killed)
        # What was opened was written down before; what is written is whole.
        assert ledger.fault is None
        assert ledger.openings <= 1
        assert ledger.openings == 1 or (not attempt["opened"] and final is None)
        seen.add((attempt["first"], attempt["opened"], ledger.openings, final is not None))
        said = (folder / attempt["name"] / "second.log").read_text()
        if ledger.openings:
            assert attempt["second"] == 2
            assert "were opened once, last on" in said
            assert len(said.splitlines()) == 1
            assert after.load_final() == final
        else:
            # Nothing was spent: the same command goes on to the same result.
            assert attempt["second"] == 0, said
            found = after.load_final()
            assert found is not None
            assert numbers(found) == expected
            assert not (after.directory / "retrain").exists()
        if final is not None:
            assert numbers(final) == expected
    # Before the line, after it, after the rows were handed out, and not at all; or so late that it makes no difference.
    assert seen - {(-9, True, 1, True)} == {
        (-9, False, 0, False),
        (-9, False, 1, False),
        (-9, True, 1, False),
        (0, True, 1, True),
    }
    (spent,) = [a for a in attempts if a["opened"] and a["first"] == -9][:1]
    again = finalized(folder / spent["name"] / "study", "--again", "--reason", "it was killed")
    assert again.openings == 2
    assert numbers(again) == expected


def test_of_two_at_once_one_opens(folder: Path, attempts: Attempts) -> None:
    races = [attempt for attempt in attempts if "codes" in attempt]
    assert len(races) == 3
    for attempt in races:
        assert sorted(attempt["codes"]) == [0, 2]
        files = StudyFiles(folder / attempt["name"] / "study")
        assert read_ledger(files).openings == 1
        assert files.load_final() is not None
        loser = attempt["codes"].index(2)
        (line,) = (folder / attempt["name"] / f"{loser}.log").read_text().splitlines()
        assert "another process is finalizing it" in line or "were opened once" in line
