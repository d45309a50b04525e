"""Optimizers that a user names by their dotted path, so that each member is updated as it would be alone.

An optimizer that updates each number by itself may be handed the numbers of all members at once. One that mixes them
may not: Adafactor and LAMB divide by norms, Muon multiplies matrices, and a member would feel its neighbours. Nothing
in an optimizer's interface says which kind it is, so it is tried: members side by side must move as they do alone.
Where they do not, each gets an optimizer of its own, over parameters of the shapes that it has alone: that is exact for
any optimizer, and costs a step of each.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from overfit_lab.config import CustomOptimizer, import_object
from overfit_lab.errors import UserError, first_line
from overfit_lab.seeding import torch_generator
from overfit_lab.training.leaves import leaves_of, leaves_of_member, runs_of_equals
from overfit_lab.training.stack import StackedNetwork

# Enough for what begins after a few steps.
STEPS = 8
# Large sides are cut to this in the trial: more than the 128 from which on some optimizers treat a matrix otherwise.
MAX_SIDE = 130

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def make_custom(
    configs: Sequence[CustomOptimizer], network: StackedNetwork, weights: Collection[str]
) -> torch.optim.Optimizer:
    """Build a user's optimizer over stacked parameters.

    Its weight decay, where it has one, applies to weights alone.

    Args:
        configs: `configurations`, settings of one optimizer.
        network: The members; their gradients are where `differentiate` writes them.
        weights: Names of the parameters that decay.
    """
    parts: list[torch.optim.Optimizer] = []
    for config, first, last in runs_of_equals(configs):
        if not updates_numbers_one_by_one(config, tuple(network.shapes.items()), frozenset(weights)):
            for place in itertools.product(range(network.streams), range(first, last)):
                own = {name: [leaf] for name, leaf in leaves_of_member(network, *place).items()}
                parts.append(_build(config, own, weights))
        elif last - first == network.configurations and not decays(config):
            parts.append(_build(config, {"": [network.flat]}, weights))
        else:
            side_by_side = {name: leaves_of(network, [name], first, last) for name in network.shapes}
            parts.append(_build(config, side_by_side, weights))
    return parts[0] if len(parts) == 1 else _Several(parts)


def check_custom(config: CustomOptimizer, shapes: Mapping[str, tuple[int, ...]], weights: Collection[str]) -> None:
    """Try a user's optimizer on parameters of a network.

    Args:
        config: The optimizer.
        shapes: Of the network's trainable parameters, by name.
        weights: Names of those that decay.

    Raises:
        UserError: It cannot be imported, built or used, or it draws random numbers.
    """
    updates_numbers_one_by_one(config, tuple(shapes.items()), frozenset(weights))


def decays(config: CustomOptimizer) -> bool:
    """Say whether a user's optimizer has a weight decay, be it by its own default.

    Raises:
        UserError: It cannot be imported or built.
    """
    # A matrix, which all take.
    optimizer = _call(config, [{"params": [torch.zeros(2, 2, requires_grad=True)]}])
    return any(bool(group.get("weight_decay")) for group in optimizer.param_groups)


class _Several(torch.optim.Optimizer):
    """Optimizers over parts of the parameters, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([leaf for part in parts for group in part.param_groups for leaf in group["params"]], {})
        self.parts = tuple(parts)

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Take a step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all."""
        return {**super().state_dict(), "parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of all back."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


@functools.lru_cache(maxsize=64)
def _tried(key: str, config: CustomOptimizer, shapes: Shapes, weights: frozenset[str]) -> bool:
    # The key is the config, which has no hash that tells its further keys apart.
    shapes = tuple((name, tuple(min(side, MAX_SIDE) for side in shape)) for name, shape in shapes)
    # Two members of different size, and numbers that pad a smaller member and must stay 0.
    scales = (1.0, 30.0, 0.0)
    alone = [_train(config, shapes, weights, [scale], flat=False) for scale in scales[:2]]
    again = _train(config, shapes, weights, scales[:1], flat=False, seed=1)
    if any(not torch.equal(again[name], alone[0][name]) for name, _ in shapes):
        raise UserError(
            f"optimizer._target_={config.target}: it draws random numbers, which would depend on what else is trained; "
            "allowed is one that draws none"
        )
    try:
        together = _train(config, shapes, weights, scales, flat=True)
    except UserError:
        # What takes matrices alone, as Muon does.
        return False
    expected = {name: torch.cat([a[name] for a in alone] + [torch.zeros_like(alone[0][name])]) for name, _ in shapes}
    return all(torch.allclose(together[name], expected[name], rtol=1e-9, atol=1e-12) for name, _ in shapes)


def updates_numbers_one_by_one(config: CustomOptimizer, shapes: Shapes, weights: frozenset[str]) -> bool:
    """Say whether an optimizer moves each number by its own gradients alone, by a trial in float64.

    Args:
        config: The optimizer.
        shapes: Names and shapes of the parameters of one member.
        weights: Names of those that decay.

    Raises:
        UserError: As `check_custom`.
    """
    return _tried(config.model_dump_json(by_alias=True), config, shapes, weights)


def _train(
    config: CustomOptimizer,
    shapes: Shapes,
    weights: frozenset[str],
    scales: Sequence[float],
    *,
    flat: bool,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Take some steps on made-up gradients.

    Args:
        config: The optimizer.
        shapes: As in `updates_numbers_one_by_one`.
        weights: As there.
        scales: For each member, the deviation of its values and gradients.
        flat: Whether members lie side by side in flat leaves, or a single one in the shapes that it has.
        seed: Of torch's own generator, which an optimizer should not need.

    Returns:
        For each name the flat values of the members, one after another.
    """
    members = [torch_generator("optimizer", str(scale)) for scale in scales]

    def draw(shape: tuple[int, ...]) -> Tensor:
        drawn = [
            scale * torch.randn(shape, generator=own, dtype=torch.float64)
            for scale, own in zip(scales, members, strict=True)
        ]
        return torch.cat([value.flatten() for value in drawn]) if flat else drawn[0]

    leaves = {name: draw(shape).requires_grad_() for name, shape in shapes}
    optimizer = _build(config, {name: [leaf] for name, leaf in leaves.items()}, weights)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for _ in range(STEPS):
            for name, shape in shapes:
                leaves[name].grad = draw(shape)
            try:
                optimizer.step()
            except Exception as error:
                raise UserError(
                    f"optimizer._target_={config.target}: a step failed: {first_line(error)}; allowed is one whose "
                    "step needs gradients alone"
                ) from error
    return {name: leaf.detach().flatten() for name, leaf in leaves.items()}


def _build(
    config: CustomOptimizer, leaves: Mapping[str, Sequence[Tensor]], weights: Collection[str]
) -> torch.optim.Optimizer:
    """Build an optimizer whose decay, if it has one, applies to weights alone."""
    if not decays(config):
        # Some take one group alone.
        return _call(config, [{"params": [leaf for own in leaves.values() for leaf in own]}])
    groups = [
        {"params": [leaf for name, own in leaves.items() if (name in weights) == decays for leaf in own]}
        for decays in (True, False)
    ]
    optimizer = _call(config, [group for group in groups if group["params"]])
    for group in optimizer.param_groups[1 if groups[0]["params"] else 0 :]:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
    return optimizer


def _call(config: CustomOptimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    make = import_object("optimizer._target_", config.target)
    arguments = ({} if config.lr is None else {"lr": config.lr}) | config.arguments
    try:
        optimizer = make(groups, **arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items()) or "no arguments"
        raise UserError(
            f"optimizer._target_={config.target}: called with {given} it failed: {first_line(error)}; add an argument "
            "with +optimizer.KEY=VALUE, drop one with ~optimizer.KEY"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            f"optimizer._target_={config.target} is a {type(optimizer).__name__}; allowed is a torch.optim.Optimizer"
        )
    return optimizer
