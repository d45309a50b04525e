"""MNIST-1D: ten shapes on a line, padded, stretched, moved and made noisy [Greydanus & Kobak 2024, section 2].

The recipe and its numbers are the published ones, the random numbers are ours: the rows are others than those of the
authors' file, of the same kind.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from overfit_lab.config import Seed
from overfit_lab.data.source import Source
from overfit_lab.data.synthetic.arguments import checked
from overfit_lab.seeding import numpy_generator

# The strokes of the digits 0 to 9 as heights at twelve places.
DIGITS = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
PADDING = (36, 60)  # zeros behind a digit, from and to
STRETCHED = DIGITS.shape[1] + PADDING[1]  # places that a padded digit is stretched to
SCALES = 0.4  # width of the range of heights, around 1
SHIFTS = 48  # places by which it is moved, round the end, are below this
SMOOTH_NOISE, BLUR = 0.25, 2  # its deviation before it is smoothed, and the deviation of what smooths it, in places
NOISE = 0.02
SHEARS = 0.75  # width of the range of slopes, around 0
LENGTH = 40


@checked
def mnist1d(*, rows: Annotated[int, Field(ge=20)], seed: Seed) -> Source:
    """Draw digits on a line, 40 numbers each, as many of every class or one more.

    Args:
        rows: How many; the published set has 4 000 to train and 1 000 to test.
        seed: Of all that is drawn.

    Raises:
        UserError: An argument is not allowed.
    """
    rng = numpy_generator("mnist1d", seed)
    labels = rng.permutation(np.arange(rows) % len(DIGITS))
    strokes = templates()
    x = np.stack([_draw(strokes[label], rng) for label in labels])
    return Source("mnist1d", "multiclass", (x - x.mean()) / x.std(), labels)


def templates() -> NDArray[np.float64]:
    """Normalise the strokes: deviation 1/6, and the first place at height 0. `10 x 12`."""
    strokes: NDArray[np.float64] = (DIGITS - DIGITS[:, :1]) / DIGITS.std(axis=1, keepdims=True) / 6
    return strokes


def _draw(stroke: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Make one row of a digit's stroke."""
    # A height of exactly 0 marks the padding, which alone gets smooth noise.
    padded = np.concatenate([stroke + 1e-8, np.zeros(rng.integers(PADDING[0], PADDING[1], endpoint=True))])
    line = _resample(padded, STRETCHED) * (1 + rng.uniform(-SCALES / 2, SCALES / 2))
    line = np.roll(line, rng.integers(SHIFTS))
    smooth = gaussian_filter1d(rng.normal(scale=SMOOTH_NOISE, size=STRETCHED), BLUR)
    line = np.where(line == 0, smooth, line) + rng.normal(scale=NOISE, size=STRETCHED)
    line -= rng.uniform(-SHEARS / 2, SHEARS / 2) * np.linspace(-0.5, 0.5, STRETCHED)
    return _resample(line, LENGTH)


def _resample(line: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Interpolate a line linearly at another number of places, its ends kept."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(line)), line)
