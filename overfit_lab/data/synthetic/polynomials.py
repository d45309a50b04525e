"""A sine under noise, and polynomials to fit it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from overfit_lab.config import Count, NonNegative, Seed
from overfit_lab.data.source import Source
from overfit_lab.data.synthetic.arguments import checked
from overfit_lab.seeding import numpy_generator


@checked
def polynomial(*, rows: Count, degree: Count, noise: NonNegative, seed: Seed) -> Source:
    """Draw y = sin(2 pi x) + noise with x uniform in [0, 1] [Bishop 2006, section 1.1], to be fitted by a polynomial.

    Args:
        rows: How many.
        degree: Of the polynomial: so many inputs has a network. The rows are the same for all degrees.
        noise: Standard deviation of the noise; its square is the Bayes risk.
        seed: Of inputs and noise.

    Raises:
        UserError: An argument is not allowed.
    """
    x = numpy_generator("polynomial", seed, "x").uniform(size=(rows, 1))
    y = np.sin(2 * np.pi * x[:, 0]) + noise * numpy_generator("polynomial", seed, "noise").normal(size=rows)
    preparation = OrthogonalPolynomials(degree)
    return Source("polynomial", "regression", x, y, preparation=preparation, bayes_risk=noise**2)


@dataclass(frozen=True)
class OrthogonalPolynomials:
    """Polynomials of one input from degree 1 on, orthogonal on the train rows [Forsythe 1957].

    They span what the powers of the input span, but on the train rows they have mean 0, mean square 1 and no
    correlation: gradient descent, which would need billions of steps on powers, needs one with a learning rate of 1/2.

    Args:
        features: The highest degree, and so many inputs has a network.
    """

    features: int

    def fit(self, train: NDArray[Any]) -> FittedPolynomials:
        """Make them orthogonal on `rows x 1`; those of a degree that the rows cannot tell from lower ones are 0."""
        low, high = float(train.min()), float(train.max())
        fitted = FittedPolynomials(low, high, np.empty((0, 0)))
        r = np.linalg.qr(fitted.legendre(train, self.features)).R
        small = np.abs(np.diag(r)) <= 1e-12 * np.abs(r[0, 0])
        rank = int(small.argmax()) if small.any() else len(r)
        inverse = np.zeros((self.features + 1, self.features + 1))
        inverse[:rank, :rank] = solve_triangular(r[:rank, :rank], np.eye(rank)) * np.sqrt(len(train))
        return FittedPolynomials(low, high, inverse)


@dataclass(frozen=True, eq=False)
class FittedPolynomials:
    """Polynomials as combinations of Legendre's.

    Args:
        low: The lowest input of the train rows, moved to -1.
        high: The highest, moved to 1.
        coefficients: `degree + 1 x degree + 1`, a column for each polynomial, from the constant one on.
    """

    low: float
    high: float
    coefficients: NDArray[np.float64]

    def apply(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Evaluate them at `rows x 1`: `rows x degree`, without the constant."""
        values: NDArray[np.float64] = self.legendre(rows, len(self.coefficients) - 1) @ self.coefficients[:, 1:]
        return values

    def legendre(self, rows: NDArray[Any], degree: int) -> NDArray[np.float64]:
        """Evaluate Legendre's polynomials at `rows x 1`: `rows x degree + 1`."""
        width = self.high - self.low
        moved = (2 * rows[:, 0] - self.low - self.high) / (width if width > 0 else 1.0)
        return np.asarray(legvander(moved, degree), dtype=np.float64)
