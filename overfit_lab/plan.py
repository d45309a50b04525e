"""A run before it is trained: checked against its data, its network and its study. Nothing is written."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from overfit_lab import config as cfg
from overfit_lab.data.source import Source, source_of
from overfit_lab.data.split import Split, make_split
from overfit_lab.errors import UserError, first_line
from overfit_lab.model import build_network, count_parameters
from overfit_lab.objective import penalised_names
from overfit_lab.records import SCHEMA_VERSION, RunFiles, SourceRecord, StudyFiles, StudyRecord
from overfit_lab.task import Task, make_task
from overfit_lab.training.stack import check_stackable


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that has been checked as far as it can be without training it.

    Args:
        config: What it is told.
        source: Its data, test rows included; only `seal` hands any of it on.
        split: How the rows are cut.
        task: Loss and metrics.
        network: One network as it is built, for accounting; every fit gets one of its own.
        weights: Names of the parameters that are penalised and decay.
    """

    config: cfg.Config
    source: Source
    split: Split
    task: Task
    network: nn.Module
    weights: frozenset[str]

    @property
    def run_id(self) -> str:
        """The run's name, by its content."""
        return cfg.run_id(self.config)

    @property
    def study(self) -> StudyFiles:
        """The files of the study that the run belongs to."""
        return StudyFiles(self.config.study.directory)

    @property
    def files(self) -> RunFiles:
        """The run's own files."""
        return self.study.run(self.run_id)

    @property
    def study_record(self) -> StudyRecord:
        """What the study says of itself."""
        source = self.source
        return StudyRecord(
            schema_version=SCHEMA_VERSION,
            name=self.config.study.name,
            source=SourceRecord(
                name=source.name,
                problem=source.problem,
                rows=source.rows,
                features=source.features,
                outputs=source.outputs,
                fingerprint=source.fingerprint,
            ),
            split=self.config.split.model_dump(),
        )


def prepare(config: cfg.Config) -> Plan:
    """Check a run against its data, its network and the study that it would join. Nothing is written.

    Raises:
        UserError: Something does not fit; the message names it and what is allowed.
    """
    if config.trainer.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda: there is no such device here; allowed are auto and cpu")
    source, split = _load(config.data.model_dump_json(by_alias=True), config.data, config.split)
    if config.data.scale_targets and source.problem != "regression":
        raise UserError(f"data.scale_targets=true: {source.name} is {source.problem}; only regression allows it")
    task = make_task(config.task, source.problem)
    network = build_network(config.model, source.features, source.outputs)
    if isinstance(config.model, cfg.CustomModel):
        _check_custom(config.model.target, network, source.features)
    weights: frozenset[str] = frozenset()
    if not isinstance(config.penalty, cfg.NoPenalty):
        weights = penalised_names(network, include=config.penalty.include, exclude=config.penalty.exclude)
    elif isinstance(config.optimizer, cfg.AdamW):
        weights = penalised_names(network)
    plan = Plan(config, source, split, task, network, weights)
    plan.study.check(plan.study_record)
    return plan


def _check_custom(target: str, network: nn.Module, features: int) -> None:
    """Check that a network of the user's own can be trained in a cohort."""
    if count_parameters(network) == 0:
        raise UserError(f"model._target_={target}: it has no trainable parameter; at least one is needed")
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
            # Folds differ by a row, and rows that pad a batch would enter its statistics.
            raise UserError(
                f"model._target_={target}: layer {name} is a {type(module).__name__}, which mixes the rows of a batch; "
                "allowed are LayerNorm and GroupNorm"
            )
    try:
        check_stackable(network, features)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model._target_={target}: it cannot be trained in a cohort: {first_line(error)}") from error


@functools.lru_cache(maxsize=8)
def _load(
    key: str, data: cfg.BundledData | cfg.CustomData, split: cfg.HoldoutSplit | cfg.KFoldSplit
) -> tuple[Source, Split]:
    # The jobs of a sweep share source and split. The key tells apart what Python calls equal: rows=1 and rows=true.
    source = source_of(data)
    return source, make_split(source, split)
