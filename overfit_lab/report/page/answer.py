"""The answer of a study in two sentences: where overfitting begins, and which validation loss is the lowest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from overfit_lab.records import CandidateRecord, RunRecord
from overfit_lab.report.configurations import configured, swept_keys
from overfit_lab.report.grid import grid_keys
from overfit_lab.report.labels import loss_decimals, loss_value, onset_label, short_names, value_label
from overfit_lab.report.page.comparison import without_place
from overfit_lab.report.page.numbers import capitalised, count, listed
from overfit_lab.study import Study
from overfit_lab.study.selection import LATE

# So many onsets of one row are named one by one; of more, the first and the last.
MOST_NAMED = 3
# So many rows with onsets have a clause each; beyond, the whole sweep has one.
MOST_ROWS = 2


@dataclass(frozen=True)
class _Configuration:
    """One configuration: its values in words, its row's, and its runs, which differ in seed alone."""

    name: str
    row: str
    column: str
    runs: tuple[RunRecord, ...]

    @property
    def onsets(self) -> list[int]:
        return [run.onset.epoch for run in self.runs if run.onset.epoch is not None]

    @property
    def overfits(self) -> bool:
        """Whether most of its seeds do."""
        return 2 * len(self.onsets) > len(self.runs)

    @property
    def onset(self) -> float:
        return median(self.onsets)

    @property
    def when(self) -> str:
        if len(self.runs) == 1:
            return onset_label(self.runs[0].onset)
        return f"{self.onset:g} (median of {len(self.onsets)} of {len(self.runs)} seeds)"

    @property
    def kind(self) -> str:
        """Of one that does not overfit: the most that can be said of all its seeds."""
        kinds = {run.onset.verdict for run in self.runs if run.onset.epoch is None}
        return next(kind for kind in ("diverged", "too_short", "not_reached", "underfit") if kind in kinds)

    @property
    def unseen(self) -> bool:
        """Whether it trained to the end and was tested for a rise, and there was none."""
        return not self.overfits and self.kind in ("not_reached", "underfit")


def answer(study: Study, lowest: CandidateRecord | None) -> list[str]:
    """Say where overfitting begins and which loss is the lowest, and what takes no part in that.

    Args:
        study: Finished or not.
        lowest: The lowest of the configurations that could be compared; without it the records say which it is.
    """
    absent = _absent(study)
    if not study.runs:
        if study.failed and not study.unfinished:
            first = without_place(study.failed[0].error, study)
            return [f"No run has a result: {count(len(study.failed), 'run')} failed, the first with {first}"]
        return ["No run is finished yet, so nothing can be said.", *absent]
    found = _configurations(study)
    first = _onset_sentence(study, found)
    return [first, *_lowest_sentence(study, found, lowest), *_untested(found), *absent]


def _configurations(study: Study) -> list[_Configuration]:
    keys, names = grid_keys(study), short_names(swept_keys(study))
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        groups[run.config_id].append(run)

    def words(run: RunRecord, chosen: Sequence[str]) -> str:
        return ", ".join(f"{names[key]} {value_label(configured(run.config, key))}" for key in chosen)

    def row(run: RunRecord) -> str:
        if len(keys) < 2:
            return ""
        if keys[1] == "penalty.alpha" and configured(run.config, keys[1]) == 0:
            return "without decay" if configured(run.config, "penalty.kind") == "l2" else "without penalty"
        return f"with {words(run, keys[1:2])}"

    return [
        _Configuration(words(runs[0], keys), row(runs[0]), words(runs[0], keys[:1]), tuple(runs))
        for runs in groups.values()
    ]


def _onset_sentence(study: Study, found: Sequence[_Configuration]) -> str:
    within = _horizon(study)
    if len(found) == 1:
        return _single(found[0], within)
    overfit = sorted((one for one in found if one.overfits), key=lambda one: one.onset)
    unseen = [one for one in found if one.unseen]
    if not overfit:
        if not unseen:
            return f"Of none of {len(found)} configurations can be said where overfitting begins."
        which = f"in any of {len(found)} configurations"
        if len(unseen) < len(found):
            which = f"in any of the {count(len(unseen), 'configuration')} that were trained to the end"
        still = "; all still underfit" if all(one.kind == "underfit" for one in unseen) else ""
        return f"Overfitting is not seen {within} {which}{still}."
    rows = list(dict.fromkeys(one.row for one in found))
    with_onset = [row for row in rows if any(one.row == row for one in overfit)]
    if len(grid_keys(study)) > 2 or len(with_onset) > MOST_ROWS:
        return _whole_sweep(overfit, unseen, len(found), within)
    clauses = [
        _row_clause([one for one in overfit if one.row == row], [one for one in unseen if one.row == row], within)
        for row in with_onset
    ]
    # The subject is named once.
    sentence = "; ".join([clauses[0], *(clause.replace("overfitting begins", "it begins") for clause in clauses[1:])])
    quiet = [row for row in rows if row not in with_onset and any(one.row == row for one in unseen)]
    if quiet:
        sentence += f"; {_merged(quiet)} it is not seen {within}"
    return f"{capitalised(sentence)}."


def _single(one: _Configuration, within: str) -> str:
    if one.overfits:
        return f"Overfitting begins at epoch {one.when}."
    sentences = {
        "not_reached": f"Overfitting is not seen {within}.",
        "underfit": f"Overfitting is not seen {within}: the network still underfits.",
        "diverged": "Training diverged, so where overfitting begins cannot be said.",
        "too_short": "There are too few epochs to tell where overfitting begins.",
    }
    return sentences[one.kind]


def _row_clause(overfit: Sequence[_Configuration], unseen: Sequence[_Configuration], within: str) -> str:
    begin = " ".join(part for part in (overfit[0].row, "overfitting begins") if part)
    if len(overfit) <= MOST_NAMED:
        places = [f"at {'' if i else 'epoch '}{one.when} for {one.column}" for i, one in enumerate(overfit)]
        clause = f"{begin} {listed(places)}"
    else:
        first, last = overfit[0], overfit[-1]
        clause = (
            f"{begin} between epoch {first.when} ({first.column}) and {last.when} ({last.column}) in "
            f"{len(overfit)} of {len(overfit) + len(unseen)} configurations"
        )
        return clause + (f", and is not seen in the others {within}" if unseen else "")
    if not unseen:
        return clause
    if len(unseen) > MOST_NAMED:
        return f"{clause}, and is not seen in {len(unseen)} others {within}"
    return f"{clause}, and is not seen for {listed([one.column for one in unseen], 'or')} {within}"


def _whole_sweep(
    overfit: Sequence[_Configuration], unseen: Sequence[_Configuration], configurations: int, within: str
) -> str:
    first, last = overfit[0], overfit[-1]
    sentence = f"Overfitting begins in {len(overfit)} of {configurations} configurations, at epoch {first.when}"
    if last is first:
        sentence += f" ({first.name})"
    else:
        sentence += f" the earliest ({first.name}) and at {last.when} the latest ({last.name})"
    return sentence + (f"; in {len(unseen)} it is not seen {within}." if unseen else ".")


def _merged(rows: Sequence[str]) -> str:
    """Join `with alpha 0.01` and `with alpha 0.1` to `with alpha 0.01 or 0.1`."""
    if len(rows) > MOST_NAMED:
        return f"in the other {len(rows)} rows of the map"
    head, _, first = rows[0].rpartition(" ")
    if all(row.rpartition(" ")[0] == head for row in rows):
        return f"{head} {listed([first, *(row.rpartition(' ')[2] for row in rows[1:])], 'or')}"
    return listed(list(rows), "or")


def _horizon(study: Study) -> str:
    horizons = {int(run.config["training"]["epochs"]) for run in study.runs}
    return f"within {horizons.pop()} epochs" if len(horizons) == 1 else "within the epochs trained"


def _lowest_sentence(study: Study, found: Sequence[_Configuration], lowest: CandidateRecord | None) -> list[str]:
    decimals = loss_decimals(study.runs)

    def said(loss: float, spread: float | None, epoch: float, one: _Configuration) -> list[str]:
        value = loss_value(loss, decimals) + ("" if spread is None else f" ± {loss_value(spread, decimals)}")
        horizon = int(one.runs[0].config["training"]["epochs"])
        end = ", at the end of training" if epoch >= LATE * horizon else ""
        over = f", over {len(one.runs)} seeds" if len(one.runs) > 1 else ""
        which = f"{over}, has {one.name} at epoch" if one.name else f"{over}, is at epoch"
        return [f"The lowest validation loss, {value}{which} {epoch:g}{end}."]

    if lowest is not None:
        own = next(one for one in found if one.runs[0].config_id == lowest.config_id)
        return said(lowest.val_loss, lowest.se, lowest.epoch, own)
    known = [one for one in found if all(run.val_loss.mean is not None for run in one.runs)]
    sound = [one for one in known if all(run.status == "finished" for run in one.runs)] or known
    if not sound:
        return []

    def loss(one: _Configuration) -> float:
        return fmean(run.val_loss.mean for run in one.runs if run.val_loss.mean is not None)

    best = min(sound, key=loss)
    epochs = [run.val_loss.epoch for run in best.runs if run.val_loss.epoch is not None]
    return said(loss(best), best.runs[0].val_loss.se if len(best.runs) == 1 else None, median(epochs), best)


def _untested(found: Sequence[_Configuration]) -> list[str]:
    if len(found) == 1:
        return []
    kinds = [one.kind for one in found if not one.overfits]
    parts = []
    if diverged := kinds.count("diverged"):
        parts.append(f"{count(diverged, 'configuration')} diverged")
    if short := kinds.count("too_short"):
        parts.append(f"{count(short, 'configuration')} {'has' if short == 1 else 'have'} too few epochs to tell")
    return [f"{capitalised(listed(parts))}."] if parts else []


def _absent(study: Study) -> list[str]:
    parts = []
    if failed := len(study.failed):
        parts.append(f"{count(failed, 'run')} failed")
    if unfinished := len(study.unfinished):
        parts.append(f"{count(unfinished, 'run')} {'is' if unfinished == 1 else 'are'} not finished")
    if not parts:
        return []
    others = ": what is said here is of the others alone" if study.runs else ""
    return [f"{listed(parts)}{others}."]
