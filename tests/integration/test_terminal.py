"""What a person sees: bars on a terminal, plain lines elsewhere, help at once."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import COMMAND, Train, run_command

SWEEP = ("train", "-m", "model.width=4,8", "training.epochs=30", "study.report=false")


def test_no_bar_and_no_colour_where_stdout_is_no_terminal(tmp_path: Path) -> None:
    result = run_command(tmp_path, *SWEEP)
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    lines = [line.partition(":")[0] for line in result.out.splitlines()]
    # In the order in which they are done.
    assert [line.partition(" ")[0] for line in lines] == ["[1/2]", "[2/2]"]
    assert sorted(line.partition(" ")[2] for line in lines) == ["model.width=4", "model.width=8"]


def test_a_bar_for_the_jobs_and_one_for_the_training_on_a_terminal(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*COMMAND, *SWEEP], cwd=tmp_path, stdout=follower, stderr=subprocess.PIPE, env=environment
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the terminal is gone with its last process
            break
        if not part:
            break
        seen += part
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    text = seen.decode()
    assert "runs" in text
    assert "training, %" in text
    assert "0/2" in text
    assert re.search(r"\b\d+/100\b", text)
    assert "[2/2] model.width=" in text


def test_which_parameters_are_penalised_is_shown_on_request(train: Train) -> None:
    quick = ("training.epochs=1", "study.report=false", "model.width=4", "model.depth=1")
    shown = train(*quick, "hydra.verbose=true", "penalty.exclude=[3.weight]").out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert rows == [
        ["0.weight", "4 x 30", "weight", "yes"],
        ["0.bias", "4", "bias", "no"],
        ["3.weight", "1 x 4", "weight", "no"],
        ["3.bias", "1", "bias", "no"],
    ]
    assert "│" not in train(*quick).out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from overfit_lab.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'hydra', 'polars', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert "report" in done.stdout


def test_hydras_own_help_and_config_dump(tmp_path: Path) -> None:
    help_ = run_command(tmp_path, "train", "--help")
    assert help_.code == 0
    assert help_.out.startswith("overfit-lab train is powered by Hydra.")
    assert "data: breast_cancer, custom" in help_.out
    dump = run_command(tmp_path, "train", "--cfg", "job", "model.width=7")
    assert dump.code == 0
    assert "width: 7" in dump.out
    assert list(tmp_path.iterdir()) == []
