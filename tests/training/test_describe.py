"""Descriptive measures against closed forms, explicit Jacobians and singular value decompositions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from overfit_lab import config as cfg
from overfit_lab.data import Source, load_source
from overfit_lab.model import MLP, initialise
from overfit_lab.objective import Penalty
from overfit_lab.task import Task, make_task
from overfit_lab.training import describe as package
from overfit_lab.training.describe import Description, curvature_factor, describe, effective_dof, join
from overfit_lab.training.history import History
from overfit_lab.training.measure import CHUNK_ELEMENTS
from overfit_lab.training.stack import Form
from overfit_lab.training.stack.layered import LayeredNetwork
from tests.data.dense import dense
from tests.training.cohorts import Cohort, custom, make_cohort, mlp

CASES: list[tuple[cfg.Problem, str]] = [
    ("binary", "auto"),
    ("multiclass", "auto"),
    ("multilabel", "auto"),
    ("regression", "auto"),
    ("unit_regression", "mean_squared_error"),
    ("unit_regression", "binary_cross_entropy"),
]
TASKS = [
    make_task(cfg.TaskConfig.model_validate({"name": "auto", "loss": loss, "metrics": "auto"}), problem)
    for problem, loss in CASES
]
NAMES = [f"{task.problem} {task.loss_name}" for task in TASKS]
REGRESSION, BINARY = TASKS[3], TASKS[0]


def _describe(cohort: Cohort, fold: tuple[int, int] = (0, 0)) -> Description:
    module = cohort.module
    cpu = torch.device("cpu")
    return describe(
        module.network, module.task, cohort.data, module.weight_names, module.l1, module.l2, fold=fold, device=cpu
    )


def _targets(task: Task, rows: int, outputs: int) -> Tensor:
    if task.problem == "multiclass":
        return torch.arange(rows) % outputs
    return torch.linspace(0.05, 0.95, rows * outputs, dtype=torch.float64).view(rows, outputs)


def _curvatures(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's second derivative by autograd; for a sigmoid's squared error, the Gauss-Newton part of it."""
    if task.problem == "unit_regression" and task.loss_name == "mean_squared_error":
        slopes = torch.stack([jacrev(torch.sigmoid)(row) for row in logits])
        return 2 / logits.shape[1] * slopes.transpose(1, 2) @ slopes

    def second(z: Tensor, y: Tensor) -> Tensor:
        curvature: Tensor = jacrev(jacrev(lambda own: task.loss(own[None], y[None])[0]))(z)
        return curvature

    return torch.stack([second(z, y) for z, y in zip(logits, targets, strict=True)])


def _slow(task: Task, network: nn.Module, x: Tensor, weights: set[str], alpha: float) -> float:
    """The trace of G (G + A)^-1 with an explicit Jacobian, parameters x parameters."""
    values = {name: value.detach().double() for name, value in network.named_parameters()}
    parts = jacrev(lambda own: functional_call(network, own, (x,)))(values)
    jacobian = torch.cat([part.flatten(2) for part in parts.values()], -1)
    with torch.no_grad():
        logits = functional_call(network, values, (x,))
    curvatures = _curvatures(task, logits, _targets(task, *logits.shape))
    matrix = torch.einsum("nkp,nkl,nlq->pq", jacobian, curvatures, jacobian) / len(x)
    ridge = 1e-10 * float(torch.linalg.eigvalsh(matrix)[-1])
    strengths = [
        torch.full((value.numel(),), max(alpha, ridge) if name in weights else ridge, dtype=torch.float64)
        for name, value in values.items()
    ]
    return float(torch.trace(torch.linalg.solve(matrix + torch.diag(torch.cat(strengths)), matrix)))


def _network(activation: cfg.Activation, inputs: int, outputs: int, seed: int = 0) -> LayeredNetwork:
    return LayeredNetwork([[initialise(mlp(5, activation, 0.2), inputs, outputs, seed=seed, repeat=0, fold=0)]])


def _member(network: LayeredNetwork) -> dict[str, Tensor]:
    return {name: value[0, 0] for name, value in network.stacked_parameters().items()}


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_the_factor_of_a_loss_is_that_of_its_second_derivative(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 3, dtype=torch.float64, generator=generator)
    factor = curvature_factor(task, logits)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), _curvatures(task, logits, _targets(task, 6, 3)))


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.1, 10.0])
def test_a_linear_regression_has_the_degrees_of_freedom_of_ridge(alpha: float) -> None:
    """tr X (X'X + n alpha / 2)^-1 X' of centred inputs, and one for the intercept, which is free."""
    x = np.random.default_rng(0).normal(2, [1, 3, 0.1, 1], (30, 4))
    centred = x - x.mean(0)
    hat = centred @ np.linalg.solve(centred.T @ centred + 30 * alpha / 2 * np.eye(4), centred.T)
    values = {"weight": torch.randn(1, 4), "bias": torch.randn(1)}
    found = effective_dof([("", nn.Linear(4, 1))], values, REGRESSION, torch.from_numpy(x), {"weight"}, alpha)
    assert found == pytest.approx(1 + np.trace(hat), rel=1e-5)
    if alpha == 0:
        assert found == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("alpha", [1e-4, 1e-2])
def test_random_features_have_those_of_ridge_on_them(alpha: float) -> None:
    model = cfg.RandomFeaturesModel(_target_="overfit_lab.model.RandomFeatures", features=9)
    network = LayeredNetwork([[initialise(model, 4, 1, seed=0, repeat=0, fold=0)]])
    directions = network.stacked_constants()["0.directions"][0, 0]
    x = np.random.default_rng(0).normal(size=(30, 4))
    features = np.maximum(x @ directions.double().numpy().T, 0)
    centred = features - features.mean(0)
    hat = centred @ np.linalg.solve(centred.T @ centred + 30 * alpha / 2 * np.eye(9), centred.T)
    values = {**_member(network), "0.directions": directions}
    found = effective_dof(network.layers(), values, REGRESSION, torch.from_numpy(x), {"1.weight"}, alpha)
    assert found == pytest.approx(1 + np.trace(hat), rel=1e-5)


def test_trained_random_features_are_described(tmp_path: Path) -> None:
    model = cfg.RandomFeaturesModel(_target_="overfit_lab.model.RandomFeatures", features=9)
    cohort = make_cohort(load_source("wine"), model=model, penalties=[Penalty(0.0, 0.1)], epochs=3)
    cohort.train(tmp_path / "c.ckpt")
    found = _describe(cohort)
    network, data = cohort.module.network, cohort.data
    assert isinstance(data.train.x, Tensor)
    x, y = data.train.x[0, : data.train.sizes[0]].numpy(), data.train.y[0, : data.train.sizes[0]].numpy()
    directions = network.stacked_constants()["0.directions"][0, 0].numpy()
    weight, bias = (network.stacked_parameters()[f"1.{kind}"][0, 0].numpy() for kind in ("weight", "bias"))
    logits = np.maximum(x @ directions.T, 0) @ weight.T + bias
    of_class = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    norms = [np.linalg.svd(matrix, compute_uv=False)[0] for matrix in (directions, weight)]
    expected = np.quantile(of_class - logits.max(1), 0.1) / np.prod(norms)
    assert found.normalised_margin[0, 0].item() == pytest.approx(expected, rel=1e-9)
    assert 0 < found.effective_dof[0, 0] < 3 * 10


@pytest.mark.parametrize("alpha", [0.0, 1e-2, 1.0])
def test_a_logistic_regression_has_those_of_its_information_matrix(alpha: float) -> None:
    rng = np.random.default_rng(1)
    x, w, b = rng.normal(size=(40, 3)), rng.normal(size=3), 0.7
    p = 1 / (1 + np.exp(-(x @ w + b)))
    design = np.column_stack([x, np.ones(40)])
    information = design.T @ (design * (p * (1 - p))[:, None]) / 40
    ridge = 1e-10 * np.linalg.eigvalsh(information)[-1]
    strengths = np.diag([max(alpha, ridge)] * 3 + [ridge])
    expected = np.trace(information @ np.linalg.inv(information + strengths))
    values = {"weight": torch.from_numpy(w[None]), "bias": torch.tensor([b])}
    found = effective_dof([("", nn.Linear(3, 1))], values, BINARY, torch.from_numpy(x), {"weight"}, alpha)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.3])
@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_a_network_has_those_of_its_explicit_jacobian(task: Task, alpha: float) -> None:
    outputs = 1 if task.problem == "binary" else 3
    network = _network("tanh", 4, outputs)
    x = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = {name for name in network.shapes if name.endswith("weight")}
    plain = network.skeleton[0].double().eval()
    with torch.no_grad():
        for name, value in plain.named_parameters():
            value.copy_(_member(network)[name])
    expected = _slow(task, plain, x, weights, alpha)
    found = effective_dof(network.layers(), _member(network), task, x, weights, alpha)
    # Without a penalty it is a rank, and eigenvalues near the threshold are no more exact than it.
    assert found == pytest.approx(expected, rel=1e-3 if alpha == 0 else 1e-5)
    assert 0 < found <= 12 * outputs


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "gelu", "elu", "leaky_relu", "silu", "quadratic"])
def test_every_activation_has_its_derivative(activation: cfg.Activation) -> None:
    network = _network(activation, 4, 2)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    # A bias that is penalised, and a weight that is not.
    weights = {"0.weight", "3.bias", "6.weight"}
    plain = network.skeleton[0].double().eval()
    with torch.no_grad():
        for name, value in plain.named_parameters():
            value.copy_(_member(network)[name])
    expected = _slow(REGRESSION, plain, x, weights, 0.05)
    assert effective_dof(network.layers(), _member(network), REGRESSION, x, weights, 0.05) == pytest.approx(
        expected, rel=1e-4
    )


def test_more_decay_leaves_fewer_parameters_and_nothing_is_none() -> None:
    network = _network("tanh", 4, 2)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = {name for name in network.shapes if name.endswith("weight")}
    found = [effective_dof(network.layers(), _member(network), REGRESSION, x, weights, a) for a in (0, 1e-3, 0.1, 10)]
    assert found == sorted(found, reverse=True)
    broken = {name: value * math.inf for name, value in _member(network).items()}
    assert math.isnan(effective_dof(network.layers(), broken, REGRESSION, x, weights, 0.1))
    linear = [("", nn.Linear(2, 1, bias=False))]
    assert effective_dof(linear, {"weight": torch.ones(1, 2)}, REGRESSION, torch.zeros(3, 2), {"weight"}, 0.1) == 0


WIDTHS = (3, 8, 5, 8)


def _mixed(**changes: Any) -> Cohort:  # noqa: ANN401 - any argument
    """Widths, penalties and rates of their own; the last member's explodes."""
    settings: dict[str, Any] = {
        "penalties": [Penalty(0.0, 0.0), Penalty(0.0, 0.1), Penalty(0.01, 0.1), Penalty(0.0, 0.1)],
        "optimizers": [cfg.SGD(kind="sgd", lr=lr) for lr in (0.1, 0.1, 0.1, 1e30)],
        "models": [mlp(width, "tanh", 0.2) for width in WIDTHS],
        "precision": "32-true",
        "epochs": 4,
    }
    return make_cohort(load_source("wine"), **(settings | changes))


def _plain(cohort: Cohort, stream: int, configuration: int) -> nn.Module:
    """One member as a network of its own size, in float64."""
    network = cohort.module.network
    plain = MLP(13, 3, width=WIDTHS[configuration], depth=2, activation="tanh", dropout=0.0).double()
    with torch.no_grad():
        for name, value in plain.named_parameters():
            value.copy_(network.stacked_parameters()[name][stream, configuration][tuple(map(slice, value.shape))])
    return plain.eval()


def test_members_of_a_cohort_are_described_one_by_one(tmp_path: Path) -> None:
    cohort = _mixed()
    cohort.train(tmp_path / "c.ckpt")
    found = _describe(cohort, fold=(0, 1))
    # Streams lie seed by seed: those of fold 1 are the second and the fifth. 400 values are 133 rows of three outputs.
    rows = [cohort.data.train.sizes[fold] for fold in cohort.data.fold_of_stream]
    assert found.effective_dof_rows == (0, rows[1], 0, 0, rows[4], 0)
    assert found.effective_dof[[0, 2, 3, 5]].isnan().all()
    for s in (1, 4):
        x = dense(cohort.data.train.x)[cohort.data.fold_of_stream[s], : rows[s]].double()
        for c, alpha in ((0, 0.0), (1, 0.1)):
            expected = _slow(cohort.module.task, _plain(cohort, s, c), x, set(cohort.module.weight_names), alpha)
            assert float(found.effective_dof[s, c]) == pytest.approx(expected, rel=1e-2 if alpha == 0 else 1e-5)
        # An absolute value has no curvature; what has diverged has nothing.
        assert found.effective_dof[s, 2:].isnan().all()


def test_of_many_rows_a_fixed_subset_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = _mixed()
    cohort.train(tmp_path / "c.ckpt")
    monkeypatch.setattr(package, "MAX_KERNEL", 32)
    found, again = (_describe(cohort) for _ in range(2))
    assert found.effective_dof_rows == (10, 0, 0, 10, 0, 0)
    assert torch.equal(found.effective_dof[0, :2], again.effective_dof[0, :2])
    chosen = package._chosen_rows(cohort.data.train.sizes[0], 3, (0, 0))
    assert len(set(chosen.tolist())) == 10
    x = dense(cohort.data.train.x)[0, chosen].double()
    expected = _slow(cohort.module.task, _plain(cohort, 0, 1), x, set(cohort.module.weight_names), 0.1)
    assert float(found.effective_dof[0, 1]) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(package, "MAX_KERNEL", 2)
    assert _describe(cohort).effective_dof.isnan().all()


def _slow_margin(network: nn.Module, x: NDArray[np.float64], y: NDArray[Any]) -> float:
    with torch.no_grad():
        logits = network(torch.from_numpy(x)).numpy()
    if logits.shape[1] == 1:
        margins = [z[0] if label == 1 else -z[0] for z, label in zip(logits, y.ravel(), strict=True)]
    else:
        margins = [z[label] - np.delete(z, label).max() for z, label in zip(logits, y, strict=True)]
    layers = [value.detach().numpy() for name, value in network.named_parameters() if name.endswith("weight")]
    return float(np.quantile(margins, 0.1) / np.prod([np.linalg.svd(w)[1][0] for w in layers]))


@pytest.mark.parametrize("chunk", [500, 10**8])
def test_margins_are_those_of_a_slow_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", chunk)
    cohort = _mixed()
    cohort.train(tmp_path / "c.ckpt")
    found = _describe(cohort).normalised_margin
    part = cohort.data.train_measured
    for s, fold in enumerate(cohort.data.fold_of_stream):
        x, y = (rows[fold, : part.sizes[fold]].numpy() for rows in (dense(part.x), part.y))
        for c in range(3):
            assert float(found[s, c]) == pytest.approx(
                _slow_margin(_plain(cohort, s, c), x.astype(np.float64), y), rel=1e-3, abs=1e-6
            )
    assert found[:, 3].isnan().all()


def test_a_margin_of_two_classes_is_the_logit_with_the_sign_of_the_class(tmp_path: Path) -> None:
    cohort = make_cohort(
        load_source("breast_cancer"), epochs=2, model=cfg.LinearModel(_target_="overfit_lab.model.Linear")
    )
    cohort.train(tmp_path / "c.ckpt")
    found, part = _describe(cohort).normalised_margin, cohort.data.train_measured
    for s, fold in enumerate(cohort.data.fold_of_stream):
        x, y = (rows[fold, : part.sizes[fold]].numpy() for rows in (dense(part.x), part.y))
        values = {name: value[s, 0].numpy() for name, value in cohort.module.network.stacked_parameters().items()}
        logits = x @ values["0.weight"][0] + values["0.bias"]
        expected = np.quantile(np.where(y[:, 0] == 1, logits, -logits), 0.1) / np.linalg.norm(values["0.weight"])
        assert float(found[s, 0]) == pytest.approx(expected, rel=1e-9)


def test_regression_has_no_margin(tmp_path: Path) -> None:
    cohort = make_cohort(load_source("linnerud"), epochs=2)
    cohort.train(tmp_path / "c.ckpt")
    found = _describe(cohort)
    assert found.normalised_margin.isnan().all()
    assert found.effective_dof[0].isfinite().all()


@pytest.mark.parametrize(("form", "name"), [("vmapped", "Unbiased"), ("looped", "Branching")])
def test_other_networks_are_not_described(tmp_path: Path, form: Form, name: str) -> None:
    cohort = make_cohort(load_source("iris"), model=custom(name), form=form, epochs=2)
    history = cohort.train(tmp_path / "c.ckpt")
    found = _describe(cohort)
    assert found.effective_dof.isnan().all()
    assert found.normalised_margin.isnan().all()
    assert set(found.effective_dof_rows) == {0}
    # Their weights are known all the same.
    assert (history.curve("train", "weight_norm") > 0).all()


def test_describing_changes_nothing_and_parts_are_joined(tmp_path: Path) -> None:
    cohort = _mixed()
    cohort.train(tmp_path / "c.ckpt")
    network, x = cohort.module.network, dense(cohort.data.train_measured.x).clone()
    before = network.flat.clone()
    whole = _describe(cohort)
    assert torch.equal(network.flat.nan_to_num(), before.nan_to_num())
    assert torch.equal(dense(cohort.data.train_measured.x), x)
    parts = []
    for seed in (0, 1):
        part = _mixed(only=lambda s, seed=seed: s.seed == seed)
        part.train(tmp_path / "c.ckpt")
        parts.append(_describe(part))
    joined = join(parts)
    assert joined.effective_dof_rows == whole.effective_dof_rows
    torch.testing.assert_close(joined.effective_dof, whole.effective_dof, rtol=1e-3, atol=0, equal_nan=True)
    torch.testing.assert_close(joined.normalised_margin, whole.normalised_margin, rtol=1e-3, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("form", ["layered", "vmapped", "looped"])
def test_norms_are_those_of_the_weights_as_a_listener_sees_them(tmp_path: Path, form: Form, precision: str) -> None:
    seen: list[dict[str, NDArray[np.float64]]] = []

    def look(_: History) -> None:
        values = cohort.module.network.stacked_parameters()
        seen.append({name: value.double().numpy().copy() for name, value in values.items()})

    cohort = _mixed(form=form, precision=precision, listeners=[look])
    history = cohort.train(tmp_path / "c.ckpt")
    for s, c in ((0, 0), (2, 1), (5, 2)):
        for epoch, values in enumerate(seen):
            now, then = (_weights(own, s, c) for own in (values, seen[0]))
            assert history.curve("train", "weight_norm")[s, c, epoch] == pytest.approx(
                math.sqrt((now**2).sum()), rel=1e-6
            )
            distance = history.curve("train", "distance_from_init")[s, c, epoch]
            assert distance == pytest.approx(math.sqrt(((now - then) ** 2).sum()), rel=1e-5)
    assert (history.curve("train", "distance_from_init")[:, :3, 0] == 0).all()
    assert (history.curve("train", "distance_from_init")[:, :3, 1:] > 0).all()


def _weights(values: Mapping[str, NDArray[np.float64]], stream: int, configuration: int) -> NDArray[np.float64]:
    own = [value[stream, configuration].ravel() for name, value in values.items() if name.endswith("weight")]
    return np.concatenate(own)


def test_a_network_whose_weights_are_unknown_has_no_norms(tmp_path: Path) -> None:
    cohort = make_cohort(Source("two", "binary", np.eye(20), np.arange(20) % 2), epochs=1)
    cohort.module.weight_names = frozenset()
    cohort.module._initial = []
    assert ("train", "weight_norm") not in cohort.train(tmp_path / "c.ckpt").curves
