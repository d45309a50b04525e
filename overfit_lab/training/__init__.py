"""Training: one LightningModule that trains a cohort, and the history of its curves."""

from overfit_lab.training.history import History
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import StackedNetwork, stack

__all__ = ["CohortModule", "History", "StackedNetwork", "stack", "train"]
