"""From a config to a network, and to its initial weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from overfit_lab.config import (
    CNNModel,
    CustomModel,
    LinearModel,
    MLPModel,
    ModelConfig,
    RandomFeaturesModel,
    ResNetModel,
    TransformerModel,
    import_object,
)
from overfit_lab.errors import UserError, is_out_of_memory
from overfit_lab.model.convolutional import CNN, ResNet
from overfit_lab.model.networks import MLP, Linear, RandomFeatures
from overfit_lab.model.transformer import Transformer
from overfit_lab.seeding import derive_seed


def build_network(
    config: ModelConfig, inputs: int, outputs: int, shape: tuple[int, ...] | None = None, tokens: int | None = None
) -> nn.Module:
    """Build the network that a config describes, with initial weights from the global generator.

    Args:
        config: Which network, and its arguments.
        inputs: Number of features.
        outputs: Number of logits that the task needs.
        shape: The shape of one row, where the source says it.
        tokens: How many tokens there are, where inputs are token numbers.

    Raises:
        UserError: The network does not fit the data; a custom one cannot be imported or built, or does not map
            rows x inputs to rows x outputs.
    """
    if isinstance(config, CustomModel):
        network = _build_custom(config, inputs, outputs, {"shape": shape, "tokens": tokens})
        _check_output(network, config.target, inputs, outputs)
        return network
    arguments = config.model_dump(exclude={"target"})
    if isinstance(config, TransformerModel):
        return Transformer(inputs, outputs, shape, tokens, **arguments)
    if tokens is not None:
        raise UserError(
            f"model._target_={config.target}: the inputs are token numbers, which mean nothing as numbers; allowed are "
            "model=transformer and networks of your own"
        )
    match config:
        case LinearModel():
            return Linear(inputs, outputs, **arguments)
        case MLPModel():
            return MLP(inputs, outputs, **arguments)
        case RandomFeaturesModel():
            return RandomFeatures(inputs, outputs, **arguments)
        case CNNModel():
            return CNN(inputs, outputs, shape, **arguments)
        case ResNetModel():
            return ResNet(inputs, outputs, shape, **arguments)


def initialise(
    config: ModelConfig,
    inputs: int,
    outputs: int,
    shape: tuple[int, ...] | None = None,
    tokens: int | None = None,
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
        return build_network(config, inputs, outputs, shape, tokens)


def stackable_shape(config: ModelConfig) -> tuple[Hashable, ...]:
    """Name what two networks must have in common for one stacked model to hold both.

    An MLP's width is no part of it where padding with zeros is exact: a hidden unit whose weights are all 0 is a fixed
    point of training if its activation maps 0 to 0, and adds nothing to what others compute.
    """
    free = {"dropout"} if isinstance(config, MLPModel | CNNModel | TransformerModel) else set()
    if isinstance(config, MLPModel) and config.activation != "sigmoid":
        free.add("width")
    return (config.model_dump_json(by_alias=True, exclude=free),)


def _build_custom(config: CustomModel, inputs: int, outputs: int, layout: dict[str, Any]) -> nn.Module:
    factory = import_object("model._target_", config.target)
    arguments = _asked_for(factory, layout) | config.arguments
    try:
        network = factory(inputs=inputs, outputs=outputs, **arguments)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        given = ", ".join(f"{k}={v}" for k, v in {"inputs": inputs, "outputs": outputs, **arguments}.items())
        raise UserError(
            f"model._target_={config.target}: called with {given} it failed: {error}; add an argument with "
            "+model.KEY=VALUE, drop one with ~model.KEY, or start from model=custom"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"model._target_={config.target} is a {type(network).__name__}; allowed is a torch.nn.Module")
    return network


def _asked_for(factory: Callable[..., Any], layout: dict[str, Any]) -> dict[str, Any]:
    """Choose what a factory has a parameter for; its own default stands where the source does not say it."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    return {
        name: value
        for name, value in layout.items()
        if name in parameters and (value is not None or parameters[name].default is inspect.Parameter.empty)
    }


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
