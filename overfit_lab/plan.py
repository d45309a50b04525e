"""A run before it is trained: checked against its data, its network and its study. Nothing is written."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field

import numpy as np
import polars as pl
import torch
from torch import nn

from overfit_lab import config as cfg
from overfit_lab.data.development import DevelopmentRows, seal
from overfit_lab.data.duplicates import Duplicates, find_duplicates
from overfit_lab.data.label_noise import check_label_noise
from overfit_lab.data.load import load
from overfit_lab.data.source import Sizes, Source
from overfit_lab.data.split import Split, classes_to_stratify, make_split
from overfit_lab.data.train_size import count_train_rows
from overfit_lab.errors import UserError
from overfit_lab.model import Pass, build_network, count_parameters, count_pass, stackable_shape
from overfit_lab.objective import penalised_names
from overfit_lab.records import SCHEMA_VERSION, DuplicatesRecord, RunFiles, SourceRecord, StudyFiles, StudyRecord
from overfit_lab.task import Task, make_task
from overfit_lab.training.custom_optimizer import check_custom, decays
from overfit_lab.training.loggers import check_logger
from overfit_lab.training.stack import Choice, choose_form


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that has been checked as far as it can be without training it.

    Args:
        config: What it is told.
        source: Its data, test rows included; only `seal` hands any of it on.
        split: How the rows are cut.
        duplicates: How many of them have a twin.
        task: Loss and metrics.
        network: One network as it is built, for accounting; every fit gets one of its own.
        weights: Names of the parameters that are penalised and decay.
        form: How its fits are stacked; where they are trained one by one, with the reason.
        per_row: What a pass of one row costs; None for plain sequences of layers, where the parameters say it all.
    """

    config: cfg.Config
    source: Source
    split: Split
    duplicates: Duplicates
    task: Task
    network: nn.Module
    weights: frozenset[str]
    form: Choice
    per_row: Pass | None

    @property
    def cohort_key(self) -> tuple[Hashable, ...]:
        """What two runs must have in common for their fits to train as one cohort.

        They may differ in seed, penalty and its strength, in the settings of one kind of optimizer, in dropout, and
        where padding is exact in width.
        """
        config = self.config
        return (
            config.study.directory,
            self.source.fingerprint,
            *(part.model_dump_json(by_alias=True) for part in (config.data, config.split, config.task)),
            stackable_shape(config.model),
            config.optimizer.kind,
            config.optimizer.target if isinstance(config.optimizer, cfg.CustomOptimizer) else None,
            self.weights,
            config.training,
            config.trainer,
        )

    @functools.cached_property
    def run_id(self) -> str:
        """The run's name, by its content."""
        return cfg.run_id(self.config)

    @functools.cached_property
    def config_id(self) -> str:
        """The name of its configuration, which runs share that differ in their seed alone."""
        return cfg.config_id(self.config)

    @property
    def study(self) -> StudyFiles:
        """The files of the study that the run belongs to."""
        return StudyFiles(self.config.study.directory)

    @property
    def files(self) -> RunFiles:
        """The run's own files."""
        return self.study.run(self.run_id)

    @property
    def scale_inputs(self) -> bool:
        """Whether inputs are scaled; where that is not said, those that have no scale of their own."""
        asked, source = self.config.data.scale_inputs, self.source
        return asked if isinstance(asked, bool) else not (source.shape or source.tokens or source.sparse)

    def seal(self) -> DevelopmentRows:
        """Copy out of the source what the run trains and validates on; the test rows stay behind."""
        data, cut = self.config.data, self.config.split
        return seal(
            self.source,
            self.split,
            label_noise=data.label_noise,
            train_size=data.train_size,
            classes=classes_to_stratify(self.source, cut),
            seed=cut.seed,
        )

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
                bayes_risk=source.bayes_risk,
                validates_on_test=source.validates_on_test,
            ),
            split=self.config.split.model_dump(),
            duplicates=DuplicatesRecord(**asdict(self.duplicates)),
            said=list(source.said),
        )


def prepare(config: cfg.Config, *, elsewhere: bool = False) -> Plan:
    """Check a run against its data, its network and the study that it would join. Nothing is written.

    Args:
        config: What the run is told.
        elsewhere: Whether it is to be trained on another machine, whose devices cannot be seen from here.

    Raises:
        UserError: Something does not fit; the message names it and what is allowed.
    """
    if config.trainer.accelerator == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda: there is no such device here; allowed are auto and cpu")
    source, split, duplicates = _load(_rows_of(config))
    check_label_noise(source, config.data.label_noise)
    for fold in split.folds:
        count_train_rows(config.data.train_size, len(fold.train))
    if config.data.scale_targets and source.problem != "regression":
        raise UserError(f"data.scale_targets=true: {source.name} is {source.problem}; only regression allows it")
    if config.data.scale_inputs is True and source.tokens is not None:
        raise UserError(f"data.scale_inputs=true: the inputs of {source.name} are token numbers; allowed is false")
    if config.data.scale_inputs is True and source.sparse:
        raise UserError(
            f"data.scale_inputs=true: the inputs of {source.name} are sparse, and centring them would fill "
            f"{source.features} columns; allowed is false"
        )
    task = make_task(config.task, source.problem)
    network = build_network(config.model, *source.sizes)
    weights = _weights(config, network)
    mixed = config.trainer.precision == "bf16-mixed"
    if isinstance(config.model, cfg.CustomModel) and count_parameters(network) == 0:
        target = config.model.target
        raise UserError(f"model._target_={target}: it has no trainable parameter; at least one is needed")
    if isinstance(config.optimizer, cfg.CustomOptimizer):
        trained = {name: tuple(p.shape) for name, p in network.named_parameters() if p.requires_grad}
        check_custom(config.optimizer, trained, weights)
    key = config.model.model_dump_json(by_alias=True)
    form, per_row = _try(key, config.model, source.sizes, mixed_precision=mixed, sparse=source.sparse)
    plan = Plan(config, source, split, duplicates, task, network, weights, form, per_row)
    check_logger(config.logger)
    plan.study.check(plan.study_record)
    return plan


@functools.lru_cache(maxsize=64)
def _try(
    key: str, model: cfg.ModelConfig, sizes: Sizes, *, mixed_precision: bool, sparse: bool
) -> tuple[Choice, Pass | None]:
    # The jobs of a sweep share few networks, and a trial costs more than all other checks. The key is as in `_load`.
    network = build_network(model, *sizes)
    form = choose_form(network, sizes.inputs, mixed_precision=mixed_precision, tokens=sizes.tokens, sparse=sparse)
    plain = form.form in ("layered", "sparse") and not any(True for _ in network.buffers())
    return form, None if plain else count_pass(network, sizes.inputs)


def _weights(config: cfg.Config, network: nn.Module) -> frozenset[str]:
    """Name the parameters that are penalised or decay."""
    if not isinstance(config.penalty, cfg.NoPenalty):
        return penalised_names(network, include=config.penalty.include, exclude=config.penalty.exclude)
    try:
        # Nothing is penalised, but a penalty of 0 is the same, and trains in the same cohort.
        return penalised_names(network)
    except UserError:
        optimizer = config.optimizer
        if isinstance(optimizer, cfg.AdamW) or (isinstance(optimizer, cfg.CustomOptimizer) and decays(optimizer)):
            raise
        return frozenset()


@dataclass(frozen=True)
class _Rows:
    """Which rows a run is on, and how they are cut.

    Args:
        key: Both as text, which tells apart what Python calls equal: rows=1 and rows=true.
        data: The source.
        split: The split.
        problem: The problem type of a file's target, where it is not to be inferred.
    """

    key: str
    data: cfg.DataConfig = field(compare=False)
    split: cfg.SplitConfig = field(compare=False)
    problem: cfg.Problem | None


def _rows_of(config: cfg.Config) -> _Rows:
    # What is done to the rows of a fit is another thing: runs that differ in it share source and split.
    data = config.data.model_dump_json(by_alias=True, exclude={"label_noise", "train_size"})
    problem = None if config.task.name == "auto" else config.task.name
    return _Rows(data + config.split.model_dump_json(), config.data, config.split, problem)


@functools.lru_cache(maxsize=8)
def _load(rows: _Rows) -> tuple[Source, Split, Duplicates]:
    # The jobs of a sweep share source and split.
    source = load(rows.data, rows.problem)
    cut = make_split(source, rows.split)
    return source, cut, find_duplicates(source, cut)


def split_frame(source: Source, split: Split) -> pl.DataFrame:
    """List every row's role: test rows once; development rows once a repeat, with the fold that validates on them."""
    parts = [pl.DataFrame({"row": split.test, "role": "test", "repeat": None, "fold": None}, schema=_SPLIT_SCHEMA)]
    for repeat in sorted({f.repeat for f in split.folds}):
        fold = np.full(source.rows, -1)
        for f in split.folds:
            if f.repeat == repeat:
                fold[f.val] = f.fold
        own = fold[split.development]
        frame = pl.DataFrame(
            {"row": split.development, "role": "dev", "repeat": repeat, "fold": own}, schema=_SPLIT_SCHEMA
        )
        # Of a hold-out's development rows, those that are only trained on belong to no fold.
        parts.append(frame.with_columns(pl.when(pl.col("fold") >= 0).then(pl.col("fold"))))
    return pl.concat(parts)


_SPLIT_SCHEMA = {"row": pl.Int64, "role": pl.String, "repeat": pl.Int32, "fold": pl.Int32}
