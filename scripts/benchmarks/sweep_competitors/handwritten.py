"""The grid in PyTorch by hand: for each width one stack of fits, trained by batched matrix products.

python -m scripts.benchmarks.sweep_competitors.handwritten --out FILE [--widths 4,8]
python -m scripts.benchmarks.sweep_competitors.handwritten --out FILE --fits 64 --width 16
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from scripts.benchmarks.sweep_competitors import grid, stacked


class Rows:
    """The rows of all folds, loaded once, padded to the same length with weight 0."""

    def __init__(self, folds: Sequence[grid.Fold]) -> None:
        self.sizes = [len(fold.y_train) for fold in folds]
        self.steps = grid.steps_per_epoch(max(self.sizes))
        self.length = self.steps * grid.BATCH_SIZE
        self.batch_weight = torch.from_numpy(grid.batch_weights(self.sizes, self.steps))
        train, val = max(self.sizes), max(len(fold.y_val) for fold in folds)
        self.x = torch.from_numpy(grid.padded([fold.x_train for fold in folds], train))
        self.y = torch.from_numpy(grid.padded([fold.y_train for fold in folds], train))
        self.weight = torch.from_numpy(grid.row_weights(self.sizes, train))
        self.x_val = torch.from_numpy(grid.padded([fold.x_val for fold in folds], val))
        self.y_val = torch.from_numpy(grid.padded([fold.y_val for fold in folds], val))
        self.weight_val = torch.from_numpy(grid.row_weights([len(fold.y_val) for fold in folds], val))

    def shuffled(self) -> tuple[Tensor, Tensor]:
        """One epoch in a new order: inputs and classes as `steps x folds x batch`."""
        order = torch.zeros(len(self.sizes), self.length, dtype=torch.int64)
        for row, size in zip(order, self.sizes, strict=True):
            row[:size] = torch.randperm(size)
        fold = torch.arange(len(self.sizes))[:, None]
        shape = len(self.sizes), self.steps, grid.BATCH_SIZE
        x = self.x[fold, order].view(*shape, grid.FEATURES).transpose(0, 1)
        return x, self.y[fold, order].view(shape).transpose(0, 1)


class Cohort:
    """Fits that differ in alpha and fold, stacked along the first dimension of every tensor."""

    def __init__(self, rows: Rows, width: int, alphas: Sequence[float], folds: Sequence[int]) -> None:
        self.rows, self.fits, self.steps = rows, len(alphas), rows.steps
        self.alpha = torch.tensor(alphas)[:, None, None]
        self.fold = torch.tensor(folds)
        self.weights, self.biases = [], []
        for inputs, outputs in ((grid.FEATURES, width), (width, width), (width, grid.CLASSES)):
            bound = inputs**-0.5
            self.weights.append(torch.empty(self.fits, inputs, outputs).uniform_(-bound, bound).requires_grad_())
            self.biases.append(torch.empty(self.fits, 1, outputs).uniform_(-bound, bound).requires_grad_())
        self.optimizer = torch.optim.Adam([*self.weights, *self.biases], lr=grid.LEARNING_RATE, fused=True)
        self.batch_weight = rows.batch_weight[:, self.fold].flatten(1)
        self.measured = [
            (x[self.fold], y[self.fold].flatten(), weight[self.fold])
            for x, y, weight in ((rows.x, rows.y, rows.weight), (rows.x_val, rows.y_val, rows.weight_val))
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, `fits x rows x classes`."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = x.relu_()
        return x

    def train_epoch(self) -> None:
        """One pass over the train rows."""
        for x, y, weight in zip(*self.rows.shuffled(), self.batch_weight, strict=True):
            logits = self.forward(x.index_select(0, self.fold)).flatten(0, 1)
            losses = functional.cross_entropy(logits, y.index_select(0, self.fold).flatten(), reduction="none")
            self.optimizer.zero_grad()
            torch.autograd.backward(losses.dot(weight))
            for parameter in self.weights:
                assert parameter.grad is not None
                parameter.grad.addcmul_(self.alpha, parameter.detach())
            self.optimizer.step()

    @torch.inference_mode()
    def measure(self) -> Tensor:
        """Loss and accuracy on train and validation rows, `parts x metrics x fits`."""
        parts = []
        for x, y, weight in self.measured:
            logits = self.forward(x).flatten(0, 1)
            losses = functional.cross_entropy(logits, y, reduction="none").view_as(weight)
            correct = (logits.argmax(1) == y).view_as(weight)
            parts.append(torch.stack([(losses * weight).sum(1), (correct * weight).sum(1)]))
        return torch.stack(parts)

    def val_losses(self, measured: Tensor) -> list[float]:
        """The validation loss of each fit, from what `measure` gave."""
        losses: list[float] = measured[1, 0].tolist()
        return losses

    def wait(self, done: list[Tensor]) -> None:
        """Nothing to wait for: every step is computed when it is asked for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and say what was done.

    Args:
        arguments: of the command line.
    """
    torch.manual_seed(0)
    stacked.run(__doc__, lambda folds: partial(Cohort, Rows(folds)), arguments)


if __name__ == "__main__":
    main()
