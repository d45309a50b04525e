"""Sparse inputs give the numbers that dense ones give, in every form of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from overfit_lab import config as cfg
from overfit_lab.data import Source
from overfit_lab.data.sparse_rows import SparseRows
from overfit_lab.model import initialise
from overfit_lab.objective import Penalty
from overfit_lab.training.describe import describe
from overfit_lab.training.history import History
from overfit_lab.training.measure import CHUNK_ELEMENTS, predict
from overfit_lab.training.stack import Form, choose_form
from overfit_lab.training.stack.sparse import SparseNetwork
from tests.reference import plain_loop
from tests.training.cohorts import ADAM, Cohort, custom, make_cohort, mlp

RMSPROP = cfg.RMSprop(kind="rmsprop", lr=0.01, smoothing=0.9, eps=1e-7)
ALPHAS = (0.0, 0.02, 0.3)


def words(rows: int = 50, columns: int = 30, *, dense: bool = False, problem: cfg.Problem = "binary") -> Source:
    """Rows with few values other than 0: some have none, some columns nobody has, some values are negative."""
    rng = np.random.default_rng(0)
    x = np.where(
        rng.random((rows, columns)) < rng.uniform(0, 0.3, columns), rng.choice([1.0, 1.0, -2.5], (rows, columns)), 0
    )
    x[3], x[:, 7] = 0, 0
    y = {
        "binary": rng.permutation(np.arange(rows) % 2),
        "multiclass": rng.permutation(np.arange(rows) % 3),
        "regression": rng.normal(size=(rows, 2)),
    }[problem]
    return Source("words", problem, x if dense else sparse.csr_array(x), y)


make = partial(make_cohort, scale_inputs=False)


def reference(cohort: Cohort, stream: int, model: cfg.ModelConfig, factory: Any, **keywords: Any) -> plain_loop.Fit:  # noqa: ANN401
    """Train one member in a plain loop, on dense rows."""
    source, own = words(dense=True), cohort.streams[stream]
    longest = max(len(f.train) for f in cohort.split.folds)
    steps = math.ceil(longest / cohort.training.batch_size)
    return plain_loop.fit(
        initialise(model, *source.sizes, seed=own.seed, repeat=own.repeat, fold=own.fold),
        source.x,
        source.y,
        next(f for f in cohort.split.folds if f.fold == own.fold),
        plain_loop.binary,
        factory,
        seed=own.seed,
        epochs=cohort.training.epochs,
        steps=steps,
        widest=math.ceil(longest / steps),
        scale=False,
        **keywords,
    )


def rmsprop(alpha: float) -> Any:  # noqa: ANN401
    def make(weights: list[nn.Parameter], others: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": alpha}, {"params": others}]
        return torch.optim.RMSprop(groups, lr=0.01, alpha=0.9, eps=1e-7)

    return make


def compare(history: History, stream: int, configuration: int, alone: plain_loop.Fit, tolerance: float) -> None:
    for split, curve in (("train", alone.train_loss), ("val", alone.val_loss)):
        ours = history.curve(split, "loss")[stream, configuration]
        np.testing.assert_allclose(ours, curve, rtol=tolerance, atol=tolerance)


def test_a_cohort_on_sparse_rows_is_the_plain_loop_on_dense_ones(tmp_path: Path) -> None:
    # Networks of two widths, with and without dropout, under three penalties, on six streams.
    models = [mlp(5, "relu", 0.0), mlp(8, "relu", 0.0), mlp(8, "relu", 0.4)]
    cohort = make(
        words(),
        penalties=[Penalty(0.0, alpha) for alpha in ALPHAS],
        models=models,
        optimizer=RMSPROP,
        epochs=30,
        form="sparse",
    )
    assert isinstance(cohort.module.network, SparseNetwork)
    assert isinstance(cohort.data.train.x, SparseRows)
    history = cohort.train(tmp_path / "checkpoint")
    for stream in range(len(cohort.streams)):
        for configuration, (model, alpha) in enumerate(zip(models, ALPHAS, strict=True)):
            compare(history, stream, configuration, reference(cohort, stream, model, rmsprop(alpha)), 1e-9)


def test_the_same_in_single_precision(tmp_path: Path) -> None:
    cohort = make(words(), optimizer=RMSPROP, epochs=3, form="sparse", precision="32-true")
    history = cohort.train(tmp_path / "checkpoint")
    for stream in range(len(cohort.streams)):
        alone = reference(cohort, stream, mlp(8, "tanh", 0.0), rmsprop(0.0), dtype=torch.float32)
        compare(history, stream, 0, alone, 1e-4)


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("form", ["sparse", "layered", "vmapped", "looped"])
def test_every_form_takes_sparse_rows(form: Form, problem: cfg.Problem, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dropout": 0.3, "epochs": 4, "activation": "gelu"}
    found = make(words(problem=problem), form=form, **settings).train(tmp_path / "a")
    expected = make(words(problem=problem, dense=True), form="layered", **settings).train(tmp_path / "b")
    for split in ("train", "val"):
        for ours, theirs in zip(found.curves[split, "loss"], expected.curves[split, "loss"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    for ours, theirs in zip(found.val_losses[-1], expected.val_losses[-1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


OPTIMIZERS: dict[str, Sequence[cfg.OptimizerConfig]] = {
    "sgd": [cfg.SGD(kind="sgd", lr=lr) for lr in (0.1, 0.01)],
    "momentum": [cfg.Momentum(kind="momentum", lr=lr, momentum=0.9, nesterov=False) for lr in (0.1, 0.01)],
    "adam": [ADAM, ADAM.model_copy(update={"lr": 0.1})],
    "adamw": [
        cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=decay)
        for decay in (0.0, 0.5)
    ],
    "rmsprop": [RMSPROP, RMSPROP.model_copy(update={"lr": 0.1})],
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_settings_of_optimizers_that_differ(kind: str, tmp_path: Path) -> None:
    # Then leaves are parts of the weights, which lie in memory the other way round.
    settings: dict[str, Any] = {
        "optimizers": OPTIMIZERS[kind],
        "penalties": [Penalty(0.0, 0.01), Penalty(0.001, 0.0)],
        "epochs": 4,
    }
    found = make(words(), form="sparse", **settings).train(tmp_path / "a")
    expected = make(words(dense=True), form="layered", **settings).train(tmp_path / "b")
    for name in expected.curves:
        np.testing.assert_allclose(found.curve(*name), expected.curve(*name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("depth", [0, 1])
def test_networks_of_few_layers(depth: int, tmp_path: Path) -> None:
    model: cfg.ModelConfig = (
        mlp(6, "elu", 0.0).model_copy(update={"depth": depth})
        if depth
        else cfg.LinearModel(_target_="overfit_lab.model.Linear", bias=False)
    )
    found = make(words(), form="sparse", model=model).train(tmp_path / "a")
    expected = make(words(dense=True), form="layered", model=model).train(tmp_path / "b")
    for name in expected.curves:
        np.testing.assert_allclose(found.curve(*name), expected.curve(*name), rtol=1e-9, atol=1e-12)


def test_the_form_is_chosen_by_the_source_and_the_first_layer() -> None:
    network = initialise(mlp(4, "relu", 0.1), 30, 1, seed=0, repeat=0, fold=0)
    assert choose_form(network, 30, mixed_precision=False, sparse=True).form == "sparse"
    assert choose_form(network, 30, mixed_precision=False).form == "layered"
    assert choose_form(network, 30, mixed_precision=True, sparse=True).form == "vmapped"
    drops_first = nn.Sequential(nn.Dropout(0.2), nn.Linear(30, 1))
    assert choose_form(drops_first, 30, mixed_precision=False, sparse=True).form == "layered"
    assert (
        choose_form(nn.Sequential(nn.Identity(), nn.Linear(30, 1)), 30, mixed_precision=False, sparse=True).form
        == "sparse"
    )
    own = initialise(custom("Tied"), 30, 1, seed=0, repeat=0, fold=0)
    assert choose_form(own, 30, mixed_precision=False, sparse=True).form == "vmapped"


def test_a_checkpoint_goes_on(tmp_path: Path) -> None:
    whole = make(words(), optimizer=RMSPROP, form="sparse", epochs=4).train(tmp_path / "whole")

    def stop(history: History) -> None:
        if history.epochs == 2:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"optimizer": RMSPROP, "form": "sparse", "epochs": 4, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        make(words(), listeners=[stop], **settings).train(tmp_path / "cut")
    again = make(words(), **settings).train(tmp_path / "cut")
    assert again.curve("val", "loss").tolist() == whole.curve("val", "loss").tolist()


def test_trained_members_are_described_as_on_dense_rows(tmp_path: Path) -> None:
    described = []
    for source, form in ((words(), "sparse"), (words(dense=True), "layered")):
        cohort = make(source, form=form, penalties=[Penalty(0.0, alpha) for alpha in ALPHAS])  # type: ignore[arg-type]
        cohort.train(tmp_path / form)
        module = cohort.module
        own = describe(
            *(module.network, module.task, cohort.data, module.weight_names, module.l1, module.l2),
            fold=(0, 0),
            device=torch.device("cpu"),
        )
        described.append(own)
    sparse_one, dense_one = described
    assert sparse_one.effective_dof_rows == dense_one.effective_dof_rows
    assert torch.isfinite(dense_one.normalised_margin).all()
    torch.testing.assert_close(sparse_one.normalised_margin, dense_one.normalised_margin, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sparse_one.effective_dof, dense_one.effective_dof, rtol=1e-6, atol=0, equal_nan=True)


def test_passes_of_any_length_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = make(words(rows=400), form="sparse")
    rows, folds = cohort.data.train, cohort.data.fold_of_stream
    whole = predict(cohort.module.double().network, rows, folds)
    for chunk in (1, 10_000, 20_000):
        monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", chunk)
        torch.testing.assert_close(predict(cohort.module.network, rows, folds), whole, rtol=1e-12, atol=1e-12)
