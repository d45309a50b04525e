"""Network size, weight decay and dropout on film reviews."""

from collections.abc import Sequence

import numpy as np

from overfit_lab.report.labels import onset_label
from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes.check import Check, Run, runs_of
from scripts.benchmarks.outcomes.truth import Vector
from scripts.benchmarks.sparse_epochs import KERAS_EPSILON

DEAD = 0.69  # a validation loss that never falls below: all units are, and every review is as likely good as bad


def network_size(studies: Sequence[NotebookStudy]) -> list[Check]:
    """When each size begins to overfit, and how far it goes."""
    by_width = runs_of(studies, "model.width")
    curves = {width: np.concatenate([run.curve()[1] for run in runs]) for width, runs in by_width.items()}
    alive = {width: of_width[of_width.min(axis=1) < DEAD] for width, of_width in curves.items()}
    best = {width: _lowest(of_width) for width, of_width in alive.items()}
    checks = _overfit(curves[16])
    for width, expected, passed in (
        (4, "later than with 16", best[4] > best[16]),
        (512, "no later than with 16", best[512] <= best[16]),
    ):
        mean, born_dead = alive[width].mean(axis=0), len(curves[width]) - len(alive[width])
        shown = f"{mean[best[width]]:.3f} at epoch {best[width]}, ending at {mean[-1]:.2f}"
        dead = f"; {born_dead} of {len(curves[width])} networks never learned" if born_dead else ""
        checks.append(Check(f"{width} units: minimum", expected, shown + dead, passed))
    end, clipped = curves[512].mean(axis=0)[-1], np.mean([_clipped_end(run) for run in by_width[512]])
    checks.append(
        Check(
            "512 units: end",
            "above that of 16 units (book .89)",
            f"{end:.2f}; {clipped:.2f} with probabilities clipped as Keras does",
            bool(end > curves[16].mean(axis=0)[-1]),
        )
    )
    onsets = [run.record.onset for run in by_width[512]]
    early = sum(onset.epoch is not None and onset.epoch <= best[16] for onset in onsets)
    checks.append(
        Check(
            "512 units: onset",
            "no later than the minimum with 16",
            f"in {early} of {len(onsets)} seeds: {', '.join(map(onset_label, onsets))}",
            early == len(onsets),
        )
    )
    return checks


def regularisation(studies: Sequence[NotebookStudy]) -> list[Check]:
    """What weight decay and dropout make of 16 units."""
    runs = [Run(record, study) for study in studies for record in study.runs]

    def curves(alpha: float, dropout: float) -> Vector:
        own = [run for run in runs if (run.key("penalty.alpha"), run.key("model.dropout")) == (alpha, dropout)]
        return np.concatenate([run.curve()[1] for run in own])

    decayed, dropped = curves(0.002, 0.0).mean(axis=0), curves(0.0, 0.5).mean(axis=0)
    best = int(dropped.argmin())
    return [
        *_overfit(curves(0.0, 0.0)),
        Check("alpha .002 on the hidden layers: end", "below .5 (book .42)", f"{decayed[-1]:.3f}", decayed[-1] < 0.5),
        Check(
            "dropout .5: minimum",
            "below .285 at epoch 3 to 5 (book .277 at 4)",
            f"{dropped[best]:.3f} at epoch {best}",
            bool(dropped[best] < 0.285 and 3 <= best <= 5),
        ),
    ]


def _clipped_end(run: Run) -> float:
    """The validation loss at the horizon, where no row may lose more than -ln(1e-7) = 16.1: so Keras bounds it."""
    rows = run.study.files.run(run.record.run_id).load_val_losses().losses[0, -1]
    return float(np.minimum(rows, -np.log(KERAS_EPSILON)).mean())


def _overfit(curves: Vector) -> list[Check]:
    """What 16 units do without any help, by the mean over seeds, `seeds x epochs` from epoch 0."""
    mean, best = curves.mean(axis=0), _lowest(curves)
    return [
        Check(
            "16 units: minimum",
            ".275 to .295 at epoch 2 to 4 (book .28 at 3)",
            f"{mean[best]:.3f} at epoch {best}",
            bool(0.275 <= mean[best] <= 0.295 and 2 <= best <= 4),
        ),
        Check("16 units: end", "above .7 (book .77)", f"{mean[-1]:.3f}", bool(mean[-1] > 0.7)),
    ]


def _lowest(curves: Vector) -> int:
    return int(curves.mean(axis=0).argmin())
