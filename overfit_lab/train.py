"""Training a cohort: its network, its data and its history, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from overfit_lab.cohort import Cohort
from overfit_lab.config import ModelConfig
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.data.development import DevelopmentRows, Stream
from overfit_lab.model import initialise
from overfit_lab.objective import make_penalty
from overfit_lab.plan import Plan
from overfit_lab.training.describe import Description, describe
from overfit_lab.training.describe import join as join_descriptions
from overfit_lab.training.history import History, Listener, LossStorage, join, plan_storage
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import stack
from overfit_lab.training.supervision import ALONE, Supervision


@dataclass(frozen=True, eq=False)
class Trained:
    """What has become of a cohort.

    Args:
        development: The rows that it was trained and validated on.
        history: Of all its members, in the order of `Cohort.streams` and `Cohort.configurations`.
        storage: Which validation losses were kept.
        device: What it was trained on.
        modules: The trained members, part by part as `Cohort.parts`; on the CPU.
        data: Its rows, part by part; on the CPU, too.
        description: What the trained members are like; each seed's effective number of parameters on the first fold.
    """

    development: DevelopmentRows
    history: History
    storage: LossStorage
    device: torch.device
    modules: tuple[CohortModule, ...]
    data: tuple[CohortDataModule, ...]
    description: Description


def train_cohort(cohort: Cohort, listeners: Sequence[Listener] = (), supervision: Supervision = ALONE) -> Trained:
    """Train a cohort to its horizon, each part from its checkpoint where there is one. The checkpoints stay.

    Args:
        cohort: What to train.
        listeners: Called with the history after each measured epoch; at the end, where there are several parts.
        supervision: Who may stop the training, and hears how many epochs of all parts are done.

    Raises:
        Stopped: It was told to stop; the checkpoints are on disk.
    """
    plan = cohort.plans[0]
    development = plan.seal()
    folds = development.folds
    training = plan.config.training
    storage = plan_storage(
        training.epochs, [(f.repeat, f.fold) for f in folds], [len(f.val) for f in folds], training.eval_every
    )
    files = cohort.study.cohorts
    files.directory.mkdir(parents=True, exist_ok=True)
    alone = len(cohort.parts) == 1
    histories, modules, data, descriptions = [], [], [], []
    for part, streams in enumerate(cohort.parts):
        modules.append(_module(cohort, streams, storage, listeners if alone else ()))
        data.append(_data(plan, development, streams))
        histories.append(
            train(
                modules[-1],
                data[-1],
                training=training,
                trainer=plan.config.trainer,
                checkpoint=files.checkpoint(cohort.name, part),
                keep=not alone,
                supervision=supervision,
                before=part * training.epochs,
            )
        )
        descriptions.append(_describe(modules[-1], data[-1], fold=(folds[0].repeat, folds[0].fold)))
    history = join(histories)
    if not alone:
        for listener in listeners:
            for so_far in history.epoch_by_epoch():
                listener(so_far)
    return Trained(
        development,
        history,
        storage,
        modules[-1].trained_on,
        tuple(modules),
        tuple(data),
        join_descriptions(descriptions),
    )


def _describe(module: CohortModule, data: CohortDataModule, fold: tuple[int, int]) -> Description:
    return describe(
        module.network,
        module.task,
        data,
        module.weight_names,
        module.l1,
        module.l2,
        fold=fold,
        device=module.trained_on,
    )


def _data(plan: Plan, development: DevelopmentRows, streams: Sequence[Stream]) -> CohortDataModule:
    config = plan.config
    return CohortDataModule(
        development,
        streams,
        batch_size=config.training.batch_size,
        max_train_rows_measured=config.training.max_train_rows_measured,
        scale_inputs=plan.scale_inputs,
        scale_targets=config.data.scale_targets,
        dtype=torch.float64 if config.trainer.precision == "64-true" else torch.float32,
    )


def _module(
    cohort: Cohort, streams: Sequence[Stream], storage: LossStorage, listeners: Sequence[Listener]
) -> CohortModule:
    plan, configurations = cohort.plans[0], list(cohort.configurations.values())
    sizes = plan.source.sizes
    models: dict[str, ModelConfig] = {c.model.model_dump_json(by_alias=True): c.model for c in configurations}
    networks = []
    for s in streams:
        # Configurations of one model start from the same weights.
        own = {key: initialise(m, *sizes, seed=s.seed, repeat=s.repeat, fold=s.fold) for key, m in models.items()}
        networks.append([own[c.model.model_dump_json(by_alias=True)] for c in configurations])
    return CohortModule(
        stack(networks, plan.form.form),
        plan.task,
        [c.optimizer for c in configurations],
        [make_penalty(c.penalty) for c in configurations],
        plan.weights,
        storage,
        listeners,
        plan.config.training.eval_every,
    )
