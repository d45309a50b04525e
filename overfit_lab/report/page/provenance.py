"""What was run: on which rows, by which commands, with which versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from overfit_lab.errors import printable
from overfit_lab.report.labels import value_label
from overfit_lab.report.page.numbers import count
from overfit_lab.study import Study

# A study that grew over months has more commands than a page can hold.
MOST_NAMED = 10


@dataclass(frozen=True)
class Fact:
    """A thing that was so, and its values; those that are code are shown as such."""

    name: str
    values: list[str]
    code: bool = False


def provenance(study: Study) -> list[Fact]:
    """Say what was run."""
    source, split, runs = study.record.source, study.record.split, study.runs
    data = [
        Fact("source", [f"{source.name}, {source.problem}"]),
        Fact("rows", [f"{source.rows:,} with {count(source.features, 'input')} and {count(source.outputs, 'output')}"]),
        *([Fact("as it was read", study.record.said)] if study.record.said else []),
        Fact("fingerprint of the rows", [source.fingerprint], code=True),
        Fact("split", [", ".join(f"{key} {_setting(value)}" for key, value in split.items() if value is not None)]),
    ]
    if source.bayes_risk is not None:
        data.append(Fact("Bayes risk", [f"{source.bayes_risk:.4g}, the lowest validation loss that can be expected"]))
    if not runs:
        return [_shown(fact) for fact in data]
    environments = [run.environment for run in runs]
    git = ["not in a repository" if one.git is None else one.git for one in environments]
    versions = [
        f"overfit_lab {one.overfit_lab}, torch {one.torch}, lightning {one.lightning}, python {one.python}"
        for one in environments
    ]
    made = [
        Fact("command", [one.command for one in environments], code=True),
        Fact("seeds", [_seeds(value_label(run.config.get("seed")) for run in runs)]),
        Fact("device", [run.device for run in runs]),
        Fact("versions", versions),
        Fact("git, + where files were changed", git),
        Fact("training time", [_duration(sum(run.seconds for run in runs)) + " in all, summed over runs"]),
    ]
    return [_shown(fact) for fact in [*data, *made]]


def _seeds(seeds: Iterable[str]) -> str:
    known = sorted(set(seeds), key=lambda seed: (len(seed), seed))
    return ", ".join(known[:MOST_NAMED]) + (f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else "")


def _shown(fact: Fact) -> Fact:
    """Name each value once, and only the first of many."""
    values = list(dict.fromkeys(map(printable, fact.values)))
    more = [f"and {len(values) - MOST_NAMED} more"] if len(values) > MOST_NAMED else []
    return replace(fact, values=values[:MOST_NAMED] + more)


def _setting(value: object) -> str:
    return "/".join(map(value_label, value)) if isinstance(value, list) else value_label(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
