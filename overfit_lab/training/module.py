"""The LightningModule that trains a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from overfit_lab.config import OptimizerConfig
from overfit_lab.data.batches import Batch
from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.objective.penalty import Penalty, add_penalty_gradient, penalty_per_member, stack_strengths
from overfit_lab.task.task import Task
from overfit_lab.training.describe import weight_norms
from overfit_lab.training.history import History, Listener, LossStorage, is_measured
from overfit_lab.training.measure import measure
from overfit_lab.training.noise import NoiseSource
from overfit_lab.training.optimizers import make_optimizer
from overfit_lab.training.stack import StackedNetwork
from overfit_lab.training.stack.looped import LoopedNetwork
from overfit_lab.training.supervision import ALONE, Supervision


class CohortModule(L.LightningModule):
    """Trains all members of a stacked network side by side; a single fit is a cohort of one.

    The objective is the sum over members of loss plus penalty: no term holds two members, so neither does a
    gradient, and a member that becomes NaN changes nothing for the others. Optimisation is manual, because a
    `training_step` takes a chunk of batches: Lightning's own cost is paid once for many steps.

    Args:
        network: The stacked members.
        task: Loss and metrics.
        optimizers: `configurations`, settings of one kind of optimizer.
        penalties: `configurations`, the penalty of each.
        weights: Names of the parameters that are penalised and decay.
        storage: Which validation losses to keep.
        listeners: Called with the history whenever an epoch has been measured, epoch 0 included.
        eval_every: Epochs from one measured epoch to the next; the last one is always measured.
    """

    def __init__(
        self,
        network: StackedNetwork,
        task: Task,
        optimizers: Sequence[OptimizerConfig],
        penalties: Sequence[Penalty],
        weights: frozenset[str],
        storage: LossStorage,
        listeners: Sequence[Listener] = (),
        eval_every: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.task, self.storage, self.eval_every = network, task, storage, eval_every
        self.optimizer_configs = tuple(optimizers)
        self.weight_names, self.listeners = weights, tuple(listeners)
        self.l1 = stack_strengths(p.l1 for p in penalties)
        self.l2 = stack_strengths(p.l2 for p in penalties)
        self.history = History()
        self.supervision: Supervision = ALONE
        # How far it is: epochs that are done, and steps of the next one.
        self.completed, self.steps = 0, 0
        self._resumed: dict[str, Any] | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        # Where the weights begin; a checkpoint is read into the network later.
        self._initial = [value.clone() for value in self._of_weights(network.stacked_parameters())]

    def _of_weights(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        return [value for name, value in values.items() if name in self.weight_names]

    @property
    def data(self) -> CohortDataModule:
        """The DataModule that the Trainer was given."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CohortDataModule)
        return data

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of the epoch are done, but it is not measured yet."""
        return self.steps == self.data.steps

    def progress(self, data: CohortDataModule) -> float:
        """Return how many epochs are done, with a fraction within one."""
        return self.completed + self.steps / data.steps

    def state(self) -> dict[str, Any]:
        """Return all that going on from here needs but the history, as tensors and plain values; see `resume`."""
        begun = self.steps > 0
        return {
            "completed": self.completed,
            "steps": self.steps,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict() if self._optimizer else {},
            "running_loss": self._running_loss.cpu() if begun else None,
            "noise": self._noise.state() if begun else [],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` has returned, in a module that was made alike; called before the fit."""
        self.completed, self.steps = state["completed"], state["steps"]
        self.network.load_state_dict(state["network"])
        self._resumed = state

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer over the stacked parameters, with its state from before where there is one."""
        self._optimizer = make_optimizer(self.optimizer_configs, self.network, self.weight_names)
        if self._resumed is not None:
            self._optimizer.load_state_dict(self._resumed["optimizer"])
        return self._optimizer

    def on_fit_start(self) -> None:
        """Remember the device: Lightning moves the module back to the CPU when it is done."""
        self.trained_on = self.device

    def on_train_start(self) -> None:
        """Prepare what depends on data, device and precision; measure epoch 0, unless that was done before."""
        assert self.trainer.max_epochs is not None
        self._horizon = self.completed + self.trainer.max_epochs
        self._weights = self._of_weights(self.network.stacked_parameters())
        self._weight_gradients = self._of_weights(self.network.gradients)
        self._initial = [value.to(self.network.flat) for value in self._initial]
        self._l1, self._l2 = (s if s is None else s.to(self.network.flat) for s in (self.l1, self.l2))
        self._noise = NoiseSource(
            self.network,
            self.data.streams,
            self.data.train.x.shape[2:],
            self.data.widest_batch,
            seeded=isinstance(self.network, LoopedNetwork),
        )
        if not self.history.measured:
            self.history.begin(0)
            self._measure()

    def on_train_epoch_start(self) -> None:
        """Start this epoch's noise and running sum, or go on with them."""
        self._noise.start(self.completed)
        shape = self.network.streams, self.network.configurations
        self._running_loss = torch.zeros(shape, dtype=torch.float64, device=self.device)
        if self._resumed is not None and self.steps > 0:
            self._running_loss += self._resumed["running_loss"].to(self.device)
            self._noise.load_state(self._resumed["noise"])
        self._resumed = None

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        """Take one optimizer step for each batch of the chunk; when told to stop, leave the rest."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for batch in chunk:
            noise = self._noise.draw(batch.x.shape[1], batch.y.device)
            x = self.network.take(batch.x)
            self._running_loss += self.network.differentiate(x, noise, _Objective(self.task, batch), batch.sizes)
            add_penalty_gradient(self._weights, self._weight_gradients, self._l1, self._l2)
            optimizer.step()
            self.steps += 1
            if self.supervision.stop_requested:
                return

    def on_train_epoch_end(self) -> None:
        """Measure the epoch that has just ended, if it is one that is measured."""
        self.completed += 1
        if is_measured(self.completed, self._horizon, self.eval_every):
            self.history.begin(self.completed)
            self.history.append("train", "running_loss", self._running_loss / self.steps)
            self._measure()
        self.steps = 0

    def on_fit_end(self) -> None:
        """Let go of what only training needs: whoever keeps the module keeps its values, and none on the device."""
        self._initial, self._weights, self._weight_gradients = [], [], []
        self.network.bind()

    def _measure(self) -> None:
        data, history = self.data, self.history
        healthy = torch.ones(self.network.streams, self.network.configurations, dtype=torch.bool, device=self.device)
        penalty = penalty_per_member(self._weights, self._l1, self._l2)
        history.append("train", "penalty", penalty.to(torch.float64).expand(healthy.shape))
        if self._weights:
            for name, values in weight_norms(self._weights, self._initial).items():
                history.append("train", name, values)
        for split, rows in (("train", data.train_measured), ("val", data.val)):
            if rows is None:
                continue
            found = measure(self.network, self.task, rows, data.fold_of_stream, data.target_scalings)
            history.append(split, "loss", found.loss)
            for name, values in found.metrics.items():
                history.append(split, name, values)
            healthy &= found.loss.isfinite()
            if split == "val" and history.epochs in self.storage.epochs:
                history.val_losses.append(
                    [
                        self.storage.reduce(own, (stream.repeat, stream.fold))
                        for own, stream in zip(found.losses, data.streams, strict=True)
                    ]
                )
        history.note_divergence(healthy)
        for listener in self.listeners:
            listener(history)


class _Objective:
    """The loss of a batch: the mean over each stream's real rows.

    Args:
        task: What the loss is.
        batch: Targets and weights of the rows.
    """

    def __init__(self, task: Task, batch: Batch) -> None:
        self.task, self.batch = task, batch

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compute each member's loss and its gradient with respect to the logits."""
        weight = self.batch.weight[:, None]
        losses, gradient = self.task.loss.with_gradient(logits, self.batch.y[:, None])
        return (losses * weight).sum(-1), gradient * weight[..., None]
