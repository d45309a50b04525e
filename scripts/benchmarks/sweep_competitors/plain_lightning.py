"""The grid as a plain Lightning script, one fit after another, written as people write it.

python -m scripts.benchmarks.sweep_competitors.plain_lightning --out FILE [--widths 4,8]
"""

import logging
import tempfile
import warnings
from collections.abc import Sequence

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from scripts.benchmarks.sweep_competitors import grid


class Classifier(L.LightningModule):
    """Two hidden layers, Adam, loss and accuracy logged for every epoch."""

    def __init__(self, width: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.network = nn.Sequential(
            nn.Linear(grid.FEATURES, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, grid.CLASSES),
        )
        self.train_accuracy = MulticlassAccuracy(grid.CLASSES, average="micro")
        self.val_accuracy = MulticlassAccuracy(grid.CLASSES, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of a batch."""
        x, y = batch
        logits = self.network(x)
        loss = functional.cross_entropy(logits, y)
        self.train_accuracy(logits, y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Loss and accuracy of a batch."""
        x, y = batch
        logits = self.network(x)
        self.val_accuracy(logits, y)
        self.log("val_loss", functional.cross_entropy(logits, y))
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam; its weight decay is the L2 penalty."""
        return torch.optim.Adam(self.parameters(), lr=grid.LEARNING_RATE, weight_decay=self.alpha)


def train_one(fold: grid.Fold, width: int, alpha: float, epochs: int, folder: str) -> tuple[int, float]:
    """Train one fit; returns the epochs that it took and its last validation loss."""
    train = TensorDataset(torch.from_numpy(fold.x_train), torch.from_numpy(fold.y_train))
    val = TensorDataset(torch.from_numpy(fold.x_val), torch.from_numpy(fold.y_val))
    trainer = L.Trainer(
        max_epochs=epochs,
        devices=1,
        accelerator=grid.accelerator(),
        logger=TensorBoardLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    # Validation takes the rows at once, where many would take the train batches' size: to its advantage.
    trainer.fit(
        Classifier(width, alpha),
        DataLoader(train, batch_size=grid.BATCH_SIZE, shuffle=True),
        DataLoader(val, batch_size=len(val)),
    )
    return trainer.current_epoch, float(trainer.callback_metrics["val_loss"])


def train_grid(work: grid.Work) -> grid.Trained:
    """Train a part of the grid, one fit after another."""
    folds = grid.load_folds()[: work.folds]
    with tempfile.TemporaryDirectory() as folder:
        found = [
            train_one(fold, width, alpha, work.epochs, folder)
            for width in work.widths
            for alpha in work.alphas
            for fold in folds
        ]
    return grid.Trained(len(found), sum(epochs for epochs, _ in found), [loss for _, loss in found])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and say what was done.

    Args:
        arguments: of the command line.
    """
    options = grid.parser(__doc__).parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    train_grid(grid.work_of(options)).save(options.out)


if __name__ == "__main__":
    main()
