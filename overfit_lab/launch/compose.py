"""Composing the jobs of a sweep: Hydra composes once for each choice of config groups, not once for each job."""

from __future__ import annotations

import contextlib
import os
import pickle

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict


def compose_from_templates(loader: ConfigLoader) -> None:
    """Let a loader compose jobs in a few milliseconds, with the result and the errors that it has on its own.

    What Hydra reads to compose, the files of `conf/`, is read once for each choice of config groups: a file that is
    edited meanwhile counts from the next command on.

    Args:
        loader: Its `load_sweep_config` is replaced; a second time changes nothing.
    """
    if isinstance(loader, ConfigLoaderImpl) and not isinstance(loader.load_sweep_config, _Composer):
        loader.load_sweep_config = _Composer(loader)  # type: ignore[method-assign]


class _Unusual(Exception):
    """Left to Hydra."""


class _Composer:
    """Composes as Hydra's loader does: config groups first, then values, which nothing in the groups depends on."""

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self._loader = loader
        self._hydra = loader.load_sweep_config
        self._parsed: dict[str, Override] = {}
        self._groups: dict[tuple[str, ...], bool] = {}
        # Pickled, for a copy is unpickled in a fraction of the time that deepcopy takes, and nobody can change it.
        self._templates: dict[tuple[str, ...], bytes] = {}

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        with contextlib.suppress(Exception):
            return self._compose(master_config, sweep_overrides)
        # Hydra's own way is right for whatever is unusual; and what is wrong it says in its own words.
        return self._hydra(master_config, sweep_overrides)

    def _compose(self, master: DictConfig, lines: list[str]) -> DictConfig:
        overrides = [self._parse(line) for line in lines]
        if any(map(_is_unusual, overrides)):
            raise _Unusual
        inherited = _inherited(master)
        is_group = [self._is_group(inherited, override) for override in overrides]
        groups = [line for line, group in zip(lines, is_group, strict=True) if group]
        config = self._copy_of_template(master, (*inherited, "groups", *groups), groups)
        for override, group in zip(overrides, is_group, strict=True):
            if not group:
                self._loader._apply_overrides_to_config([override], config)
        # What Hydra notes about a job that is not in the template, or need not be the same any more.
        hydra = config.hydra
        hydra.overrides.task = lines
        hydra.job.override_dirname = get_overrides_dirname(overrides, **hydra.job.config.override_dirname)
        hydra.runtime.cwd = os.getcwd()  # noqa: PTH109 - as Hydra writes it
        with open_dict(hydra):
            hydra.job.env_set.update({key: os.environ[key] for key in hydra.job.env_copy})
        OmegaConf.copy_cache(from_config=master, to_config=config)
        return config

    def _parse(self, line: str) -> Override:
        parsed = self._parsed.get(line) or OverridesParser.create().parse_override(line)
        if "(" not in line:  # a function, such as shuffle, may give another value each time
            self._parsed[line] = parsed
        return parsed

    def _copy_of_template(self, master: DictConfig, key: tuple[str, ...], groups: list[str]) -> DictConfig:
        if key not in self._templates:
            self._templates[key] = pickle.dumps(self._hydra(master, groups))
        copy = pickle.loads(self._templates[key])
        assert isinstance(copy, DictConfig)
        return copy

    def _is_group(self, inherited: tuple[str, ...], override: Override) -> bool:
        if isinstance(override.value(), dict):
            return False  # so Hydra has it: merged into what the group has brought
        key = (*inherited, override.key_or_group)
        if key not in self._groups:
            name, *overrides = inherited
            self._groups[key] = bool(self._loader.get_group_options(override.key_or_group, None, name, overrides))
        return self._groups[key]


def _inherited(master: DictConfig) -> tuple[str, ...]:
    """All that a job inherits from the configuration of the sweep: its name and the overrides of Hydra's section."""
    overrides = OmegaConf.to_container(master.hydra.overrides.hydra)
    assert isinstance(overrides, list)
    return (master.hydra.job.config_name, *overrides)


def _is_unusual(override: Override) -> bool:
    """Whether an override needs more than a template: an error, Hydra's own section, a look at what stood there."""
    of_hydra = override.is_hydra_override() or override.key_or_group == "hydra"
    return override.is_sweep_override() or of_hydra or (override.is_delete() and override.value() is not None)
