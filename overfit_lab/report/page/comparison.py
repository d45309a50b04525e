"""The configurations of a study compared by validation alone, as `finalize` would compare them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import fmean

from overfit_lab.errors import UserError, printable
from overfit_lab.records import CandidateRecord, LeftOut
from overfit_lab.study import Study
from overfit_lab.study.candidates import gather_candidates
from overfit_lab.study.selection import select, simplest

# From so many configurations on, only the lowest are read and compared: their losses are large files.
MANY = 200
MOST_COMPARED = 50


@dataclass(frozen=True)
class Comparison:
    """What can be selected.

    Args:
        candidates: The lowest loss first.
        left_out: Configurations that cannot be selected, and why.
        omitted: How many are not compared, because there are many with lower losses.
        seeds: The seeds that all have in common.
        bias: How much lower than the truth the lowest loss is by having been selected, or None.
        at_horizon: Whether the lowest is so late that a longer training may give another one.
    """

    candidates: tuple[CandidateRecord, ...]
    left_out: tuple[LeftOut, ...]
    omitted: int
    seeds: tuple[int, ...]
    bias: float | None
    at_horizon: bool

    @property
    def simplest(self) -> CandidateRecord:
        """The simplest within one standard error of the lowest, as `selection=one_se` takes it."""
        return simplest(self.candidates)


def compare(study: Study) -> Comparison | str:
    """Compare the configurations of a study, or say in a sentence why they cannot be."""
    lowest, omitted = _lowest(study)
    try:
        candidates, left_out, seeds = gather_candidates(lowest)
        selection = select(candidates, "min", study.record.split)
    except UserError as error:
        return without_place(str(error), study)
    return Comparison(selection.candidates, tuple(left_out), omitted, seeds, selection.bias, selection.at_horizon)


def without_place(message: str, study: Study) -> str:
    """Take out of a message where the study lies: its page may be sent to others, and is the same everywhere."""
    # As a whole path alone: a folder may be called `a`, or be the one that the command was given in.
    directory = re.escape(str(study.files.directory))
    message = re.sub(rf"^{directory}(?=: )", lambda _: study.record.name, message)
    return printable(re.sub(rf"(?<!\S){directory}/", "", message))


def _lowest(study: Study) -> tuple[Study, int]:
    """Keep the configurations of many whose records have the lowest losses, and say how many are left out."""
    losses: dict[str, list[float]] = defaultdict(list)
    for run in study.runs:
        if run.val_loss.mean is not None and run.status == "finished":
            losses[run.config_id].append(run.val_loss.mean)
    if len(losses) <= MANY:
        return study, 0
    kept = set(sorted(losses, key=lambda config_id: fmean(losses[config_id]))[:MOST_COMPARED])
    runs = tuple(run for run in study.runs if run.config_id in kept)
    return replace(study, runs=runs), len({run.config_id for run in study.runs}) - len(kept)
