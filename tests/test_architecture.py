"""Imports go one way, as pyproject.toml lists the layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent


def test_imports_go_one_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=str(tmp_path)) == 0


def test_an_import_against_the_order_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test above can fail: with two layers the other way round, it does."""
    text = (ROOT / "pyproject.toml").read_text()
    turned = re.sub(r'"overfit_lab\.config",\n', "", text).replace(
        '"overfit_lab.cli",\n', '"overfit_lab.config",\n  "overfit_lab.cli",\n'
    )
    assert turned != text
    path = tmp_path / "turned.toml"
    path.write_text(turned)
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(path), cache_dir=str(tmp_path / "cache")) == 1


def test_every_module_stands_in_a_layer() -> None:
    layers = (ROOT / "pyproject.toml").read_text()
    package = ROOT / "overfit_lab"
    names = {p.stem if p.suffix == ".py" else p.name for p in package.iterdir() if not p.name.startswith(("_", "py."))}
    assert names == {name for name in names if f"overfit_lab.{name}" in layers}
