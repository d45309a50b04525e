"""Matched measurement: from epoch 0, on the same weights, in eval mode, without penalty and without random numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from overfit_lab import config as cfg
from overfit_lab.data import Source, load_source
from overfit_lab.data.datamodule import CohortDataModule, StackedRows
from overfit_lab.objective import Penalty
from overfit_lab.training import measure as measure_module
from overfit_lab.training.history import History
from overfit_lab.training.measure import measure, predict
from overfit_lab.training.module import CohortModule
from overfit_lab.training.stack import Form, Noise
from overfit_lab.training.stack.layered import LayeredNetwork
from overfit_lab.training.stack.network import NO_NOISE
from tests.data.dense import dense
from tests.training.cohorts import custom, make_cohort, mlp


def _val(data: CohortDataModule) -> StackedRows:
    assert data.val is not None
    return data.val


def test_curves_start_at_epoch_0_and_the_running_loss_has_its_own_name(tmp_path: Path) -> None:
    cohort = make_cohort(load_source("wine"), epochs=4, penalties=[Penalty(0.0, 0.3)])
    history = cohort.train(tmp_path / "c.ckpt")
    assert history.curve("train", "loss").shape == (6, 1, 5)
    assert history.curve("val", "loss").shape == (6, 1, 5)
    assert history.curve("train", "running_loss").shape == (6, 1, 4)


@pytest.mark.parametrize("form", ["layered", "vmapped"])
def test_the_penalty_is_that_of_the_weights_at_each_epoch_from_0(form: Form, tmp_path: Path) -> None:
    """By hand, from the weights as they are when a listener is told of the epoch; biases are free, padding adds 0."""
    penalties = [Penalty(0.0, 0.3), Penalty(0.02, 0.1), Penalty(0.0, 0.0)]
    models = [mlp(width, "tanh", 0.2) for width in (8, 3, 5)]
    expected: list[np.ndarray] = []

    def listen(history: History) -> None:
        weights = [value for name, value in cohort.module.network.stacked_parameters().items() if "weight" in name]
        assert len(weights) == 3
        values = np.zeros((6, 3))
        for stream, configuration in np.ndindex(6, 3):
            flat = np.concatenate([w[stream, configuration].numpy().ravel() for w in weights])
            own = penalties[configuration]
            values[stream, configuration] = own.l1 * np.abs(flat).sum() + own.l2 / 2 * (flat**2).sum()
        expected.append(values)

    cohort = make_cohort(
        load_source("wine"), epochs=3, penalties=penalties, models=models, listeners=[listen], form=form
    )
    history = cohort.train(tmp_path / "c.ckpt")
    assert history.curve("train", "penalty").shape == (6, 3, 4)
    np.testing.assert_allclose(history.curve("train", "penalty"), np.stack(expected, axis=-1), rtol=1e-12)
    assert (history.curve("train", "penalty")[:, :2] > 0).all()
    assert (history.curve("train", "penalty")[:, 2] == 0).all()


def test_where_nothing_is_penalised_the_penalty_is_0(tmp_path: Path) -> None:
    history = make_cohort(load_source("wine"), epochs=1).train(tmp_path / "c.ckpt")
    assert history.curve("train", "penalty").tolist() == [[[0.0, 0.0]]] * 6


def test_the_running_loss_is_the_mean_over_the_steps_of_an_epoch(tmp_path: Path) -> None:
    """With a single step an epoch it is the train loss of the epoch before: no penalty in it."""
    cohort = make_cohort(load_source("wine"), epochs=4, penalties=[Penalty(0.0, 0.3)], batch_size=1000)
    history = cohort.train(tmp_path / "c.ckpt")
    np.testing.assert_allclose(
        history.curve("train", "running_loss"), history.curve("train", "loss")[..., :-1], rtol=1e-12
    )
    # With more steps it lags behind and lies in between.
    slow = make_cohort(load_source("wine"), epochs=1, optimizer=cfg.SGD(kind="sgd", lr=0.01)).train(tmp_path / "d.ckpt")
    running, loss = slow.curve("train", "running_loss")[..., 0], slow.curve("train", "loss")
    assert ((loss[..., 1] < running) & (running < loss[..., 0])).all()


@pytest.mark.parametrize("form", ["layered", "vmapped", "looped"])
def test_measured_losses_are_those_of_the_weights_in_eval_mode(form: Form, tmp_path: Path) -> None:
    """Against scikit-learn on each member's own weights, by hand, in uneven folds: no dropout, no penalty."""
    penalties = [Penalty(0.0, 1.0), Penalty(0.0, 0.0)]
    cohort = make_cohort(
        load_source("wine"), dropout=0.5, penalties=penalties, epochs=2, folds=4, metrics=["accuracy"], form=form
    )
    assert len(set(_val(cohort.data).sizes)) == 2
    history = cohort.train(tmp_path / "c.ckpt")
    weights = {name: value.detach().numpy() for name, value in cohort.module.network.stacked_parameters().items()}
    for (stream, fold), member, (split, rows) in itertools.product(
        enumerate(cohort.data.fold_of_stream), (0, 1), (("train", cohort.data.train), ("val", _val(cohort.data)))
    ):
        size = rows.sizes[fold]
        hidden, targets = dense(rows.x)[fold, :size].numpy(), rows.y[fold, :size].numpy()
        for layer in ("0", "3"):
            own = weights[f"{layer}.weight"][stream, member], weights[f"{layer}.bias"][stream, member]
            hidden = np.tanh(hidden @ own[0].T + own[1])
        logits = hidden @ weights["6.weight"][stream, member].T + weights["6.bias"][stream, member]
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = log_loss(targets, probabilities, labels=[0, 1, 2])
        assert history.curve(split, "loss")[stream, member, -1] == pytest.approx(loss, rel=1e-9)
        accuracy = accuracy_score(targets, logits.argmax(1))
        assert history.curve(split, "accuracy")[stream, member, -1] == pytest.approx(accuracy, rel=1e-6)


@pytest.mark.parametrize("form", ["layered", "looped"])
def test_with_wrong_labels_there_are_curves_against_the_right_ones_too(form: Form, tmp_path: Path) -> None:
    """Against scikit-learn, of train and validation rows; what is trained on is the wrong labels."""
    source = load_source("wine")
    cohort = make_cohort(source, epochs=2, folds=4, metrics=["accuracy"], form=form, label_noise=0.4)
    history = cohort.train(tmp_path / "c.ckpt")
    parts = {"train": cohort.data.train, "val": _val(cohort.data)}
    for (stream, fold), (split, rows) in itertools.product(enumerate(cohort.data.fold_of_stream), parts.items()):
        own = cohort.split.folds[fold]
        numbers, size = getattr(own, split), rows.sizes[fold]
        right, given = source.y[numbers], rows.y[fold, :size].numpy()
        assert rows.clean is not None
        np.testing.assert_array_equal(rows.clean[fold, :size].numpy(), right)
        assert 0.15 < (right != given).mean() < 0.65
        logits = predict(cohort.module.network, rows, cohort.data.fold_of_stream)[stream, 0, :size].numpy()
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        for suffix, labels in (("", given), ("_clean", right)):
            loss = log_loss(labels, probabilities, labels=[0, 1, 2])
            assert history.curve(split, f"loss{suffix}")[stream, 0, -1] == pytest.approx(loss, rel=1e-9)
            accuracy = accuracy_score(labels, logits.argmax(1))
            assert history.curve(split, f"accuracy{suffix}")[stream, 0, -1] == pytest.approx(accuracy, rel=1e-6)


def test_without_wrong_labels_there_are_no_such_curves(tmp_path: Path) -> None:
    history = make_cohort(load_source("wine"), epochs=1).train(tmp_path / "c.ckpt")
    assert not [metric for _, metric in history.curves if metric.endswith("_clean")]


def test_evaluation_consumes_no_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def final_weights() -> list[torch.Tensor]:
        cohort = make_cohort(load_source("wine"), dropout=0.5, epochs=3)
        cohort.train(tmp_path / "c.ckpt")
        return [p.detach() for p in cohort.module.network.stacked_parameters().values()]

    measured = final_weights()
    monkeypatch.setattr(CohortModule, "_measure", lambda self: None)
    unmeasured = final_weights()
    assert all(torch.equal(a, b) for a, b in zip(measured, unmeasured, strict=True))


@pytest.mark.parametrize("name", ["mlp", "Everything"])
def test_training_leaves_the_global_generators_alone(name: str, tmp_path: Path) -> None:
    """Even where a network draws from torch's own."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    if name == "mlp":
        make_cohort(load_source("wine"), dropout=0.5, epochs=2).train(tmp_path / "c.ckpt")
    else:
        make_cohort(load_source("wine"), model=custom(name), form="looped", epochs=2).train(tmp_path / "c.ckpt")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_as_it_was(training: bool) -> None:
    cohort = make_cohort(load_source("wine"), dropout=0.5)
    network = cohort.module.network.double().train(training)
    data = cohort.data
    found = measure(network, cohort.module.task, _val(data), data.fold_of_stream, data.target_scalings)
    assert network.training == training
    assert all(m.training == training for m in network.skeleton[0].modules())
    assert [losses.shape[1] for losses in found.losses] == [_val(data).sizes[fold] for fold in data.fold_of_stream]


def test_measuring_in_chunks_is_measuring_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve() -> np.ndarray:
        history: History = make_cohort(load_source("wine"), epochs=2).train(tmp_path / "c.ckpt")
        return history.curve("val", "loss")

    whole = curve()
    passes: list[int] = []
    forward = LayeredNetwork.forward

    def count(self: LayeredNetwork, x: torch.Tensor, noise: Noise = NO_NOISE) -> torch.Tensor:
        passes.append(x.shape[1])
        return forward(self, x, noise)

    monkeypatch.setattr(LayeredNetwork, "forward", count)
    monkeypatch.setattr(measure_module, "CHUNK_ELEMENTS", {"cpu": 6 * 14 * 7})
    monkeypatch.setattr(measure_module, "MIN_CHUNK_ROWS", 1)
    np.testing.assert_allclose(curve(), whole, rtol=1e-12)
    assert max(passes) == 7
    assert sum(passes) == 3 * (95 + 48)


def test_metrics_are_in_the_targets_own_units(tmp_path: Path) -> None:
    """Targets in thousands, scaled for training: the error is in thousands, the loss in standard deviations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    source = Source("thousands", "regression", x, 5000 + 1000 * x[:, 0])
    cohort = make_cohort(source, scale_targets=True, metrics=["mean_absolute_error", "r2"], epochs=0 + 1)
    history = cohort.train(tmp_path / "c.ckpt")
    for stream, fold in enumerate(cohort.data.fold_of_stream):
        scaling, size = cohort.data.target_scalings[fold], _val(cohort.data).sizes[fold]
        deviation = float(scaling.scale[0])
        assert 500 < deviation < 2000
        mae = history.curve("val", "mean_absolute_error")[stream, 0, 0]
        # At epoch 0 predictions are near 0 in scaled units: the error is about that of predicting the mean.
        targets = _val(cohort.data).y[fold, :size].numpy() * deviation
        assert 0.5 * np.abs(targets).mean() < mae < 2 * np.abs(targets).mean()
        assert history.curve("val", "loss")[stream, 0, 0] < 10


@pytest.mark.parametrize("fold", [0, 3])
def test_a_network_that_mixes_rows_is_measured_on_its_own_rows_alone(fold: int, tmp_path: Path) -> None:
    """Folds differ by a row: what pads the shorter ones must not be seen."""

    def curves(only: bool) -> list[float]:
        cohort = make_cohort(
            load_source("wine"),
            model=custom("Centred"),
            form="looped",
            epochs=2,
            folds=4,
            seeds=(0,),
            batch_size=10,
            only=lambda stream: stream.fold == fold or not only,
        )
        history = cohort.train(tmp_path / "c.ckpt")
        own = [stream.fold for stream in cohort.streams].index(fold)
        return [history.curve(split, "loss")[own, 0, -1] for split in ("train", "val")]

    np.testing.assert_allclose(curves(only=False), curves(only=True), rtol=1e-12)
