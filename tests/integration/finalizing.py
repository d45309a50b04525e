"""Studies to finalize, and commands in this process."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overfit_lab import cli
from overfit_lab.records import FinalRecord, RunFiles, RunRecord, StudyFiles
from tests.integration.conftest import Result
from tests.records.signing import sign

QUICK = ("split.folds=3", "model.depth=1", "training.epochs=4", "study.report=false")
# Two widths with two seeds each.
GRID = ("-m", "data=iris", "model.width=3,5", "seed=0,1", *QUICK)


def command(folder: Path, *words: str) -> Result:
    """Run `overfit-lab WORDS` in a folder, in this process; what it does to the process ends with it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", list(sys.argv))
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("HYDRA_FULL_ERROR", "1")
        code = cli.main(list(words))
    return Result(code, out.getvalue(), err.getvalue())


def trained(folder: Path, *overrides: str) -> Path:
    """Train in a folder, and return the one study there."""
    result = command(folder, "train", *overrides)
    assert (result.code, result.err) == (0, ""), result.err
    (record,) = folder.glob("studies/*/study.json")
    return record.parent


def finalized(study: Path, *words: str) -> FinalRecord:
    """Finalize a study, and return what it left."""
    result = command(study.parent, "finalize", str(study), *words)
    assert (result.code, result.err) == (0, ""), result.err
    record = StudyFiles(study).load_final()
    assert record is not None
    return record


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder: the bytes of each file, None for each folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def numbers(record: FinalRecord) -> dict[str, object]:
    """What of a final record must be the same where the same is done again."""
    values = record.model_dump()
    values["retrain"].pop("seconds")
    return {key: values[key] for key in ("study", "selection", "validation", "retrain", "test")}


def records_of(study: Path) -> list[tuple[Path, RunRecord]]:
    """The runs of a study, each with its folder."""
    return [(path, StudyFiles(study).run(path.name).load()) for path in sorted((study / "runs").iterdir())]


def keep(study: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Remove all runs but those whose configuration is wanted."""
    for path, record in records_of(study):
        if not wanted(record.config):
            shutil.rmtree(path)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file holds, as somebody does who knows of digests."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    if path.name == "run.json":
        sign(RunFiles(path.parent))


def spoil(name: str, change: Callable[[bytes], bytes], study: Path) -> None:
    """Damage a file of the study, or of its first run."""
    for path in [study / name] if (study / name).exists() else [records_of(study)[0][0] / name]:
        path.write_bytes(change(path.read_bytes()))


def half(content: bytes) -> bytes:
    """Cut a file in two."""
    return content[: len(content) // 2]
