"""How far a validation loss moves with the shuffle, where the rows were reshuffled [Chollet 2017, section 4.2.1]."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overfit_lab.report.labels import loss_decimals, loss_value
from overfit_lab.report.loss_curves import LossCurves
from overfit_lab.study import Study


@dataclass(frozen=True, eq=False)
class Shuffles:
    """What each reshuffle of the rows made of a run.

    Args:
        losses: `repeats`, the mean validation loss over the folds of the repeat, at the best epoch of the whole run.
    """

    losses: NDArray[np.float64]

    @property
    def sd(self) -> float:
        """The standard deviation between reshuffles (ddof=1)."""
        return float(self.losses.std(ddof=1))


def shuffles(study: Study, curves: Mapping[str, LossCurves]) -> dict[str, Shuffles]:
    """Read what each reshuffle made of each run, by run id; nothing where rows were shuffled once.

    A run whose loss is not finite in one of them is left out.
    """
    found = {}
    for run in study.runs:
        own, epoch = curves[run.run_id], run.val_loss.epoch
        repeats = np.unique(own.repeats)
        if epoch is None or len(repeats) < 2:
            continue
        at_best = own.val[:, np.searchsorted(own.epochs, epoch)]
        losses = np.array([at_best[own.repeats == repeat].mean() for repeat in repeats])
        if np.isfinite(losses).all():
            found[run.run_id] = Shuffles(losses)
    return found


def shuffle_sentences(study: Study, found: Mapping[str, Shuffles]) -> list[str]:
    """Say how far a loss moves with the shuffle, and how often it decides which configuration is the best."""
    if not found:
        return []
    repeats = len(next(iter(found.values())).losses)
    decimals = loss_decimals(study.runs)
    moves = loss_value(float(np.median([one.sd for one in found.values()])), decimals)
    lines = [
        f"reshuffled {repeats} times: the validation loss of a configuration moves by {moves} with the shuffle "
        "(standard deviation, median over runs)"
    ]
    by_configuration = defaultdict(list)
    for run in study.runs:
        if run.run_id in found:
            by_configuration[run.config_id].append(found[run.run_id].losses)
    losses = np.stack([np.mean(own, axis=0) for own in by_configuration.values()])
    if len(losses) > 1:
        best = losses.mean(axis=1).argmin()
        wins = int((losses.argmin(axis=0) == best).sum())
        lines.append(f"the best of {len(losses)} configurations over all shuffles is the best in {wins} of {repeats}")
    return lines
