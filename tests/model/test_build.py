from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from overfit_lab import config as cfg
from overfit_lab.config import Activation, CustomModel, LinearModel, MLPModel, ModelConfig
from overfit_lab.errors import UserError
from overfit_lab.model import MLP, Linear, build_network, count_parameters, initialise, stackable_shape

LINEAR = LinearModel(_target_="overfit_lab.model.Linear")


def mlp(**changes: object) -> MLPModel:
    values = {"_target_": "overfit_lab.model.MLP", "width": 5, "depth": 2, "activation": "tanh", "dropout": 0.0}
    return MLPModel.model_validate({**values, **changes})


def custom(name: str, **arguments: object) -> CustomModel:
    path = name if "." in name else f"{__name__}.{name}"
    return CustomModel.model_validate({"_target_": path, **arguments})


class Bottleneck(nn.Module):
    """A network of the user's, with all that may go wrong in it."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 2) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError("hidden must be positive")
        self.first, self.norm, self.last = nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(self.norm(self.first(x))))
        return logits


class OneColumn(Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :1]


class NoRows(Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(0)


class Pair(Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        return x, x  # type: ignore[return-value]


class Images(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x.reshape(len(x), 1, 8, 8)).mean((2, 3))
        return logits


def shape_of(inputs: int, outputs: int) -> tuple[int, int]:
    return inputs, outputs


def weights(network: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).tolist()


def test_linear_model() -> None:
    network = build_network(LINEAR, 7, 3)
    assert type(network) is Linear
    assert network(torch.zeros(2, 7)).shape == (2, 3)


@pytest.mark.parametrize(
    ("config", "parameters", "layers"),
    [
        (mlp(), 4 * 5 + 5 + 30 + 15 + 3, ["Linear", "Tanh", "Dropout"] * 2 + ["Linear"]),
        (mlp(width=2, depth=1, activation="quadratic"), 10 + 9, ["Linear", "Quadratic", "Dropout", "Linear"]),
        (mlp(width=1, depth=1, activation="gelu", dropout=0.25), 5 + 6, ["Linear", "GELU", "Dropout", "Linear"]),
    ],
)
def test_mlp_model(config: MLPModel, parameters: int, layers: list[str]) -> None:
    network = build_network(config, 4, 3)
    assert type(network) is MLP
    assert [type(module).__name__ for module in network] == layers
    assert count_parameters(network) == parameters
    assert [m.p for m in network if isinstance(m, nn.Dropout)] == [config.dropout] * config.depth


@pytest.mark.parametrize(("arguments", "hidden"), [({}, 2), ({"hidden": 6}, 6)])
def test_custom_model_gets_inputs_outputs_and_the_further_keys(arguments: dict[str, object], hidden: int) -> None:
    network = build_network(custom("Bottleneck", **arguments), 4, 3)
    assert isinstance(network, Bottleneck)
    assert (network.first.in_features, network.first.out_features) == (4, hidden)
    assert network.last.out_features == 3


def test_custom_model_is_handed_over_untouched_and_in_training_mode() -> None:
    network = build_network(custom("Bottleneck"), 4, 3)
    assert isinstance(network, Bottleneck)
    assert all(module.training for module in network.modules())
    # The trial pass was in eval mode: it left no trace in the running statistics.
    assert network.norm.num_batches_tracked is not None
    assert network.norm.num_batches_tracked.item() == 0
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            custom("no_such_module_anywhere.Net"),
            r"^model\._target_=no_such_module_anywhere\.Net: .*allowed is the dotted",
        ),
        (custom("torch.nn.Lineer"), r"^model\._target_=torch\.nn\.Lineer: .*Lineer"),
        (custom("not a path."), r"^model\._target_=not a path\.: .*allowed is the dotted path"),
        (
            custom("Bottleneck", width=4, alpha=0.5),
            r"Bottleneck: called with inputs=4, outputs=3, width=4, alpha=0\.5 it failed: .*'width'.*~model\.KEY",
        ),
        (
            custom("Bottleneck", hidden=0),
            r"inputs=4, outputs=3, hidden=0 it failed: hidden must be positive; add an argument",
        ),
        (custom("Bottleneck", inputs=9), r"Bottleneck: called with .*inputs"),
        (
            custom("torch.nn.Linear"),
            r"^model\._target_=torch\.nn\.Linear: called with inputs=4, outputs=3 it failed: ",
        ),
        (custom("shape_of"), r"test_build\.shape_of is a tuple; allowed is a torch\.nn\.Module$"),
        (custom("LINEAR"), r"test_build\.LINEAR: called with .*not callable"),
        (custom("OneColumn"), r"test_build\.OneColumn: 2 rows gave shape \(2, 1\); the task needs \(2, 3\)$"),
        (custom("NoRows"), r"test_build\.NoRows: 2 rows gave shape \(3,\); the task needs \(2, 3\)$"),
        (custom("Pair"), r"test_build\.Pair: on an input of shape \(2, 4\) it failed: .*tuple"),
        (custom("Images"), r"test_build\.Images: on an input of shape \(2, 4\) it failed: .*shape"),
    ],
)
def test_custom_model_at_fault(config: CustomModel, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network(config, 4, 3)


CONFIGS = [LINEAR, mlp(), mlp(dropout=0.5), custom("Bottleneck")]


@pytest.mark.parametrize("config", CONFIGS, ids=["linear", "mlp", "dropout", "custom"])
def test_initial_weights_depend_on_seed_repeat_and_fold_alone(config: LinearModel | MLPModel | CustomModel) -> None:
    torch.manual_seed(0)
    first = weights(initialise(config, 4, 3, seed=1, repeat=2, fold=3))
    torch.manual_seed(1)
    initialise(config, 4, 3, seed=5, repeat=0, fold=0)
    torch.randn(10)
    assert weights(initialise(config, 4, 3, seed=1, repeat=2, fold=3)) == first
    for seed, repeat, fold in ((2, 2, 3), (1, 3, 3), (1, 2, 2), (1, 3, 2)):
        assert weights(initialise(config, 4, 3, seed=seed, repeat=repeat, fold=fold)) != first


@pytest.mark.parametrize("config", CONFIGS, ids=["linear", "mlp", "dropout", "custom"])
def test_initialising_leaves_the_global_generator_as_it_was(config: LinearModel | MLPModel | CustomModel) -> None:
    torch.manual_seed(42)
    before = torch.get_rng_state()
    initialise(config, 4, 3, seed=0, repeat=0, fold=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_failing_to_initialise_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        initialise(custom("OneColumn"), 4, 3, seed=0, repeat=0, fold=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_and_activation_do_not_change_the_initial_weights() -> None:
    # Configurations of one stream are paired: they start at the same weights where they can.
    plain = weights(initialise(mlp(), 4, 3, seed=0, repeat=0, fold=0))
    for config in (mlp(dropout=0.5), mlp(activation="relu")):
        assert weights(initialise(config, 4, 3, seed=0, repeat=0, fold=0)) == plain


@pytest.mark.parametrize("activation", get_args(Activation))
def test_widths_share_a_stack_where_the_activation_maps_0_to_0(activation: Activation) -> None:
    network = build_network(mlp(activation=activation), 4, 3)
    keeps_0 = bool((network[1](torch.zeros(1)) == 0).item())  # type: ignore[index]
    shapes = {stackable_shape(mlp(activation=activation, width=width)) for width in (1, 5, 8)}
    assert (len(shapes) == 1) == keeps_0
    assert keeps_0 == (activation != "sigmoid")


def test_dropouts_share_a_stack_and_nothing_else_does() -> None:
    assert stackable_shape(mlp(dropout=0.5)) == stackable_shape(mlp())
    assert stackable_shape(mlp(activation="sigmoid", dropout=0.5)) == stackable_shape(mlp(activation="sigmoid"))
    assert stackable_shape(custom("Bottleneck", hidden=3)) == stackable_shape(custom("Bottleneck", hidden=3))
    shapes = [
        stackable_shape(config)
        for config in (
            mlp(),
            mlp(depth=3),
            mlp(activation="relu"),
            LINEAR,
            custom("Bottleneck"),
            custom("Bottleneck", hidden=3),
            custom("Bottleneck", hidden=4),
            custom("OneColumn", hidden=3),
        )
    ]
    assert len(set(shapes)) == len(shapes)


def test_initial_weights_are_spread_as_torch_does_by_default() -> None:
    # Uniform within 1 / sqrt(fan-in), biases too.
    network = initialise(mlp(width=400, depth=1), 100, 3, seed=0, repeat=0, fold=0)
    for layer, fan_in in zip([m for m in network.modules() if isinstance(m, nn.Linear)], (100, 400), strict=True):
        assert 0.95 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
        assert layer.bias.abs().max() <= fan_in**-0.5
        assert layer.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)


class Shaped(Bottleneck):
    def __init__(self, inputs: int, outputs: int, shape: tuple[int, ...] | None, tokens: int = 7) -> None:
        super().__init__(inputs, outputs)
        self.layout = shape, tokens


@pytest.mark.parametrize(
    ("arguments", "layout", "given"),
    [
        ({}, ((1, 2, 2), 9), ((1, 2, 2), 9)),
        # What the source does not say is None where it must be given, and else the network's own default.
        ({}, (None, None), (None, 7)),
        ({"shape": [4], "tokens": 3}, ((1, 2, 2), None), ([4], 3)),
    ],
)
def test_a_custom_model_gets_shape_and_tokens_where_it_asks_for_them(
    arguments: dict[str, object], layout: tuple[tuple[int, ...] | None, int | None], given: object
) -> None:
    for network in (
        build_network(custom("Shaped", **arguments), 4, 3, *layout),
        initialise(custom("Shaped", **arguments), 4, 3, *layout, seed=0, repeat=0, fold=0),
    ):
        assert isinstance(network, Shaped)
        assert network.layout == given
    assert isinstance(build_network(custom("Bottleneck"), 4, 3, *layout), Bottleneck)


OWN: dict[str, dict[str, object]] = {
    "CNN": {"channels": 2, "depth": 1, "kernel": 3, "activation": "relu", "dropout": 0.0},
    "ResNet": {"width": 2, "stages": 2, "blocks": 1},
    "Transformer": {"embedding": 4, "depth": 1, "heads": 2, "patch": 1, "dropout": 0.0},
    "RandomFeatures": {"features": 7},
}


def own(name: str, **changes: object) -> ModelConfig:
    values = {"_target_": f"overfit_lab.model.{name}", **OWN[name], **changes}
    config: ModelConfig = getattr(cfg, f"{name}Model").model_validate(values)
    return config


@pytest.mark.parametrize("name", OWN)
def test_own_networks_are_built_with_shape_and_by_their_config(name: str) -> None:
    network = build_network(own(name), 6, 3, (1, 2, 3))
    assert type(network).__name__ == name
    assert network(torch.zeros(2, 6)).shape == (2, 3)
    # What is drawn of random features is no parameter.
    states = [initialise(own(name), 6, 3, (1, 2, 3), seed=s, repeat=0, fold=0).state_dict() for s in (0, 0, 1)]
    same, other = (any(not torch.equal(states[0][k], s[k]) for k in s) for s in states[1:])
    assert (same, other) == (False, True)


@pytest.mark.parametrize("config", [LINEAR, mlp(), own("CNN"), own("ResNet"), own("RandomFeatures")])
def test_token_numbers_are_for_networks_that_look_them_up(config: ModelConfig) -> None:
    with pytest.raises(
        UserError, match=r"^model\._target_=overfit_lab\.model\.\w+: the inputs are token numbers, which"
    ):
        build_network(config, 6, 3, (1, 2, 3), 9)
    assert build_network(own("Transformer"), 6, 3, None, 9)(torch.full((1, 6), 8.0)).shape == (1, 3)


def test_own_networks_stack_where_they_differ_in_dropout_alone() -> None:
    for name in ("CNN", "Transformer"):
        assert stackable_shape(own(name, dropout=0.5)) == stackable_shape(own(name))
        assert stackable_shape(own(name, depth=2)) != stackable_shape(own(name))
    assert stackable_shape(own("ResNet", width=3)) != stackable_shape(own("ResNet"))
    assert len({stackable_shape(own(name)) for name in OWN}) == len(OWN)
