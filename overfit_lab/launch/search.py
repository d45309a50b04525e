"""Optuna's sweeper: what it is told is checked before it is made, and where it has found nothing that is said."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from overfit_lab.errors import UserError, first_line

_OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


def is_optuna(config: DictConfig) -> bool:
    """Say whether Optuna's sweeper makes the jobs."""
    return bool(config.hydra.sweeper._target_ == _OPTUNA)


def check_search(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Check what Optuna's sweeper is told, and keep Optuna from talking about itself.

    Args:
        config: Hydra's configuration of the command.
        overrides: What the sweeper is given to search, and what is fixed.

    Raises:
        UserError: A setting is not allowed, or an interval cannot be searched.
    """
    sweeper = config.hydra.sweeper
    for key in ("n_trials", "n_jobs"):
        if sweeper[key] < 1:
            raise UserError(f"hydra.sweeper.{key}={sweeper[key]}: must be greater than or equal to 1")
    if not 0 <= sweeper.max_failure_rate <= 1:
        raise UserError(f"hydra.sweeper.max_failure_rate={sweeper.max_failure_rate}: must be at least 0 and at most 1")
    # By its name where it is a member of the sweeper's own enumeration.
    direction = getattr(sweeper.direction, "name", sweeper.direction)
    if direction not in ("minimize", "maximize"):
        raise UserError(f"hydra.sweeper.direction={direction}: allowed are minimize and maximize")
    # Hydra is about to import both in any case; without Optuna's sweeper neither is.
    import optuna
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    optuna.logging.set_verbosity(logging.ERROR)
    for override in overrides:
        try:
            create_optuna_distribution_from_override(override)
        except Exception as error:  # Optuna's, of several kinds
            raise UserError(f"{override.input_line}: {first_line(error) or 'Optuna cannot search it'}") from error


def nothing_found(config: DictConfig) -> str | None:
    """Say that a search has found nothing, where its best run has no finite loss: all of its runs diverged."""
    results = Path(str(config.hydra.sweep.dir)) / "optimization_results.yaml"
    found = OmegaConf.load(results)
    best = found.get("best_value") if isinstance(found, DictConfig) else None
    if best is None or math.isfinite(best):
        return None
    return f"no run of the search has a finite validation loss; what {results} calls the best diverged as well"
