"""The LightningModule that trains a cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from overfit_lab.config import SGD, Adam, AdamW, Momentum, RMSprop
from overfit_lab.data.batches import Batch
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.objective.penalty import Penalty, penalty_per_member, stack_strengths
from overfit_lab.seeding import torch_generator
from overfit_lab.task.task import Task
from overfit_lab.training.history import History, LossStorage
from overfit_lab.training.measure import measure
from overfit_lab.training.optimizers import make_optimizer
from overfit_lab.training.stack import StackedNetwork


class CohortModule(L.LightningModule):
    """Trains all members of a stacked network side by side; a single fit is a cohort of one.

    The objective is the sum over members of loss plus penalty: no term holds two members, so neither does a
    gradient, and a member that becomes NaN changes nothing for the others. Optimisation is manual, because a
    `training_step` takes a chunk of batches: Lightning's own cost is paid once for many steps.

    Args:
        network: The stacked members.
        task: Loss and metrics.
        optimizer: Kind and settings of the optimizer.
        penalties: `configurations`, the penalty of each.
        weights: Names of the parameters that are penalised and decay.
        storage: Which validation losses to keep.
        listeners: Called with the history whenever an epoch has been measured, epoch 0 included.
    """

    def __init__(
        self,
        network: StackedNetwork,
        task: Task,
        optimizer: SGD | Momentum | Adam | AdamW | RMSprop,
        penalties: Iterable[Penalty],
        weights: frozenset[str],
        storage: LossStorage,
        listeners: Sequence[Callable[[History], None]] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.task, self.optimizer_config, self.storage = network, task, optimizer, storage
        self.weight_names, self.listeners = weights, tuple(listeners)
        penalties = list(penalties)
        self.l1 = stack_strengths(p.l1 for p in penalties)
        self.l2 = stack_strengths(p.l2 for p in penalties)
        self.history = History()

    @property
    def data(self) -> CohortDataModule:
        """The DataModule that the Trainer was given."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CohortDataModule)
        return data

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer over the stacked parameters."""
        return make_optimizer(self.optimizer_config, self.network.stacked_parameters(), self.weight_names)

    def on_train_start(self) -> None:
        """Prepare what depends on data, device and precision; measure epoch 0, unless a checkpoint brought it along."""
        named = self.network.stacked_parameters()
        self._penalised = [named[name] for name in named if name in self.weight_names]
        like = next(iter(named.values()))
        # Lightning moves the module back to the CPU when it is done.
        self.trained_on = self.device
        self._l1, self._l2 = (s if s is None else s.to(like) for s in (self.l1, self.l2))
        self._noise_shapes = self.network.noise_shapes(self.data.train.x.shape[2:])
        if self.history.epochs < 0:
            self._measure()

    def on_train_epoch_start(self) -> None:
        """Name this epoch's dropout noise, and start its running sums."""
        self._noise = [torch_generator("dropout", *s, self.current_epoch) for s in self.data.streams]
        shape = 2, self.network.streams, self.network.configurations
        self._running = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self._steps = 0

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        """Take one optimizer step for each batch of the chunk."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for batch in chunk:
            # Under mixed precision the network computes in bfloat16; the loss must not, nor round its targets.
            logits = self.network(batch.x, self._draw_noise(batch.x)).to(batch.x.dtype)
            losses = self.task.loss(logits, batch.y[:, None])
            loss = (losses * batch.weight[:, None]).sum(-1)
            penalty = penalty_per_member(self._penalised, self._l1, self._l2).to(loss)
            optimizer.zero_grad()
            (loss + penalty).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            self._running += torch.stack([loss.detach(), penalty.detach().expand_as(loss)])
            self._steps += 1

    def on_train_epoch_end(self) -> None:
        """Measure the epoch that has just ended."""
        running_loss, penalty = self._running / self._steps
        self.history.append("train", "running_loss", running_loss)
        self.history.append("train", "penalty", penalty)
        self._measure()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the history to a checkpoint."""
        checkpoint["history"] = self.history.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back from a checkpoint."""
        self.history.load_state(checkpoint["history"])

    def _draw_noise(self, x: Tensor) -> dict[str, Tensor]:
        """Draw the noise of one step; a stream's numbers do not depend on the other streams' batch sizes."""
        widest, rows = self.data.widest_batch, x.shape[1]
        noise = {}
        for name, shape in self._noise_shapes.items():
            # The type is named: the default differs with the precision, and with it the numbers would.
            drawn = [torch.rand(widest, *shape, generator=g, dtype=torch.float32)[:rows] for g in self._noise]
            noise[name] = torch.stack(drawn).to(x.device)
        return noise

    def _measure(self) -> None:
        data, history = self.data, self.history
        healthy = torch.ones(self.network.streams, self.network.configurations, dtype=torch.bool, device=self.device)
        for split, rows in (("train", data.train_measured), ("val", data.val)):
            found = measure(self.network, self.task, rows, data.fold_of_stream, data.target_scalings)
            history.append(split, "loss", found.loss)
            for name, values in found.metrics.items():
                history.append(split, name, values)
            healthy &= found.loss.isfinite()
            if split == "val" and history.epochs in self.storage.epochs:
                history.val_losses.append(
                    [
                        self.storage.reduce(own, fold)
                        for own, fold in zip(found.losses, data.fold_of_stream, strict=True)
                    ]
                )
        history.note_divergence(healthy)
        for listener in self.listeners:
            listener(history)
