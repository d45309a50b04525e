"""From a module and its data to a history: the one place that builds a Lightning Trainer."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from overfit_lab.config import TrainerConfig, TrainingConfig
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.files import replacing
from overfit_lab.training.checkpoint import CohortCheckpoint, resumable
from overfit_lab.training.history import History
from overfit_lab.training.module import CohortModule


def train(
    module: CohortModule,
    data: CohortDataModule,
    *,
    training: TrainingConfig,
    trainer: TrainerConfig,
    checkpoint: Path,
    keep: bool = False,
) -> History:
    """Train a cohort to its horizon, from its checkpoint where there is one; the checkpoint is removed at the end.

    Args:
        module: The cohort.
        data: Its rows.
        training: The horizon, and how often to save.
        trainer: Device and precision.
        checkpoint: The file of the checkpoint; its folder exists.
        keep: Save a checkpoint at the end, too, and keep it.

    Raises:
        KeyboardInterrupt: The user interrupted it; the last checkpoint is kept.

    Returns:
        The module's history, from epoch 0 to `training.epochs`.
    """
    path = resumable(checkpoint)
    if trainer.precision == "64-true":
        # Lightning would convert the module, too, but only after it has read a checkpoint into it.
        module.double()
    # Lightning tells on every Trainer which devices it sees and what it logs to; one line for each run of a sweep.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Measuring is done by the module, on matched weights: there is no validation loop, and no worker process.
        warnings.filterwarnings("ignore", message=".*`validation_step`.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning's own use of a name that torch has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        lightning_trainer = L.Trainer(
            accelerator=_accelerator(trainer),
            devices=1,
            precision=trainer.precision,
            max_epochs=training.epochs,
            deterministic=True,
            # One process, whatever a cluster's environment says; and no checkpoint of Lightning's own is looked for.
            plugins=[LightningEnvironment()],
            default_root_dir=checkpoint.parent,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[CohortCheckpoint(checkpoint, training.checkpoint_seconds)],
        )
        try:
            lightning_trainer.fit(module, datamodule=data, ckpt_path=path)
        except SystemExit as error:
            # Lightning turns Ctrl-C into sys.exit(1), which would look like a failed run.
            raise KeyboardInterrupt if lightning_trainer.interrupted else error from None
        if keep:
            with replacing(checkpoint) as partial:
                lightning_trainer.save_checkpoint(partial)
    if not keep:
        checkpoint.unlink(missing_ok=True)
    # Whoever holds on to the module should not hold the optimizer's states, which are larger.
    module.trainer = data.trainer = None
    return module.history


def _accelerator(config: TrainerConfig) -> str:
    if config.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.accelerator
