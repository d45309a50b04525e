"""Classes whose truth is known: labels that say nothing, and an addition that says all."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from overfit_lab.config import Count, Problem, Seed
from overfit_lab.data.source import Source
from overfit_lab.data.synthetic.arguments import checked
from overfit_lab.seeding import numpy_generator

Several = Annotated[int, Field(ge=2)]


@checked
def random_labels(*, rows: Several, features: Count, classes: Several, seed: Seed) -> Source:
    """Draw standard normal inputs, and labels that have nothing to do with them [Zhang et al. 2017].

    Args:
        rows: How many.
        features: Inputs.
        classes: Each has as many rows as every other, or one more. Two make a binary problem.
        seed: Of inputs and labels.

    Raises:
        UserError: An argument is not allowed.
    """
    x = numpy_generator("random_labels", seed, "x").normal(size=(rows, features))
    y = numpy_generator("random_labels", seed, "y").permutation(np.arange(rows) % classes)
    problem: Problem = "binary" if classes == 2 else "multiclass"
    return Source("random_labels", problem, x, y, bayes_risk=float(np.log(classes)))


@checked
def modular_addition(*, modulus: Several) -> Source:
    """List all sums a + b modulo a number: no row is drawn, and no label is in doubt [Power et al. 2022].

    Args:
        modulus: p; there are p * p rows. Inputs are a and b, each as one of p, and the class is (a + b) mod p.

    Raises:
        UserError: An argument is not allowed.
    """
    a, b = np.divmod(np.arange(modulus**2), modulus)
    one_of = np.eye(modulus)
    return Source(
        "modular_addition", "multiclass", np.hstack([one_of[a], one_of[b]]), (a + b) % modulus, bayes_risk=0.0
    )
