import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from torch import nn

from overfit_lab.config import Activation
from overfit_lab.model import CNN, MLP, Linear, RandomFeatures, ResNet, count_parameters, count_pass
from overfit_lab.model.networks import FixedFeatures

FORMULAS: dict[Activation, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "elu": lambda z: z if z > 0 else math.exp(z) - 1,
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "silu": lambda z: z / (1 + math.exp(-z)),
    "quadratic": lambda z: z**2,
}


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "width", "depth", "by_hand"),
    [
        # (30 * 16 + 16) + (16 * 1 + 1)
        (30, 1, 16, 1, 513),
        # (64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)
        (64, 10, 8, 2, 682),
        # (3 * 5 + 5) + 3 (5 * 5 + 5) + (5 * 2 + 2)
        (3, 2, 5, 4, 122),
        (1, 1, 1, 1, 4),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_parameters_of_an_mlp(inputs: int, outputs: int, width: int, depth: int, by_hand: int, dropout: float) -> None:
    network = MLP(inputs, outputs, width=width, depth=depth, activation="relu", dropout=dropout)
    shapes = [(layer.in_features, layer.out_features) for layer in linear_layers(network)]
    assert shapes == [(inputs, width), *[(width, width)] * (depth - 1), (width, outputs)]
    assert count_parameters(network) == by_hand


@pytest.mark.parametrize(("inputs", "outputs", "by_hand"), [(30, 1, 31), (64, 10, 650), (3, 3, 12)])
def test_parameters_of_a_linear_map(inputs: int, outputs: int, by_hand: int) -> None:
    assert count_parameters(Linear(inputs, outputs)) == by_hand


@pytest.mark.parametrize(("bias", "by_hand"), [(True, 15), (False, 12)])
@pytest.mark.parametrize("initial", ["random", "zero"])
def test_a_linear_map_from_zero_or_without_bias(bias: bool, by_hand: int, initial: Literal["random", "zero"]) -> None:
    network = Linear(4, 3, bias=bias, initial=initial)
    assert count_parameters(network) == by_hand
    for parameter in network.parameters():
        assert bool((parameter == 0).all()) == (initial == "zero")


def test_linear_is_an_affine_map() -> None:
    torch.manual_seed(0)
    network = Linear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    (layer,) = linear_layers(network)
    expected = [
        [sum(w * v for w, v in zip(weights, row, strict=True)) + bias for weights, bias in zip(ws, bs, strict=True)]
        for ws, bs in [(layer.weight.tolist(), layer.bias.tolist())]
        for row in x.tolist()
    ]
    np.testing.assert_allclose(network(x).tolist(), expected, rtol=1e-12)


def test_every_activation_is_known() -> None:
    assert set(FORMULAS) == set(get_args(Activation))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("activation", list(FORMULAS))
def test_mlp_computes_layer_by_layer(activation: Activation, depth: int) -> None:
    torch.manual_seed(1)
    network = MLP(4, 3, width=6, depth=depth, activation=activation, dropout=0.0).double()
    x = 2 * torch.randn(7, 4, dtype=torch.float64)
    layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in linear_layers(network)]
    values = x.numpy()
    for weight, bias in layers[:-1]:
        values = np.vectorize(FORMULAS[activation])(values @ weight.T + bias)
    # Logits: nothing follows the last layer.
    expected = values @ layers[-1][0].T + layers[-1][1]
    np.testing.assert_allclose(network(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_dropout_follows_every_activation(depth: int) -> None:
    network = MLP(4, 2, width=5, depth=depth, activation="tanh", dropout=0.3)
    kinds = [type(module) for module in network]
    assert kinds == [nn.Linear, nn.Tanh, nn.Dropout] * depth + [nn.Linear]
    assert [module.p for module in network if isinstance(module, nn.Dropout)] == [0.3] * depth


def test_a_dropout_of_0_is_a_layer_too() -> None:
    """Names do not depend on the rate: networks of any rate can be stacked."""
    plain, drops = (MLP(4, 2, width=5, depth=2, activation="tanh", dropout=rate) for rate in (0.0, 0.5))
    assert [type(module) for module in plain] == [nn.Linear, nn.Tanh, nn.Dropout] * 2 + [nn.Linear]
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in drops.named_parameters()]
    x = torch.randn(3, 4)
    assert torch.equal(plain.train()(x), plain.eval()(x))


def test_layers_of_equal_shape_do_not_share_weights() -> None:
    layers = linear_layers(MLP(4, 4, width=4, depth=3, activation="relu", dropout=0.0))
    assert len({tuple(layer.weight.flatten().tolist()) for layer in layers}) == 4


def test_frozen_parameters_are_not_counted() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert count_parameters(network) == 16 + 8 + 10  # running statistics are no parameters
    network[0].weight.requires_grad_(False)
    assert count_parameters(network) == 4 + 8 + 10


def test_tied_parameters_are_counted_once() -> None:
    encoder, decoder = nn.Linear(3, 5), nn.Linear(5, 3)
    decoder.weight = nn.Parameter(encoder.weight.T.clone())
    assert count_parameters(nn.Sequential(encoder, decoder)) == 20 + 18
    same = nn.Linear(5, 3)
    same.weight = decoder.weight
    assert count_parameters(nn.Sequential(encoder, decoder, same)) == 20 + 18 + 3


def test_random_features_are_their_formula_and_begin_at_zero() -> None:
    torch.manual_seed(0)
    network = RandomFeatures(4, 2, features=5).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    assert not network(x).any()
    assert count_parameters(network) == 5 * 2 + 2
    fixed, last = network
    assert isinstance(fixed, FixedFeatures)
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight)
    nn.init.normal_(last.bias)
    weight, bias, directions = (v.tolist() for v in (last.weight, last.bias, fixed.directions))
    for row, logits in zip(x.tolist(), network(x).tolist(), strict=True):
        features = [max(0.0, sum(v * w for v, w in zip(row, way, strict=True))) for way in directions]
        for k in range(2):
            assert logits[k] == pytest.approx(sum(f * w for f, w in zip(features, weight[k], strict=True)) + bias[k])


def test_neither_scale_nor_number_of_random_features_changes_their_kernel() -> None:
    """E[relu(v x)^2] with v ~ N(0, I / inputs) is |x|^2 / (2 inputs), whatever the number of features."""
    torch.manual_seed(0)
    x = torch.randn(1, 50)
    for features in (20_000, 80_000):
        kernel = FixedFeatures(50, features)(x).square().sum()
        assert kernel.item() == pytest.approx(x.square().sum().item() / 100, rel=0.03)


def test_what_a_pass_of_a_row_costs() -> None:
    mlp = MLP(6, 3, width=5, depth=2, activation="relu", dropout=0.5)
    # Inputs and hidden units; a product with each weight.
    assert count_pass(mlp, 6) == (6 + 5 + 5, 6 * 5 + 5 * 5 + 5 * 3)
    assert all(module.training for module in mlp.modules())
    cnn = CNN(64, 3, (1, 8, 8), channels=4, depth=1, kernel=3, activation="relu", dropout=0.0)
    # Of the pooling, its places are kept beside what came out of it.
    kept = 64 + 4 * 64 + 4 * 16 + 4 * 16
    assert count_pass(cnn, 64) == (kept, 9 * 4 * 64 + 4 * 16 * 3)
    # As it is published for CIFAR-10: 0.56 billion.
    assert round(count_pass(ResNet(3072, 10, (3, 32, 32), width=64, stages=4, blocks=2), 3072).products / 1e6) == 555
