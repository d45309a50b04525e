"""Select a configuration and a number of epochs, by validation alone, and say how far the choice can be trusted.

Definitions in SCIENCE terms: the pooled out-of-fold mean at each configuration's best epoch; the paired one-standard-
error rule [Breiman et al. 1984, section 3.4.3]; the corrected resampled t-test [Nadeau and Bengio 2003] with Holm's
adjustment; selection bias by the bias-corrected bootstrap [Tsamardinos et al. 2018].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overfit_lab.analysis.comparison import corrected_t_test, holm, within_one_standard_error
from overfit_lab.analysis.selection_bias import bootstrap_bias_corrected, tibshirani_tibshirani
from overfit_lab.records import CandidateRecord, Rule
from overfit_lab.study.candidates import Candidate

LATE = 0.95
"""A best epoch this late, as a fraction of the horizon, may be the horizon's and not the data's."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What was selected.

    Args:
        chosen: The configuration, to be trained for `chosen.epoch` epochs.
        candidates: All that were compared, the lowest loss first.
        bias: How much lower than the truth the selected loss is by having been selected, or None.
        bias_by_folds: The same by the method of Tibshirani and Tibshirani, or None.
    """

    chosen: Candidate
    candidates: tuple[CandidateRecord, ...]
    bias: float | None
    bias_by_folds: float | None

    @property
    def at_horizon(self) -> bool:
        """Whether the selected epoch is so late that a longer training may have given another one."""
        return self.chosen.epoch >= LATE * self.chosen.horizon


def select(candidates: Sequence[Candidate], rule: Rule, split: Mapping[str, Any]) -> Selection:
    """Select.

    Args:
        candidates: The lowest loss first; at least one.
        rule: `min`, or `one_se`: of the configurations within one standard error of the lowest loss the one with the
            fewest parameters, then with the strongest penalty.
        split: Settings of the split.
    """
    lowest = candidates[0]
    compared = [_compare(one, lowest, split) for one in candidates[1:]]
    p_values = {i: one.p_value for i, one in enumerate(compared) if one.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    records = [_record(lowest, _Compared(None, None, None), None)]
    records += [
        _record(c, own, adjusted.get(i)) for i, (c, own) in enumerate(zip(candidates[1:], compared, strict=True))
    ]
    chosen, choices = lowest, candidates
    if rule == "one_se":
        name = simplest(records).config_id
        chosen = next(one for one in candidates if one.config_id == name)
        # It is no minimum over configurations: what was selected of its losses is the epoch alone.
        choices = [chosen]
    return Selection(chosen, tuple(records), _bias(choices, split), _bias_by_folds(choices))


def simplest(candidates: Sequence[CandidateRecord]) -> CandidateRecord:
    """Of the lowest and those within one standard error of it: fewest parameters, then strongest penalty.

    Args:
        candidates: The lowest loss first.
    """
    near = [candidates[0], *(one for one in candidates[1:] if one.within_one_se)]
    return min(near, key=lambda one: (one.parameters, -one.alpha, one.val_loss))


class _Compared(NamedTuple):
    difference: float | None
    within_one_se: bool | None
    p_value: float | None


def _compare(candidate: Candidate, lowest: Candidate, split: Mapping[str, Any]) -> _Compared:
    by_fold = candidate.fold_losses[candidate.best] - lowest.fold_losses[lowest.best]
    if len(by_fold) > 1:
        # Repeats of a cross-validation tell little new; hold-outs that are reshuffled are its folds.
        folds = split.get("folds", len(by_fold))
        # Of two that trained on different numbers of rows, the one with fewer shares fewer of them between its folds,
        # and is the less certain one.
        ratios = [one.val_train_ratio or _val_train_ratio(split) for one in (candidate, lowest)]
        p_value = corrected_t_test(by_fold, val_train_ratio=max(ratios)).p_value
        return _Compared(float(by_fold.mean()), within_one_standard_error(by_fold, folds=folds), p_value)
    if candidate.layout == lowest.layout and len(lowest.row_losses) > 1:
        by_row = candidate.row_losses - lowest.row_losses
        return _Compared(float(by_fold[0]), within_one_standard_error(by_row, folds=len(by_row)), None)
    return _Compared(float(by_fold[0]), None, None)


def _val_train_ratio(split: Mapping[str, Any]) -> float:
    if "folds" in split:
        return 1 / (int(split["folds"]) - 1)
    fraction = float(split["val_fraction"])
    return fraction / (1 - fraction)


def _record(candidate: Candidate, compared: _Compared, p_holm: float | None) -> CandidateRecord:
    return CandidateRecord(
        config_id=candidate.config_id,
        settings=dict(candidate.settings),
        parameters=candidate.parameters,
        alpha=candidate.alpha,
        seeds=len(candidate.runs),
        epoch=candidate.epoch,
        val_loss=candidate.loss,
        se=candidate.se,
        **compared._asdict(),
        p_holm=p_holm,
    )


def _bias(candidates: Sequence[Candidate], split: Mapping[str, Any]) -> float | None:
    first = candidates[0]
    if any(c.layout != first.layout for c in candidates) or len(first.row_losses) < 2:
        # Other rows, or blocks of them: they cannot be drawn together.
        return None
    two_levels = "folds" in split and split["repeats"] == 1
    folds = first.load_folds() if two_levels else None
    losses: Iterable[NDArray[np.float64]] = (c.load_losses() for c in candidates)
    return float(bootstrap_bias_corrected(losses, folds).bias)


def _bias_by_folds(candidates: Sequence[Candidate]) -> float | None:
    by_fold = np.concatenate([c.fold_losses for c in candidates])
    return float(tibshirani_tibshirani(by_fold)) if by_fold.shape[1] > 1 else None
