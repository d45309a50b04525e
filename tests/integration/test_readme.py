"""The examples of the README, run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from overfit_lab.errors import UserError
from tests.integration.finalizing import command, trained

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_a_study_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, "-m", "model.width=3,4", "split.folds=2", "training.epochs=9", "study.report=false")
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in PYTHON if "load_study" in block)
    exec(code, {})
    assert capsys.readouterr().out.split()[-1] in ("3", "4")
    assert (tmp_path / "best.pdf").read_bytes().startswith(b"%PDF")


def test_a_network_and_data_of_ones_own(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "# mine.py" in block)
    (tmp_path / "mine.py").write_text(code)
    lines = [line for line in TEXT.splitlines() if line.startswith("overfit-lab train") and "mine." in line]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)[1:]
        result = command(tmp_path, *words, "training.epochs=2", "study.report=false")
        assert (result.code, result.err) == (0, ""), line


def test_a_mistake_is_an_exception_of_ours(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "load_study" in block)
    with pytest.raises(UserError, match="is not a study"):
        exec(code.replace("studies/breast_cancer-kfold", str(tmp_path)), {})
