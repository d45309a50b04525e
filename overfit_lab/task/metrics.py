"""Metrics of many members at once, from logits, without a loop over members.

Measured at every epoch, they must not cost more than its training. A cohort's logits are laid out with the rows
adjacent in memory, not the outputs; only what runs along the rows, or over an output at a time, is fast there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from overfit_lab.config import Problem


def measure_members(names: Iterable[str], problem: Problem, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Measure metrics of every member.

    Args:
        names: Of those that the problem type allows; no other is computed.
        problem: The problem type.
        logits: `... x rows x outputs`, before the last-layer activation; for regression the predictions.
        targets: Class indices that broadcast to `... x rows`, or values that broadcast to `... x rows x outputs`.

    Returns:
        For each name `...`, in double precision; NaN for a member with a logit that is not finite, and where the metric
        is undefined: AUROC where a target lacks a class, R2 where one is constant.
    """
    # isfinite on every logit costs 15 times as much; the largest is NaN if any is.
    finite = logits.abs().amax((-2, -1)).isfinite()
    members = _MEMBERS[problem](logits, targets)
    return {name: torch.where(finite, getattr(members, name)(), torch.nan) for name in names}


@dataclass(frozen=True, eq=False)
class _Labels:
    """Members with one output for each label, one label if the problem is binary: every metric is the labels' mean."""

    logits: Tensor
    targets: Tensor

    def accuracy(self) -> Tensor:
        hits, predicted, present = self._counts
        rows = self.logits.shape[-2]
        return (rows - predicted - present + 2 * hits).double().mean(-1) / rows

    def f1(self) -> Tensor:
        hits, predicted, present = self._counts
        return _f1(hits, predicted + present).mean(-1)

    def auroc(self) -> Tensor:
        return _area_under_curve(self.logits, self._positive).mean(-1)

    @cached_property
    def _positive(self) -> Tensor:
        return self.targets > 0

    @cached_property
    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows rightly taken for positive, taken for positive, and positive: `... x labels`, or broadcast to it."""
        predicted = self.logits > 0
        return (predicted & self._positive).sum(-2), predicted.sum(-2), self._positive.sum(-2)


@dataclass(frozen=True, eq=False)
class _Classes:
    """Members with one output for each of several classes that exclude one another."""

    logits: Tensor
    targets: Tensor

    def accuracy(self) -> Tensor:
        hits, _, _ = self._counts
        return hits.sum(-1).double() / self.logits.shape[-2]

    def f1(self) -> Tensor:
        hits, predicted, present = self._counts
        occurrences = predicted + present
        # A class that is neither predicted nor present does not count.
        return _f1(hits, occurrences).sum(-1) / (occurrences > 0).sum(-1)

    def auroc(self) -> Tensor:
        # In double precision, where fewer probabilities are rounded to the same: that would tie them.
        logits = self.logits.double()
        exponentials = (logits - logits.amax(-1, keepdim=True)).exp_()
        classes = torch.arange(logits.shape[-1], device=logits.device)
        probabilities = exponentials.div_(exponentials.sum(-1, keepdim=True))
        return _area_under_curve(probabilities, self.targets[..., None] == classes).mean(-1)

    @cached_property
    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each class, rows rightly taken for it, taken for it, and in it: `... x classes`, or broadcast to it.

        It is all that is asked of the confusion matrix, whose size is the square.
        """
        classes = self.logits.shape[-1]
        predicted = _argmax(self.logits)
        right = predicted == self.targets
        missed, hits = _count(predicted + classes * right, 2 * classes).chunk(2, -1)
        return hits, missed + hits, _count(self.targets, classes)


@dataclass(frozen=True, eq=False)
class _Values:
    """Members with one output for each target: every metric is the targets' mean."""

    predictions: Tensor
    targets: Tensor

    def mean_squared_error(self) -> Tensor:
        return self._squares.mean(-1)

    def mean_absolute_error(self) -> Tensor:
        return self._errors.abs().mean((-2, -1))

    def r2(self) -> Tensor:
        y = self.targets.double()
        variance = (y - y.mean(-2, keepdim=True)).square().mean(-2)
        # The mean of a constant may be rounded, and its variance then be a little more than 0.
        varies = y.amax(-2) > y.amin(-2)
        return torch.where(varies, 1 - self._squares / variance, torch.nan).mean(-1)

    @cached_property
    def _errors(self) -> Tensor:
        # In double precision: targets of 10000 +- 1e-3 would lose their digits.
        return self.predictions.double() - self.targets.double()

    @cached_property
    def _squares(self) -> Tensor:
        """Of each target the mean over rows, `... x targets`."""
        return self._errors.square().mean(-2)


_MEMBERS: dict[Problem, Callable[[Tensor, Tensor], _Labels | _Classes | _Values]] = {
    "binary": _Labels,
    "multiclass": _Classes,
    "multilabel": _Labels,
    "regression": _Values,
    "unit_regression": lambda logits, targets: _Values(logits.double().sigmoid(), targets),
}


def _argmax(logits: Tensor) -> Tensor:
    """As torch.argmax over the last dimension, the first of equals, in a tenth of its time where that is strided."""
    last = logits.shape[-1] - 1
    # Each output's distance from the last: the first of the largest has the longest.
    distances = torch.arange(last, -1, -1, dtype=torch.int32, device=logits.device)
    return last - ((logits == logits.amax(-1, keepdim=True)) * distances).amax(-1).long()


def _count(indices: Tensor, size: int) -> Tensor:
    """Count each index below `size`: `... x rows` to `... x size`."""
    return indices.new_zeros(*indices.shape[:-1], size).scatter_add_(-1, indices, torch.ones_like(indices))


def _f1(hits: Tensor, occurrences: Tensor) -> Tensor:
    """2 TP / (2 TP + FP + FN), where predicted + present is the denominator; 0 where it is 0."""
    return 2 * hits.double() / occurrences.clamp(min=1)


def _area_under_curve(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve by the positives' ranks [Mann & Whitney 1947]; equal scores share their mean rank.

    Args:
        scores: `... x rows x outputs`.
        positive: Broadcast to the same shape.

    Returns:
        `... x outputs`; NaN where all are positive, or none.
    """
    # Does not copy where the rows are adjacent already.
    scores = scores.movedim(-1, -2).contiguous()
    ordered, order = scores.sort()
    positive = positive.movedim(-1, -2).expand_as(scores).gather(-1, order)
    # From the first and the last of the equals; an integer, from 2.
    doubled_rank = torch.searchsorted(ordered, ordered) + torch.searchsorted(ordered, ordered, right=True) + 1
    count = positive.sum(-1)
    wins = (doubled_rank * positive).sum(-1) - count * (count + 1)
    return wins.double() / (2 * count * (scores.shape[-1] - count))
