"""What linear-Gaussian data are made of, and the exact risk of what is estimated from them.

The rows are those that a run was trained on, as its own configuration deals them. What is computed from them shares
nothing with the training: linear algebra in NumPy, and the risk over the whole population instead of validation rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overfit_lab.config import CustomData, parse
from overfit_lab.data.source import source_of
from overfit_lab.plan import prepare
from scripts.benchmarks.outcomes.check import Run

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fold:
    """The rows of one fit.

    Attributes:
        x: train inputs, `rows x features`.
        y: train targets, `rows`.
        noise: of the validation targets: the mean of its squares.
    """

    x: Vector
    y: Vector
    noise: float


@dataclass(frozen=True, eq=False)
class Truth:
    """The data of a run.

    Attributes:
        w: the weights that the targets follow.
        variances: of the inputs.
        folds: by repeat.
    """

    w: Vector
    variances: Vector
    folds: tuple[Fold, ...]

    def excess(self, estimate: Vector) -> float:
        """The risk of an estimate of w over that of w itself: its expected squared error on new inputs."""
        return float(self.variances @ (estimate - self.w) ** 2)


def truth_of(run: Run) -> Truth:
    """Deal the rows of a run on linear_gaussian again, and find what they are made of."""
    config = parse(run.record.config)
    plan = prepare(config)
    rows, data = plan.seal(), config.data
    assert isinstance(data, CustomData)
    # Without noise the targets are x w exactly.
    clean = source_of(CustomData.model_validate({**data.model_dump(by_alias=True), "noise": 0.0}))
    assert np.array_equal(clean.x, plan.source.x)
    w = np.linalg.lstsq(clean.x, clean.y[:, 0])[0]
    noise = (plan.source.y - clean.y)[rows.rows, 0]
    folds = [Fold(rows.x[f.train], rows.y[f.train, 0], float(np.mean(noise[f.val] ** 2))) for f in rows.folds]
    scales = np.repeat(data.arguments["scales"], data.arguments["features"])
    return Truth(w, scales**2, tuple(folds))


def measured_excess(truth: Truth, values: Vector) -> Vector:
    """What validation losses are beyond the noise that their rows have.

    Args:
        truth: of the run.
        values: `fits x epochs`.
    """
    noise = np.array([fold.noise for fold in truth.folds])
    excess: Vector = values - noise[:, None]
    return excess


def ridge(fold: Fold, alpha: float) -> Vector:
    """The minimum of the mean squared error plus alpha / 2 |w|^2."""
    n, p = fold.x.shape
    w: Vector = np.linalg.solve(2 * fold.x.T @ fold.x / n + alpha * np.eye(p), 2 * fold.x.T @ fold.y / n)
    return w


def descend(fold: Fold, lr: float, steps: NDArray[np.int64]) -> Vector:
    """Gradient descent on the mean squared error from 0, after each of some numbers of steps: `steps x features`.

    In the eigenvectors of the Hessian H = 2 X'X / n it is (1 - (1 - lr h)^steps) times the least-squares solution.
    """
    n = len(fold.x)
    h, vectors = np.linalg.eigh(2 * fold.x.T @ fold.x / n)
    target = vectors.T @ (2 * fold.x.T @ fold.y / n) / h
    w: Vector = ((1 - (1 - lr * h) ** steps[:, None]) * target) @ vectors.T
    return w
