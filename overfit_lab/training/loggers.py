"""Lightning's loggers, beside the event files: a logger of its own for each run.

Runs of a cohort train side by side, but a logger's backend may hold one run at a time (Weights & Biases does), and
thousands of open clients would help nobody. So a run is logged when it is done, epoch by epoch, and its logger closed
before the next one is opened. Live curves are in TensorBoard.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overfit_lab.config import LoggerConfig, import_object
from overfit_lab.errors import UserError, first_line
from overfit_lab.training.history import History

if TYPE_CHECKING:
    # It imports TensorBoard, which takes its time where a command is only checked.
    from overfit_lab.training.events import RunMembers

# Of Lightning's loggers, by module: what each needs.
_BACKENDS = {"mlflow": "mlflow", "wandb": "wandb", "comet": "comet_ml", "neptune": "neptune", "litlogger": "litlogger"}


def check_logger(config: LoggerConfig) -> None:
    """Check that a logger can be imported and takes its arguments; nothing is opened or written.

    Raises:
        UserError: It cannot, or does not, or is no logger of Lightning's.
    """
    if config.target is None:
        return
    kind = import_object("logger._target_", config.target)
    from lightning.pytorch.loggers import Logger

    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        raise UserError(
            f"logger._target_={config.target}: allowed is a logger class of Lightning's, or one derived from its Logger"
        )
    # Lightning's own say what they need only when they are made.
    backend = _BACKENDS.get(kind.__module__.removeprefix("lightning.pytorch.loggers."))
    if backend is not None and importlib.util.find_spec(backend) is None:
        raise UserError(f"logger._target_={config.target}: it needs the package {backend}, which is not installed")
    try:
        inspect.signature(kind).bind(**_filled(config.arguments, Path(), ""))
    except TypeError as error:
        raise UserError(
            f"logger._target_={config.target}: {first_line(error)}; add an argument with +logger.KEY=VALUE, drop one "
            "with ~logger.KEY"
        ) from error


def log_run(
    config: LoggerConfig,
    run: RunMembers,
    study: str,
    history: History,
    hparams: Mapping[str, object],
    finals: Mapping[str, float | None],
) -> None:
    """Log a finished run: its hyperparameters, the mean over its fits of each curve, and its final metrics.

    What goes wrong is said on stderr and is no failure of the run, whose record is whole.

    Args:
        config: Which logger; where it names none, nothing is done.
        run: Its folder, named by its id, and its members.
        study: The name of its study.
        history: Of the cohort.
        hparams: What is shown of its configuration.
        finals: What is shown of its outcome; what is None is left out.
    """
    if config.target is None:
        return
    try:
        make = import_object("logger._target_", config.target)
        logger = make(**_filled(config.arguments, run.directory, study))
        logger.log_hyperparams(dict(hparams))
        for epoch, values in _epochs(history, run):
            logger.log_metrics(values, step=epoch)
        last = {f"final/{name}": value for name, value in finals.items() if value is not None}
        logger.log_metrics(last, step=history.epochs)
        logger.finalize("success")
        # Lightning leaves a run of Weights & Biases open, and the next run would go on in it.
        finish = getattr(logger.experiment, "finish", None)
        if callable(finish):
            finish()
    except Exception as error:  # whatever a logger, its server or the network may raise
        what = f"{type(error).__name__}: {first_line(error)}"
        print(f"overfit-lab: logger._target_={config.target}: run {run.directory.name}: {what}", file=sys.stderr)


def _epochs(history: History, run: RunMembers) -> list[tuple[int, dict[str, float]]]:
    """Return for each measured epoch the finite means over the fits of a run, by tag."""
    means = {
        history.tag(*curve): history.curve(*curve)[list(run.streams), run.configuration].mean(0)
        for curve in history.curves
    }
    # What begins later ends with the others.
    count = len(history.measured)
    rows = []
    for i, epoch in enumerate(history.measured):
        at = {tag: values[i - count] for tag, values in means.items() if i >= count - len(values)}
        rows.append((epoch, {tag: float(value) for tag, value in at.items() if math.isfinite(value)}))
    return rows


def _filled(arguments: Mapping[str, Any], folder: Path, study: str) -> dict[str, Any]:
    """Fill in what a run is called and where it lies: {study}, {run_id} and {folder}.

    Raises:
        UserError: A text has other placeholders.
    """
    filled = {}
    for key, value in arguments.items():
        try:
            known = {"study": study, "run_id": folder.name, "folder": str(folder)}
            filled[key] = value.format_map(known) if isinstance(value, str) else value
        except (LookupError, ValueError) as error:
            raise UserError(
                f"logger.{key}={value}: allowed in braces are {{study}}, {{run_id}} and {{folder}}"
            ) from error
    return filled
