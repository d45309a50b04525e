from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from overfit_lab.errors import UserError
from overfit_lab.model import MLP, SeededDropout, with_seeded_dropout
from overfit_lab.model.dropout import dropout_shapes


def drop(rate: float, x: Tensor, noise: Tensor, training: bool = True) -> Tensor:
    layer = SeededDropout(rate).to(x.dtype).train(training)
    result: Tensor = functional_call(layer, {"noise": noise}, (x,))
    return result


def test_by_hand() -> None:
    # Dropped where the noise is below the rate; the rest is divided by 1 - .2.
    x = torch.tensor([[1.0, 2.0, -3.0, 4.0]])
    noise = torch.tensor([[0.1, 0.3, 0.9, 0.0]])
    assert drop(0.2, x, noise).tolist() == [[0.0, 2.5, -3.75, 0.0]]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-15)])
def test_agrees_with_torch_on_the_same_mask(rate: float, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 30, dtype=dtype)
    expected = nn.Dropout(rate)(x)
    # Noise that leads to the mask that torch has drawn.
    noise = torch.where(expected == 0, rate / 2, (1 + rate) / 2)
    found = drop(rate, x, noise)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)


def test_drops_the_share_it_is_told_and_keeps_the_mean() -> None:
    noise = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = drop(0.1, torch.ones(100_000, dtype=torch.float64), noise)
    assert (found == 0).double().mean().item() == pytest.approx(0.1, abs=0.005)
    assert found.mean().item() == pytest.approx(1, abs=0.005)


def test_rate_0_drops_nothing() -> None:
    x = torch.randn(4, 5)
    noise = torch.zeros(4, 5)  # the smallest number that can be drawn
    assert torch.equal(drop(0.0, x, noise), x)


def test_eval_mode_changes_nothing_and_needs_no_noise() -> None:
    x = torch.randn(4, 5)
    assert torch.equal(drop(0.5, x, torch.zeros(4, 5), training=False), x)
    assert torch.equal(SeededDropout(0.5).eval()(x), x)


def test_gradient_passes_where_nothing_is_dropped() -> None:
    x = torch.ones(4, dtype=torch.float64, requires_grad=True)
    drop(0.2, x, torch.tensor([0.1, 0.3, 0.9, 0.19])).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([0, 1.25, 1.25, 0], rel=1e-12)


def test_noise_comes_from_the_caller_alone() -> None:
    before = torch.get_rng_state()
    drop(0.5, torch.ones(3, 3), torch.full((3, 3), 0.7))
    assert torch.equal(torch.get_rng_state(), before)


def test_members_may_have_rates_of_their_own() -> None:
    rates, x, noise = [0.0, 0.2, 0.5], torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.3, 0.6])
    skeleton = SeededDropout(0.9)
    _, buffers = stack_module_state([SeededDropout(rate) for rate in rates])

    def one(rate: Tensor) -> Any:  # noqa: ANN401
        return functional_call(skeleton, {"rate": rate, "noise": noise}, (x,))

    found = vmap(one)(buffers["rate"])
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, 3.0], [0.0, 2.5, 3.75], [0.0, 0.0, 6.0]]))


def test_checkpoint_holds_the_rate_but_no_noise() -> None:
    assert list(SeededDropout(0.5).state_dict()) == ["rate"]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Dropout(0.25)))
        self.drop = nn.Dropout(0.5)
        self.head = nn.ModuleDict({"out": nn.Linear(6, 2)})

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head["out"](self.drop(self.body(x)))
        return logits


def rates(network: nn.Module) -> dict[str, float]:
    return {
        name: round(module.rate.item(), 6)
        for name, module in network.named_modules()
        if isinstance(module, SeededDropout)
    }


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for _, module in network.named_modules(remove_duplicate=False)]


def test_nested_layers_are_replaced_in_place() -> None:
    network = Nested()
    others = {name: m for name, m in network.named_modules() if not isinstance(m, nn.Dropout)}
    assert with_seeded_dropout(network) is network
    assert rates(network) == {"body.1.1": 0.25, "drop": 0.5}
    assert nn.Dropout not in kinds(network)
    modules = dict(network.named_modules())
    assert all(modules[name] is module for name, module in others.items())


def test_bare_layer_is_replaced() -> None:
    replaced = with_seeded_dropout(nn.Dropout(0.3))
    assert isinstance(replaced, SeededDropout)
    assert replaced.rate.item() == pytest.approx(0.3)


def test_replacing_twice_is_replacing_once() -> None:
    network = with_seeded_dropout(with_seeded_dropout(Nested()))
    assert rates(network) == {"body.1.1": 0.25, "drop": 0.5}


def test_layer_in_several_places_is_replaced_in_each() -> None:
    # The one that is left behind would draw from the global generator.
    shared = nn.Dropout(0.5)
    network = with_seeded_dropout(nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared))
    assert nn.Dropout not in kinds(network)


def test_replaced_layer_keeps_the_mode() -> None:
    network = with_seeded_dropout(Nested().eval())
    assert not any(module.training for module in network.modules())


def test_shapes_of_the_noise() -> None:
    network = MLP(4, 2, width=5, depth=2, activation="relu", dropout=0.5)
    assert dropout_shapes(with_seeded_dropout(network), torch.zeros(1, 4)) == {"2.noise": (5,), "5.noise": (5,)}
    assert dropout_shapes(with_seeded_dropout(Nested()), torch.zeros(3, 4)) == {
        "body.1.1.noise": (6,),
        "drop.noise": (6,),
    }
    assert dropout_shapes(SeededDropout(0.5), torch.zeros(3, 7)) == {"noise": (7,)}
    assert dropout_shapes(nn.Linear(4, 2), torch.zeros(1, 4)) == {}


def test_shapes_of_the_noise_within_a_convolution() -> None:
    network = with_seeded_dropout(nn.Sequential(nn.Conv1d(1, 3, 2), nn.Dropout(0.5), nn.Conv1d(3, 1, 2)))
    shapes = dropout_shapes(network, torch.zeros(2, 1, 8))
    assert shapes == {"1.noise": (3, 7)}
    # Nothing goes on listening: a pass over another length leaves the answer as it was.
    network.eval()(torch.zeros(2, 1, 20))
    assert shapes == {"1.noise": (3, 7)}


@pytest.mark.parametrize("training", [True, False])
def test_finding_shapes_leaves_mode_statistics_and_generator(training: bool) -> None:
    norm = nn.BatchNorm1d(5)
    network = with_seeded_dropout(nn.Sequential(nn.Linear(4, 5), norm, nn.Dropout(0.5))).train(training)
    before = torch.get_rng_state()
    dropout_shapes(network, torch.ones(3, 4))
    assert all(module.training == training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0] * 5


class Twice(nn.Module):
    """Calls its one dropout layer after each hidden layer, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(4, 6), nn.Linear(6, 5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.drop(self.second(self.drop(self.first(x))))
        return hidden


def test_layer_that_is_called_twice_is_refused_by_name() -> None:
    # It has one noise: of a wrong shape for one of the calls, or the same mask in both.
    with pytest.raises(UserError, match="drop"):
        dropout_shapes(with_seeded_dropout(Twice()), torch.zeros(1, 4))
