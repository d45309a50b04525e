"""Optimizers of the user's: each member is updated as it would be alone, whatever they mix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from overfit_lab import config as cfg
from overfit_lab.errors import UserError
from overfit_lab.model import MLP
from overfit_lab.plan import prepare
from overfit_lab.training.custom_optimizer import check_custom, decays, updates_numbers_one_by_one
from overfit_lab.training.optimizers import make_optimizer
from overfit_lab.training.stack import Form, StackedNetwork, stack

Configure = Callable[..., cfg.Config]
Parameters = Iterable[Any]


class _Own(torch.optim.Optimizer):
    """Moves each parameter against a direction that a subclass makes of its gradient."""

    def __init__(self, params: Parameters, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def direction(self, p: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * (self.direction(p) + group["weight_decay"] * p))


class SignSGD(_Own):
    """Looks at each number by itself."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        return p.grad.sign()


class Normed(_Own):
    """Divides by the norm of a parameter's gradient, as LAMB does."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        return torch.div(p.grad, p.grad.norm() + 1e-9)


class MatricesAlone(_Own):
    """Knows a weight by its dimensions: what pads or stacks one deceives it."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        return p.grad * (0.5 if p.ndim > 1 else 1.0)


class Clipped(_Own):
    """Clips by the norm of all gradients together: it mixes even different parameters."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        everything = torch.stack([q.grad.norm() for group in self.param_groups for q in group["params"]]).norm()
        return torch.div(p.grad, everything.clamp_min(1.0))


class Restless(_Own):
    """Moves what has no gradient: numbers that pad a smaller member would not stay 0."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        return p.grad + 0.1


class Noisy(_Own):
    """Adds noise, as Langevin dynamics does."""

    def direction(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        return p.grad + torch.randn_like(p)


def not_one(params: Parameters, lr: float) -> str:
    return f"{params} {lr}"


def optimizer(name: str, lr: float | None = 0.01, **arguments: object) -> cfg.CustomOptimizer:
    path = name if "." in name else f"{__name__}.{name}"
    return cfg.CustomOptimizer.model_validate({"kind": "custom", "_target_": path, "lr": lr, **arguments})


ONE_BY_ONE = {
    **{name: {} for name in ("NAdam", "RAdam", "Adadelta", "Adagrad", "Adamax", "ASGD", "Rprop", "RMSprop", "Adam")},
    "AdamW": {"weight_decay": 0.3},
    "SGD": {"momentum": 0.9, "weight_decay": 0.2, "dampening": 0.1},
}
ELEMENTWISE = [
    *(optimizer(f"torch.optim.{name}", **arguments) for name, arguments in ONE_BY_ONE.items()),
    optimizer("torch.optim.NAdam", betas=[0.8, 0.99], weight_decay=0.1, decoupled_weight_decay=True),
    optimizer("SignSGD"),
    optimizer("SignSGD", weight_decay=0.5),
]
MIXING = [
    optimizer("torch.optim.Adafactor", weight_decay=0.3),
    *map(optimizer, ("Normed", "MatricesAlone", "Clipped", "Restless")),
]
IDS = [f"{config.target.rpartition('.')[2]}{i}" for i, config in enumerate([*ELEMENTWISE, *MIXING])]
WEIGHTS = frozenset({"0.weight", "3.weight"})
WIDTHS = [4, 2, 3, 4]


def _network(form: Form = "layered") -> StackedNetwork:
    """Stack members of different widths: the smaller ones are padded."""
    torch.manual_seed(0)
    return stack(
        [[MLP(3, 2, width=w, depth=1, activation="tanh", dropout=0.0) for w in WIDTHS] for _ in range(3)],
        form,
    ).double()


def _alone(config: cfg.CustomOptimizer, own: dict[str, Tensor]) -> torch.optim.Optimizer:
    """Build torch's or the user's own, with the decay on weights alone."""
    kind = getattr(torch.optim, config.target.rpartition(".")[2], None) or globals()[config.target.rpartition(".")[2]]
    decay = config.arguments.get("weight_decay", 0.0)
    groups = [
        {"params": [p for name, p in own.items() if name in WEIGHTS], "weight_decay": decay},
        {"params": [p for name, p in own.items() if name not in WEIGHTS], "weight_decay": 0.0},
    ]
    made: torch.optim.Optimizer = kind(groups, lr=config.lr, **config.arguments)
    return made


@pytest.mark.parametrize("form", ["sparse", "layered", "vmapped", "looped"])
@pytest.mark.parametrize("config", [*ELEMENTWISE, *MIXING], ids=IDS)
@pytest.mark.parametrize("rates", [[0.01] * 4, [0.01, 0.02, 0.02, 0.01]])
def test_each_member_is_updated_as_it_would_be_alone(
    config: cfg.CustomOptimizer, rates: list[float], form: Form
) -> None:
    network = _network(form)
    values, configs = network.stacked_parameters(), [config.model_copy(update={"lr": lr}) for lr in rates]
    together = make_optimizer(configs, network, WEIGHTS)
    alone: list[tuple[int, int, dict[str, Tensor], torch.optim.Optimizer]] = []
    for s in range(3):
        for c, own_config in enumerate(configs):
            shapes = network.shapes_of(c)
            assert shapes["0.weight"] == (WIDTHS[c], 3)
            own = {
                name: value[s, c][tuple(slice(n) for n in shapes[name])].clone().requires_grad_()
                for name, value in values.items()
            }
            alone.append((s, c, own, _alone(own_config, own)))
    for step in range(10):
        for gradient in network.gradients.values():
            gradient.zero_()
        generator = torch.Generator().manual_seed(step)
        for s, c, own, solo in alone:
            for name, p in own.items():
                # Of very different size: what is mixed shows.
                drawn = 10 ** (s + c - 2) * torch.randn(p.shape, generator=generator, dtype=torch.float64)
                network.gradients[name][s, c][tuple(slice(n) for n in p.shape)] = p.grad = drawn
            solo.step()
        together.step()
    for s, c, own, _ in alone:
        for name, p in own.items():
            whole = values[name][s, c].clone()
            part = tuple(slice(n) for n in p.shape)
            torch.testing.assert_close(whole[part], p.detach(), rtol=1e-10, atol=1e-12)
            whole[part] = 0
            assert not whole.any()


SHAPES = (("0.weight", (4, 3)), ("0.bias", (4,)), ("3.weight", (2, 4)), ("3.bias", (2,)))


@pytest.mark.parametrize(
    ("config", "answer"), [*((c, True) for c in ELEMENTWISE), *((c, False) for c in MIXING)], ids=IDS
)
def test_what_an_optimizer_mixes_is_found_out(config: cfg.CustomOptimizer, answer: bool) -> None:
    before = torch.random.get_rng_state()
    assert updates_numbers_one_by_one(config, SHAPES, WEIGHTS) is answer
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_updates_numbers_one_by_one_passes_once_over_all() -> None:
    network = _network()
    one = make_optimizer([optimizer("torch.optim.NAdam")] * 4, network, WEIGHTS)
    assert [id(leaf) for group in one.param_groups for leaf in group["params"]] == [id(network.flat)]
    several = make_optimizer([optimizer("torch.optim.Adafactor")] * 4, network, WEIGHTS)
    leaves = [leaf for group in several.param_groups for leaf in group["params"]]
    assert sorted({tuple(leaf.shape) for leaf in leaves if leaf.ndim == 2}) == [(2, 2), (2, 3), (2, 4), (3, 3), (4, 3)]
    assert len(leaves) == 3 * 4 * 4


def test_what_takes_matrices_alone_gets_matrices() -> None:
    """Muon makes the update of a matrix orthogonal; its decay of .1 is its own default."""
    torch.manual_seed(0)
    members = [[nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))] for _ in range(3)]
    network = stack(members, "layered").double()
    names = frozenset(network.shapes)
    together = make_optimizer([optimizer("torch.optim.Muon")], network, names)
    before = {name: value.clone() for name, value in network.stacked_parameters().items()}
    for gradient in network.gradients.values():
        gradient.normal_()
    together.step()
    for s in range(3):
        own = [value[s, 0].clone().requires_grad_() for value in before.values()]
        for p, gradient in zip(own, network.gradients.values(), strict=True):
            p.grad = gradient[s, 0].clone()
        alone: torch.optim.Optimizer = torch.optim.Muon(own, lr=0.01)
        alone.step()
        for name, p in zip(before, own, strict=True):
            torch.testing.assert_close(network.stacked_parameters()[name][s, 0], p.detach(), rtol=1e-12, atol=1e-12)


def test_a_decay_is_noticed_be_it_by_default() -> None:
    assert decays(optimizer("torch.optim.AdamW"))
    assert not decays(optimizer("torch.optim.AdamW", weight_decay=0))
    assert decays(optimizer("SignSGD", weight_decay=0.1))
    assert not decays(optimizer("torch.optim.NAdam"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (optimizer("torch.optim.Adaam"), r"^optimizer\._target_=torch\.optim\.Adaam: .*allowed is the dotted path"),
        (
            optimizer("torch.optim.NAdam", beta=0.9),
            r"NAdam: called with lr=0\.01, beta=0\.9 it failed: .*'beta'; add an argument with \+optimizer\.KEY=VALUE",
        ),
        (optimizer("SignSGD", None), r"SignSGD: called with no arguments it failed: .*'lr'"),
        (optimizer("not_one"), r"not_one is a str; allowed is a torch\.optim\.Optimizer$"),
        (
            optimizer("torch.optim.LBFGS"),
            r"LBFGS: a step failed: .*'closure'; allowed is one whose step needs gradients alone$",
        ),
        (optimizer("torch.optim.SparseAdam"), r"SparseAdam: a step failed: .*dense gradients.*; allowed is one whose"),
        (optimizer("torch.optim.Muon"), r"Muon: called with lr=0\.01 it failed: .*2D"),
        (optimizer("Noisy"), r"test_custom_optimizer\.Noisy: it draws random numbers, which would depend on what else"),
    ],
)
def test_optimizers_at_fault(config: cfg.CustomOptimizer, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_custom(config, dict(SHAPES), WEIGHTS)


def test_a_run_with_one_is_checked_before_it_is_trained(config: Configure) -> None:
    own = ("optimizer=custom", "optimizer._target_=torch.optim.NAdam")
    plan, other = prepare(config(*own)), prepare(config(*own, "optimizer.lr=0.1", "+optimizer.eps=1e-6"))
    assert plan.cohort_key == other.cohort_key
    assert plan.run_id != other.run_id
    assert plan.cohort_key != prepare(config("optimizer=custom", "optimizer._target_=torch.optim.Adamax")).cohort_key
    for override in ("optimizer._target_=torch.optim.LBFGS", "+optimizer.widht=3"):
        with pytest.raises(UserError, match=r"^optimizer\._target_="):
            prepare(config(*own, override))
    with pytest.raises(UserError, match=r"^optimizer\.lr=-1(\.0)?: must be greater than 0"):
        config(*own, "optimizer.lr=-1")
    with pytest.raises(UserError, match=r"^optimizer\._target_ is missing; give it as optimizer\._target_="):
        config("optimizer=custom")


class Bare(nn.Module):
    """Has a parameter of unknown role."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def test_what_decays_must_be_known_as_weight(config: Configure) -> None:
    own = ("model=custom", f"model._target_={__name__}.Bare", "penalty=none", "optimizer=custom")
    prepare(config(*own, "optimizer._target_=torch.optim.NAdam"))
    with pytest.raises(UserError, match="parameter matrix of the network is in no known layer type"):
        prepare(config(*own, "optimizer._target_=torch.optim.AdamW"))
