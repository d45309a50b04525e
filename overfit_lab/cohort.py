"""A cohort: the runs whose fits train together as one stacked model."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from overfit_lab.config import Config, ModelConfig, config_id
from overfit_lab.data.datamodule import CohortDataModule, DevelopmentRows, Stream, seal
from overfit_lab.model import initialise
from overfit_lab.objective import make_penalty
from overfit_lab.plan import Plan
from overfit_lab.records import SCHEMA_VERSION, CohortRecord, StudyFiles
from overfit_lab.training.history import History, LossStorage, join, plan_storage
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import stack

Listener = Callable[[History], None]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Runs with one cohort key: every configuration with every seed.

    Args:
        plans: The runs.
        max_fits: At most so many fits train at once; where a single configuration has more, its streams are trained
            in parts, one after another.
    """

    plans: tuple[Plan, ...]
    max_fits: int | None = None

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The distinct seeds."""
        return tuple(sorted({plan.config.seed for plan in self.plans}))

    @functools.cached_property
    def configurations(self) -> dict[str, Config]:
        """The distinct configurations by their ids; those with one setting of the optimizer stand side by side."""
        distinct = {config_id(plan.config): plan.config for plan in self.plans}
        if len(distinct) * len(self.seeds) != len(self.plans):
            raise ValueError("a cohort holds every configuration with every seed, each once")
        return dict(sorted(distinct.items(), key=lambda item: item[1].optimizer.model_dump_json()))

    @functools.cached_property
    def streams(self) -> tuple[Stream, ...]:
        """Fold by fold, so that streams on the same rows stand side by side."""
        folds = self.plans[0].split.folds
        return tuple(Stream(seed, fold.repeat, fold.fold) for fold in folds for seed in self.seeds)

    @property
    def fits(self) -> int:
        """How many fits there are."""
        return len(self.streams) * len(self.configurations)

    @functools.cached_property
    def parts(self) -> list[tuple[Stream, ...]]:
        """The streams that train at once."""
        at_once = max(1, (self.max_fits or self.fits) // len(self.configurations))
        return [self.streams[i : i + at_once] for i in range(0, len(self.streams), at_once)]

    @property
    def epochs(self) -> int:
        """The horizon of each fit."""
        return self.plans[0].config.training.epochs

    @property
    def name(self) -> str:
        """Named by its content: the same cohort finds its checkpoint again."""
        text = f"{self.max_fits} {sorted(plan.run_id for plan in self.plans)}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def halves(self, *, smaller: bool) -> tuple[Cohort, ...]:
        """Cut a cohort that has failed: into runs that train apart, a single run into parts; () where neither can be.

        Args:
            smaller: Whether fewer fits at once may help, as they do where memory ran out.
        """
        # By configurations, or where there is one by seeds: every half is again every configuration with every seed.
        values = list(self.configurations) if len(self.configurations) > 1 else list(self.seeds)
        if len(values) > 1:
            first = set(values[: len(values) // 2])
            inside = [{config_id(p.config), p.config.seed} & first != set() for p in self.plans]
            return tuple(
                Cohort(tuple(p for p, own in zip(self.plans, inside, strict=True) if own == side), self.max_fits)
                for side in (True, False)
            )
        at_once = len(self.parts[0])
        return (Cohort(self.plans, (at_once + 1) // 2),) if smaller and at_once > 1 else ()

    def streams_of(self, plan: Plan) -> dict[int, Stream]:
        """Return a run's streams by their places."""
        return {i: stream for i, stream in enumerate(self.streams) if stream.seed == plan.config.seed}

    def configuration_of(self, plan: Plan) -> int:
        """Return the place of a run's configuration."""
        return list(self.configurations).index(config_id(plan.config))

    @property
    def study(self) -> StudyFiles:
        """The study that the runs belong to."""
        return self.plans[0].study

    def begin(self) -> None:
        """Write down what is about to train, so that after an interruption it goes on in the same company."""
        runs = [plan.run_id for plan in self.plans]
        self.study.begin(self.name, CohortRecord(schema_version=SCHEMA_VERSION, runs=runs, max_fits=self.max_fits))

    def end(self) -> None:
        """Remove what was written down, and the checkpoints: the runs are saved, or are to start afresh."""
        self.study.end(self.name)


@dataclass(frozen=True, eq=False)
class Trained:
    """What has become of a cohort.

    Args:
        development: The rows that it was trained and validated on.
        history: Of all its members, in the order of `Cohort.streams` and `Cohort.configurations`.
        storage: Which validation losses were kept.
        device: What it was trained on.
    """

    development: DevelopmentRows
    history: History
    storage: LossStorage
    device: torch.device


def train_cohort(cohort: Cohort, listeners: Sequence[Listener] = ()) -> Trained:
    """Train a cohort to its horizon, each part from its checkpoint where there is one.

    Args:
        cohort: What to train.
        listeners: Called with the history after each measured epoch; at the end, where there are several parts.
    """
    plan = cohort.plans[0]
    development = seal(plan.source, plan.split)
    folds = development.folds
    storage = plan_storage(
        plan.config.training.epochs, [(f.repeat, f.fold) for f in folds], [len(f.val) for f in folds]
    )
    cohort.begin()
    alone = len(cohort.parts) == 1
    histories = []
    for part, streams in enumerate(cohort.parts):
        data = _data(plan.config, development, streams)
        module = _module(cohort, streams, storage, listeners if alone else ())
        histories.append(
            train(
                module,
                data,
                training=plan.config.training,
                trainer=plan.config.trainer,
                checkpoint=cohort.study.checkpoint(cohort.name, part),
                keep=not alone,
            )
        )
        device = module.trained_on
    history = join(histories)
    if not alone:
        for listener in listeners:
            for so_far in history.epoch_by_epoch():
                listener(so_far)
    return Trained(development, history, storage, device)


def _data(config: Config, development: DevelopmentRows, streams: Sequence[Stream]) -> CohortDataModule:
    return CohortDataModule(
        development,
        streams,
        batch_size=config.training.batch_size,
        max_train_rows_measured=config.training.max_train_rows_measured,
        scale_inputs=config.data.scale_inputs,
        scale_targets=config.data.scale_targets,
        dtype=torch.float64 if config.trainer.precision == "64-true" else torch.float32,
    )


def _module(
    cohort: Cohort, streams: Sequence[Stream], storage: LossStorage, listeners: Sequence[Listener]
) -> CohortModule:
    plan, configurations = cohort.plans[0], list(cohort.configurations.values())
    sizes = plan.source.features, plan.source.outputs
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
    )
