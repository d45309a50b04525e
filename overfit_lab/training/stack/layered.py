"""The fast form: a plain sequence of layers, each computed for all members by one batched product.

Forward and backward are written out: for small networks autograd and `vmap` cost several times the arithmetic.
Activations lie as `members x features x rows`: so softmax and sums over outputs run along memory, weights are used as
`nn.Linear` stores them, and the first layer multiplies a stream's rows with the weights of all its configurations
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from overfit_lab.data.sparse_rows import StackedInputs
from overfit_lab.model.dropout import SeededDropout
from overfit_lab.model.networks import MLP, FixedFeatures, Linear, Quadratic, RandomFeatures
from overfit_lab.training.stack.network import NO_NOISE, Noise, Objective, StackedNetwork

aten = torch.ops.aten

# For each activation, its derivative: (layer, gradient after it, what went in, what came out) to the gradient before.
DERIVATIVES: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda layer, d, h, out: aten.threshold_backward(d, out, 0),
    nn.Tanh: lambda layer, d, h, out: aten.tanh_backward(d, out),
    nn.Sigmoid: lambda layer, d, h, out: aten.sigmoid_backward(d, out),
    nn.GELU: lambda layer, d, h, out: aten.gelu_backward(d, h, approximate=layer.approximate),
    nn.ELU: lambda layer, d, h, out: aten.elu_backward(d, layer.alpha, 1, 1, False, h),
    nn.LeakyReLU: lambda layer, d, h, out: aten.leaky_relu_backward(d, h, layer.negative_slope, False),
    nn.SiLU: lambda layer, d, h, out: aten.silu_backward(d, h),
    Quadratic: lambda layer, d, h, out: 2 * h * d,
}
_LAYERS = {nn.Linear, FixedFeatures, SeededDropout, nn.Dropout, nn.Identity, *DERIVATIVES}


def is_layered(network: nn.Module) -> bool:
    """Say whether a network is a plain sequence of layers that are known here, each used once."""
    layers = _sequence(network)
    if layers is None or len({id(layer) for _, layer in layers}) < len(layers):
        return False
    parameters = [p for _, layer in layers for p in layer.parameters()]
    hooks = any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in network.modules()
    )
    # In place, an activation overwrites what its derivative needs; that of a ReLU needs only what comes out.
    in_place = any(getattr(layer, "inplace", False) and type(layer) is not nn.ReLU for _, layer in layers)
    return (
        not hooks
        and not in_place
        and len(set(parameters)) == len(parameters)
        and all(p.requires_grad for p in parameters)
        and any(isinstance(layer, nn.Linear) for _, layer in layers)
        # Nothing flows back through what is first.
        and not any(type(layer) is FixedFeatures for _, layer in layers[1:])
    )


def begins_linearly(network: nn.Module) -> bool:
    """Say whether the first of its layers, those aside that do nothing, is a linear one."""
    layers = [layer for _, layer in _sequence(network) or [] if type(layer) is not nn.Identity]
    return bool(layers) and type(layers[0]) is nn.Linear


def _sequence(network: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]] | None:
    """List the layers of nested sequences with their names; None where anything else is among them."""
    if type(network) in _LAYERS:
        return [(prefix, network)]
    if type(network) not in (nn.Sequential, MLP, Linear, RandomFeatures):
        return None
    layers = []
    # Not named_children, which names a layer that stands at two places once.
    for name, child in network._modules.items():
        assert child is not None
        below = _sequence(child, f"{prefix}.{name}".lstrip("."))
        if below is None:
            return None
        layers += below
    return layers


class LayeredNetwork(StackedNetwork):
    """Computes a plain sequence of layers; see `is_layered`."""

    def layers(self) -> list[tuple[str, nn.Module]]:
        """List the layers of a single network with their names, in the order of computation."""
        return _sequence(self.skeleton[0]) or []

    def _lay_out(self) -> None:
        makers: dict[type[nn.Module], Callable[[str, nn.Module], _Layer]] = {
            nn.Linear: self._linear,
            FixedFeatures: self._features,
            SeededDropout: self._dropout,
        }
        self._layers: list[_Layer] = []
        for name, layer in self.layers():
            if type(layer) is nn.ReLU and self._layers and isinstance(self._layers[-1], Affine):
                self._layers.append(_ReLUInPlace(name, layer))
            elif type(layer) is not nn.Identity:
                self._layers.append(makers.get(type(layer), _Activation)(name, layer))
        # Nothing before the first linear layer is trained.
        self._first = next(i for i, layer in enumerate(self._layers) if isinstance(layer, Affine))

    def _linear(self, name: str, layer: nn.Module) -> Affine:
        weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        return Affine(self._values[weight], self._gradients[weight], self._values.get(bias), self._gradients.get(bias))

    def _features(self, name: str, layer: nn.Module) -> _Features:
        return _Features(self.stacked_constants()[f"{name}.directions".lstrip(".")])

    def _dropout(self, name: str, layer: nn.Module) -> _Dropout:
        return _Dropout(f"{name}.noise".lstrip("."), self.stacked_constants()[f"{name}.rate".lstrip(".")])

    def forward(self, x: StackedInputs, noise: Noise = NO_NOISE, sizes: Sequence[int] | None = None) -> Tensor:
        """Compute every member's logits; see `StackedNetwork.forward`."""
        with torch.no_grad():
            return self._logits(self._propagate(x, noise)[-1])

    @torch.no_grad()
    def differentiate(self, x: StackedInputs, noise: Noise, objective: Objective, sizes: Sequence[int]) -> Tensor:
        """Compute losses and gradients, backwards through the layers; see `StackedNetwork.differentiate`."""
        values = self._propagate(x, noise)
        losses, gradient = objective(self._logits(values[-1]))
        d = gradient.transpose(-1, -2).reshape(values[-1].shape)
        for i in range(len(self._layers) - 1, self._first, -1):
            d = self._layers[i].backward(d, values[i], values[i + 1])
        first = self._layers[self._first]
        assert isinstance(first, Affine)
        first.backward_into_parameters(d, values[self._first])
        return losses

    def _propagate(self, x: StackedInputs, noise: Noise) -> list[Any]:
        """Compute what goes into the first layer, and what comes out of each."""
        self.bind()
        values: list[Any] = [x.transpose(1, 2) if isinstance(x, Tensor) else x]
        layers = noise.layers if self.training and self.drops else {}
        for layer in self._layers:
            values.append(layer.forward(values[-1], layers))
        return values

    def _logits(self, out: Tensor) -> Tensor:
        return out.view(self.streams, self.configurations, *out.shape[1:]).transpose(-1, -2)


class _Layer(Protocol):
    """One layer of all members.

    What goes in is `members x features x rows`, and before the first linear layer, where the configurations of a
    stream share it, `streams x features x rows`.
    """

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Compute the layer."""

    def backward(self, d: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """Take the gradient after the layer, what went in and what came out, to the gradient before it."""


class Affine:
    """A linear layer of all members."""

    def __init__(
        self, weight: Tensor, weight_gradient: Tensor, bias: Tensor | None, bias_gradient: Tensor | None
    ) -> None:
        streams, configurations, outputs, inputs = weight.shape
        self.members = streams * configurations
        # Rows that configurations share meet the weights of all of them as one matrix. Views are laid out once: making
        # one costs as much as a small product.
        self.views = {
            groups: (
                weight.view(groups, -1, inputs),
                weight_gradient.view(groups, -1, inputs),
                None if bias is None else bias.view(groups, -1, 1),
            )
            for groups in (streams, self.members)
        }
        self.transposed = weight.view(self.members, outputs, inputs).transpose(1, 2)
        self.bias_gradient = None if bias_gradient is None else bias_gradient.view(self.members, outputs)

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Compute the layer."""
        weight, _, bias = self.views[h.shape[0]]
        out = torch.bmm(weight, h) if bias is None else torch.baddbmm(bias, weight, h)
        return out.view(self.members, -1, h.shape[2])

    def backward(self, d: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """Write the gradients of weight and bias, and compute the gradient before the layer."""
        self.backward_into_parameters(d, h)
        return torch.bmm(self.transposed, d)

    def backward_into_parameters(self, d: Tensor, h: Tensor) -> None:
        """Write the gradients of weight and bias."""
        if self.bias_gradient is not None:
            torch.sum(d, 2, out=self.bias_gradient)
        torch.bmm(d.view(h.shape[0], -1, h.shape[2]), h.transpose(1, 2), out=self.views[h.shape[0]][1])


class _Features:
    """Fixed features; the configurations of a stream that have the same ones share what is computed, too."""

    def __init__(self, directions: Tensor) -> None:
        streams, configurations, features, inputs = directions.shape
        shared = torch.equal(directions, directions[:, :1].expand_as(directions))
        self.groups = streams if shared else streams * configurations
        self.directions = (directions[:, 0] if shared else directions).reshape(streams, -1, inputs)
        self.features = features

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return torch.bmm(self.directions, h).relu_().view(self.groups, self.features, -1)

    def backward(self, d: Tensor, h: Tensor, out: Tensor) -> Tensor:
        raise NotImplementedError("nothing before it is trained")


class _Activation:
    def __init__(self, name: str, layer: nn.Module) -> None:
        self.layer, self.derivative = layer, DERIVATIVES[type(layer)]

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.layer.forward(h)
        return out

    def backward(self, d: Tensor, h: Tensor, out: Tensor) -> Tensor:
        return self.derivative(self.layer, d, h, out)


class _ReLUInPlace(_Activation):
    """Needs no more than what comes out, and behind a linear layer nobody else needs what goes in."""

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return torch.relu_(h)


class _Dropout:
    def __init__(self, noise: str, rate: Tensor) -> None:
        self.noise, self.rate = noise, rate[..., None, None]

    def forward(self, h: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        if not noise:
            self.kept = None
            return h
        # At a rate of 1 nothing is kept, and nothing must be divided by 0.
        kept = (noise[self.noise].transpose(-1, -2) >= self.rate) / (1 - self.rate).clamp_min(1e-12)
        self.kept = kept.to(h.dtype)
        streams, configurations = self.rate.shape[:2]
        own = h.view(streams, -1, *h.shape[1:]) * self.kept
        return own.view(streams * configurations, *h.shape[1:])

    def backward(self, d: Tensor, h: Tensor, out: Tensor) -> Tensor:
        return d if self.kept is None else (d.view(self.kept.shape) * self.kept).view(d.shape)
