"""Data: sources, splits with sealed test rows, scaling fitted on train rows, and the LightningDataModule."""

from overfit_lab.data.source import Source, load_source
from overfit_lab.data.split import Fold, Split, make_split

__all__ = ["Fold", "Source", "Split", "load_source", "make_split"]
