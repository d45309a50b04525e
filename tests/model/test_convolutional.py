"""Convolutional networks against loops and published sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from overfit_lab.config import Activation
from overfit_lab.errors import UserError
from overfit_lab.model import CNN, ResNet, count_parameters

Array = NDArray[np.float64]


def cnn(shape: tuple[int, ...] | None, *, channels: int = 2, depth: int = 2, kernel: int = 3) -> CNN:
    activation: Activation = "relu"
    inputs = int(np.prod(shape or 6))
    return CNN(inputs, 3, shape, channels=channels, depth=depth, kernel=kernel, activation=activation, dropout=0.5)


def resnet(shape: tuple[int, ...] | None, *, width: int = 2, stages: int = 3, blocks: int = 1) -> ResNet:
    return ResNet(int(np.prod(shape or 6)), 3, shape, width=width, stages=stages, blocks=blocks)


def convolve(x: Array, weight: Array, bias: Array | None = None, stride: int = 1) -> Array:
    """Correlate channels x height x width with filters, borders padded by zeros, one number after another."""
    filters, channels, height, width = weight.shape
    padded = np.pad(x, ((0, 0), (height // 2, height // 2), (width // 2, width // 2)))
    out = np.zeros((filters, -(-x.shape[1] // stride), -(-x.shape[2] // stride)))
    for f, i, j in np.ndindex(out.shape):
        for c, a, b in np.ndindex(channels, height, width):
            out[f, i, j] += weight[f, c, a, b] * padded[c, i * stride + a, j * stride + b]
        out[f, i, j] += 0 if bias is None else bias[f]
    return out


def pool(x: Array) -> Array:
    """Take the largest of each 2 x 2 square; of a side of 1 there is nothing to take."""
    for axis in (1, 2):
        if x.shape[axis] > 1:
            half = x.shape[axis] // 2
            x = np.maximum(np.take(x, range(0, 2 * half, 2), axis), np.take(x, range(1, 2 * half, 2), axis))
    return x


def normalise(x: Array, scale: Array, shift: Array) -> Array:
    """Bring all that belongs to a row to mean 0 and variance 1."""
    normal: Array = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return normal * scale[:, None, None] + shift[:, None, None]


def values(network: nn.Module) -> dict[str, Array]:
    # No value is what a fresh network has: a scale of 1 or a shift of 0 would hide that it is missing.
    torch.manual_seed(0)
    for parameter in network.double().eval().parameters():
        nn.init.normal_(parameter, std=0.7)
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 8, 1), (3, 4, 4)])
def test_a_cnn_is_convolution_relu_and_pooling(shape: tuple[int, ...]) -> None:
    network = cnn(shape)
    v = values(network)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    expected = []
    for row in x:
        h = pool(np.maximum(convolve(row, v["1.weight"], v["1.bias"]), 0))
        h = pool(np.maximum(convolve(h, v["5.weight"], v["5.bias"]), 0))
        expected.append(v["10.weight"] @ h.ravel() + v["10.bias"])
    np.testing.assert_allclose(network(torch.tensor(x.reshape(3, -1))).detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 8, 8)])
def test_a_resnet_is_its_formula(shape: tuple[int, ...]) -> None:
    network = resnet(shape)
    v = values(network)
    x = np.random.default_rng(0).normal(size=(2, *shape))
    expected = []
    for row in x:
        h = convolve(row, v["1.weight"])
        for block, stride in (("2", 1), ("3", 2), ("4", 2)):
            first = np.maximum(normalise(h, v[f"{block}.norm1.weight"], v[f"{block}.norm1.bias"]), 0)
            inner = convolve(first, v[f"{block}.conv1.weight"], stride=stride)
            second = np.maximum(normalise(inner, v[f"{block}.norm2.weight"], v[f"{block}.norm2.bias"]), 0)
            # Where the sides or the channels change, what is kept is mapped by a convolution of side 1.
            kept = h if stride == 1 else convolve(first, v[f"{block}.shortcut.weight"], stride=stride)
            h = kept + convolve(second, v[f"{block}.conv2.weight"])
        expected.append(v["6.weight"] @ h.mean(axis=(1, 2)) + v["6.bias"])
    np.testing.assert_allclose(network(torch.tensor(x.reshape(2, -1))).detach(), expected, rtol=1e-11)


def test_the_parameters_of_a_cnn() -> None:
    # 3 x 3 x 1 x 4 + 4, 3 x 3 x 4 x 8 + 8, (8 x 2 x 2) x 10 + 10
    network = CNN(64, 10, (1, 8, 8), channels=4, depth=2, kernel=3, activation="relu", dropout=0.0)
    assert count_parameters(network) == 40 + 296 + 330
    # 5 x 1 x 4 + 4, (4 x 20) x 10 + 10
    network = CNN(40, 10, (1, 40), channels=4, depth=1, kernel=5, activation="relu", dropout=0.0)
    assert count_parameters(network) == 24 + 810


def test_the_resnet_of_the_double_descent_paper_has_its_size() -> None:
    """The pre-activation ResNet-18 for CIFAR-10, whose size with batch normalisation is well known; ours as many."""
    network = ResNet(3072, 10, (3, 32, 32), width=64, stages=4, blocks=2)
    assert count_parameters(network) == 11_171_146


@pytest.mark.parametrize(("channels", "sides"), [(1, (40,)), (2, (1,)), (1, (1, 1)), (3, (7, 1)), (2, (2, 9))])
def test_any_shape_and_depth_fits(channels: int, sides: tuple[int, ...]) -> None:
    shape = (channels, *sides)
    x = torch.randn(2, int(np.prod(shape)))
    for depth, kernel in itertools.product((1, 3, 6), (1, 5)):
        assert cnn(shape, depth=depth, kernel=kernel)(x).shape == (2, 3)
    assert resnet(shape, width=1, stages=5, blocks=2)(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "said"), [(None, "no shape"), ((6,), r"the shape \(6,\)"), ((1, 1, 2, 3), r"the shape \(1, 1, 2, 3\)")]
)
def test_rows_without_a_fitting_shape_are_refused(shape: tuple[int, ...] | None, said: str) -> None:
    allowed = r"; allowed is \(channels, length\) or \(channels, height, width\), which a source says by shape=\.\.\.$"
    with pytest.raises(UserError, match=f"^model=cnn: the rows of the data have {said}{allowed}"):
        cnn(shape)
    with pytest.raises(UserError, match=f"^model=resnet: the rows of the data have {said}{allowed}"):
        resnet(shape)
