"""Stacked networks give each member's own output and gradient, whatever the network is made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from overfit_lab import config as cfg
from overfit_lab.errors import UserError
from overfit_lab.model import MLP, Linear
from overfit_lab.model.networks import ACTIVATIONS, Quadratic
from overfit_lab.objective.penalty import add_penalty_gradient
from overfit_lab.training.optimizers import make_optimizer
from overfit_lab.training.stack import Choice, Form, Noise, StackedNetwork, choose_form, stack
from overfit_lab.training.stack.layered import is_layered
from overfit_lab.training.stack.network import NO_NOISE, Objective
from tests.training import networks as user

Make = Callable[[], nn.Module]
Names = dict[str, Make]

FORMS: tuple[Form, ...] = ("layered", "vmapped", "looped")
ROWS = 7
# Streams differ by a row at most; the last row of the second one is padding.
SIZES = (ROWS, ROWS - 1, ROWS)


def _mlp(activation: cfg.Activation = "tanh", *, rate: float = 0.0, width: int = 5, depth: int = 2) -> nn.Module:
    return MLP(4, 3, width=width, depth=depth, activation=activation, dropout=rate)


def _sequence(*layers: Callable[[], nn.Module]) -> Make:
    return lambda: nn.Sequential(*(make() for make in layers))


_first, _middle, _last = (partial(nn.Linear, *sizes) for sizes in ((4, 5), (5, 5), (5, 3)))

LAYERED: Names = {
    **{f"mlp {name}": partial(_mlp, name) for name in ACTIVATIONS},
    "mlp of depth 1": partial(_mlp, depth=1),
    "linear": partial(Linear, 4, 3),
    "a bare layer": partial(nn.Linear, 4, 3),
    "one output": partial(nn.Linear, 4, 1),
    "no bias": _sequence(partial(nn.Linear, 4, 5, bias=False), nn.SiLU, partial(nn.Linear, 5, 3, bias=False)),
    "bias in one layer": _sequence(partial(nn.Linear, 4, 5, bias=False), nn.Tanh, _last),
    "nested": _sequence(_sequence(_first, _sequence(nn.GELU)), nn.Sequential, _sequence(_middle, nn.ELU), _last),
    "identity": _sequence(nn.Identity, _first, nn.Identity, nn.Tanh, _last, nn.Identity),
    "linear after linear": _sequence(_first, _middle, _last),
    "activation first": _sequence(nn.Tanh, _first, nn.Sigmoid, _last),
    "activation last": _sequence(_first, Quadratic, _last, nn.Tanh),
    "two activations": _sequence(_first, nn.Tanh, nn.SiLU, _last),
    "settings of activations": _sequence(
        _first, partial(nn.ELU, 0.7), _middle, partial(nn.LeakyReLU, 0.3), partial(nn.GELU, approximate="tanh"), _last
    ),
    "relu in place": _sequence(_first, partial(nn.ReLU, inplace=True), _last),
    "dropout": partial(_mlp, rate=0.5),
    "dropout at rate 1": _sequence(_first, partial(nn.Dropout, 1.0), _last),
    "dropout before the first layer": _sequence(partial(nn.Dropout, 0.3), _first, nn.Tanh, _last),
    "dropout behind the last layer": _sequence(_first, nn.Tanh, _last, partial(nn.Dropout, 0.3)),
    "dropout of which one layer drops": _sequence(
        partial(nn.Dropout, 0.0), _first, nn.Tanh, partial(nn.Dropout, 0.6), _last
    ),
}
GENERAL: Names = {
    "tied": user.Tied,
    "buffers": user.Buffered,
    "convolution": user.convolution,
    "layer norm": _sequence(_first, partial(nn.LayerNorm, 5), nn.Softplus, _last),
    "dropout in a convolution": _sequence(
        partial(nn.Unflatten, 1, (1, 4)),
        partial(nn.Conv1d, 1, 2, 2),
        partial(nn.Dropout, 0.5),
        nn.Flatten,
        partial(nn.Linear, 6, 3),
    ),
}
ONE_BY_ONE: Names = {"branching": user.Branching, "recurrent": lambda: _Recurrent()}


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(1, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cells(x[..., None])[0][:, -1])
        return logits


CASES = [
    pytest.param(make, form, id=f"{name}-{form}")
    for names, forms in ((LAYERED, FORMS), (GENERAL, FORMS[1:]), (ONE_BY_ONE, FORMS[2:]))
    for name, make in names.items()
    for form in forms
]


class Masked(nn.Module):
    """Dropout by hand: where the noise is below the rate nothing is left, the rest makes up for it."""

    def __init__(self, rate: float, noise: Tensor) -> None:
        super().__init__()
        self.rate, self.noise = rate, noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # Noise is laid out for the widest network beside this one.
        return torch.where(_cut(self.noise, x.shape) < self.rate, 0.0, x / max(1 - self.rate, 1e-300))


def _alone(network: nn.Module, noise: Mapping[str, Tensor]) -> nn.Module:
    """Copy one member in double precision; each of its dropout layers is given its noise."""
    network = copy.deepcopy(network).double()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Dropout):
            network.set_submodule(name, Masked(layer.p, noise[f"{name}.noise"]))
    return network


def _weights(outputs: int) -> Tensor:
    """How much each logit counts, `streams x 1 x rows x outputs`: all differently, padding not at all."""
    weights = torch.rand(len(SIZES), 1, ROWS, outputs, generator=_generator(3), dtype=torch.float64) + 0.5
    for stream, size in enumerate(SIZES):
        weights[stream, :, size:] = 0
    return weights


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _objective(weights: Tensor) -> Objective:
    """The loss sum of weight * logit^3 / 3."""
    return lambda logits: ((logits**3 * weights.to(logits)).sum((-1, -2)) / 3, logits**2 * weights.to(logits))


def _noise_for(stacked: StackedNetwork, configurations: int) -> dict[str, Tensor]:
    shapes = stacked.noise_shapes((4,))
    widest = {name: tuple(map(max, zip(*(own[name] for own in shapes), strict=True))) for name in shapes[0]}
    return {
        name: torch.rand(len(SIZES), configurations, ROWS, *shape, generator=_generator(5))
        for name, shape in widest.items()
    }


def _cut(value: Tensor, shape: Sequence[int]) -> Tensor:
    return value[tuple(slice(n) for n in shape)]


def _assert_members_are_themselves(
    rows: Sequence[Sequence[nn.Module]], form: Form, *, noise_of_each: bool = False
) -> StackedNetwork:
    """Compare outputs and gradients of every member with autograd on a copy of it that knows of no other."""
    originals = copy.deepcopy(rows)
    stacked = stack(rows, form).double()
    x = torch.randn(len(SIZES), ROWS, 4, generator=_generator(4), dtype=torch.float64)
    for stream, size in enumerate(SIZES):
        x[stream, size:] = x[stream, 0]
    layers = _noise_for(stacked, len(rows[0]) if noise_of_each else 1)
    noise = Noise(layers) if stacked.drops else NO_NOISE

    stacked.eval()
    evaluated = stacked(x).detach()
    stacked.train()
    together = stacked(x, noise).detach()
    weights = _weights(evaluated.shape[-1])
    # Twice, with something else in between: nothing is left of a step but the gradient.
    stacked.differentiate(x.flip(0), noise, _objective(weights), [ROWS] * len(SIZES))
    losses = stacked.differentiate(x, noise, _objective(weights), SIZES)
    for s, row in enumerate(originals):
        for c, network in enumerate(row):
            size = SIZES[s]
            own = {name: value[s, c if noise_of_each else 0, :size] for name, value in layers.items()}
            alone = _alone(network, own)
            expected = alone(x[s, :size])
            torch.testing.assert_close(together[s, c, :size], expected.detach(), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(
                evaluated[s, c, :size], copy.deepcopy(alone).eval()(x[s, :size]).detach(), rtol=1e-12, atol=1e-12
            )
            loss = (expected**3 * weights[s, 0, :size]).sum() / 3
            loss.backward()
            torch.testing.assert_close(losses[s, c], loss.detach(), rtol=1e-12, atol=1e-12)
            trained = {name: p for name, p in alone.named_parameters() if p.requires_grad}
            assert stacked.gradients.keys() == trained.keys()
            for name, p in trained.items():
                gradient = torch.zeros_like(p) if p.grad is None else p.grad
                ours = _cut(stacked.gradients[name][s, c], p.shape)
                torch.testing.assert_close(ours, gradient, rtol=1e-12, atol=1e-12, msg=partial("{}: {}".format, name))
    return stacked


def _members(make: Callable[[], nn.Module], configurations: int = 2) -> list[list[nn.Module]]:
    torch.manual_seed(0)
    return [[make() for _ in range(configurations)] for _ in SIZES]


@pytest.mark.parametrize(("make", "form"), CASES)
def test_each_member_is_what_it_is_alone(make: Make, form: Form) -> None:
    stacked = _assert_members_are_themselves(_members(make), form)
    # Equality would be empty if all members were alike.
    values = next(iter(stacked.stacked_parameters().values())).flatten(0, 1).flatten(1)
    assert len({tuple(own.tolist()) for own in values}) == 6


@pytest.mark.parametrize("form", FORMS)
def test_a_single_configuration(form: Form) -> None:
    _assert_members_are_themselves(_members(partial(_mlp, rate=0.3), configurations=1), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [partial(nn.Linear, 4, 3), partial(nn.Linear, 4, 1), _mlp])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_single_member(make: Make, form: Form, rows: int) -> None:
    network = make()
    x = torch.randn(1, rows, 4)
    stacked = stack([[copy.deepcopy(network)]], form)
    losses = stacked.differentiate(x, NO_NOISE, lambda z: (z.square().sum((-1, -2)), 2 * z), [rows])
    loss = network(x[0]).square().sum()
    loss.backward()
    torch.testing.assert_close(losses, loss.detach()[None, None])
    for name, p in network.named_parameters():
        torch.testing.assert_close(stacked.gradients[name][0, 0], p.grad)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noise_of_each", [False, True])
def test_dropout_at_different_rates_side_by_side(form: Form, noise_of_each: bool) -> None:
    torch.manual_seed(0)
    rows = [[_mlp(rate=rate) for rate in (0.0, 0.2, 0.7, 1.0)] for _ in SIZES]
    stacked = _assert_members_are_themselves(rows, form, noise_of_each=noise_of_each)
    assert stacked.drops
    # At a rate of 1 nothing but the last bias is left.
    alone = stacked(torch.ones(3, ROWS, 4, dtype=torch.float64), Noise(_noise_for(stacked, 1)))[:, 3, 0]
    torch.testing.assert_close(alone, stacked.stacked_parameters()["6.bias"][:, 3])


@pytest.mark.parametrize("form", FORMS)
def test_where_nothing_is_dropped_no_noise_is_needed(form: Form) -> None:
    stacked = stack(_members(partial(_mlp, rate=0.0)), form).train()
    assert not stacked.drops
    x = torch.randn(3, ROWS, 4)
    training = stacked(x).detach()
    torch.testing.assert_close(training, stacked.eval()(x).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_configurations_may_share_a_network_object(form: Form) -> None:
    network = _mlp()
    stacked = stack([[network, network]] * 2, form)
    values = stacked.stacked_parameters()
    values["0.weight"][1, 1] += 1
    for s, c in ((0, 0), (0, 1), (1, 0)):
        torch.testing.assert_close(values["0.weight"][s, c], network.get_parameter("0.weight").detach())
    assert (values["0.weight"][1, 1] - values["0.weight"][0, 0] - 1).abs().max() < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_stacking_copies(form: Form) -> None:
    """A member's own network is not changed by training the stack."""
    network = nn.Linear(3, 2)
    stacked = stack([[network]], form)
    before = network.weight.detach().clone()
    stacked.stacked_parameters()["weight"].add_(1)
    stacked.eval()
    assert torch.equal(network.weight.detach(), before)
    assert network.training


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_lie_in_one_flat_parameter(form: Form) -> None:
    stacked = stack(_members(_mlp), form)
    assert [name for name, p in stacked.named_parameters() if p.requires_grad] == ["flat"]
    x = torch.randn(3, ROWS, 4)
    stacked.differentiate(x, NO_NOISE, _objective(torch.ones(3)), [ROWS] * 3)
    for flat, views in ((stacked.flat.detach(), stacked.stacked_parameters()), (stacked.flat.grad, stacked.gradients)):
        assert flat is not None
        assert torch.equal(torch.cat([view.flatten() for view in views.values()]), flat)
        flat.fill_(7.0)
        assert all(bool((view == 7).all()) for view in views.values())
    # The members compute by what is written there.
    stacked.flat.data.zero_()
    assert stacked(x).count_nonzero() == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_module_that_is_moved_goes_on_with_what_it_is_then(form: Form) -> None:
    """Lightning moves a module, or changes its type, after it was built; a copy is a module of its own."""
    stacked = stack(_members(partial(_mlp, rate=0.5)), form)
    x, noise = torch.randn(3, ROWS, 4), Noise(_noise_for(stacked, 1))
    objective = _objective(torch.ones(3))
    stacked.differentiate(x, noise, objective, [ROWS] * 3)
    before = {name: gradient.clone() for name, gradient in stacked.gradients.items()}
    twin = copy.deepcopy(stacked)
    stacked.double()
    stacked.differentiate(x.double(), noise, objective, [ROWS] * 3)
    for name, gradient in stacked.gradients.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(gradient, before[name].double(), rtol=1e-3, atol=1e-4)
        assert torch.equal(twin.gradients[name].new_zeros(()), torch.zeros(()))
    stacked.flat.data.zero_()
    twin.differentiate(x, noise, objective, [ROWS] * 3)
    for name, gradient in twin.gradients.items():
        assert torch.equal(gradient, before[name])


@pytest.mark.parametrize("form", FORMS[1:])
def test_what_is_not_trained_stays_so(form: Form) -> None:
    networks = _members(user.Buffered)
    stacked = stack(networks, form)
    assert set(stacked.stacked_parameters()) == {"map.weight", "map.bias"}
    constants = stacked.stacked_constants()
    assert set(constants) == {"frozen", "offset", "noise"}
    for s, row in enumerate(networks):
        for c, network in enumerate(row):
            own = dict(network.named_parameters()) | dict(network.named_buffers())
            assert all(torch.equal(value[s, c], own[name]) for name, value in constants.items())
    assert not any(p.requires_grad for p in stacked.constants)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_sick_member_leaves_the_others_as_they_are_bit_for_bit(form: Form, value: float) -> None:
    def run(sick: bool) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = stack(_members(partial(_mlp, "relu", rate=0.3)), form).train()
        if sick:
            for own in stacked.stacked_parameters().values():
                own[1, 0] = value
        x = torch.randn(3, ROWS, 4, generator=_generator(0))
        noise = Noise(_noise_for(stacked, 1))
        losses = stacked.differentiate(x, noise, _objective(_weights(3)), SIZES)
        return losses, stacked.gradients

    (losses, gradients), (healthy_losses, healthy) = run(True), run(False)
    others = torch.ones(3, 2, dtype=torch.bool)
    others[1, 0] = False
    assert losses[1, 0].isfinite().item() is False
    assert torch.equal(losses[others], healthy_losses[others])
    for name, gradient in gradients.items():
        assert torch.equal(gradient[others], healthy[name][others]), name
        assert healthy[name].isfinite().all()


# The form of last resort.


def test_normalisation_over_rows_sees_real_rows_only_and_keeps_each_members_statistics() -> None:
    networks = _members(user.Normalised)
    originals = copy.deepcopy(networks)
    stacked = stack(networks, "looped").double()
    x = torch.randn(3, ROWS, 4, generator=_generator(1), dtype=torch.float64)
    x[1, -1] = 1000.0  # padding that would be noticed
    weights = _weights(3)
    for _ in range(2):
        stacked.differentiate(x, NO_NOISE, _objective(weights), SIZES)
    stacked.eval()
    evaluated = stacked(x).detach()
    for s, row in enumerate(originals):
        for c, original in enumerate(row):
            alone, size = original.double(), SIZES[s]
            for _ in range(2):
                alone.zero_grad()
                loss = (alone(x[s, :size]) ** 3 * weights[s, 0, :size]).sum() / 3
                loss.backward()
            for name, p in alone.named_parameters():
                torch.testing.assert_close(stacked.gradients[name][s, c], p.grad, rtol=1e-11, atol=1e-11)
            for name, buffer in alone.named_buffers():
                ours = stacked.stacked_constants()[name][s, c]
                assert ours.dtype == buffer.dtype
                torch.testing.assert_close(ours, buffer, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(evaluated[s, c], alone.eval()(x[s]).detach(), rtol=1e-11, atol=1e-11)
    assert stacked.stacked_constants()["seen"].tolist() == [[2 * size] * 2 for size in SIZES]


def test_a_network_that_draws_random_numbers_draws_them_by_its_streams_seed() -> None:
    networks = _members(user.DrawsItself)
    originals = copy.deepcopy(networks)
    stacked = stack(networks, "looped")
    x = torch.randn(3, ROWS, 4, generator=_generator(1))
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    together = stacked(x, Noise(seeds=[11, 12, 13])).detach()
    stacked.differentiate(x, Noise(seeds=[11, 12, 13]), _objective(torch.ones(3)), [ROWS] * 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    company = {name: gradient.clone() for name, gradient in stacked.gradients.items()}
    for s, row in enumerate(originals):
        for c, original in enumerate(row):
            torch.manual_seed(11 + s)
            torch.testing.assert_close(together[s, c], original(x[s]).detach())
            alone = stack([[original]], "looped")
            noise = Noise(seeds=[11 + s])
            torch.testing.assert_close(alone(x[s : s + 1], noise)[0, 0], together[s, c], rtol=0, atol=0)
            alone.differentiate(x[s : s + 1], noise, _objective(torch.ones(3)), [ROWS])
            assert all(torch.equal(g[0, 0], company[name][s, c]) for name, g in alone.gradients.items())
    other = stacked(x, Noise(seeds=[1, 2, 3])).detach()
    assert not torch.allclose(other, together)


# Which form fits.


def _hooked(register: Callable[[nn.Module], object]) -> Make:
    def make() -> nn.Module:
        network = _mlp()
        register(network[0])  # type: ignore[index]
        return network

    return make


class _Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = super().forward(x)
        return mapped + 1


class _OwnSequence(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return logits + 1


def _frozen() -> nn.Module:
    network = _mlp()
    network.get_parameter("0.bias").requires_grad_(False)
    return network


def _shares(layer: nn.Module) -> Make:
    return lambda: nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 4), layer, nn.Linear(4, 3))


def _shares_below(layer: nn.Module) -> Make:
    return lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), layer), nn.Sequential(nn.Linear(4, 4), layer))


NOT_LAYERED: Names = {
    "forward hook": _hooked(lambda layer: layer.register_forward_hook(lambda *_: None)),
    "forward pre-hook": _hooked(lambda layer: layer.register_forward_pre_hook(lambda *_: None)),
    "shared activation": _shares(nn.Tanh()),
    "shared linear layer": _shares(nn.Linear(4, 4)),
    "shared activation in nested sequences": _shares_below(nn.Tanh()),
    "shared linear layer in nested sequences": _shares_below(nn.Linear(4, 4)),
    "shared weights": user.Tied,
    "shared weights in a plain sequence": lambda: nn.Sequential(*user.Tied()),
    "subclass of a layer": lambda: nn.Sequential(_Own(4, 3)),
    "subclass of a sequence": lambda: _OwnSequence(nn.Linear(4, 3)),
    "frozen parameter": _frozen,
    "nothing linear": lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5)),
    "unknown activation": lambda: nn.Sequential(nn.Linear(4, 3), nn.Softplus()),
    "no sequence": user.Buffered,
}


@pytest.mark.parametrize("make", NOT_LAYERED.values(), ids=NOT_LAYERED)
def test_what_is_no_plain_sequence_is_not_layered(make: Make) -> None:
    assert not is_layered(make())


@pytest.mark.parametrize("make", LAYERED.values(), ids=LAYERED)
def test_plain_sequences_are_layered(make: Make) -> None:
    network = make()
    assert is_layered(network)
    assert choose_form(network, 4, mixed_precision=False) == Choice("layered")


def _doubles_what_flows_back(network: nn.Module) -> nn.Module:
    layer = network[2]  # type: ignore[index]
    layer.register_full_backward_hook(lambda module, inputs, outputs: tuple(2 * g for g in inputs))
    return network


# Whatever form is chosen for these, it must be exact.
TRICKY: Names = {
    **{name: make for name, make in NOT_LAYERED.items() if name != "nothing linear"},
    "elu in place": _sequence(_first, partial(nn.ELU, inplace=True), _last),
    "silu in place": _sequence(_first, partial(nn.SiLU, inplace=True), _last),
    "leaky relu in place": _sequence(_first, partial(nn.LeakyReLU, inplace=True), _last),
    "in place behind a gelu": _sequence(_first, nn.GELU, partial(nn.ReLU, inplace=True), _last),
    "forward hook that scales": _hooked(lambda layer: layer.register_forward_hook(lambda m, x, out: 2 * out)),
    "forward pre-hook that scales": _hooked(lambda layer: layer.register_forward_pre_hook(lambda m, x: (2 * x[0],))),
    "backward hook": lambda: _doubles_what_flows_back(_sequence(_first, nn.Tanh, _last)()),
}


@pytest.mark.parametrize("make", TRICKY.values(), ids=TRICKY)
def test_the_form_that_is_chosen_is_exact(make: Make) -> None:
    rows = _members(make)
    _assert_members_are_themselves(rows, choose_form(rows[0][0], 4, mixed_precision=False).form)


@pytest.mark.parametrize("make", GENERAL.values(), ids=GENERAL)
def test_what_vmap_takes_is_vmapped(make: Make) -> None:
    assert choose_form(make(), 4, mixed_precision=False) == Choice("vmapped")


@pytest.mark.parametrize("make", [_mlp, user.convolution])
def test_under_mixed_precision_autograd_is_left_to_torch(make: Make) -> None:
    assert choose_form(make(), 4, mixed_precision=True) == Choice("vmapped")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (user.Normalised, "layer body.1 is a BatchNorm1d, which mixes the rows of a batch"),
        (partial(nn.BatchNorm1d, 4), "BatchNorm1d"),
        (user.Branching, "data-dependent control flow"),
        (user.DrawsItself, "random operation"),
        (user.Everything, "layer norm.body.1 is a BatchNorm1d"),
        (_Recurrent, "."),
        # Rows that pad a batch would enter the mean.
        (user.Centred, "mixes the rows of a batch"),
    ],
)
def test_the_form_of_last_resort_says_why(make: Make, reason: str) -> None:
    choice = choose_form(make(), 4, mixed_precision=False)
    assert choice.form == "looped"
    assert choice.reason is not None
    assert reason in choice.reason
    assert "\n" not in choice.reason


@pytest.mark.parametrize("make", [partial(_mlp, rate=0.3), user.convolution, user.Everything, user.DrawsItself])
@pytest.mark.parametrize("training", [True, False])
def test_choosing_leaves_the_network_and_the_generator_as_they_are(make: Make, training: bool) -> None:
    network = make().train(training)
    layers, state = [type(m) for m in network.modules()], copy.deepcopy(network.state_dict())
    before = torch.random.get_rng_state()
    for mixed_precision in (False, True):
        choose_form(network, 4, mixed_precision=mixed_precision)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [type(m) for m in network.modules()] == layers
    assert all(m.training == training for m in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_a_dropout_layer_that_is_called_twice_is_refused() -> None:
    with pytest.raises(UserError, match="drop"):
        choose_form(user.DropsTwice(), 4, mixed_precision=False)


# Networks of different width in one stack.

WIDTHS = (3, 8, 5)
# Those that map 0 to 0.
PADDABLE = [name for name in ACTIVATIONS if name != "sigmoid"]


def _outside(value: Tensor, shape: Sequence[int]) -> Tensor:
    """What lies in a padded value outside of the member's own."""
    outside = torch.ones_like(value, dtype=torch.bool)
    outside[tuple(slice(n) for n in shape)] = False
    return value[outside]


def _assert_padding_is_0(values: Mapping[str, Tensor], rows: Sequence[Sequence[nn.Module]]) -> None:
    padded = 0
    for s, row in enumerate(rows):
        for c, network in enumerate(row):
            for name, p in network.named_parameters():
                outside = _outside(values[name][s, c], p.shape)
                # NaN is not 0 either.
                assert outside.count_nonzero() == 0, name
                padded += outside.numel()
    assert padded > 0


def _of_different_widths(activation: cfg.Activation, rate: float = 0.0) -> list[list[nn.Module]]:
    torch.manual_seed(0)
    return [[_mlp(activation, width=width, rate=rate) for width in WIDTHS] for _ in SIZES]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", PADDABLE)
def test_networks_of_different_width_are_what_they_are_alone(activation: cfg.Activation, form: Form) -> None:
    rows = _of_different_widths(activation)
    stacked = _assert_members_are_themselves(copy.deepcopy(rows), form)
    _assert_padding_is_0(stacked.stacked_parameters(), rows)
    _assert_padding_is_0(stacked.gradients, rows)


@pytest.mark.parametrize("form", FORMS)
def test_networks_of_different_width_with_dropout_are_what_they_are_alone(form: Form) -> None:
    rows = _of_different_widths("tanh", rate=0.4)
    stacked = _assert_members_are_themselves(copy.deepcopy(rows), form, noise_of_each=True)
    _assert_padding_is_0(stacked.gradients, rows)


def test_an_activation_that_does_not_map_0_to_0_shows_that_the_comparison_can_fail() -> None:
    rows = _of_different_widths("sigmoid")
    stacked = _assert_members_are_themselves(copy.deepcopy(rows), "layered")
    # One gradient is of what the padded units hand on: those units would begin to live.
    with pytest.raises(AssertionError):
        _assert_padding_is_0(stacked.gradients, rows)


OPTIMIZERS: dict[str, list[cfg.OptimizerConfig]] = {
    "sgd": [cfg.SGD(kind="sgd", lr=lr) for lr in (0.1, 0.02, 0.02)],
    "momentum": [
        cfg.Momentum(kind="momentum", lr=0.01, momentum=m, nesterov=n)
        for m, n in ((0.9, True), (0.5, False), (0, False))
    ],
    "adam": [cfg.Adam(kind="adam", lr=0.01, beta1=0.9, beta2=b, eps=1e-8) for b in (0.9, 0.99, 0.999)],
    "adamw": [
        cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8, decoupled_decay=d) for d in (0.0, 0.1, 0.5)
    ],
    "rmsprop": [cfg.RMSprop(kind="rmsprop", lr=0.003, smoothing=s, eps=1e-8) for s in (0.5, 0.9, 0.9)],
}


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("activation", PADDABLE)
def test_padding_is_a_fixed_point_of_training(activation: cfg.Activation, kind: str, form: Form) -> None:
    rows = _of_different_widths(activation, rate=0.2)
    stacked = stack(copy.deepcopy(rows), form).train()
    names = [name for name in stacked.shapes if name.endswith("weight")]
    optimizer = make_optimizer(OPTIMIZERS[kind], stacked, names)
    values, gradients = stacked.stacked_parameters(), stacked.gradients
    weights, theirs = [values[name] for name in names], [gradients[name] for name in names]
    l1, l2 = torch.tensor([0.01, 0.0, 0.02]), torch.tensor([0.1, 0.3, 0.0])
    before, noise = stacked.flat.detach().clone(), Noise(_noise_for(stacked, len(WIDTHS)))
    x = torch.randn(3, ROWS, 4, generator=_generator(0))
    y = torch.randn(3, 1, ROWS, 3, generator=_generator(1))
    steps = 50 if form == "layered" else 5
    for _ in range(steps):
        stacked.differentiate(x, noise, lambda z: ((z - y).square().sum((-1, -2)) / 2, (z - y) / 21), SIZES)
        add_penalty_gradient(weights, theirs, l1, l2)
        optimizer.step()
    assert stacked.flat.isfinite().all()
    assert (stacked.flat.detach() != before).double().mean() > 0.3
    _assert_padding_is_0(values, rows)
    _assert_padding_is_0(gradients, rows)


def test_the_widest_network_may_stand_anywhere_but_sizes_must_nest() -> None:
    """What is smaller in one layer and larger in another cannot be padded: an error, not a wrong number."""
    crossing: list[Any] = [nn.Sequential(nn.Linear(4, a), nn.Tanh(), nn.Linear(a, b)) for a, b in ((9, 1), (2, 3))]
    with pytest.raises(RuntimeError):
        stack([crossing], "layered")


class Counting(nn.Module):
    """Counts its passes in a buffer, which it replaces or changes in place."""

    passes: Tensor

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.map, self.in_place = nn.Linear(4, 3), in_place
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.passes.add_(1)
        else:
            self.passes = self.passes + 1
        mapped: Tensor = self.map(x)
        return mapped


def test_a_buffer_that_is_replaced_is_refused() -> None:
    """The new tensor would be lost with the pass; one that is changed in place is each member's own."""
    with pytest.raises(UserError, match=r"replaces its buffer passes in a pass; change it in place"):
        choose_form(Counting(in_place=False), 4, mixed_precision=False)
    form = choose_form(Counting(in_place=True), 4, mixed_precision=False).form
    stacked = stack([[Counting(in_place=True)]], form)
    for _ in range(3):
        stacked.differentiate(torch.zeros(1, 5, 4), NO_NOISE, lambda z: (z.sum((-1, -2)), torch.ones_like(z)), [5])
    assert stacked.stacked_constants()["passes"].item() == 3


def test_token_numbers_are_tried_as_what_they_are() -> None:
    assert choose_form(user.Embedded(), 4, mixed_precision=False, tokens=4) == Choice("vmapped")
    # Other numbers than these it cannot look up.
    assert choose_form(user.Embedded(), 4, mixed_precision=False).form == "looped"
