"""Stacked networks give each member's own output, whatever the network is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from overfit_lab.training import StackedNetwork


class Tied(nn.Module):
    """Decodes with the weights that it encodes with."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 2), nn.Linear(2, 3)
        self.decode.weight = nn.Parameter(torch.empty(0))
        self.shared = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        decoded: Tensor = self.encode(x) @ self.shared + self.decode.bias
        return decoded


class Buffered(nn.Module):
    """Has buffers, one of them called noise, and a parameter that is not trained."""

    offset: Tensor
    noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.register_buffer("offset", torch.randn(3))
        self.register_buffer("noise", torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.map(x) * self.frozen + self.offset * self.noise
        return mapped


def _conv() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.PReLU())


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU()), Tied, Buffered, _conv])
def test_each_member_computes_as_it_does_alone(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    networks = [[make().double() for _ in range(2)] for _ in range(3)]
    x = torch.randn(3, 7, 3, dtype=torch.float64)
    stacked = StackedNetwork(networks)
    together = stacked(x)
    for stream, row in enumerate(networks):
        for configuration, network in enumerate(row):
            torch.testing.assert_close(together[stream, configuration], network(x[stream]), rtol=1e-12, atol=1e-12)


def test_gradients_stay_with_their_member() -> None:
    torch.manual_seed(0)
    networks = [[nn.Linear(3, 2).double() for _ in range(2)] for _ in range(3)]
    x = torch.randn(3, 7, 3, dtype=torch.float64)
    stacked = StackedNetwork(networks)
    stacked(x).square().sum().backward()
    ours = stacked.stacked_parameters()["weight"].grad
    assert ours is not None
    for stream, row in enumerate(networks):
        for configuration, network in enumerate(row):
            network(x[stream]).square().sum().backward()
            torch.testing.assert_close(ours[stream, configuration], network.weight.grad, rtol=1e-12, atol=1e-12)


def test_what_is_not_trained_stays_so() -> None:
    parameters = StackedNetwork([[Buffered()]]).stacked_parameters()
    assert {name: p.requires_grad for name, p in parameters.items()} == {
        "frozen": False,
        "map.weight": True,
        "map.bias": True,
    }


def test_stacking_copies() -> None:
    """A member's own network is not changed by training the stack."""
    network = nn.Linear(3, 2)
    stacked = StackedNetwork([[network]])
    before = network.weight.detach().clone()
    with torch.no_grad():
        stacked.stacked_parameters()["weight"].add_(1)
    assert torch.equal(network.weight.detach(), before)


def test_modes_reach_the_members() -> None:
    stacked = StackedNetwork([[nn.Sequential(nn.Dropout(1.0 - 1e-9), nn.Linear(3, 2))]])
    x = torch.ones(1, 4, 3)
    noise = {"0.noise": torch.full((1, 4, 3), 0.5)}
    assert stacked.noise_shapes((3,)) == {"0.noise": (3,)}
    stacked.eval()
    alive = stacked(x)
    stacked.train()
    # Everything is dropped: only the bias is left.
    torch.testing.assert_close(stacked(x, noise)[0, 0, 0], stacked.stacked_parameters()["1.bias"][0, 0])
    assert not torch.allclose(alive, stacked(x, noise))
