from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from torch import Tensor

from overfit_lab.config import ElasticNetPenalty, L1Penalty, L2Penalty, NoPenalty
from overfit_lab.objective import Penalty, make_penalty
from overfit_lab.objective.penalty import add_penalty_gradient, penalty_per_member, stack_strengths

RNG = np.random.default_rng(0)
# Two streams of three configurations; a matrix, a kernel, a vector and a scalar for each member.
SHAPES = [(2, 3, 4, 5), (2, 3, 2, 1, 3, 3), (2, 3, 6), (2, 3)]
STRENGTHS = [0.0, 0.5, 20.0]


def l2(alpha: float) -> L2Penalty:
    return L2Penalty(kind="l2", alpha=alpha, include=[], exclude=[])


def l1(alpha: float) -> L1Penalty:
    return L1Penalty(kind="l1", alpha=alpha, include=[], exclude=[])


def elastic_net(alpha: float, l1_ratio: float) -> ElasticNetPenalty:
    return ElasticNetPenalty(kind="elastic_net", alpha=alpha, l1_ratio=l1_ratio, include=[], exclude=[])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NoPenalty(kind="none"), Penalty(l1=0, l2=0)),
        (l2(0.25), Penalty(l1=0, l2=0.25)),
        (l1(0.25), Penalty(l1=0.25, l2=0)),
        (elastic_net(0.5, 0.25), Penalty(l1=0.125, l2=0.375)),
        (elastic_net(0.5, 0.0), Penalty(l1=0, l2=0.5)),
        (elastic_net(0.5, 1.0), Penalty(l1=0.5, l2=0)),
        (l2(0.0), Penalty(l1=0, l2=0)),
    ],
)
def test_strengths_of_each_kind(
    config: NoPenalty | L2Penalty | L1Penalty | ElasticNetPenalty, expected: Penalty
) -> None:
    assert make_penalty(config) == expected


def by_hand(weights: list[NDArray[np.float64]], l1: list[float] | None, l2: list[float] | None) -> NDArray[np.float64]:
    """Sum over every weight of one member at a time."""
    result = np.zeros((2, 3))
    for stream, configuration in np.ndindex(2, 3):
        for weight in weights:
            for w in weight[stream, configuration].flat:
                result[stream, configuration] += (l1[configuration] if l1 else 0) * abs(w)
                result[stream, configuration] += (l2[configuration] if l2 else 0) / 2 * w * w
    return result


@pytest.mark.parametrize("shapes", [SHAPES[:1], SHAPES[1:2], SHAPES[2:3], SHAPES[3:], SHAPES], ids=str)
@pytest.mark.parametrize(
    ("strengths_1", "strengths_2"),
    [(None, STRENGTHS), (STRENGTHS, None), (STRENGTHS, [3.0, 0.0, 0.25])],
    ids=["l2", "l1", "both"],
)
def test_each_member_has_a_penalty_of_its_own(
    shapes: list[tuple[int, ...]], strengths_1: list[float] | None, strengths_2: list[float] | None
) -> None:
    weights = [RNG.normal(size=shape) for shape in shapes]
    found = penalty_per_member(
        [torch.tensor(weight) for weight in weights],
        *(None if s is None else torch.tensor(s, dtype=torch.float64) for s in (strengths_1, strengths_2)),
    )
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, by_hand(weights, strengths_1, strengths_2), rtol=1e-12)


def test_nothing_penalised_costs_nothing() -> None:
    weight = torch.ones(2, 3, 4)
    assert penalty_per_member([], None, torch.ones(3)).item() == 0
    assert penalty_per_member([weight], None, None).item() == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_of_a_member_is_alpha_w_plus_alpha_sign_w(shape: tuple[int, ...]) -> None:
    weight = torch.tensor(RNG.normal(size=shape), requires_grad=True)
    strength_1, strength_2 = torch.tensor(STRENGTHS), torch.tensor([3.0, 0.0, 0.25])
    penalty_per_member([weight], strength_1, strength_2).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    for configuration in range(3):
        own = weight.detach()[:, configuration].numpy()
        expected = STRENGTHS[configuration] * np.sign(own) + [3.0, 0.0, 0.25][configuration] * own
        np.testing.assert_allclose(weight.grad[:, configuration], expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_member_that_is_nan_leaves_the_gradients_of_the_others(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    values[1, 2] = np.nan
    weight = torch.tensor(values, requires_grad=True)
    penalties = penalty_per_member([weight], torch.tensor(STRENGTHS), torch.tensor(STRENGTHS))
    penalties.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    healthy = [[True, True, True], [True, True, False]]
    assert penalties.isfinite().tolist() == healthy
    assert weight.grad.reshape(2, 3, -1).isfinite().all(-1).tolist() == healthy


PAIRS = [(None, STRENGTHS), (STRENGTHS, None), (STRENGTHS, [3.0, 0.0, 0.25]), (None, None)]


@pytest.mark.parametrize("shapes", [SHAPES[:1], SHAPES[1:2], SHAPES[2:3], SHAPES[3:], SHAPES], ids=str)
@pytest.mark.parametrize(("strengths_1", "strengths_2"), PAIRS, ids=["l2", "l1", "both", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_added_to_a_gradient_is_that_of_the_penalty(
    shapes: list[tuple[int, ...]],
    strengths_1: list[float] | None,
    strengths_2: list[float] | None,
    dtype: torch.dtype,
) -> None:
    """Against autograd, and beside what is there already; a weight of 0 has no sign."""
    rng = np.random.default_rng(1)
    l1, l2 = (None if s is None else torch.tensor(s, dtype=dtype) for s in (strengths_1, strengths_2))
    weights = [torch.tensor(rng.normal(size=shape), dtype=dtype) for shape in shapes]
    for weight in weights:
        weight[1, 1] = 0.0
    there = [torch.tensor(rng.normal(size=shape), dtype=dtype) for shape in shapes]
    leaves = [weight.clone().requires_grad_() for weight in weights]
    if l1 is not None or l2 is not None:
        penalty_per_member(leaves, l1, l2).sum().backward()  # type: ignore[no-untyped-call]
    expected = [g if leaf.grad is None else g + leaf.grad for g, leaf in zip(there, leaves, strict=True)]
    before, gradients = [weight.clone() for weight in weights], [g.clone() for g in there]
    add_penalty_gradient(weights, gradients, l1, l2)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)
    assert all(torch.equal(weight, kept) for weight, kept in zip(weights, before, strict=True))


def test_gradient_of_a_member_that_is_nan_stays_with_it() -> None:
    weight, gradient = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    weight[1, 2] = torch.nan
    add_penalty_gradient([weight], [gradient], torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.0, 2.0]))
    assert gradient[..., 0].tolist() == [[0.5, 1.0, 4.0], [0.5, 1.0, pytest.approx(torch.nan, nan_ok=True)]]


def test_each_weight_needs_its_gradient() -> None:
    with pytest.raises(ValueError, match="shorter"):
        add_penalty_gradient([torch.ones(1, 1)] * 2, [torch.ones(1, 1)], None, torch.ones(1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.0], None), ([], None), ([0.0, 1e-12], [0.0, 1e-12]), ([0.1, 3.0, 0.0], [0.1, 3.0, 0.0])],
)
def test_strengths_are_stacked_unless_all_are_0(values: list[float], expected: list[float] | None) -> None:
    stacked = stack_strengths(iter(values))
    if expected is None:
        assert stacked is None
    else:
        assert stacked is not None
        assert stacked.dtype == torch.float64
        assert stacked.tolist() == expected


# What the penalty means, told by others: the optimum of scikit-learn's model is a stationary point of J + penalty.


def regression(targets: int = 1) -> tuple[Tensor, Tensor]:
    x = RNG.normal(size=(60, 5))
    y = x @ RNG.normal(size=(5, targets)) + RNG.normal(size=(60, targets)) + 1
    return torch.tensor(x), torch.tensor(y)


def penalised(weight: Tensor, penalty: Penalty) -> Tensor:
    """The penalty of a single member."""
    strengths = [torch.tensor([s], dtype=torch.float64) for s in (penalty.l1, penalty.l2)]
    return penalty_per_member([weight[None, None]], *strengths).sum()


def fitted(model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Coefficients `targets x features` and intercepts, ready for a gradient."""
    model.fit(x.numpy(), y.numpy())
    weight = torch.tensor(np.atleast_2d(model.coef_), requires_grad=True)
    return weight, torch.tensor(np.atleast_1d(model.intercept_), requires_grad=True)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("alpha", [0.01, 0.5, 4.0])
def test_l2_is_ridge_regression(alpha: float, targets: int) -> None:
    x, y = regression(targets)
    # The mean squared error is a mean over targets, too.
    weight, bias = fitted(Ridge(alpha=60 * targets * alpha / 2, solver="cholesky"), x, y)
    loss = (x @ weight.T + bias - y).square().mean()
    (loss + penalised(weight, make_penalty(l2(alpha)))).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert bias.grad is not None
    assert loss.item() > 0.1
    np.testing.assert_allclose(weight.grad, 0, atol=1e-12)
    np.testing.assert_allclose(bias.grad, 0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_l2_is_penalised_logistic_regression(alpha: float) -> None:
    x, y = regression()
    y = (y > 1).double()
    weight, bias = fitted(LogisticRegression(C=1 / (60 * alpha), tol=1e-12, max_iter=10_000), x, y[:, 0])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight.T + bias, y)
    (loss + penalised(weight, make_penalty(l2(alpha)))).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.detach().abs().max() > 0.05
    np.testing.assert_allclose(weight.grad, 0, atol=1e-7)


@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("alpha", [0.1, 0.6])
def test_l1_and_elastic_net_are_those_of_scikit_learn(alpha: float, ratio: float) -> None:
    x, y = regression()
    model = Lasso(alpha=alpha, tol=1e-14) if ratio == 1 else ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-14)
    config = l1(alpha) if ratio == 1 else elastic_net(alpha, ratio)
    weight, bias = fitted(model, x, y[:, 0])
    # scikit-learn halves the squared error here.
    smooth = (x @ weight.T + bias - y).square().mean() / 2
    penalty = make_penalty(config)
    (smooth + penalised(weight, Penalty(l1=0, l2=penalty.l2))).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    # Where a weight is 0, the rest of the gradient stays within l1; elsewhere it is balanced by l1's own gradient.
    gradient, at_zero = weight.grad[0], weight[0] == 0
    assert (gradient[at_zero].abs() <= penalty.l1).all()
    np.testing.assert_allclose(gradient[~at_zero], -penalty.l1 * weight[0].sign()[~at_zero].detach(), atol=1e-7)
    assert (~at_zero).any()


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_step_of_gradient_descent_shrinks_the_weights_first(alpha: float) -> None:
    # w <- (1 - eps alpha) w - eps grad J, by hand and by torch's weight_decay.
    x, y = regression()
    start = torch.tensor(RNG.normal(size=(1, 5)))
    gradient = 2 * (start @ x.T - y.T) @ x / 60
    by_hand = (1 - 0.1 * alpha) * start - 0.1 * gradient

    in_loss, decayed = (start.clone().requires_grad_() for _ in range(2))
    optimizers = [torch.optim.SGD([in_loss], lr=0.1), torch.optim.SGD([decayed], lr=0.1, weight_decay=alpha)]
    for weight, penalty in ((in_loss, make_penalty(l2(alpha))), (decayed, Penalty(0, 0))):
        ((x @ weight.T - y).square().mean() + penalised(weight, penalty)).backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    np.testing.assert_allclose(in_loss.detach(), by_hand, rtol=0, atol=1e-14)
    np.testing.assert_allclose(decayed.detach(), by_hand, rtol=0, atol=1e-14)
