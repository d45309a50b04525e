"""overfit_lab finds the epoch where overfitting begins, for every network size and weight decay, with an error bar."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overfit_lab.report.notebook import load_study as load_study

__version__ = version("overfit_lab")
__all__ = ["__version__", "load_study"]


def __getattr__(name: str) -> object:
    # Loaded on use: `overfit-lab --help` must not wait for polars and torch.
    if name == "load_study":
        from overfit_lab.report.notebook import load_study

        return load_study
    raise AttributeError(f"module 'overfit_lab' has no attribute {name!r}")
