"""Hydra's errors about a command line, in one line that names what was given and what is allowed."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from overfit_lab.config import ONE_DEVICE, SEVERAL_DEVICES, literal, typed
from overfit_lab.errors import first_line


def explain(error: Exception) -> str:
    """Say in one line what is wrong with a command line that Hydra could not compose."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: allowed are {', '.join(sorted(error.options))}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as KEY=VALUE: {_advice(str(error.override)) or first_line(error)}"
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        section, _, key = str(cause.full_key).rpartition(".")
        if section == "trainer" and key in SEVERAL_DEVICES:
            return f"{cause.full_key}: {ONE_DEVICE}"
        allowed = ", ".join(str(key) for key in cause.parent_node if key != "hydra")
        return f"there is no key {cause.full_key}; allowed there are {allowed}"
    if str(error).startswith("Error merging override ") and cause is not None:
        return f"{first_line(error).removeprefix('Error merging override ')}: {first_line(cause)}"
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'", str(error))
    if ambiguous:
        return f"{ambiguous[1]}: several values are a sweep; add -m to run one job for each"
    return first_line(error)


def _advice(override: str) -> str | None:
    """Say how an override is to be typed that can be read once its value is in quotes."""
    key, _, value = override.partition("=")
    # What looks like a list, a dictionary, a text or a function is meant to be one.
    if not value or value[0] in "[{'\"" or re.fullmatch(r"\w+\(.*\)", value):
        return None
    try:
        OverridesParser.create().parse_override(f"{key}={literal(value)}")
    except HydraException:
        return None
    return f"as a text its value is given in quotes, {typed(key, value)}"
