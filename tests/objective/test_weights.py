import pytest
import torch
from torch import nn

from overfit_lab.errors import UserError
from overfit_lab.objective import parameter_roles, penalised_names

WEIGHT, BIAS, NORM = "weight", "bias", "normalisation"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.Linear(2, 3, bias=False), {"weight": WEIGHT}),
        (nn.Bilinear(2, 3, 4), {"weight": WEIGHT, "bias": BIAS}),
        (nn.Conv1d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.Conv2d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.Conv3d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.ConvTranspose1d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.ConvTranspose2d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (nn.ConvTranspose3d(1, 2, 3), {"weight": WEIGHT, "bias": BIAS}),
        (
            nn.LSTM(2, 3, bidirectional=True),
            {
                "weight_ih_l0": WEIGHT,
                "weight_hh_l0": WEIGHT,
                "bias_ih_l0": BIAS,
                "bias_hh_l0": BIAS,
                "weight_ih_l0_reverse": WEIGHT,
                "weight_hh_l0_reverse": WEIGHT,
                "bias_ih_l0_reverse": BIAS,
                "bias_hh_l0_reverse": BIAS,
            },
        ),
        (
            nn.LSTM(2, 4, proj_size=3, bias=False),
            {"weight_ih_l0": WEIGHT, "weight_hh_l0": WEIGHT, "weight_hr_l0": WEIGHT},
        ),
        (
            nn.GRU(2, 3, num_layers=2, bias=False),
            {"weight_ih_l0": WEIGHT, "weight_hh_l0": WEIGHT, "weight_ih_l1": WEIGHT, "weight_hh_l1": WEIGHT},
        ),
        (
            nn.RNN(2, 3),
            {"weight_ih_l0": WEIGHT, "weight_hh_l0": WEIGHT, "bias_ih_l0": BIAS, "bias_hh_l0": BIAS},
        ),
        (nn.GRUCell(2, 3), {"weight_ih": WEIGHT, "weight_hh": WEIGHT, "bias_ih": BIAS, "bias_hh": BIAS}),
        (nn.LSTMCell(2, 3), {"weight_ih": WEIGHT, "weight_hh": WEIGHT, "bias_ih": BIAS, "bias_hh": BIAS}),
        (
            nn.MultiheadAttention(4, 2),
            {"in_proj_weight": WEIGHT, "in_proj_bias": BIAS, "out_proj.weight": WEIGHT, "out_proj.bias": BIAS},
        ),
        (
            nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False, add_bias_kv=True),
            {
                "q_proj_weight": WEIGHT,
                "k_proj_weight": WEIGHT,
                "v_proj_weight": WEIGHT,
                "bias_k": BIAS,
                "bias_v": BIAS,
                "out_proj.weight": WEIGHT,
            },
        ),
        (nn.BatchNorm1d(3), {"weight": NORM, "bias": NORM}),
        (nn.BatchNorm2d(3), {"weight": NORM, "bias": NORM}),
        (nn.BatchNorm3d(3), {"weight": NORM, "bias": NORM}),
        (nn.BatchNorm1d(3, affine=False), {}),
        (nn.InstanceNorm2d(3, affine=True), {"weight": NORM, "bias": NORM}),
        (nn.LayerNorm(3), {"weight": NORM, "bias": NORM}),
        # As many dimensions as a matrix: the type counts, not the shape.
        (nn.LayerNorm((3, 4)), {"weight": NORM, "bias": NORM}),
        (nn.GroupNorm(1, 3), {"weight": NORM, "bias": NORM}),
        (nn.RMSNorm(3), {"weight": NORM}),
        (nn.PReLU(), {"weight": "slope"}),
        (nn.PReLU(4), {"weight": "slope"}),
        (nn.Embedding(5, 3), {"weight": "embedding"}),
        (nn.EmbeddingBag(5, 3), {"weight": "embedding"}),
        (nn.ReLU(), {}),
    ],
    ids=lambda value: str(value).partition("(")[0] if isinstance(value, nn.Module) else "",
)
def test_roles(layer: nn.Module, expected: dict[str, str]) -> None:
    assert parameter_roles(layer) == expected
    # Weights alone are penalised, wherever the layer stands.
    network = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    assert parameter_roles(network) == {f"1.0.{name}": role for name, role in expected.items()}
    assert penalised_names(network) == {f"1.0.{name}" for name, role in expected.items() if role == "weight"}


class MyLinear(nn.Linear):
    """A linear layer of the user's own, with a further parameter."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.gate = nn.Parameter(torch.ones(2))


class Patches(nn.Module):
    """A class token and a positional embedding beside known layers, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.body = nn.Module()
        self.body.position = nn.Parameter(torch.zeros(1, 9, 4))
        self.head = nn.Linear(4, 2)
        self.words = nn.Embedding(7, 4)


def test_subclass_has_the_roles_of_its_layer() -> None:
    assert parameter_roles(MyLinear()) == {"weight": WEIGHT, "bias": BIAS, "gate": None}


def test_every_parameter_has_a_role_and_order_is_that_of_the_network() -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.TransformerEncoderLayer(4, 2, 8), nn.PReLU(), nn.Linear(4, 2))
    roles = parameter_roles(network)
    assert set(roles) == {name for name, _ in network.named_parameters()}
    assert penalised_names(network) == {
        "1.self_attn.in_proj_weight",
        "1.self_attn.out_proj.weight",
        "1.linear1.weight",
        "1.linear2.weight",
        "3.weight",
    }


def test_tied_weights_are_named_once() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    network[2].weight = network[0].weight
    assert parameter_roles(network) == {"0.weight": WEIGHT, "0.bias": BIAS, "2.bias": BIAS}
    assert penalised_names(network) == {"0.weight"}
    assert set(parameter_roles(network)) == {name for name, _ in network.named_parameters()}


def test_equal_weights_are_not_tied() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].load_state_dict(network[0].state_dict())
    assert penalised_names(network) == {"0.weight", "1.weight"}


@pytest.mark.parametrize(
    ("network", "name"),
    [(MyLinear(), "gate"), (Patches(), "token"), (nn.Sequential(nn.ReLU(), Patches()), r"1\.token")],
)
def test_unknown_parameter_is_named(network: nn.Module, name: str) -> None:
    message = rf"^parameter {name} of the network .*penalty\.include=\[{name}\] or penalty\.exclude=\[{name}\]$"
    with pytest.raises(UserError, match=message):
        penalised_names(network)


def test_every_unknown_parameter_must_be_settled() -> None:
    with pytest.raises(UserError, match=r"^parameter body\.position of the network"):
        penalised_names(Patches(), exclude=["token"])


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["token", "body.position"], [], {"token", "body.position", "head.weight"}),
        ([], ["token", "body.*"], {"head.weight"}),
        (["token"], ["body.position"], {"token", "head.weight"}),
        (["*.position"], ["token", "head.*"], {"body.position"}),
        # What is excluded stays so, whatever else is said.
        (["*"], ["token", "head.bias"], {"body.position", "head.weight", "words.weight"}),
        (["*"], ["*"], set()),
        (["words.weight"], ["token", "body.position"], {"words.weight", "head.weight"}),
        (["head.bias"], ["token", "body.position"], {"head.bias", "head.weight"}),
        (["[tb]*"], ["words.weight"], {"token", "body.position", "head.weight"}),
    ],
)
def test_patterns_win_over_roles(include: list[str], exclude: list[str], expected: set[str]) -> None:
    assert penalised_names(Patches(), include=include, exclude=exclude) == expected


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["heads.*"], [], r"^penalty\.include=heads\.\*: matches no parameter; allowed are token, .*head\.weight"),
        (["token"], ["body.positions"], r"^penalty\.exclude=body\.positions: matches no parameter; allowed are"),
        # The whole name must match, in upper and lower case as it is written.
        (["oken"], [], r"^penalty\.include=oken: matches no parameter"),
        (["Token"], [], r"^penalty\.include=Token: matches no parameter"),
        (["token", "nothing"], [], r"^penalty\.include=nothing: matches no parameter"),
    ],
)
def test_pattern_that_matches_nothing_is_named(include: list[str], exclude: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        penalised_names(Patches(), include=include, exclude=exclude)
