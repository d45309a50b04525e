"""TensorBoard event files of one run, written while it trains.

Train and val of a metric are two tags of one event file; a custom-scalars layout draws them on one chart. The x-axis
is the epoch. Nothing is ever computed from these files: TensorBoard thins them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from overfit_lab.training.history import History


class EventWriter:
    """Writes the mean over fits of each curve; a listener of the cohort's module.

    Args:
        directory: The run's folder.
        configuration: Which configuration of the cohort is this run's.
    """

    def __init__(self, directory: Path, configuration: int) -> None:
        self.directory, self.configuration = directory, configuration
        self._writer: SummaryWriter | None = None

    def __call__(self, history: History) -> None:
        """Write the epoch that has just been measured."""
        if self._writer is None:
            # What an interrupted process has written from this epoch on does not count.
            self._writer = SummaryWriter(str(self.directory), purge_step=history.epochs)
            metrics = [metric for split, metric in history.curves if split == "val"]
            charts = {metric: ["Multiline", [f"{metric}/train", f"{metric}/val"]] for metric in metrics}
            self._writer.add_custom_scalars({"train and val": charts})
        for (split, metric), values in history.curves.items():
            value = float(values[-1][:, self.configuration].mean())
            # What belongs to training itself has a name of its own and no val beside it.
            tag = f"{metric}/{split}" if ("val", metric) in history.curves else f"training/{metric}"
            self._writer.add_scalar(tag, value, history.epochs)

    def finish(self, hparams: Mapping[str, object], metrics: Mapping[str, float | None]) -> None:
        """Write the hyperparameters once, with the final metrics beside them, and close the file.

        Args:
            hparams: What the HPARAMS tab shows of the configuration; None is left out, as it would hide the run.
            metrics: What it shows of the outcome; None (an onset that was not reached) becomes NaN.
        """
        shown = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in hparams.items() if v is not None}
        values = {f"final/{name}": math.nan if v is None else v for name, v in metrics.items()}
        # A cohort that was interrupted after its last epoch has no epoch left to write.
        self._writer = self._writer or SummaryWriter(str(self.directory))
        # The run name "." keeps this in the run's own folder; without it a run of its own would appear.
        self._writer.add_hparams(shown, values, run_name=".")
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
