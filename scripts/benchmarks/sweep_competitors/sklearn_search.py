"""The grid as scikit-learn's grid search on two cores. It gives scores after the last epoch, and no curves.

    python -m scripts.benchmarks.sweep_competitors.sklearn_search --out FILE [--widths 4,8]

Its alpha is divided by the rows of a batch, so it penalises less; the work is the same.
"""

import sys
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from scripts.benchmarks.sweep_competitors import grid

JOBS = 2


def scores(fitted: Pipeline, x: NDArray[np.float32], y: NDArray[np.int64]) -> dict[str, float]:
    """Validation loss of a fit, and how long it was trained."""
    return {"val_loss": log_loss(y, fitted.predict_proba(x)), "epochs": fitted[-1].n_iter_}


def train_grid(work: grid.Work) -> grid.Trained:
    """Search a part of the grid."""
    x, y, folds = grid.development_rows()
    network = MLPClassifier(
        batch_size=grid.BATCH_SIZE,
        learning_rate_init=grid.LEARNING_RATE,
        max_iter=work.epochs,
        tol=0,
        n_iter_no_change=sys.maxsize,
        random_state=0,
    )
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("mlp", network)]),
        {"mlp__hidden_layer_sizes": [(width, width) for width in work.widths], "mlp__alpha": list(work.alphas)},
        scoring=scores,
        n_jobs=JOBS,
        cv=folds[: work.folds],
        refit=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs run, as asked
        found = search.fit(x, y).cv_results_
    of_fits = {
        name: np.concatenate([found[f"split{fold}_test_{name}"] for fold in range(work.folds)])
        for name in ("val_loss", "epochs")
    }
    return grid.Trained(len(of_fits["epochs"]), int(of_fits["epochs"].sum()), of_fits["val_loss"].tolist())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and say what was done.

    Args:
        arguments: of the command line.
    """
    options = grid.parser(__doc__).parse_args(arguments)
    train_grid(grid.work_of(options)).save(options.out)


if __name__ == "__main__":
    main()
