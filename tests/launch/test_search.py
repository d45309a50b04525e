"""What Optuna's sweeper is told, and where it finds nothing; whole searches: tests/integration/test_optuna.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from overfit_lab.errors import UserError
from overfit_lab.launch.search import check_search, is_optuna, nothing_found

OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def told(folder: Path | None = None, **settings: object) -> DictConfig:
    usual = {"_target_": OPTUNA, "n_trials": 2, "n_jobs": 1, "max_failure_rate": 0.0, "direction": "minimize"}
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}, "sweeper": {**usual, **settings}}})


def test_whose_sweeper_it_is() -> None:
    assert is_optuna(told())
    assert not is_optuna(told(_target_=BASIC))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("n_trials", 0, "must be greater than or equal to 1"),
        ("n_trials", -3, "must be greater than or equal to 1"),
        ("n_jobs", 0, "must be greater than or equal to 1"),
        ("max_failure_rate", -0.5, "must be at least 0 and at most 1"),
        ("max_failure_rate", 2, "must be at least 0 and at most 1"),
        ("direction", "down", "allowed are minimize and maximize"),
        ("direction", ["minimize"], "allowed are minimize and maximize"),
    ],
)
def test_settings_that_are_not_allowed(monkeypatch: pytest.MonkeyPatch, key: str, value: object, allowed: str) -> None:
    # A mistake is said before Optuna is imported, which takes its time.
    monkeypatch.setitem(sys.modules, "optuna", None)
    config = told()
    config.hydra.sweeper[key] = value
    with pytest.raises(UserError) as caught:
        check_search(config, [])
    assert str(caught.value) == f"hydra.sweeper.{key}={value}: {allowed}"


@pytest.mark.parametrize(("best", "found"), [("0.5", True), (".inf", False), (".nan", False), ("null", True)])
def test_where_nothing_is_found(tmp_path: Path, best: str, found: bool) -> None:
    results = tmp_path / "optimization_results.yaml"
    results.write_text(f"name: optuna\nbest_params:\n  model.width: 8\nbest_value: {best}\n")
    said = nothing_found(told(tmp_path))
    assert (said is None) == found
    assert said is None or str(results) in said
