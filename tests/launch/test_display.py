"""What a person sees of a command's jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from overfit_lab.config import Config
from overfit_lab.launch.display import Display
from overfit_lab.plan import prepare


def test_what_was_inferred_is_said_once_and_cannot_steer_a_terminal(
    config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "n\x1b[2Jo"
    rows = "\n".join(f"{i},{'yes' if i % 2 else odd}" for i in range(40))
    (tmp_path / "a.csv").write_text(f"x,y\n{rows}\n")
    words = ("data=file", f"data.path={tmp_path / 'a.csv'}", "data.name=mine")
    first, second = (prepare(config(*words, f"seed={seed}")) for seed in (0, 1))
    assert first.study_record.said == second.study_record.said
    assert capsys.readouterr().err == ""
    display = Display(Console())
    for plan in (first, second):
        display.announce(plan, verbose=False)
    said = "target y is binary: n\N{REPLACEMENT CHARACTER}[2Jo, yes are classes 0, 1; input column x"
    assert capsys.readouterr().err == f"overfit-lab: mine: {said}\n"
