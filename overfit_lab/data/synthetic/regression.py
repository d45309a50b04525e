"""Regression whose noise is known: linear-Gaussian, and a teacher network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from overfit_lab.config import Count, NonNegative, Positive, Seed
from overfit_lab.data.source import Source
from overfit_lab.data.synthetic.arguments import checked
from overfit_lab.errors import UserError
from overfit_lab.seeding import numpy_generator

Blocks = Annotated[Sequence[Count], Field(min_length=1)]


@checked
def linear_gaussian(
    *,
    rows: Count,
    features: Blocks,
    scales: Sequence[Positive],
    signal: Sequence[NonNegative],
    noise: NonNegative,
    seed: Seed,
) -> Source:
    """Draw y = x w + noise with Gaussian inputs, in blocks of features that have one scale each.

    Args:
        rows: How many.
        features: Of each block.
        scales: Standard deviation of a block's inputs.
        signal: Variance that a block adds to y; within it, w has a direction that is drawn uniformly and the length
            that gives this variance, sqrt(signal) / scale.
        noise: Standard deviation of the noise; its square is the Bayes risk.
        seed: Of inputs, w and noise.

    Raises:
        UserError: An argument is not allowed.
    """
    for key, values in (("scales", scales), ("signal", signal)):
        if len(values) != len(features):
            raise UserError(
                f"data.{key}={list(values)}: has {len(values)} values; allowed is one for each of "
                f"{len(features)} block(s) of data.features"
            )
    directions = [numpy_generator("linear_gaussian", seed, "w", b).normal(size=size) for b, size in enumerate(features)]
    w = np.concatenate(
        [
            np.sqrt(power) / scale * direction / np.linalg.norm(direction)
            for direction, scale, power in zip(directions, scales, signal, strict=True)
        ]
    )
    x = numpy_generator("linear_gaussian", seed, "x").normal(size=(rows, len(w))) * np.repeat(scales, features)
    y = x @ w + noise * numpy_generator("linear_gaussian", seed, "noise").normal(size=rows)
    return Source("linear_gaussian", "regression", x, y, bayes_risk=noise**2)


@checked
def teacher_student(*, rows: Count, features: Count, width: Count, noise: NonNegative, seed: Seed) -> Source:
    """Draw y = f(x) + noise, where f is a random network with one hidden layer of ReLU units.

    Args:
        rows: How many.
        features: Inputs, standard normal.
        width: Hidden units of the teacher. Its weights are drawn so that y without noise has a variance of order 1.
        noise: Standard deviation of the noise; its square is the Bayes risk.
        seed: Of inputs, teacher and noise.

    Raises:
        UserError: An argument is not allowed.
    """
    teacher = numpy_generator("teacher_student", seed, "teacher")
    hidden = teacher.normal(size=(features, width)) * np.sqrt(2 / features)  # keeps the mean square [He et al. 2015]
    out = teacher.normal(size=width) / np.sqrt(width)
    x = numpy_generator("teacher_student", seed, "x").normal(size=(rows, features))
    y = np.maximum(x @ hidden, 0) @ out
    y += noise * numpy_generator("teacher_student", seed, "noise").normal(size=rows)
    return Source("teacher_student", "regression", x, y, bayes_risk=noise**2)
