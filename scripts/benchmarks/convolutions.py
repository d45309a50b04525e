"""How long an optimizer step of convolutional networks takes, stacked and one by one.

    scripts/bench convolutions [--members 20]

A CNN of two blocks, batches of 32, on one thread. One by one: plain modules. Stacked: `vmap`, which turns the
convolutions of all members into grouped ones, as overfit_lab trains them. Unfolded: the same with convolutions that are
products of weights with unfolded images. Forward and backward; milliseconds of processor time for each member, the
least of several passes.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from overfit_lab.model import CNN
from overfit_lab.training.stack import Noise, stack
from scripts.benchmarks.processes import OneLineParser, positive

BATCH, PASSES = 32, 5
CASES = tuple((side, channels) for side in (8, 28) for channels in (4, 16))


class Unfolded(nn.Conv2d):
    """A convolution as a product of matrices."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute `rows x channels x height x width`, which keeps its sides."""
        columns = F.unfold(x, self.kernel_size, padding=self.kernel_size[0] // 2)
        out = self.weight.flatten(1) @ columns
        return (out + self.bias[:, None]).view(len(x), -1, *x.shape[2:]) if self.bias is not None else out


def network(side: int, channels: int, *, unfolded: bool = False) -> nn.Module:
    """Build a network for square images of one channel.

    Args:
        side: of an image.
        channels: of the first block.
        unfolded: whether its convolutions are products of matrices.
    """
    made = CNN(side**2, 10, (1, side, side), channels=channels, depth=2, kernel=3, activation="relu", dropout=0.0)
    for name, layer in list(made.named_children()):
        if unfolded and isinstance(layer, nn.Conv2d):
            made.set_submodule(name, Unfolded(layer.in_channels, layer.out_channels, 3))
    return made


def one_by_one(networks: Sequence[nn.Module], x: Tensor) -> Callable[[], object]:
    """Return a step of plain modules.

    Args:
        networks: the members.
        x: `rows x features`.
    """

    def step() -> None:
        for member in networks:
            member.zero_grad()
            member(x).square().sum().backward()

    return step


def stacked(networks: Sequence[nn.Module], x: Tensor) -> Callable[[], object]:
    """Return a step of the stacked network, each member with rows of its own.

    Args:
        networks: the members.
        x: `rows x features`.
    """
    # Stacking gives a network other dropout layers.
    together = stack([[copy.deepcopy(member)] for member in networks], "vmapped")
    rows, sizes = x.expand(len(networks), *x.shape).contiguous(), [len(x)] * len(networks)
    return lambda: together.differentiate(rows, Noise(), lambda z: (z.square().sum((-1, -2)), 2 * z), sizes)


def milliseconds(step: Callable[[], object]) -> float:
    """Measure the processor time of a step, the least of several.

    Args:
        step: what is measured.
    """
    step()
    found = []
    for _ in range(PASSES):
        begun = time.process_time()
        step()
        found.append(time.process_time() - begun)
    return 1000 * min(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table.

    Args:
        arguments: of the command line.
    """
    parser = OneLineParser(
        prog="scripts/bench convolutions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--members", type=positive, default=20, help="default 20")
    members = parser.parse_args(arguments).members
    torch.set_num_threads(1)
    table = Table(title=f"ms per step and member, {members} members")
    for column in ("side", "channels", "one by one", "stacked", "unfolded"):
        table.add_column(column, justify="right")
    for side, channels in CASES:
        torch.manual_seed(0)
        x = torch.randn(BATCH, side**2)
        plain = [network(side, channels) for _ in range(members)]
        unfolded = [network(side, channels, unfolded=True) for _ in range(members)]
        steps = (one_by_one(plain, x), stacked(plain, x), stacked(unfolded, x))
        table.add_row(str(side), str(channels), *(f"{milliseconds(step) / members:.2f}" for step in steps))
    Console().print(table)


if __name__ == "__main__":
    main()
