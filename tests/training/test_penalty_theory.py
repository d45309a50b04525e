"""The penalty against the textbook's closed forms, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from overfit_lab import config as cfg
from overfit_lab.data import Source
from overfit_lab.objective import Penalty
from overfit_lab.objective.penalty import penalty_per_member
from tests.data.dense import dense
from tests.training.cohorts import Cohort, make_cohort

PLAIN_SGD = cfg.SGD(kind="sgd", lr=0.1)


def _regression(rows: int, features: int, outputs: int) -> Source:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features))
    y = x @ rng.normal(size=(features, outputs)) + rng.normal(size=(rows, outputs))
    return Source("made up", "regression", x, y)


def _train_rows(cohort: Cohort, stream: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    fold = cohort.data.fold_of_stream[stream]
    size = cohort.data.train.sizes[fold]
    return dense(cohort.data.train.x)[fold, :size].numpy(), cohort.data.train.y[fold, :size].numpy()


@pytest.mark.parametrize("outputs", [1, 3])
def test_full_batch_descent_reaches_the_ridge_solution(outputs: int, tmp_path: Path) -> None:
    """Ridge(alpha = n K alpha / 2) minimises the same objective, with an intercept that is free."""
    alphas = [0.02, 0.5]
    cohort = make_cohort(
        _regression(60, 4, outputs),
        model=cfg.LinearModel(_target_="overfit_lab.model.Linear"),
        optimizer=cfg.SGD(kind="sgd", lr=0.3),
        penalties=[Penalty(0.0, alpha) for alpha in alphas],
        seeds=(0,),
        epochs=500,
        batch_size=1000,
    )
    cohort.train(tmp_path / "c.ckpt")
    weights = cohort.module.network.stacked_parameters()
    for stream in range(len(cohort.streams)):
        x, y = _train_rows(cohort, stream)
        for configuration, alpha in enumerate(alphas):
            ridge = Ridge(alpha=len(x) * outputs * alpha / 2, tol=1e-12).fit(x, y)
            ours = weights["0.weight"][stream, configuration].detach().numpy()
            np.testing.assert_allclose(ours, np.atleast_2d(ridge.coef_), rtol=1e-9, atol=1e-12)
            intercept = weights["0.bias"][stream, configuration].detach().numpy()
            np.testing.assert_allclose(intercept, np.atleast_1d(ridge.intercept_), rtol=1e-9, atol=1e-12)


def test_without_a_data_gradient_weights_shrink_geometrically_and_biases_stay(tmp_path: Path) -> None:
    """||w_k|| = (1 - eps alpha)^k ||w_0||; inputs of zero and a cut head make the data gradient vanish."""
    source = Source("zeros", "regression", np.zeros((30, 3)), np.zeros(30))
    alpha, steps = 0.7, 4
    cohort = make_cohort(
        source,
        model=cfg.LinearModel(_target_="overfit_lab.model.Linear"),
        optimizer=PLAIN_SGD,
        penalties=[Penalty(0.0, alpha)],
        seeds=(0,),
        epochs=steps,
        batch_size=1000,
    )
    weights = cohort.module.network.stacked_parameters()
    with torch.no_grad():
        weights["0.bias"].zero_()
    before = weights["0.weight"].detach().double().clone()
    cohort.train(tmp_path / "c.ckpt")
    after = cohort.module.network.stacked_parameters()
    np.testing.assert_allclose(after["0.weight"].detach(), (1 - 0.1 * alpha) ** steps * before, rtol=1e-14)
    assert after["0.bias"].detach().abs().max() == 0


def test_three_ways_to_decay_agree_to_rounding() -> None:
    """In-loss penalty, torch's weight_decay, and w <- (1 - eps alpha) w - eps grad J, step by step."""
    torch.manual_seed(0)
    eps, alpha = 0.05, 0.3
    start = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    x = torch.randn(5, 7, dtype=torch.float64)
    in_loss, built_in, by_hand = (start.clone().requires_grad_() for _ in range(3))
    optimizer = torch.optim.SGD([built_in], lr=eps, weight_decay=alpha)
    strength = torch.tensor([alpha], dtype=torch.float64)
    for _ in range(20):
        loss = (in_loss @ x).tanh().sum() + penalty_per_member([in_loss], None, strength).sum()
        (gradient,) = torch.autograd.grad(loss, in_loss)
        optimizer.zero_grad()
        (built_in @ x).tanh().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        (data_gradient,) = torch.autograd.grad((by_hand @ x).tanh().sum(), by_hand)
        with torch.no_grad():
            in_loss -= eps * gradient
            by_hand.copy_((1 - eps * alpha) * by_hand - eps * data_gradient)
    torch.testing.assert_close(in_loss, by_hand, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(built_in, by_hand, rtol=1e-13, atol=1e-14)


def test_decoupled_decay_is_another_thing_than_a_penalty_under_adam(tmp_path: Path) -> None:
    source = _regression(60, 4, 1)
    adam = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    coupled = make_cohort(source, optimizer=cfg.Adam(kind="adam", **adam), penalties=[Penalty(0.0, 0.5)])
    decoupled = make_cohort(source, optimizer=cfg.AdamW(kind="adamw", **adam, decoupled_decay=0.5))
    curves = [c.train(tmp_path / "c.ckpt").curve("train", "loss") for c in (coupled, decoupled)]
    assert np.array_equal(curves[0][..., 0], curves[1][..., 0])
    assert np.abs(curves[0][..., -1] / curves[1][..., -1] - 1).min() > 1e-3


def test_decoupled_decay_leaves_biases_alone(tmp_path: Path) -> None:
    """With a learning rate of 0.1 and decay 2, weights lose a fifth each step; biases without a gradient nothing."""
    source = Source("zeros", "regression", np.zeros((30, 3)), np.zeros(30))
    optimizer = cfg.AdamW(kind="adamw", lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=2.0)
    cohort = make_cohort(source, optimizer=optimizer, seeds=(0,), epochs=1, batch_size=1000, activation="relu")
    weights = cohort.module.network.stacked_parameters()
    with torch.no_grad():
        for name, value in weights.items():
            if name.endswith("bias"):
                value.fill_(-1.0 if name != "4.bias" else 0.0)
    before = weights["0.weight"].detach().double().clone()
    cohort.train(tmp_path / "c.ckpt")
    after = cohort.module.network.stacked_parameters()
    np.testing.assert_allclose(after["0.weight"].detach(), 0.8 * before, rtol=1e-12)
    assert torch.equal(after["0.bias"].detach(), torch.full_like(after["0.bias"], -1.0))
