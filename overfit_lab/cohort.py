"""A cohort: the runs whose fits train together as one stacked model."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overfit_lab.config import Config, parse
from overfit_lab.data.development import Stream
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import SCHEMA_VERSION, CohortRecord, StudyFiles


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
        distinct = {plan.config_id: plan.config for plan in self.plans}
        if len(distinct) * len(self.seeds) != len(self.plans):
            raise ValueError("a cohort holds every configuration with every seed, each once")
        # In an order of their own, as the name does not tell in which one they came.
        return dict(sorted(distinct.items(), key=lambda item: (item[1].optimizer.model_dump_json(), item[0])))

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

    @functools.cached_property
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
            inside = [{p.config_id, p.config.seed} & first != set() for p in self.plans]
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
        return list(self.configurations).index(plan.config_id)

    @property
    def study(self) -> StudyFiles:
        """The study that the runs belong to."""
        return self.plans[0].study

    def record(self, overrides: Mapping[str, Sequence[str]], **told: Any) -> CohortRecord:  # noqa: ANN401
        """Say what any process needs to train it.

        Args:
            overrides: For each run by its id, what the command line changed.
            told: Further fields of the record.
        """
        return CohortRecord(
            schema_version=SCHEMA_VERSION,
            runs=[plan.run_id for plan in self.plans],
            max_fits=self.max_fits,
            configs={plan.run_id: plan.config.model_dump(by_alias=True, mode="json") for plan in self.plans},
            overrides={plan.run_id: list(overrides[plan.run_id]) for plan in self.plans},
            **told,
        )

    @property
    def missing(self) -> tuple[Plan, ...]:
        """The runs that are not saved yet."""
        return tuple(plan for plan in self.plans if not plan.files.record.is_file())


def cohort_of(record: CohortRecord, *, elsewhere: bool = False) -> Cohort:
    """Prepare the runs of a cohort that was written down; `elsewhere` as for `prepare`.

    Raises:
        UserError: As `prepare`; data, network or study have changed since.
    """
    plans = tuple(prepare(parse(record.configs[run_id]), elsewhere=elsewhere) for run_id in record.runs)
    return Cohort(plans, record.max_fits)


def divide(cohort: Cohort, halves: Sequence[Cohort]) -> None:
    """Write the halves of a cohort down in its place, unless others have ended it meanwhile."""
    files = cohort.study.cohorts
    if files.record(cohort.name).exists():
        record = files.load(cohort.name)
        for half in halves:
            told = record.model_dump(include={"command", "folder", "sweep", "threads"})
            files.save(half.name, half.record(record.overrides, **told))
            if (job := files.job(cohort.name)) is not None:
                files.note_job(half.name, job)
    files.end(cohort.name)
