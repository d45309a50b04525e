"""`report --watch` beside a sweep that goes on."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import polars as pl

from tests.integration.conftest import start
from tests.integration.finalizing import trained

QUICK = ("data=iris", "split.folds=2", "training.epochs=2", "study.report=false")


def _next_report(watcher: subprocess.Popen[bytes]) -> None:
    assert watcher.stdout is not None
    for line in watcher.stdout:
        if line.startswith(b"report: "):
            return
    raise AssertionError("it has ended")


def test_the_report_follows_the_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    study = trained(tmp_path, "model.width=3", *QUICK)
    watcher = start(tmp_path, "report", "--watch", str(study))
    deadline = threading.Timer(120, watcher.kill)
    deadline.start()
    try:
        _next_report(watcher)
        assert len(pl.read_csv(study / "report" / "runs.csv")) == 1
        trained(tmp_path, "model.width=4", *QUICK)
        _next_report(watcher)
        assert len(pl.read_csv(study / "report" / "runs.csv")) == 2
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=60)
    finally:
        watcher.kill()
        deadline.cancel()
    assert (watcher.returncode, err) == (0, b"")
