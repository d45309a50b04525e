"""Grokking: how long after the train rows the validation rows are understood."""

from collections.abc import Sequence

import numpy as np

from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes.check import Check, Run, runs_of

STEPS = {0.0: 3000, 0.1: 700, 1.0: 110}  # at which 95 % are right, by decay; they vary with the initial weights
FACTOR = 2.0


def grokking(studies: Sequence[NotebookStudy]) -> list[Check]:
    """Steps to 95 % accuracy by decay."""
    checks, medians = [], []
    for decay, runs in runs_of(studies, "optimizer.decoupled_decay").items():
        learned = [_first(run, "train", 0.999) for run in runs]
        understood = [_first(run, "val", 0.95) for run in runs]
        medians.append(float(np.median(understood)))
        ratio = medians[-1] / STEPS[decay]
        checks.append(
            Check(
                f"decay {decay:g}: steps to 95 % of the validation rows",
                f"about {STEPS[decay]}: within a factor of {FACTOR:g}",
                f"{medians[-1]:.0f}, from {min(understood):.0f} to {max(understood):.0f}; all train rows right after "
                f"{np.median(learned):.0f}",
                1 / FACTOR <= ratio <= FACTOR,
            )
        )
    checks.append(
        Check(
            "decay hastens it",
            "27 to 6.4 to 1",
            " to ".join(f"{median / medians[-1]:.3g}" for median in medians),
            medians == sorted(medians, reverse=True),
        )
    )
    return checks


def _first(run: Run, split: str, accuracy: float) -> float:
    """The first measured step at which an accuracy is reached; infinite if it never is."""
    epochs, values = run.curve("accuracy", split)
    reached = (values >= accuracy).any(axis=0)
    return float(epochs[reached.argmax()]) if reached.any() else float("inf")
