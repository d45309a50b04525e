"""Which loggers are taken, and what they are told of a run of a cohort."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger

from overfit_lab.config import Config, LoggerConfig
from overfit_lab.errors import UserError
from overfit_lab.plan import prepare
from overfit_lab.training.events import RunMembers
from overfit_lab.training.history import History
from overfit_lab.training.loggers import check_logger, log_run

Configure = Callable[..., Config]
CSV = "lightning.pytorch.loggers.CSVLogger"


class Noting(Logger):
    """Writes down all that it is told."""

    def __init__(self, path: str, title: str = "-", fails: bool = False) -> None:
        super().__init__()
        self.path, self.title, self.fails = Path(path), title, fails
        self.note("opened", title)

    def note(self, *what: object) -> None:
        with self.path.open("a") as file:
            print(json.dumps(what), file=file)

    @property
    def name(self) -> str:
        return self.title

    @property
    def version(self) -> str:
        return ""

    @property
    def experiment(self) -> Noting:
        return self

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.fails:
            raise ConnectionError("no server\nat all")
        self.note("metrics", step, metrics)

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        self.note("hyperparameters", params)

    def finalize(self, status: str) -> None:
        self.note("finalized", status)

    def finish(self) -> None:
        self.note("finished")


def logger(target: str | None, **arguments: object) -> LoggerConfig:
    return LoggerConfig.model_validate({"_target_": target, **arguments})


def _history() -> History:
    """Two streams by two configurations, measured at 0 and 5; a curve that begins at 5, and a value that is none."""
    history = History()
    for epoch in (0, 5):
        history.begin(epoch)
        for split, by in (("train", 1.0), ("val", 100.0)):
            history.append(split, "loss", by * (epoch + torch.tensor([[1.0, 2.0], [3.0, 7.0]])))
        history.append("train", "penalty", torch.tensor([[0.0, float("nan")], [0.0, 1.0]]))
    history.append("train", "running_loss", torch.ones(2, 2))
    return history


def test_a_logger_is_told_of_its_run_alone(tmp_path: Path) -> None:
    own = logger(f"{__name__}.Noting", path="{folder}/log", title="{study}: {run_id}")
    run = RunMembers(tmp_path, (0, 1), 1)
    log_run(own, run, "wine", _history(), {"model.width": 4}, {"val_loss": 0.5, "onset": None})
    assert [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()] == [
        ["opened", f"wine: {tmp_path.name}"],
        ["hyperparameters", {"model.width": 4}],
        # Means over its streams; what is not finite is left out.
        ["metrics", 0, {"loss/train": 4.5, "loss/val": 450.0}],
        ["metrics", 5, {"loss/train": 9.5, "loss/val": 950.0, "training/running_loss": 1.0}],
        ["metrics", 5, {"final/val_loss": 0.5}],
        ["finalized", "success"],
        ["finished"],
    ]


def test_a_logger_that_fails_is_said_and_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = logger(f"{__name__}.Noting", path="{folder}/log", fails=True)
    log_run(own, RunMembers(tmp_path, (0,), 0), "wine", _history(), {}, {})
    said = f"overfit-lab: logger._target_={__name__}.Noting: run {tmp_path.name}: ConnectionError: no server\n"
    assert capsys.readouterr().err == said


def test_without_a_path_there_is_no_logger(tmp_path: Path) -> None:
    check_logger(logger(None))
    log_run(logger(None), RunMembers(tmp_path, (0,), 0), "wine", _history(), {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            logger("lightning.pytorch.loggers.Nope"),
            r"^logger\._target_=lightning\.pytorch\.loggers\.Nope: .*allowed is",
        ),
        (logger("math.sqrt"), r"^logger\._target_=math\.sqrt: allowed is a logger class of Lightning's"),
        (logger(CSV, save_dir="x", nmae="y"), r"CSVLogger: .*'nmae'; add an argument with \+logger\.KEY=VALUE, drop"),
        (logger(CSV), r"CSVLogger: missing a required argument: 'save_dir'; add"),
        (
            logger(CSV, save_dir="{runs}"),
            r"^logger\.save_dir=\{runs\}: allowed in braces are \{study\}, \{run_id\} and",
        ),
        (logger(CSV, save_dir="{0}"), r"^logger\.save_dir=\{0\}: allowed in braces"),
        (logger(CSV, save_dir="{"), r"^logger\.save_dir=\{: allowed in braces"),
    ],
)
def test_loggers_at_fault(config: LoggerConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_logger(config)


@pytest.mark.parametrize(("choice", "package"), [("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_logger_whose_package_is_missing_is_refused_before_training(
    config: Configure, choice: str, package: str
) -> None:
    if importlib.util.find_spec(package) is not None:
        prepare(config(f"logger={choice}"))
        return
    with pytest.raises(
        UserError, match=rf"^logger\._target_=.*: it needs the package {package}, which is not installed$"
    ):
        prepare(config(f"logger={choice}"))


def test_who_logs_a_run_does_not_name_it(config: Configure) -> None:
    plan, logged = prepare(config()), prepare(config("logger=csv"))
    assert (plan.run_id, plan.cohort_key) == (logged.run_id, logged.cohort_key)
