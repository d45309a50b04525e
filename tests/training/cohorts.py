"""Cohorts for the tests of training: many members that all differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from overfit_lab import config as cfg
from overfit_lab.data import Source, Split, make_split
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.data.development import DevelopmentFold, Stream, seal
from overfit_lab.model import initialise
from overfit_lab.objective import Penalty, penalised_names
from overfit_lab.task import make_task
from overfit_lab.training.history import History, plan_storage
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import Form, stack

ADAM = cfg.Adam(kind="adam", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8)


@dataclass
class Cohort:
    """A cohort of streams x configurations, ready to train."""

    split: Split
    streams: list[Stream]
    data: CohortDataModule
    module: CohortModule
    training: cfg.TrainingConfig
    precision: str

    def train(self, checkpoint: Path) -> History:
        """Train it to its horizon."""
        trainer = cfg.TrainerConfig.model_validate({"accelerator": "cpu", "precision": self.precision})
        return train(self.module, self.data, training=self.training, trainer=trainer, checkpoint=checkpoint)


def make_cohort(
    source: Source,
    *,
    penalties: Sequence[Penalty] = (Penalty(0.0, 0.0),),
    optimizer: cfg.OptimizerConfig = ADAM,
    optimizers: Sequence[cfg.OptimizerConfig] | None = None,
    seeds: Sequence[int] = (0, 1),
    folds: int = 3,
    width: int = 8,
    activation: cfg.Activation = "tanh",
    dropout: float = 0.0,
    epochs: int = 5,
    batch_size: int = 16,
    precision: str = "64-true",
    checkpoint_seconds: float = 3600,
    eval_every: int = 1,
    only: Callable[[Stream], bool] = lambda stream: True,
    model: cfg.ModelConfig | None = None,
    models: Sequence[cfg.ModelConfig] | None = None,
    form: Form = "layered",
    scale_inputs: bool = True,
    scale_targets: bool = False,
    metrics: Sequence[str] = (),
    validated: bool = True,
    label_noise: float = 0.0,
    train_size: float | None = None,
    listeners: Sequence[Callable[[History], None]] = (),
) -> Cohort:
    """Build a cohort over seeds x folds, one configuration for each penalty.

    `optimizers` and `models` give each configuration its own; `optimizer` and `model` all of them the same. Without
    `validated`, every development row is trained on and none held back.
    """
    split = make_split(
        source, cfg.KFoldSplit(kind="kfold", test_fraction=0.2, repeats=1, seed=0, stratify="auto", folds=folds)
    )
    development = seal(source, split, label_noise=label_noise, train_size=train_size)
    if not validated:
        rows = np.arange(len(development.rows))
        whole = tuple(DevelopmentFold(f.repeat, f.fold, rows, rows[:0]) for f in development.folds)
        development = replace(development, folds=whole)
    streams = [Stream(seed, f.repeat, f.fold) for seed in seeds for f in development.folds]
    streams = [stream for stream in streams if only(stream)]
    data = CohortDataModule(
        development,
        streams,
        batch_size=batch_size,
        max_train_rows_measured=10_000,
        scale_inputs=scale_inputs,
        scale_targets=scale_targets,
        dtype=torch.float64 if precision == "64-true" else torch.float32,
    )
    models = models or [mlp(width, activation, dropout) if model is None else model] * len(penalties)
    networks = [
        [initialise(m, *source.sizes, seed=s.seed, repeat=s.repeat, fold=s.fold) for m in models] for s in streams
    ]
    weights = penalised_names(networks[0][0])
    module = CohortModule(
        stack(networks, form),
        make_task(cfg.TaskConfig(name="auto", loss="auto", metrics=list(metrics)), source.problem),
        optimizers or [optimizer] * len(penalties),
        penalties,
        weights,
        plan_storage(epochs, [(f.repeat, f.fold) for f in data.folds], [len(f.val) for f in data.folds], eval_every),
        listeners,
        eval_every,
    )
    training = cfg.TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        max_train_rows_measured=10_000,
        checkpoint_seconds=checkpoint_seconds,
        eval_every=eval_every,
    )
    return Cohort(split, streams, data, module, training, precision)


def mlp(width: int, activation: cfg.Activation, dropout: float) -> cfg.MLPModel:
    """Describe a network of two hidden layers."""
    return cfg.MLPModel(_target_="overfit_lab.model.MLP", width=width, depth=2, activation=activation, dropout=dropout)


def custom(name: str) -> cfg.CustomModel:
    """Describe a network of `tests.training.networks`."""
    return cfg.CustomModel.model_validate({"_target_": f"tests.training.networks.{name}"})
