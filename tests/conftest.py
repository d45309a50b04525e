"""What the tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from overfit_lab.config import Config, conf_directory
from overfit_lab.launch.job import config_of, register_resolvers


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Callable[..., Config]]:
    """Compose a configuration from overrides, as the command line would; its study lies in tmp_path."""
    register_resolvers()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):

        def make(*overrides: str) -> Config:
            return config_of(compose("config", [f"study.root={tmp_path}/studies", *overrides]))

        yield make
