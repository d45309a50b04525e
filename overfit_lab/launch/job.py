"""One Hydra job: read its configuration, train it unless it is finished, turn whatever happens into an outcome."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from overfit_lab.config import Config, parse, run_id
from overfit_lab.errors import UserError, first_line
from overfit_lab.plan import Plan
from overfit_lab.records import RunRecord
from overfit_lab.run import Listener, execute


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        status: `trained` now, `present` from before, or `failed`.
        study: The study's directory.
        report: Whether the study's report is to be rebuilt.
        run_id: The run.
        overrides: What the command line changed for this job.
        record: The run's record, unless it failed.
        error: Why it failed, in one line.
    """

    status: Literal["trained", "present", "failed"]
    study: Path
    report: bool
    run_id: str
    overrides: tuple[str, ...]
    record: RunRecord | None = None
    error: str | None = None


def config_of(composed: DictConfig) -> Config:
    """Resolve and check what Hydra composed; its own section is left out.

    Raises:
        UserError: A value is missing, not allowed, or refers to something that is not there.
    """
    try:
        values = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing; give it as {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the configuration'}: {first_line(error)}") from error
    assert isinstance(plain, dict)
    return parse({str(key): value for key, value in plain.items()})


def overrides_of(hydra: HydraConf) -> list[str]:
    """Return the overrides of a job from Hydra's section as they were typed; an interpolation in one stays as it is."""
    overrides = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]


def register_resolvers() -> None:
    """Let YAML name where a run lies: `${overfit_lab.expand_user:ROOT}`, and below it `${overfit_lab.run_folder:}`."""

    def expand_user(root: object) -> str:
        return str(Path(str(root)).expanduser())

    def run_folder(*, _root_: DictConfig) -> str:
        config = config_of(_root_)
        return f"{config.study.directory.name}/runs/{run_id(config)}"

    OmegaConf.register_new_resolver("overfit_lab.expand_user", expand_user, replace=True)
    OmegaConf.register_new_resolver("overfit_lab.run_folder", run_folder, replace=True)


def run_job(plan: Plan, overrides: Sequence[str], listeners: Sequence[Listener] = ()) -> Outcome:
    """Train a run that has been prepared, unless its record is there.

    A run that fails leaves `failure.json` and an outcome, not an exception: the jobs after it are not its fault.

    Raises:
        UserError: The study has become another one meanwhile, or the run's record cannot be read.
    """
    study = plan.config.study
    outcome = functools.partial(
        Outcome, study=study.directory, report=study.report, run_id=plan.run_id, overrides=tuple(overrides)
    )
    if plan.files.record.is_file():
        return outcome(status="present", record=plan.files.load())
    try:
        record = execute(plan, overrides=overrides, command=_command_line(), listeners=listeners)
    except UserError:
        raise
    except Exception as error:
        # Its weights may come from code that is being mended: the next try starts from scratch.
        plan.files.checkpoint.unlink(missing_ok=True)
        values = plan.config.model_dump(by_alias=True, mode="json")
        return outcome(status="failed", error=plan.files.save_failure(plan.run_id, values, error).error)
    return outcome(status="trained", record=record)


def _command_line() -> str:
    # The first word is the program and its command in one, as Hydra's own messages show it.
    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".strip()
