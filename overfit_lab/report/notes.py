"""What a reader of a study's figures should know beside them, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from overfit_lab.errors import printable
from overfit_lab.report.final import times, with_interval
from overfit_lab.report.shuffles import Shuffles, shuffle_sentences
from overfit_lab.study import Study
from overfit_lab.study.ledger import read_ledger


def study_notes(study: Study, moves: Mapping[str, Shuffles]) -> list[str]:
    """Say which rows stand on both sides of a cut, how far losses move with the shuffle, how often the test was taken.

    Args:
        study: The study.
        moves: What each reshuffle made of its runs, by run id.

    Raises:
        UserError: `final.json` is damaged.
    """
    caveats = [printable(line) for line in study.record.caveats()] + noise_sentences(study)
    return caveats + shuffle_sentences(study, moves) + _test_sentences(study)


def noise_sentences(study: Study) -> list[str]:
    """Say that labels were made wrong on purpose, where any were."""
    shares = sorted({share for run in study.runs if (share := run.config.get("data", {}).get("label_noise"))})
    if not shares:
        return []
    levels = ", ".join(f"{100 * share:g} %" for share in shares)
    return [
        f"labels of train and validation rows were made wrong on purpose ({levels}), the same for all seeds, and none "
        "of the test's; curves that end with _clean are measured against the right labels"
    ]


def _test_sentences(study: Study) -> list[str]:
    state, final = read_ledger(study.files), study.files.load_final()
    lines = []
    if state.fault is not None:
        lines.append(f"{study.files.ledger.name} {state.fault}: how often the test rows were opened is not certain")
    if state.openings:
        lines.append(f"the test rows were opened {times(state.openings)}")
    if final is not None:
        lines.append(
            f"final test ({final.time}): selection={final.selection.rule} took configuration "
            f"{printable(final.selection.config_id)} at epoch {final.selection.epoch}; test loss "
            f"{with_interval(final.test.loss)}, less what validation promised "
            f"{with_interval(final.test.gap, signed=True)}"
        )
        selection = final.selection
        known = {one.config_id for one in selection.candidates} | {one.config_id for one in selection.left_out}
        later = len({run.config_id for run in study.runs} - known)
        if later:
            lines.append(f"{later} configurations were trained after the final test; it says nothing of them")
    return lines
