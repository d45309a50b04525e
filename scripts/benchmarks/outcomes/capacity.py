"""The U-curve of polynomials, double descent over sizes, and how many random labels a network holds."""

from collections.abc import Sequence

import numpy as np
from numpy.polynomial.legendre import legvander

from overfit_lab.config import parse
from overfit_lab.plan import prepare
from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes.check import Check, Run, runs_of, within
from scripts.benchmarks.outcomes.truth import Vector

TRAIN_ROWS = 300  # of the double descent over sizes
PARAMETERS = 353  # of the network that learns random labels


def polynomial_u_curve(studies: Sequence[NotebookStudy]) -> list[Check]:
    """The median risk of each degree, and which is lowest."""
    by_degree = runs_of(studies, "data.degree")
    fits = {degree: np.concatenate([run.last() for run in runs]) for degree, runs in by_degree.items()}
    exact = {
        degree: np.concatenate([_least_squares(run, int(degree)) for run in runs]) for degree, runs in by_degree.items()
    }
    medians = {degree: float(np.median(values)) for degree, values in fits.items()}
    best = min(medians, key=medians.__getitem__)
    low, high = _ratio_interval(fits[12], fits[3])
    names = [f"degree {degree:g}" for degree in fits]
    return [
        within(
            "median risk of each degree", [float(np.median(v)) for v in exact.values()], list(medians.values()), names
        ),
        Check(
            "degree of the lowest median risk",
            "3",
            f"{best:g}, with {medians[best]:.4f} of which the noise is 0.09",
            best == 3,
        ),
        Check(
            "degree 12 beside degree 3, medians",
            "more than 1000 times",
            f"{medians[12] / medians[3]:,.0f} times [{low:,.0f}, {high:,.0f}], {len(fits[3])} draws",
            medians[12] > 1000 * medians[3],
        ),
    ]


def _ratio_interval(one: Vector, other: Vector) -> tuple[float, float]:
    """The 95 % interval of a ratio of medians over the same draws, by a bootstrap that keeps pairs together."""
    drawn = np.random.default_rng(0).integers(0, len(one), (2_000, len(one)))
    low, high = np.quantile(np.median(one[drawn], axis=1) / np.median(other[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)


def _least_squares(run: Run, degree: int) -> Vector:
    """The validation risk of each fit, by least squares on Legendre's polynomials in NumPy."""
    plan = prepare(parse(run.record.config))
    rows = plan.seal()
    risks = []
    for fold in rows.folds:
        features = legvander(2 * rows.x[:, 0] - 1, degree)
        weights = np.linalg.lstsq(features[fold.train], rows.y[fold.train, 0], rcond=1e-15)[0]
        risks.append(np.mean((features[fold.val] @ weights - rows.y[fold.val, 0]) ** 2))
    return np.array(risks)


def modelwise_double_descent(studies: Sequence[NotebookStudy]) -> list[Check]:
    """The validation error against the right labels over the number of random features."""
    by_size = runs_of(studies, "model.features")
    errors = {
        int(size): 1 - float(np.mean([run.last("accuracy_clean") for run in runs])) for size, runs in by_size.items()
    }
    peak = max(errors, key=errors.__getitem__)
    return [
        Check(
            "features of the highest validation error",
            f"{TRAIN_ROWS}, as many as train rows",
            f"{peak}, with an error of {errors[peak]:.2f}",
            peak == TRAIN_ROWS,
        ),
        _falls(errors),
    ]


def _falls(errors: dict[int, float]) -> Check:
    """Whether the error falls from the peak on to both sides, up to where that of the smaller networks is lowest."""
    sizes = list(errors)
    bottom = min((size for size in sizes if size < TRAIN_ROWS), key=errors.__getitem__)
    rise = [errors[size] for size in sizes if bottom <= size <= TRAIN_ROWS]
    fall = [errors[size] for size in sizes if size >= TRAIN_ROWS]
    shown = ", ".join(f"{errors[size]:.2f} at {size}" for size in (sizes[0], bottom, TRAIN_ROWS, sizes[-1]))
    return Check(
        "validation error over the number of features",
        "falls, rises up to the peak, and falls again",
        shown,
        bool((np.diff(rise) > 0).all() and (np.diff(fall) < 0).all() and bottom != sizes[0]),
    )


def memorisation(studies: Sequence[NotebookStudy]) -> list[Check]:
    """How many fits have all labels of their train rows right at some epoch."""
    checks = []
    for size, runs in runs_of(studies, "data.train_size").items():
        reached = np.concatenate([run.curve("accuracy", "train")[1].max(axis=1) for run in runs])
        share = size / PARAMETERS
        fitted, fits = int((reached == 1).sum()), len(reached)
        what = f"n = {size:g}, {share:.1f} p: fits that learn all labels"
        if share <= 1.51:
            checks.append(Check(what, "all", f"{fitted} of {fits}", fitted == fits))
        elif share >= 2.49:
            checks.append(
                Check(what, "none", f"{fitted} of {fits}, with {reached.min():.3f} to {reached.max():.3f}", fitted == 0)
            )
        else:
            checks.append(Check(what, "in between: nothing is said", f"{fitted} of {fits}", True))
    runs = [Run(record, study) for study in studies for record in study.runs]
    accuracy = float(np.mean([run.last("accuracy") for run in runs]))
    return [*checks, Check("validation accuracy", "0.5 within 0.03", f"{accuracy:.3f}", abs(accuracy - 0.5) <= 0.03)]
