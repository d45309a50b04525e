"""The networks that come with the package, in cohorts: equal to the fit alone, and none touches another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from overfit_lab import config as cfg
from overfit_lab.data import Source, load_source
from overfit_lab.model import build_network, initialise
from overfit_lab.objective import Penalty, penalised_names
from overfit_lab.training.stack import Choice, Form, choose_form
from tests.reference import plain_loop
from tests.training.cohorts import Cohort, make_cohort

ALPHAS = [0.0, 0.02]
# Two streams of other seeds, on folds of different size.
STREAMS = {(0, 0), (7, 2)}


def _images(shape: tuple[int, ...] | None = (1, 8, 8)) -> Source:
    digits = load_source("digits")
    rows = np.flatnonzero(digits.y < 3)[:62]
    return Source("images", "multiclass", digits.x[rows], digits.y[rows], shape=shape)


def _words() -> Source:
    x = np.random.default_rng(0).integers(15, size=(62, 6))
    return Source("words", "binary", x, (x == 3).any(axis=1) | (x[:, 0] > 9), tokens=15)


def _model(name: str, **values: object) -> cfg.ModelConfig:
    config: cfg.ModelConfig = getattr(cfg, f"{name}Model").model_validate(
        {"_target_": f"overfit_lab.model.{name}", **values}
    )
    return config


_cnn = partial(_model, "CNN", channels=4, depth=2, activation="gelu", dropout=0.0)
_transformer = partial(_model, "Transformer", embedding=6, depth=1, heads=2, dropout=0.0)
_OF_THE_BLOCKS = ("blocks.*.project.weight", "blocks.*.combine.weight", "blocks.*.think.[13].weight", "head.weight")


@dataclass(frozen=True)
class Case:
    """A network on data.

    Args:
        source: The data.
        model: The network.
        weights: Patterns of the names of its weights, written down by hand.
        drops: Whether it can drop.
        form: How it is stacked.
    """

    source: Callable[[], Source]
    model: cfg.ModelConfig
    weights: tuple[str, ...]
    drops: bool = True
    form: Form = "vmapped"

    @property
    def models(self) -> list[cfg.ModelConfig]:
        """One for each alpha; the second one drops, where it can."""
        return [self.model, self.model.model_copy(update={"dropout": 0.3} if self.drops else {})]

    def is_weight(self, name: str) -> bool:
        """Whether a parameter is a weight."""
        return any(fnmatchcase(name, pattern) for pattern in self.weights)


CASES = {
    "cnn": Case(_images, _cnn(kernel=3), ("1.weight", "5.weight", "10.weight")),
    "cnn on sequences": Case(partial(_images, (8, 8)), _cnn(kernel=5), ("1.weight", "5.weight", "10.weight")),
    "resnet": Case(
        _images,
        _model("ResNet", width=2, stages=3, blocks=1),
        ("1.weight", "*.conv?.weight", "*.shortcut.weight", "6.weight"),
        drops=False,
    ),
    "transformer on images": Case(_images, _transformer(patch=4), ("embed.1.weight", *_OF_THE_BLOCKS)),
    "transformer on tokens": Case(_words, _transformer(patch=1), _OF_THE_BLOCKS),
    "random features": Case(
        partial(_images, None), _model("RandomFeatures", features=20), ("1.weight",), drops=False, form="layered"
    ),
}


def _cohort(case: Case, epochs: int, precision: str = "64-true", form: Form | None = None) -> Cohort:
    source = case.source()
    return make_cohort(
        source,
        models=case.models,
        penalties=[Penalty(0.0, alpha) for alpha in ALPHAS],
        only=lambda s: (s.seed, s.fold) in STREAMS,
        seeds=(0, 7),
        epochs=epochs,
        form=form or case.form,
        precision=precision,
        scale_inputs=source.tokens is None,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_form_is_found_and_its_weights_are_told_from_the_rest(case: Case) -> None:
    sizes = case.source().sizes
    network = build_network(case.model, *sizes)
    assert choose_form(network, sizes.inputs, mixed_precision=False, tokens=sizes.tokens) == Choice(case.form)
    names = {name for name, _ in network.named_parameters()}
    weights = penalised_names(network)
    assert weights == set(filter(case.is_weight, names))
    # What is left are biases, normalisations and embeddings.
    others = {type(network.get_submodule(name.rpartition(".")[0])) for name in names - weights if "bias" not in name}
    assert others <= {nn.GroupNorm, nn.LayerNorm, nn.Embedding}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cohort_equals_solo_in_float64(case: Case, tmp_path: Path) -> None:
    cohort, source = _cohort(case, epochs=20), case.source()
    history = cohort.train(tmp_path / "c.ckpt")
    longest = max(len(f.train) for f in cohort.split.folds)
    steps = math.ceil(longest / cohort.training.batch_size)
    finals = set()
    for s, own in enumerate(cohort.streams):
        for c, (alpha, model) in enumerate(zip(ALPHAS, case.models, strict=True)):

            def adam(
                weights: list[nn.Parameter], others: list[nn.Parameter], alpha: float = alpha
            ) -> torch.optim.Optimizer:
                return torch.optim.Adam(
                    [{"params": weights, "weight_decay": alpha}, {"params": others, "weight_decay": 0.0}], lr=0.01
                )

            alone = plain_loop.fit(
                initialise(model, *source.sizes, seed=own.seed, repeat=own.repeat, fold=own.fold),
                source.x,
                source.y,
                next(f for f in cohort.split.folds if f.fold == own.fold),
                plain_loop.binary if source.problem == "binary" else plain_loop.multiclass,
                adam,
                seed=own.seed,
                epochs=20,
                steps=steps,
                widest=math.ceil(longest / steps),
                is_weight=case.is_weight,
                scale=source.tokens is None,
            )
            for split, curve in (("train", alone.train_loss), ("val", alone.val_loss)):
                np.testing.assert_allclose(history.curve(split, "loss")[s, c], curve, rtol=1e-9, atol=1e-9)
            # It has learnt something.
            assert alone.train_loss[-1] < 0.9 * alone.train_loss[0]
            finals.add(round(alone.val_loss[-1], 9))
    assert len(finals) == len(STREAMS) * len(ALPHAS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_member_that_is_ill_leaves_the_others_bit_identical(case: Case, tmp_path: Path) -> None:
    healthy, sick = (_cohort(case, epochs=2, precision="32-true") for _ in range(2))
    for value in sick.module.network.stacked_parameters().values():
        value[1, 0] = math.nan
    ours, theirs = (cohort.train(tmp_path / "c.ckpt") for cohort in (healthy, sick))
    others = np.array([[True, True], [False, True]])
    for curve in ours.curves:
        assert np.array_equal(ours.curve(*curve)[others], theirs.curve(*curve)[others]), curve
    for name, value in healthy.module.network.stacked_parameters().items():
        assert torch.equal(value[others], sick.module.network.stacked_parameters()[name][others]), name
    assert theirs.first_divergence(1, 0) == 0


def test_only_the_last_layer_of_random_features_is_trained(tmp_path: Path) -> None:
    cohort = _cohort(CASES["random features"], epochs=2)
    network = cohort.module.network
    before = network.stacked_constants()["0.directions"].clone()
    # Every stream has features of its own, shared by its configurations.
    assert torch.equal(before[:, 0], before[:, 1])
    assert not torch.equal(before[0], before[1])
    assert all(not value.any() for value in network.stacked_parameters().values())
    cohort.train(tmp_path / "c.ckpt")
    assert torch.equal(network.stacked_constants()["0.directions"], before.double())
    assert all(value.any() for value in network.stacked_parameters().values())


@pytest.mark.parametrize("shared", [True, False])
def test_random_features_are_the_same_in_every_form(shared: bool, tmp_path: Path) -> None:
    """Where the configurations of a stream have the same features, these are computed once; else for each."""
    curves = []
    forms: tuple[Form, ...] = ("layered", "vmapped", "looped")
    for form in forms:
        cohort = _cohort(CASES["random features"], epochs=4, form=form)
        if not shared:
            with torch.no_grad():
                cohort.module.network.stacked_constants()["0.directions"][0, 1] *= 0.5
        curves.append(cohort.train(tmp_path / "c.ckpt").curve("val", "loss"))
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-12)
    assert not np.allclose(curves[0][0, 0, 1:], curves[0][0, 1, 1:], rtol=1e-6)
