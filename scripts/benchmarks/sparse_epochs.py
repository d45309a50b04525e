"""One epoch on bags of words, measured in a process of its own: of this project, or of a dense loop in plain PyTorch.

    python -m scripts.benchmarks.sparse_epochs ours|dense|keras FOLDER WIDTH ALPHA,ALPHA EPOCHS

FOLDER holds `train.npz` and `val.npz`, matrices as SciPy saves them, and `labels.npy`. Printed are the seconds of an
epoch of all alphas, and the validation loss of the first at the end. All compute the same: two hidden layers, RMSprop,
batches of 512, binary cross-entropy of the train and validation rows after each epoch, in single precision on the CPU;
`keras` begins from its initial weights and cuts probabilities off as it does.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from scipy import sparse
from torch import Tensor, nn

from overfit_lab.config import conf_directory
from overfit_lab.data import Source
from overfit_lab.launch.events import Progress
from overfit_lab.launch.job import config_of, register_resolvers
from overfit_lab.launch.machine import describe_machine
from overfit_lab.plan import prepare
from scripts.benchmarks.in_workers import train_plans

BATCH, LEARNING_RATE, SMOOTHING, EPS = 512, 1e-3, 0.9, 1e-7
KERAS_EPSILON = 1e-7


def source(folder: str) -> Source:
    """Make a source of what the benchmark has laid out: for `data._target_`."""
    train, val = (sparse.csr_array(sparse.load_npz(Path(folder, f"{name}.npz"))) for name in ("train", "val"))
    rows = train.shape[0] + np.arange(val.shape[0])
    labels = np.load(Path(folder, "labels.npy"))
    return Source(
        "bags", "binary", sparse.vstack([train, val], format="csr"), labels, official_test=rows, official_val=rows
    )


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        seconds: of an epoch of all alphas. Imports, reading and the analysis at the end are not in it.
        loss: validation loss of the first alpha after the last epoch.
    """

    seconds: float
    loss: float


def ours(folder: Path, width: int, alphas: Sequence[float], epochs: int) -> Trained:
    """Train as the launcher does it, on as many processes as there are cores."""
    with tempfile.TemporaryDirectory() as root:
        register_resolvers()
        plans = []
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            for alpha in alphas:
                words = [
                    *("data=custom", "data._target_=scripts.benchmarks.sparse_epochs.source", "data.name=bags"),
                    *(f"+data.folder={folder}", "data.scale_inputs=false", "task.metrics=[]"),
                    *("split=holdout", "split.test_fraction=0", "split.val_fraction=null"),
                    *(f"model.width={width}", "model.depth=2", "model.activation=relu", f"penalty.alpha={alpha}"),
                    *("optimizer=rmsprop", f"optimizer.lr={LEARNING_RATE}", f"optimizer.smoothing={SMOOTHING}"),
                    *(f"optimizer.eps={EPS}", f"training.epochs={epochs}", f"training.batch_size={BATCH}"),
                    *("trainer.accelerator=cpu", "study.report=false", f"study.root={root}"),
                ]
                plans.append(prepare(config_of(compose("config", words, return_hydra_config=True))))
        machine = describe_machine(plans, None)
        # By cohort, when each epoch had been measured.
        times: dict[str, list[float]] = {}
        for event in train_plans(plans, machine):
            if isinstance(event, Progress):
                times.setdefault(event.cohort.name, []).append(time.perf_counter())
        if len(times) > machine.workers:
            raise SystemExit(f"{len(times)} cohorts for {machine.workers} workers do not train side by side")
        wanted = {"metric": "loss", "split": "val", "epoch": epochs}
        loss = float(plans[0].files.load_curves().filter(**wanted)["value"].item())
    # They train side by side: the slowest one sets the pace.
    return Trained(max(statistics.median(np.diff(own)) for own in times.values()), loss)


def plain_network(inputs: int, width: int) -> nn.Sequential:
    """Make a network as PyTorch does."""
    return nn.Sequential(
        *(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    )


def keras_network(inputs: int, width: int) -> nn.Sequential:
    """Make a network as Keras does: initial weights after Glorot and Bengio, and probabilities within 1e-7 of 0 and 1.

    Where one is cut off, nothing is learned from the row, as the gradient is 0.
    """
    network = plain_network(inputs, width)
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    most = math.log((1 - KERAS_EPSILON) / KERAS_EPSILON)
    return network.append(nn.Hardtanh(-most, most))


def dense(
    folder: Path,
    width: int,
    alphas: Sequence[float],
    epochs: int,
    make: Callable[[int, int], nn.Module] = plain_network,
) -> Trained:
    """Train one network after another by a loop as anybody would write it."""
    x_train, x_val = (
        torch.from_numpy(sparse.load_npz(folder / f"{name}.npz").toarray().astype(np.float32))
        for name in ("train", "val")
    )
    labels = torch.from_numpy(np.load(folder / "labels.npy").astype(np.float32)[:, None])
    y_train, y_val = labels[: len(x_train)], labels[len(x_train) :]
    loss = nn.BCEWithLogitsLoss()
    seconds, ends = 0.0, []
    for alpha in alphas:
        network = make(x_train.shape[1], width)
        weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
        biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": alpha}, {"params": biases}]
        optimizer = torch.optim.RMSprop(groups, lr=LEARNING_RATE, alpha=SMOOTHING, eps=EPS)

        def measure(x: Tensor, y: Tensor, network: nn.Module = network) -> float:
            with torch.no_grad():
                parts = [
                    loss(network(own), target) * len(own)
                    for own, target in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True)
                ]
            return float(sum(parts)) / len(x)

        taken, end = [], math.nan
        for _ in range(epochs):
            began = time.perf_counter()
            for rows in torch.split(torch.randperm(len(x_train)), BATCH):
                optimizer.zero_grad()
                loss(network(x_train[rows]), y_train[rows]).backward()
                optimizer.step()
            measure(x_train, y_train)
            end = measure(x_val, y_val)
            taken.append(time.perf_counter() - began)
        seconds += statistics.median(taken)
        ends.append(end)
    return Trained(seconds, ends[0])


def measure_one(arguments: Sequence[str]) -> None:
    """Measure what the command line names, and print it."""
    kind, folder, width, alphas, epochs = arguments
    training: dict[str, Callable[[Path, int, Sequence[float], int], Trained]] = {
        "ours": ours,
        "dense": dense,
        "keras": functools.partial(dense, make=keras_network),
    }
    trained = training[kind](Path(folder), int(width), [float(alpha) for alpha in alphas.split(",")], int(epochs))
    print(json.dumps(asdict(trained)))


if __name__ == "__main__":
    measure_one(sys.argv[1:])
