"""Small runs for the tests of launching: real plans, and networks that fail on demand."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overfit_lab.config import Config, parse
from overfit_lab.plan import Plan, prepare
from overfit_lab.seeding import derive_seed


def vary(config: Config, changes: Mapping[str, Any]) -> Plan:
    """Plan a run that differs from a configuration by some keys, such as `model.width`."""
    values = config.model_dump(by_alias=True)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[last] = value
    return prepare(parse(values))


def grid(config: Config, **axes: Sequence[Any]) -> list[Plan]:
    """Plan every combination of values; `model__width` stands for `model.width`."""
    keys = [axis.replace("__", ".") for axis in axes]
    return [vary(config, dict(zip(keys, values, strict=True))) for values in itertools.product(*axes.values())]


def ids(plans: Sequence[Plan]) -> list[str]:
    """Name runs."""
    return [plan.run_id for plan in plans]


class Mixing(nn.Sequential):
    """Cannot be stacked: its rows mix."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 3) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs))


class Failing(nn.Linear):
    """Fails in training where the fits of seed 0 are in the cohort: its first fit leads every pass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.bad = torch.initial_seed() == derive_seed("initial weights", 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        # Two rows are no training yet, but a try whether the network can be stacked.
        if self.bad and self.training and len(x) > 2:
            self.fail()
        return super().forward(x)

    def fail(self) -> None:
        raise RuntimeError("seed 0\nfails")


class Dying(Failing):
    """Ends its process in the same way as the system does when memory runs out."""

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(nn.Linear):
    """Kills its process at its 40th step, three times: each leaves its mark in the folder."""

    steps = 0

    def __init__(self, inputs: int, outputs: int, folder: str) -> None:
        super().__init__(inputs, outputs)
        self.marks = Path(folder)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 2:
            Mortal.steps += 1
            if Mortal.steps == 40 and len(list(self.marks.iterdir())) < 3:
                (self.marks / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Waiting(nn.Linear):
    """Does not train before there is a file."""

    def __init__(self, inputs: int, outputs: int, file: str) -> None:
        super().__init__(inputs, outputs)
        self.file = Path(file)

    def forward(self, x: Tensor) -> Tensor:
        while self.training and len(x) > 2 and not self.file.exists():
            time.sleep(0.01)
        return super().forward(x)


class Ballast(nn.Linear):
    """Has a million parameters that do nothing."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.ballast = nn.Linear(1, 500_000)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.ballast.bias[:1]
