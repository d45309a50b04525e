"""The grid in JAX by hand: vmap over the fits of a width, a scan over the steps of an epoch, compiled.

python -m scripts.benchmarks.sweep_competitors.jax_scan --out FILE [--widths 4,8]
python -m scripts.benchmarks.sweep_competitors.jax_scan --out FILE --fits 64 --width 16
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import jax  # type: ignore[import-not-found, unused-ignore]
import numpy as np
from jax import numpy as jnp  # type: ignore[import-not-found, unused-ignore]
from numpy.typing import NDArray

from scripts.benchmarks.sweep_competitors import grid, stacked

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
Tree: TypeAlias = Any  # JAX's nested containers of arrays


def forward(network: Tree, x: Tree) -> Tree:
    """Logits of one fit."""
    *hidden, (weight, bias) = network
    for hidden_weight, hidden_bias in hidden:
        x = jax.nn.relu(x @ hidden_weight + hidden_bias)
    return x @ weight + bias


def cross_entropy(network: Tree, x: Tree, y: Tree, weight: Tree) -> Tree:
    """Weighted loss of one fit."""
    return -(jnp.take_along_axis(jax.nn.log_softmax(forward(network, x)), y[:, None], 1)[:, 0] * weight).sum()


def adam(state: Tree, gradients: Tree) -> Tree:
    """One step of one fit; the state is (step, network, mean, mean of squares)."""
    step, network, mean, square = state
    step = step + 1
    mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, gradients)
    square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, square, gradients)
    rate, correction = grid.LEARNING_RATE / (1 - BETA1**step), 1 - BETA2**step
    network = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v / correction) + EPSILON), network, mean, square)
    return step, network, mean, square


class Cohort:
    """Fits that differ in alpha and fold, stacked along the first dimension of every array."""

    def __init__(self, folds: Sequence[grid.Fold], width: int, alphas: Sequence[float], fold: Sequence[int]) -> None:
        self.sizes, self.fits = [len(f.y_train) for f in folds], len(alphas)
        self.steps = grid.steps_per_epoch(max(self.sizes))
        self.rng = np.random.default_rng(0)
        self.alpha, self.fold = jnp.array(alphas), jnp.array(fold)
        train, val = max(self.sizes), max(len(f.y_val) for f in folds)
        self.x, self.y = (
            jnp.asarray(grid.padded(part, train)) for part in ([f.x_train for f in folds], [f.y_train for f in folds])
        )
        validation = (
            grid.padded([f.x_val for f in folds], val),
            grid.padded([f.y_val for f in folds], val),
            grid.row_weights([len(f.y_val) for f in folds], val),
        )
        training = self.x, self.y, grid.row_weights(self.sizes, train)
        self.measured = [tuple(jnp.asarray(rows)[self.fold] for rows in part) for part in (training, validation)]
        self.batch_weight = jnp.asarray(grid.batch_weights(self.sizes, self.steps).swapaxes(0, 1))
        sizes = (grid.FEATURES, width), (width, width), (width, grid.CLASSES)
        network = tuple((self._uniform(i, o, bound=i**-0.5), self._uniform(o, bound=i**-0.5)) for i, o in sizes)
        zeros = jax.tree.map(jnp.zeros_like, network)
        self.state = jnp.zeros(self.fits), network, zeros, jax.tree.map(jnp.zeros_like, network)
        self._train = jax.jit(jax.vmap(self._train_one, in_axes=(0, 0, 0, None)), donate_argnums=0)
        self._measure = jax.jit(jax.vmap(self._measure_one))

    def train_epoch(self) -> None:
        """One pass over the train rows."""
        self.state = self._train(self.state, self.alpha, self.fold, jnp.asarray(self._orders()))

    def measure(self) -> Tree:
        """Loss and accuracy on train and validation rows, `fits x parts x metrics`."""
        return self._measure(self.state[1], self.measured)

    def val_losses(self, measured: Tree) -> list[float]:
        """The validation loss of each fit, from what `measure` gave."""
        losses: list[float] = np.asarray(measured)[:, 1, 0].tolist()
        return losses

    def wait(self, done: list[Tree]) -> None:
        """Wait for what has been asked for: JAX returns before it has computed."""
        jax.block_until_ready((done, self.state))

    def _uniform(self, *shape: int, bound: float) -> Tree:
        return jnp.asarray(self.rng.uniform(-bound, bound, (self.fits, *shape)).astype(np.float32))

    def _orders(self) -> NDArray[np.int32]:
        """New orders, `folds x steps x batch`; padding comes last."""
        orders = np.zeros((len(self.sizes), self.steps * grid.BATCH_SIZE), np.int32)
        for order, size in zip(orders, self.sizes, strict=True):
            order[:size] = self.rng.permutation(size)
        return orders.reshape(len(self.sizes), self.steps, grid.BATCH_SIZE)

    def _train_one(self, state: Tree, alpha: Tree, fold: Tree, orders: Tree) -> Tree:
        def step(state: Tree, batch: Tree) -> tuple[Tree, None]:
            rows, weight = batch
            gradients = jax.grad(cross_entropy)(state[1], self.x[fold, rows], self.y[fold, rows], weight)
            penalised = tuple((g + alpha * w, b) for (g, b), (w, _) in zip(gradients, state[1], strict=True))
            return adam(state, penalised), None

        return jax.lax.scan(step, state, (orders[fold], self.batch_weight[fold]))[0]

    def _measure_one(self, network: Tree, measured: Tree) -> Tree:
        parts = []
        for x, y, weight in measured:
            logits = forward(network, x)
            losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]
            parts.append(jnp.stack([losses @ weight, (logits.argmax(1) == y) @ weight]))
        return jnp.stack(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and say what was done.

    Args:
        arguments: of the command line.
    """
    stacked.run(__doc__, lambda folds: partial(Cohort, folds), arguments)


if __name__ == "__main__":
    main()
