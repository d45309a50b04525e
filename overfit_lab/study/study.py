"""Load a study: its finished runs as records and as one frame, and what failed or is not finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from overfit_lab.errors import UserError
from overfit_lab.records import Descriptive, RunRecord, StudyFiles, StudyRecord

# The default losses of the problem types, see overfit_lab.task; to read a study, nobody should have to import torch.
_DEFAULT_LOSS = {
    "binary": "binary_cross_entropy",
    "multiclass": "categorical_cross_entropy",
    "multilabel": "binary_cross_entropy",
    "regression": "mean_squared_error",
    "unit_regression": "mean_squared_error",
}


@dataclass(frozen=True)
class FailedRun:
    """A run without a readable record, and why in one line."""

    run_id: str
    error: str


@dataclass(frozen=True)
class Study:
    """A directory of runs on one source and one split.

    Args:
        files: Where its files are.
        record: Its source and split.
        runs: The finished runs (diverged ones among them), in the order of the configurations that they ran.
        failed: The runs that failed, or whose record or curves cannot be read.
        unfinished: Run ids whose folder holds neither a record nor a failure: running now, or interrupted.
    """

    files: StudyFiles
    record: StudyRecord
    runs: tuple[RunRecord, ...]
    failed: tuple[FailedRun, ...]
    unfinished: tuple[str, ...]

    def frame(self) -> pl.DataFrame:
        """One row for each finished run: its configuration with dotted names, and its outcome."""
        if not self.runs:
            return pl.DataFrame()
        return pl.from_dicts([_row(run) for run in self.runs], infer_schema_length=None)

    def losses(self) -> set[str]:
        """The names of the losses that its runs were trained on."""
        default = _DEFAULT_LOSS.get(self.record.source.problem, "loss")
        chosen = {(run.config.get("task") or {}).get("loss") for run in self.runs}
        return {default if loss in (None, "auto") else loss for loss in chosen} or {default}

    def curves(self, run_id: str) -> pl.DataFrame:
        """The curves of one run: repeat, fold, epoch, split, metric, value."""
        return self.files.run(run_id).load_curves()

    def swept(self) -> dict[str, list[Any]]:
        """The configuration keys that differ between runs, with their values in order."""
        configurations = [flatten(run.config) for run in self.runs]
        keys = dict.fromkeys(key for configuration in configurations for key in configuration)
        values = {key: {configuration.get(key) for configuration in configurations} for key in keys}
        return {key: sorted(seen, key=_order) for key, seen in values.items() if len(seen) > 1}


def load_study(path: Path | str) -> Study:
    """Load a study from its directory, finished or not.

    Raises:
        UserError: The directory is no study, or was written by a newer version.
    """
    files = StudyFiles(Path(path))
    record = files.load()
    runs, failed, unfinished = [], [], []
    for directory in sorted(files.runs.glob("[!.]*")):
        run = files.run(directory.name)
        try:
            if run.record.is_file():
                runs.append(run.verify())
            elif run.failure.is_file():
                failed.append(FailedRun(directory.name, run.load_failure().error))
            elif directory.is_dir():
                unfinished.append(directory.name)
        except UserError as error:
            failed.append(FailedRun(directory.name, str(error)))
    runs.sort(key=lambda run: [_order(value) for value in flatten(run.config).values()])
    return Study(files, record, tuple(runs), tuple(failed), tuple(unfinished))


def _order(value: Any) -> tuple[int, float, str]:  # noqa: ANN401 - any configuration value
    """Sort numbers as numbers, before everything else."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested configuration values dotted names; lists become text.

    Where the study lies and who logs it is left out: it does not matter to a result.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = str(value) if isinstance(value, list) else value
    return {key: value for key, value in flat.items() if not key.startswith(("study.", "logger."))}


def _row(run: RunRecord) -> dict[str, Any]:
    onset = run.onset
    onsets = [fit.onset.epoch for fit in run.fits if fit.onset.epoch is not None]
    return {
        "run_id": run.run_id,
        "config_id": run.config_id,
        "status": run.status,
        **flatten(run.config),
        "parameters": run.parameters,
        "verdict": onset.verdict,
        "onset": onset.epoch,
        "onset_low": onset.ci[0] if onset.ci else None,
        "onset_high": onset.ci[1] if onset.ci else None,
        "detected_at": onset.detected_at,
        "p_value": onset.p_value,
        "second_descent": onset.second_descent,
        "best_epoch": run.val_loss.epoch,
        "val_loss": run.val_loss.mean,
        "val_loss_se": run.val_loss.se,
        "train_loss": run.train_loss,
        "gap": run.gap,
        "fits": len(run.fits),
        "fits_overfit": len(onsets),
        "fits_onset_min": min(onsets, default=None),
        "fits_onset_median": float(median(onsets)) if onsets else None,
        "fits_onset_max": max(onsets, default=None),
        **{f"descriptive_{name}": getattr(run.descriptive, name, None) for name in Descriptive.model_fields},
        "seconds": run.seconds,
        "device": run.device,
    }
