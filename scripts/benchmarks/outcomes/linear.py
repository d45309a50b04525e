"""Ridge regression, early stopping, and double descent over epochs, beside their exact risks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from overfit_lab.report.notebook import NotebookStudy
from scripts.benchmarks.outcomes.check import TOLERANCE, Check, Run, runs_of, within
from scripts.benchmarks.outcomes.truth import Vector, descend, measured_excess, ridge, truth_of

BEST_ALPHA = 0.25  # 2 p sigma^2 / (n |w|^2) with 30 features, 60 rows, noise 1 and |w|^2 = 4
MOST = 1.6862  # the largest ((1 - exp(-x)) (1 + x) / x)^2 over x > 0 [Ali, Kolter, Tibshirani 2019, theorem 1]


def ridge_optimum(studies: Sequence[NotebookStudy]) -> list[Check]:
    """The risk of each alpha, and which is best."""
    alphas, exact, measured = [], [], []
    for alpha, runs in runs_of(studies, "penalty.alpha").items():
        alphas.append(alpha)
        exact.append(float(np.mean([_ridge_risks(run, alpha) for run in runs])))
        measured.append(float(np.mean([_horizon(run) for run in runs])))
    best, of_exact = (_lowest(alphas, values) for values in (measured, exact))
    return [
        within("excess risk at each alpha", exact, measured, [f"alpha {alpha:g}" for alpha in alphas]),
        Check(
            "best alpha",
            f"{BEST_ALPHA} within {TOLERANCE:.0%}",
            f"{best:.3f} (exact risk of the same rows: {of_exact:.3f})",
            abs(best / BEST_ALPHA - 1) <= TOLERANCE,
        ),
    ]


def _ridge_risks(run: Run, alpha: float) -> Vector:
    truth = truth_of(run)
    return np.array([truth.excess(ridge(fold, alpha)) for fold in truth.folds])


def _horizon(run: Run) -> Vector:
    return measured_excess(truth_of(run), run.last()[:, None])[:, 0]


def _lowest(alphas: Sequence[float], risks: Sequence[float]) -> float:
    """Where a cubic in log alpha, fitted from a quarter of the lowest point to four times, has its minimum."""
    x, y = np.log(np.maximum(alphas, 1e-12)), np.array(risks)
    near = np.abs(x - x[y.argmin()]) < np.log(4.5)
    cubic = np.polynomial.Polynomial.fit(x[near], y[near], 3)
    fine = np.linspace(x[near].min(), x[near].max(), 10_001)
    return float(np.exp(fine[cubic(fine).argmin()]))


def early_stopping(studies: Sequence[NotebookStudy]) -> list[Check]:
    """Gradient descent stopped after t steps beside ridge regression with alpha = 1 / (lr t)."""
    by_alpha = runs_of(studies, "penalty.alpha")
    stopped = by_alpha.pop(0.0)
    lr = stopped[0].key("optimizer.lr")
    steps = np.array([round(1 / (lr * alpha)) for alpha in by_alpha])
    epochs, _ = stopped[0].curve()
    places = np.searchsorted(epochs, steps)
    assert np.array_equal(epochs[places], steps)
    of_descent = np.mean([measured_excess(truth_of(run), run.curve()[1][:, places]).mean(0) for run in stopped], axis=0)
    of_ridge = [float(np.mean([_horizon(run) for run in runs])) for runs in by_alpha.values()]
    exact_descent = np.mean([_descent_risks(run, lr, steps).mean(0) for run in stopped], axis=0)
    exact_ridge = [float(np.mean([_ridge_risks(run, alpha) for run in runs])) for alpha, runs in by_alpha.items()]
    ratios = of_descent / of_ridge
    worst = int(ratios.argmax())
    names = [f"t = {t}" for t in steps]
    return [
        within("excess risk after t steps", exact_descent.tolist(), of_descent.tolist(), names),
        within("excess risk of ridge at 1 / (lr t)", exact_ridge, of_ridge, names),
        Check(
            "their ratio, for every t",
            "at most 1.69",
            f"at most {ratios[worst]:.2f}, at {names[worst]}; least {ratios.min():.2f}",
            bool(ratios.max() <= MOST),
        ),
    ]


def _descent_risks(run: Run, lr: float, steps: NDArray[np.int64]) -> Vector:
    """The exact risk of gradient descent, `fits x steps`."""
    truth = truth_of(run)
    return np.array([[truth.excess(w) for w in descend(fold, lr, steps)] for fold in truth.folds])


def epochwise_double_descent(studies: Sequence[NotebookStudy]) -> list[Check]:
    """First minimum, peak and second minimum of the excess risk over the epochs."""
    runs = [Run(record, study) for study in studies for record in study.runs]
    epochs, _ = runs[0].curve()
    lr = runs[0].key("optimizer.lr")
    measured = np.mean([measured_excess(truth_of(run), run.curve()[1]).mean(0) for run in runs], axis=0)
    exact = np.mean([_descent_risks(run, lr, epochs).mean(0) for run in runs], axis=0)
    limit = _limit(runs[0], lr, epochs)
    checks = []
    turns = zip(("first minimum", "peak", "second minimum"), *map(_turns, (limit, exact, measured)), strict=True)
    for name, of_limit, of_exact, found in turns:
        value, wanted = measured[found], exact[of_exact]
        checks.append(
            Check(
                f"excess risk at the {name}",
                f"{wanted:.2f} at epoch {epochs[of_exact]} (for n without limit {limit[of_limit]:.2f} at "
                f"{epochs[of_limit]})",
                f"{value:.2f} at epoch {epochs[found]}",
                abs(value / wanted - 1) <= TOLERANCE,
            )
        )
    onsets = [run.record.onset for run in runs]
    flagged = sum(onset.verdict == "overfit" and onset.second_descent for onset in onsets)
    found_at = sorted(onset.epoch for onset in onsets if onset.epoch is not None)
    checks.append(
        Check(
            "verdict",
            "overfit, with a second descent",
            f"in {flagged} of {len(runs)} seeds, from epoch " + ", ".join(map(str, found_at)),
            flagged == len(runs),
        )
    )
    return checks


def _turns(risk: Vector) -> tuple[int, int, int]:
    """Where a risk is lowest, highest after that, and lowest again; the first is sought up to where it has a rise."""
    first = next(i for i in range(1, len(risk)) if risk[i] < risk[:i].min() and risk[i] < risk[i + 1 : i + 20].min())
    end = int(first + risk[first:].argmin())
    peak = int(first + risk[first:end].argmax())
    return first, peak, end


def _limit(run: Run, lr: float, epochs: NDArray[np.int64]) -> Vector:
    """The risk where the sample's covariance is the population's [Heckel & Yilmaz 2021, theorem 1]."""
    data = run.record.config["data"]
    rows, noise = data["train_size"], data["noise"]
    total = np.zeros(len(epochs))
    for features, scale, signal in zip(data["features"], data["scales"], data["signal"], strict=True):
        left = (1 - 2 * lr * scale**2) ** epochs
        total += signal * left**2 + noise**2 * features / rows * (1 - left) ** 2
    return total
