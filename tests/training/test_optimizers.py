"""Optimizers over stacked parameters: each member is updated as torch would update it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from overfit_lab import config as cfg
from overfit_lab.training.optimizers import make_optimizer
from overfit_lab.training.stack import Form, StackedNetwork, stack

Factory = Callable[[list[Tensor], list[Tensor]], torch.optim.Optimizer]

WEIGHTS = frozenset({"0.weight", "2.weight"})
STREAMS = 3


def _sgd(lr: float) -> tuple[cfg.OptimizerConfig, Factory]:
    return cfg.SGD(kind="sgd", lr=lr), lambda w, b: torch.optim.SGD([*w, *b], lr=lr)


def _momentum(lr: float, momentum: float, nesterov: bool) -> tuple[cfg.OptimizerConfig, Factory]:
    return (
        cfg.Momentum(kind="momentum", lr=lr, momentum=momentum, nesterov=nesterov),
        lambda w, b: torch.optim.SGD([*w, *b], lr=lr, momentum=momentum, nesterov=nesterov),
    )


def _adam(lr: float, beta1: float, beta2: float, eps: float) -> tuple[cfg.OptimizerConfig, Factory]:
    return (
        cfg.Adam(kind="adam", lr=lr, beta1=beta1, beta2=beta2, eps=eps),
        lambda w, b: torch.optim.Adam([*w, *b], lr=lr, betas=(beta1, beta2), eps=eps),
    )


def _adamw(lr: float, beta1: float, beta2: float, eps: float, decay: float) -> tuple[cfg.OptimizerConfig, Factory]:
    def factory(w: list[Tensor], b: list[Tensor]) -> torch.optim.Optimizer:
        groups = [{"params": w, "weight_decay": decay}, {"params": b, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps)

    return cfg.AdamW(kind="adamw", lr=lr, beta1=beta1, beta2=beta2, eps=eps, decoupled_decay=decay), factory


def _rmsprop(lr: float, smoothing: float, eps: float) -> tuple[cfg.OptimizerConfig, Factory]:
    return (
        cfg.RMSprop(kind="rmsprop", lr=lr, smoothing=smoothing, eps=eps),
        lambda w, b: torch.optim.RMSprop([*w, *b], lr=lr, alpha=smoothing, eps=eps),
    )


SETTINGS: dict[str, list[tuple[cfg.OptimizerConfig, Factory]]] = {
    "sgd": [_sgd(0.1), _sgd(0.01)],
    "momentum": [
        _momentum(0.1, 0.9, True),
        _momentum(0.01, 0.9, True),
        _momentum(0.1, 0.5, True),
        _momentum(0.1, 0.9, False),
    ],
    "adam": [
        _adam(0.1, 0.9, 0.999, 1e-8),
        _adam(0.01, 0.9, 0.999, 1e-8),
        _adam(0.1, 0.5, 0.999, 1e-8),
        _adam(0.1, 0.9, 0.9, 1e-8),
        _adam(0.1, 0.9, 0.999, 0.1),
    ],
    "adamw": [
        _adamw(0.1, 0.9, 0.999, 1e-8, 0.5),
        _adamw(0.01, 0.9, 0.999, 1e-8, 0.5),
        _adamw(0.1, 0.5, 0.999, 1e-8, 0.5),
        _adamw(0.1, 0.9, 0.9, 1e-8, 0.5),
        _adamw(0.1, 0.9, 0.999, 0.1, 0.5),
        _adamw(0.1, 0.9, 0.999, 1e-8, 0.0),
    ],
    "rmsprop": [
        _rmsprop(0.1, 0.99, 1e-8),
        _rmsprop(0.01, 0.99, 1e-8),
        _rmsprop(0.1, 0.0, 1e-8),
        _rmsprop(0.1, 0.99999, 1e-8),
        _rmsprop(0.1, 0.5, 1e-8),
        _rmsprop(0.1, 0.99, 0.1),
    ],
}


def _network(configurations: int, form: Form = "layered") -> StackedNetwork:
    torch.manual_seed(0)
    members = [
        [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(configurations)]
        for _ in range(STREAMS)
    ]
    return stack(members, form).double()


def _orders(kind: str) -> list[list[int]]:
    """Which setting each configuration has: all the same, all different, and equal ones apart and side by side."""
    count = len(SETTINGS[kind])
    return [[0], [0, 0, 0], list(range(count)), [0, 1, 1, 0, *range(2, count), 0, 0]]


@pytest.mark.parametrize("form", ["layered", "vmapped", "looped"])
@pytest.mark.parametrize(("kind", "order"), [(kind, order) for kind in SETTINGS for order in _orders(kind)])
def test_each_member_is_updated_as_torch_would_alone(kind: str, order: list[int], form: Form) -> None:
    network = _network(len(order), form)
    values = network.stacked_parameters()
    optimizer = make_optimizer([SETTINGS[kind][i][0] for i in order], network, WEIGHTS)
    alone: list[tuple[int, int, dict[str, Tensor], torch.optim.Optimizer]] = []
    for s in range(STREAMS):
        for c, setting in enumerate(order):
            own = {name: value[s, c].clone().requires_grad_() for name, value in values.items()}
            weights, biases = ([p for name, p in own.items() if (name in WEIGHTS) == w] for w in (True, False))
            alone.append((s, c, own, SETTINGS[kind][setting][1](weights, biases)))
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for gradient in network.gradients.values():
            gradient.copy_(torch.randn(gradient.shape, generator=generator, dtype=torch.float64))
        for s, c, own, solo in alone:
            for name, p in own.items():
                p.grad = network.gradients[name][s, c].clone()
            solo.step()
        optimizer.step()
    for s, c, own, _ in alone:
        for name, p in own.items():
            torch.testing.assert_close(values[name][s, c], p.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "order"), [(kind, order) for kind in SETTINGS for order in _orders(kind)])
def test_leaves_share_memory_with_the_flat_parameter_and_cover_it_once(kind: str, order: list[int]) -> None:
    network = _network(len(order))
    optimizer = make_optimizer([SETTINGS[kind][i][0] for i in order], network, WEIGHTS)
    network.gradients  # noqa: B018  as at the start of a fit: lays the gradients out
    assert network.flat.grad is not None
    network.flat.data.zero_()
    network.flat.grad.zero_()
    for group in optimizer.param_groups:
        for leaf in group["params"]:
            assert leaf.is_leaf
            assert leaf.is_contiguous()
            leaf.data += 1
            leaf.grad += 2
    assert network.flat.tolist() == [1.0] * network.flat.numel()
    assert network.flat.grad.tolist() == [2.0] * network.flat.numel()


@pytest.mark.parametrize("kind", [kind for kind in SETTINGS if kind != "adamw"])
def test_where_all_settings_are_the_same_there_is_one_leaf(kind: str) -> None:
    """One pass over all parameters of all members."""
    network = _network(3)
    (group,) = make_optimizer([SETTINGS[kind][0][0]] * 3, network, WEIGHTS).param_groups
    assert [id(leaf) for leaf in group["params"]] == [id(network.flat)]
    assert group["weight_decay"] == 0


def _elements(network: StackedNetwork, configuration: int, *, weights: bool) -> int:
    names = [name for name in network.shapes if (name in WEIGHTS) == weights]
    return sum(network.stacked_parameters()[name][:, configuration].numel() for name in names)


def test_adamw_decays_weights_only_and_by_each_configurations_own_strength() -> None:
    """Without a gradient weights shrink by 1 - lr * decay, everything else stays."""
    pairs = [(0.1, 0.5), (0.1, 0.0), (0.02, 0.5), (0.02, 0.5)]
    network = _network(len(pairs))
    configs = [_adamw(lr, 0.9, 0.999, 1e-8, decay)[0] for lr, decay in pairs]
    optimizer = make_optimizer(configs, network, WEIGHTS)
    values = network.stacked_parameters()
    before = {name: value.clone() for name, value in values.items()}
    for gradient in network.gradients.values():
        gradient.zero_()
    optimizer.step()
    for name, value in values.items():
        for c, (lr, decay) in enumerate(pairs):
            factor = 1 - lr * decay if name in WEIGHTS else 1.0
            torch.testing.assert_close(value[:, c], factor * before[name][:, c], rtol=1e-14, atol=0)
    groups: list[dict[str, Any]] = optimizer.param_groups
    decaying = sum(leaf.numel() for group in groups if group["weight_decay"] > 0 for leaf in group["params"])
    assert decaying == sum(_elements(network, c, weights=True) for c in (0, 2, 3))


@pytest.mark.parametrize("names", [WEIGHTS, frozenset(), frozenset({"0.weight", "0.bias", "2.weight", "2.bias"})])
def test_adamw_of_one_setting_decays_what_it_is_told(names: frozenset[str]) -> None:
    network = _network(2)
    optimizer = make_optimizer([_adamw(0.1, 0.9, 0.999, 1e-8, 0.5)[0]] * 2, network, names)
    before = {name: value.clone() for name, value in network.stacked_parameters().items()}
    for gradient in network.gradients.values():
        gradient.zero_()
    optimizer.step()
    for name, value in network.stacked_parameters().items():
        torch.testing.assert_close(value, (0.95 if name in names else 1.0) * before[name], rtol=1e-14, atol=0)
