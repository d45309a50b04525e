"""What tells the runs of a study apart: the keys that were swept, and each run's values of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overfit_lab.errors import UserError
from overfit_lab.study import Study


def configured(config: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - any configuration value
    """Return the value of a dotted key, as `Study.swept` lists it; None where the configuration has no such key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    # As `Study.swept` has it: lists are text, and a mapping is no value but a section.
    return None if isinstance(value, Mapping) else str(value) if isinstance(value, list) else value


def swept_keys(study: Study) -> list[str]:
    """Return the keys that tell the runs of a study apart.

    Where penalties or networks of several kinds are compared, those have keys that the others lack; such a key is
    left out unless it tells more runs apart than the keys before it.
    """
    kept: list[str] = []
    told_apart = 1
    # A key that all runs have comes first.
    for key, values in sorted(study.swept().items(), key=lambda item: None in item[1]):
        groups = len({tuple(configured(run.config, k) for k in (*kept, key)) for run in study.runs})
        if None not in values or groups > told_apart:
            kept.append(key)
            told_apart = groups
    return [key for key in study.swept() if key in kept]


def failed_configurations(study: Study) -> dict[str, dict[str, Any]]:
    """Return the configurations of the runs that failed, by run id, as far as they can be read."""
    configurations = {}
    for failed in study.failed:
        try:
            configurations[failed.run_id] = study.files.run(failed.run_id).load_failure().config
        except UserError:
            continue
    return configurations
