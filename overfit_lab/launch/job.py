"""One Hydra job: read its configuration, train it unless it is finished, turn whatever happens into an outcome."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from overfit_lab.config import Config, folder_name, parse, run_id
from overfit_lab.errors import UserError, first_line
from overfit_lab.plan import Plan
from overfit_lab.records import Damaged, RunRecord

Status = Literal["trained", "present", "failed", "submitted"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        status: `trained` now, `present` from before, `failed`, or `submitted` to train later.
        study: The study's directory.
        report: Whether the study's report is to be rebuilt.
        run_id: The run.
        overrides: What the command line changed for this job.
        record: The run's record, unless it failed.
        error: Why it failed, in one line.
    """

    status: Status
    study: Path
    report: bool
    run_id: str
    overrides: tuple[str, ...]
    record: RunRecord | None = None
    error: str | None = None

    def __float__(self) -> float:
        """The validation loss, which a sweeper that searches makes as low as it can; infinite where a run diverged.

        Raises:
            ValueError: The run has failed, or is to train later: it says nothing about its configuration.
        """
        if self.record is None:
            raise ValueError(f"run {self.run_id}: {self.error or self.status}")
        loss = self.record.val_loss.mean
        return math.inf if loss is None else loss


def finish(
    plan: Plan,
    overrides: Sequence[str],
    status: Status,
    *,
    record: RunRecord | None = None,
    error: str | None = None,
) -> Outcome:
    """Say what became of a run."""
    study = plan.config.study
    return Outcome(status, study.directory, study.report, plan.run_id, tuple(overrides), record, error)


def config_of(composed: DictConfig) -> Config:
    """Resolve and check what Hydra composed; its own section is left out.

    Raises:
        UserError: A value is missing, not allowed, or refers to something that is not there.
    """
    try:
        # Key by key: a copy without Hydra's section would cost more than all the rest.
        values = {str(key): composed[key] for key in composed if key != "hydra"}
        plain = {
            key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in values.items()
        }
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing; give it as {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the configuration'}: {first_line(error)}") from error
    return parse(plain)


def overrides_of(hydra: HydraConf) -> list[str]:
    """Return the overrides of a job from Hydra's section as they were typed; an interpolation in one stays as it is."""
    overrides = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]


def register_resolvers() -> None:
    """Let YAML name files, as `${overfit_lab.NAME:...}`.

    - `expand_user`: a folder, with `~` resolved.
    - `study_folder`: the folder of a study, seen from `study.root`, by the study's name.
    - `run_folder`: that of the run, seen from its study.
    - `file_name`: what a file, a folder or a data set of the hub is called, without folders and the file's type.
    """

    def expanded(path: object) -> Path:
        # That there is no such user is for the schema to say.
        with suppress(RuntimeError):
            return Path(str(path)).expanduser()
        return Path(str(path))

    def expand_user(root: object) -> str:
        return str(expanded(root))

    def run_folder(*, _root_: DictConfig) -> str:
        return f"runs/{run_id(config_of(_root_))}"

    def study_folder(name: object) -> str:
        return folder_name(str(name))

    def file_name(path: object) -> str:
        # Of an absolute path the last part is a name, even where a user has written `..`.
        name = os.path.basename(os.path.abspath(expanded(path)))  # noqa: PTH100, PTH119 - as it is linked
        return re.sub(r"(?<=.)\.(csv|tsv|parquet|npz)(\.gz)?$", "", name)

    for resolver in (expand_user, run_folder, study_folder, file_name):
        OmegaConf.register_new_resolver(f"overfit_lab.{resolver.__name__}", resolver, replace=True)


def present(plan: Plan, overrides: Sequence[str]) -> Outcome | None:
    """Return what became of a run before, where its record is there.

    What is damaged or was edited is never trusted: it is named, set aside, and the run is trained again.

    Raises:
        UserError: The record was written by a newer version.
    """
    if not plan.files.record.is_file():
        return None
    try:
        return finish(plan, overrides, "present", record=plan.files.verify())
    except Damaged as error:
        plan.files.set_aside()
        print(f"overfit-lab: {error}; set aside as *.damaged, training it again", file=sys.stderr)
        return None


def found(plan: Plan, overrides: Sequence[str]) -> Outcome | None:
    """Return what another process has made of a run just now, where it is done with it."""
    if plan.files.failure.is_file() and not plan.files.record.is_file():
        return finish(plan, overrides, "failed", error=plan.files.load_failure().error)
    outcome = present(plan, overrides)
    return None if outcome is None else replace(outcome, status="trained")


def fail_all(plans: Iterable[Plan], overrides: Mapping[str, Sequence[str]], error: Exception) -> list[Outcome]:
    """Write down that runs have failed, and why; `overrides` by their ids."""
    outcomes = []
    for plan in plans:
        values = plan.config.model_dump(by_alias=True, mode="json")
        line = plan.files.save_failure(plan.run_id, values, error).error
        outcomes.append(finish(plan, overrides.get(plan.run_id, ()), "failed", error=line))
    return outcomes


def command_line() -> str:
    """Return the command line of this process, for the record."""
    # The first word is the program and its command in one, as Hydra's own messages show it.
    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".strip()
