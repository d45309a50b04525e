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
from overfit_lab.training.checkpoint import CheckpointFile, CohortCheckpoint
from overfit_lab.training.history import History
from overfit_lab.training.module import CohortModule
from overfit_lab.training.supervision import ALONE, Supervision


def train(
    module: CohortModule,
    data: CohortDataModule,
    *,
    training: TrainingConfig,
    trainer: TrainerConfig,
    checkpoint: Path,
    keep: bool = False,
    supervision: Supervision = ALONE,
    before: int = 0,
) -> History:
    """Train a cohort to its horizon, from its checkpoint where there is one.

    Args:
        module: The cohort.
        data: Its rows.
        training: The horizon, and how often to save.
        trainer: Device and precision.
        checkpoint: The file of the checkpoint; its folder exists. It stays: whoever saves the results removes it.
        keep: Save a checkpoint at the end, too.
        supervision: Who may stop the training, and hears how far it is.
        before: Epochs that the cohort has trained in its earlier parts.

    Raises:
        Stopped: It was told to stop; the checkpoint is on disk.
        KeyboardInterrupt: The user interrupted it; the last checkpoint is kept.

    Returns:
        The module's history, from epoch 0 to `training.epochs`.
    """
    accelerator = _accelerator(trainer)
    if trainer.precision == "64-true":
        # Lightning would convert the module, too, but only after a checkpoint has been read into it.
        module.double()
    file = CheckpointFile(checkpoint)
    file.load(module)
    if module.completed == training.epochs:
        module.trained_on = torch.device(accelerator)
        return module.history
    supervision.reached(before + module.progress(data))
    module.supervision = supervision
    data.resume(module.completed, module.steps)
    # Lightning tells on every Trainer which devices it sees and what it logs to; one line for each run of a sweep.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Measuring is done by the module, on matched weights: there is no validation loop, and no worker process.
        warnings.filterwarnings("ignore", message=".*`validation_step`.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # On a cluster it asks for `srun`, which it would need for several processes.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # Lightning's own use of a name that torch has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        lightning_trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=trainer.precision,
            # What is left: Lightning counts from 0.
            max_epochs=training.epochs - module.completed,
            deterministic=True,
            # One process, whatever a cluster's environment says; and no checkpoint of Lightning's own is looked for.
            plugins=[LightningEnvironment()],
            default_root_dir=checkpoint.parent,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[CohortCheckpoint(file, training.checkpoint_seconds, supervision, before)],
        )
        try:
            lightning_trainer.fit(module, datamodule=data)
        except SystemExit as error:
            # Lightning turns Ctrl-C into sys.exit(1), which would look like a failed run.
            raise KeyboardInterrupt if lightning_trainer.interrupted else error from None
    if keep:
        file.save(module)
    # Whoever holds on to the module should not hold the optimizer's states, which are larger.
    module.trainer = data.trainer = None
    return module.history


def _accelerator(config: TrainerConfig) -> str:
    if config.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.accelerator
