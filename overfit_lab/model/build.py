"""From a config to a network, and to its initial weights."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import nn

from overfit_lab.config import CustomModel, LinearModel, MLPModel, import_object
from overfit_lab.errors import UserError, is_out_of_memory
from overfit_lab.model.networks import MLP, Linear
from overfit_lab.seeding import derive_seed


def build_network(config: MLPModel | LinearModel | CustomModel, inputs: int, outputs: int) -> nn.Module:
    """Build the network that a config describes, with initial weights from the global generator.

    Args:
        config: Which network, and its arguments.
        inputs: Number of features.
        outputs: Number of logits that the task needs.

    Raises:
        UserError: A custom network cannot be imported or built, or does not map rows x inputs to rows x outputs.
    """
    if isinstance(config, LinearModel):
        return Linear(inputs, outputs)
    if isinstance(config, MLPModel):
        arguments = config.model_dump(exclude={"target"})
        return MLP(inputs, outputs, **arguments)
    network = _build_custom(config, inputs, outputs)
    _check_output(network, config.target, inputs, outputs)
    return network


def initialise(
    config: MLPModel | LinearModel | CustomModel,
    inputs: int,
    outputs: int,
    *,
    seed: int,
    repeat: int,
    fold: int,
) -> nn.Module:
    """Build the network of one fit: its initial weights depend on (seed, repeat, fold) and nothing else.

    Layers take their initial weights from torch's global generator and cannot be told otherwise. So that generator
    is seeded for this fit, and put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed("initial weights", seed, repeat, fold))
        return build_network(config, inputs, outputs)


def stackable_shape(config: MLPModel | LinearModel | CustomModel) -> tuple[Hashable, ...]:
    """Name what two networks must have in common for one stacked model to hold both.

    An MLP's width is no part of it where padding with zeros is exact: a hidden unit whose weights are all 0 is a fixed
    point of training if its activation maps 0 to 0, and adds nothing to what others compute.
    """
    if isinstance(config, MLPModel):
        free = {"dropout"} if config.activation == "sigmoid" else {"dropout", "width"}
        return "mlp", config.model_dump_json(exclude=free)
    return "other", config.model_dump_json(by_alias=True)


def _build_custom(config: CustomModel, inputs: int, outputs: int) -> nn.Module:
    factory = import_object("model._target_", config.target)
    try:
        network = factory(inputs=inputs, outputs=outputs, **config.arguments)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        given = ", ".join(f"{k}={v}" for k, v in {"inputs": inputs, "outputs": outputs, **config.arguments}.items())
        raise UserError(
            f"model._target_={config.target}: called with {given} it failed: {error}; add an argument with "
            "+model.KEY=VALUE, drop one with ~model.KEY, or start from model=custom"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"model._target_={config.target} is a {type(network).__name__}; allowed is a torch.nn.Module")
    return network


def _check_output(network: nn.Module, target: str, inputs: int, outputs: int) -> None:
    network.eval()
    # One row as well: a network that squeezes its output would lose it.
    for rows in (2, 1):
        try:
            with torch.no_grad():
                shape = tuple(network(torch.zeros(rows, inputs)).shape)
        except Exception as error:
            raise UserError(
                f"model._target_={target}: on an input of shape ({rows}, {inputs}) it failed: {error}"
            ) from error
        if shape != (rows, outputs):
            what = "1 row" if rows == 1 else f"{rows} rows"
            raise UserError(f"model._target_={target}: {what} gave shape {shape}; the task needs ({rows}, {outputs})")
    network.train()
