"""What checkpoints cost, of the time that a cohort trains.

    scripts/bench checkpoints [--seconds 40] [--interval 5]

Cohorts of the digits, 5 folds, one size after another in this process. Each save is timed where it happens; the rest is
the training with its measuring. The interval is the default of conf/training.
"""

import statistics
import tempfile
import time

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from overfit_lab.cohort import Cohort
from overfit_lab.config import conf_directory
from overfit_lab.launch.job import config_of, register_resolvers
from overfit_lab.plan import prepare
from overfit_lab.train import train_cohort
from overfit_lab.training.checkpoint import CheckpointFile
from overfit_lab.training.module import CohortModule
from overfit_lab.training.supervision import Stopped, Supervision
from scripts.benchmarks.processes import OneLineParser, positive

SIZES = ((16, 1), (16, 40), (256, 1), (256, 10))
"""Width, and how many runs of five folds."""


class Until(Supervision):
    """Stops a training when its time is over."""

    def __init__(self, seconds: float) -> None:
        self.end = time.perf_counter() + seconds

    @property
    def stop_requested(self) -> bool:
        """Whether it is."""
        return time.perf_counter() > self.end


def measure(width: int, runs: int, seconds: float, interval: float | None) -> tuple[float, list[float], int]:
    """Train for a while.

    Returns:
        Seconds of training, those of each save, and the bytes of the checkpoint with its history at the end.
    """
    saves: list[float] = []
    save = CheckpointFile.save

    def timed(self: CheckpointFile, module: CohortModule) -> None:
        begun = time.perf_counter()
        save(self, module)
        saves.append(time.perf_counter() - begun)

    with tempfile.TemporaryDirectory() as root, initialize_config_dir(str(conf_directory()), version_base="1.3"):
        plans = []
        for run in range(runs):
            words = ["data=digits", f"study.root={root}", f"model.width={width}", "training.epochs=100000"]
            words += [f"penalty.alpha={run * 1e-5}"] + ([f"training.checkpoint_seconds={interval}"] if interval else [])
            plans.append(prepare(config_of(compose("config", words, return_hydra_config=True))))
        cohort = Cohort(tuple(plans))
        CheckpointFile.save = timed  # type: ignore[method-assign]
        started = time.perf_counter()
        try:
            train_cohort(cohort, supervision=Until(seconds))
        except Stopped:
            pass
        finally:
            CheckpointFile.save = save  # type: ignore[method-assign]
        elapsed = time.perf_counter() - started
        # The last one was asked for.
        kept = cohort.study.cohorts.checkpoint(cohort.name, 0).parent.glob(f"{cohort.name}.0.*")
        size = sum(path.stat().st_size for path in kept)
    return elapsed - saves.pop(), saves, size


def main() -> None:
    """Print the table."""
    parser = OneLineParser(prog="scripts/bench checkpoints", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=positive, default=40)
    parser.add_argument("--interval", type=float, default=None)
    arguments = parser.parse_args()
    register_resolvers()
    torch.set_num_threads(1)
    table = Table("fits", "width", "saves", "ms each (median)", "MB", "share of the time", title="Checkpoints")
    for width, runs in SIZES:
        elapsed, saves, size = measure(width, runs, arguments.seconds, arguments.interval)
        each = f"{1000 * statistics.median(saves):.0f}" if saves else ""
        share = f"{sum(saves) / elapsed:.2%}"
        table.add_row(str(5 * runs), str(width), str(len(saves)), each, f"{size / 1e6:.1f}", share)
    Console().print(table)


if __name__ == "__main__":
    main()
