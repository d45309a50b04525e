"""The claim that everything rests on: a fit in a cohort is the fit alone."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overfit_lab import config as cfg
from overfit_lab.data import load_source
from overfit_lab.model import initialise
from overfit_lab.objective import Penalty
from overfit_lab.task.losses import Loss, Parts
from overfit_lab.training.history import History
from overfit_lab.training.stack import Form
from tests.reference import plain_loop
from tests.training.cohorts import ADAM, Cohort, custom, make_cohort, mlp

Parameters = list[nn.Parameter]
Factory = Callable[[Parameters, Parameters], torch.optim.Optimizer]

LOSSES = {
    "breast_cancer": plain_loop.binary,
    "wine": plain_loop.multiclass,
    "linnerud": plain_loop.regression,
    "digits_traits": plain_loop.binary,
    "digits_ink": plain_loop.unit_regression,
}


def _groups(weights: Parameters, biases: Parameters, decay: float) -> list[dict[str, object]]:
    return [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]


def _plain(
    kind: type[torch.optim.Optimizer],
    weights: Parameters,
    biases: Parameters,
    *,
    decay: float = 0.0,
    **settings: Any,  # noqa: ANN401
) -> torch.optim.Optimizer:
    return kind(_groups(weights, biases, decay), **settings)


def _custom(name: str, **arguments: float) -> cfg.CustomOptimizer:
    values = {"kind": "custom", "_target_": f"torch.optim.{name}", "lr": 0.01, **arguments}
    return cfg.CustomOptimizer.model_validate(values)


# torch's own weight_decay stands for the L2 penalty: an implementation that shares nothing with ours.
OPTIMIZERS: dict[str, tuple[cfg.OptimizerConfig, Callable[[float], Factory]]] = {
    "sgd": (cfg.SGD(kind="sgd", lr=0.05), lambda a: lambda w, b: torch.optim.SGD(_groups(w, b, a), lr=0.05)),
    "momentum": (
        cfg.Momentum(kind="momentum", lr=0.02, momentum=0.9, nesterov=True),
        lambda a: lambda w, b: torch.optim.SGD(_groups(w, b, a), lr=0.02, momentum=0.9, nesterov=True),
    ),
    "adam": (ADAM, lambda a: lambda w, b: torch.optim.Adam(_groups(w, b, a), lr=0.01)),
    "adamw": (
        cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=0.3),
        lambda a: lambda w, b: torch.optim.AdamW(_groups(w, b, 0.3), lr=0.01),
    ),
    "rmsprop": (
        cfg.RMSprop(kind="rmsprop", lr=0.002, smoothing=0.9, eps=1e-8),
        lambda a: lambda w, b: torch.optim.RMSprop(_groups(w, b, a), lr=0.002, alpha=0.9),
    ),
    # Of the user's: one for all members, and one for each.
    "nadam": (_custom("NAdam"), lambda a: lambda w, b: torch.optim.NAdam(_groups(w, b, a), lr=0.01)),
    "adafactor": (
        _custom("Adafactor", weight_decay=0.3),
        lambda a: lambda w, b: torch.optim.Adafactor(_groups(w, b, 0.3), lr=0.01),
    ),
}


def _alone(cohort: Cohort, name: str, stream: int, factory: Factory, **keywords: object) -> plain_loop.Fit:
    """Train one member of a cohort in a plain loop."""
    source, own = load_source(name), cohort.streams[stream]
    longest = max(len(f.train) for f in cohort.split.folds)
    steps = math.ceil(longest / cohort.training.batch_size)
    fold = next(f for f in cohort.split.folds if (f.repeat, f.fold) == (own.repeat, own.fold))
    return plain_loop.fit(
        keywords.pop("network"),  # type: ignore[arg-type]
        source.x,
        source.y,
        fold,
        LOSSES[name],
        factory,
        seed=own.seed,
        epochs=cohort.training.epochs,
        steps=steps,
        widest=math.ceil(longest / steps),
        **keywords,  # type: ignore[arg-type]
    )


def _network(
    cohort: Cohort,
    name: str,
    stream: int,
    *,
    width: int = 8,
    activation: cfg.Activation = "tanh",
    dropout: float = 0.0,
) -> nn.Module:
    source, own = load_source(name), cohort.streams[stream]
    return initialise(
        mlp(width, activation, dropout),
        source.features,
        source.outputs,
        seed=own.seed,
        repeat=own.repeat,
        fold=own.fold,
    )


def _assert_equal(cohort: Cohort, stream: int, configuration: int, alone: plain_loop.Fit, tolerance: float) -> None:
    history = cohort.module.history
    for split, curve in (("train", alone.train_loss), ("val", alone.val_loss)):
        ours = history.curve(split, "loss")[stream, configuration]
        np.testing.assert_allclose(ours, curve, rtol=tolerance, atol=tolerance)
    # Kept validation losses are float32 whatever the precision of training.
    kept = np.stack([epoch[stream][configuration].numpy() for epoch in history.val_losses])
    np.testing.assert_allclose(kept, np.stack(alone.val_losses), rtol=1e-5, atol=max(tolerance, 1e-6))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_and_l2_in_float64_over_50_epochs(kind: str, tmp_path: Path) -> None:
    optimizer, factory = OPTIMIZERS[kind]
    alphas = [0.0, 0.01, 0.3]
    if kind in ("adamw", "adafactor"):
        # Its decay is decoupled and the same for all; a coupled penalty beside it is tested with Adam.
        alphas = [0.0]
    cohort = make_cohort(
        load_source("wine"),
        optimizer=optimizer,
        penalties=[Penalty(0.0, a) for a in alphas],
        epochs=50,
        seeds=(0, 7),
        only=lambda s: (s.seed, s.fold) in STREAMS,
    )
    cohort.train(tmp_path / "c.ckpt")
    for stream in range(len(cohort.streams)):
        for configuration, alpha in enumerate(alphas):
            network = _network(cohort, "wine", stream)
            alone = _alone(cohort, "wine", stream, factory(alpha), network=network)
            _assert_equal(cohort, stream, configuration, alone, 1e-9)


@pytest.mark.parametrize("form", ["layered", "vmapped", "looped"])
@pytest.mark.parametrize("name", LOSSES)
def test_problem_types_with_uneven_folds(name: str, form: Form, tmp_path: Path) -> None:
    epochs = 5 if form == "layered" else 2
    cohort = make_cohort(
        load_source(name), folds=4, seeds=(3,), penalties=[Penalty(0.0, 0.1)], batch_size=50, epochs=epochs, form=form
    )
    cohort.train(tmp_path / "c.ckpt")
    for stream in range(4):
        alone = _alone(cohort, name, stream, OPTIMIZERS["adam"][1](0.1), network=_network(cohort, name, stream))
        _assert_equal(cohort, stream, 0, alone, 1e-9)


# Five configurations that share nothing but the kind of their optimizer and their activation; the last two, and two
# that do not stand side by side, have the same settings of the optimizer.
WIDTHS = [8, 3, 5, 4, 8]
DROPOUTS = [0.0, 0.4, 0.2, 0.0, 0.5]
PENALTIES = [Penalty(0.0, 0.0), Penalty(0.0, 0.1), Penalty(0.02, 0.0), Penalty(0.01, 0.05), Penalty(0.0, 0.3)]
# Streams of two seeds, on folds of different size.
STREAMS = {(0, 0), (7, 2)}
PLACES = list(itertools.product(range(len(STREAMS)), range(len(WIDTHS))))
FIRST, SECOND, THIRD = 0, 1, 2
SETTINGS = [FIRST, SECOND, FIRST, THIRD, THIRD]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of optimizer in three settings, each beside torch's own; and with it an activation."""

    activation: cfg.Activation
    ours: list[cfg.OptimizerConfig]
    torchs: list[Factory]


KINDS = {
    "sgd": Kind(
        "elu",
        [cfg.SGD(kind="sgd", lr=lr) for lr in (0.05, 0.02, 0.1)],
        [partial(_plain, torch.optim.SGD, lr=lr) for lr in (0.05, 0.02, 0.1)],
    ),
    "momentum": Kind(
        "silu",
        [
            cfg.Momentum(kind="momentum", lr=0.02, momentum=0.9, nesterov=True),
            cfg.Momentum(kind="momentum", lr=0.03, momentum=0.9, nesterov=False),
            cfg.Momentum(kind="momentum", lr=0.02, momentum=0.5, nesterov=True),
        ],
        [
            partial(_plain, torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
            partial(_plain, torch.optim.SGD, lr=0.03, momentum=0.9),
            partial(_plain, torch.optim.SGD, lr=0.02, momentum=0.5, nesterov=True),
        ],
    ),
    "adam": Kind(
        "gelu",
        [
            cfg.Adam(kind="adam", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8),
            cfg.Adam(kind="adam", lr=0.003, beta1=0.8, beta2=0.999, eps=1e-3),
            cfg.Adam(kind="adam", lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8),
        ],
        [
            partial(_plain, torch.optim.Adam, lr=0.01),
            partial(_plain, torch.optim.Adam, lr=0.003, betas=(0.8, 0.999), eps=1e-3),
            partial(_plain, torch.optim.Adam, lr=0.01, betas=(0.9, 0.95)),
        ],
    ),
    "adamw": Kind(
        "tanh",
        [
            cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=0.3),
            cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=0.0),
            cfg.AdamW(kind="adamw", lr=0.004, beta1=0.7, beta2=0.99, eps=1e-6, decoupled_decay=1.0),
        ],
        [
            partial(_plain, torch.optim.AdamW, decay=0.3, lr=0.01),
            partial(_plain, torch.optim.Adam, lr=0.01),
            partial(_plain, torch.optim.AdamW, decay=1.0, lr=0.004, betas=(0.7, 0.99), eps=1e-6),
        ],
    ),
    "rmsprop": Kind(
        "leaky_relu",
        [
            cfg.RMSprop(kind="rmsprop", lr=0.002, smoothing=0.9, eps=1e-8),
            cfg.RMSprop(kind="rmsprop", lr=0.001, smoothing=0.99, eps=1e-8),
            cfg.RMSprop(kind="rmsprop", lr=0.002, smoothing=0.9, eps=1e-2),
        ],
        [
            partial(_plain, torch.optim.RMSprop, lr=0.002, alpha=0.9),
            partial(_plain, torch.optim.RMSprop, lr=0.001, alpha=0.99),
            partial(_plain, torch.optim.RMSprop, lr=0.002, alpha=0.9, eps=1e-2),
        ],
    ),
}


def _mixed(kind: Kind, *, epochs: int, form: Form = "layered", precision: str = "64-true") -> Cohort:
    return make_cohort(
        load_source("wine"),
        penalties=PENALTIES,
        optimizers=[kind.ours[i] for i in SETTINGS],
        models=[mlp(w, kind.activation, d) for w, d in zip(WIDTHS, DROPOUTS, strict=True)],
        only=lambda s: (s.seed, s.fold) in STREAMS,
        seeds=(0, 7),
        epochs=epochs,
        form=form,
        precision=precision,
        batch_size=24,
    )


@functools.cache
def _trained_in_float64(name: str) -> History:
    """Train the cohort of all differences for 50 epochs; `History` holds all that the tests ask of it."""
    with tempfile.TemporaryDirectory() as folder:
        return _mixed(KINDS[name], epochs=50).train(Path(folder) / "c.ckpt")


def _mixed_alone(kind: Kind, cohort: Cohort, stream: int, configuration: int, dtype: torch.dtype) -> plain_loop.Fit:
    return _alone(
        cohort,
        "wine",
        stream,
        kind.torchs[SETTINGS[configuration]],
        network=_network(
            cohort,
            "wine",
            stream,
            width=WIDTHS[configuration],
            activation=kind.activation,
            dropout=DROPOUTS[configuration],
        ),
        penalty=_norms(PENALTIES[configuration]),
        dtype=dtype,
    )


def _norms(strength: Penalty) -> Callable[[Parameters], Tensor]:
    def penalty(weights: Parameters) -> Tensor:
        flat = torch.cat([weight.flatten() for weight in weights])
        return strength.l1 * flat.abs().sum() + strength.l2 / 2 * flat @ flat

    return penalty


@pytest.mark.parametrize("name", KINDS)
def test_everything_different_side_by_side_in_float64_over_50_epochs(name: str) -> None:
    cohort = _mixed(KINDS[name], epochs=50)
    cohort.module.history = _trained_in_float64(name)
    finals = set()
    for stream, configuration in PLACES:
        alone = _mixed_alone(KINDS[name], cohort, stream, configuration, torch.float64)
        _assert_equal(cohort, stream, configuration, alone, 1e-9)
        finals.add(round(alone.val_loss[-1], 9))
    assert len(finals) == len(PLACES)


@pytest.mark.parametrize("name", KINDS)
def test_everything_different_side_by_side_in_float32_over_the_first_epochs(name: str, tmp_path: Path) -> None:
    cohort = _mixed(KINDS[name], epochs=5, precision="32-true")
    cohort.train(tmp_path / "c.ckpt")
    for stream, configuration in PLACES:
        alone = _mixed_alone(KINDS[name], cohort, stream, configuration, torch.float32)
        _assert_equal(cohort, stream, configuration, alone, 1e-4)


@pytest.mark.parametrize(("form", "epochs"), [("vmapped", 50), ("looped", 5)])
@pytest.mark.parametrize("name", KINDS)
def test_all_forms_train_alike(name: str, form: Form, epochs: int, tmp_path: Path) -> None:
    ours, theirs = _trained_in_float64(name), _mixed(KINDS[name], epochs=epochs, form=form).train(tmp_path / "c.ckpt")
    assert ours.curves.keys() == theirs.curves.keys()
    for curve in ours.curves:
        found = theirs.curve(*curve)
        np.testing.assert_allclose(found, ours.curve(*curve)[..., : found.shape[-1]], rtol=1e-12, atol=1e-14)


def test_members_differ() -> None:
    """Equality to the reference would be empty if all members were alike."""
    cohort = make_cohort(load_source("wine"), penalties=[Penalty(0.0, 0.0), Penalty(0.0, 0.5)])
    first = cohort.module.network.stacked_parameters()["0.weight"]
    assert len({tuple(first[s, 0].flatten().tolist()) for s in range(len(cohort.streams))}) == len(cohort.streams)
    assert torch.equal(first[:, 0], first[:, 1])


def _l1_and_l2(strength: Penalty) -> Callable[[Parameters], Tensor]:
    def penalty(weights: Parameters) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for weight in weights:
            for value in weight.flatten():
                total = total + strength.l1 * value.abs() + strength.l2 / 2 * value**2
        return total

    return penalty


def test_l1_and_elastic_net(tmp_path: Path) -> None:
    penalties = [Penalty(0.05, 0.0), Penalty(0.02, 0.1)]
    cohort = make_cohort(load_source("linnerud"), penalties=penalties, epochs=6, seeds=(0,), width=4)
    cohort.train(tmp_path / "c.ckpt")
    for stream in range(2):
        for configuration, strength in enumerate(penalties):
            alone = _alone(
                cohort,
                "linnerud",
                stream,
                OPTIMIZERS["adam"][1](0.0),
                network=_network(cohort, "linnerud", stream, width=4),
                penalty=_l1_and_l2(strength),
            )
            _assert_equal(cohort, stream, configuration, alone, 1e-9)


def test_dropout(tmp_path: Path) -> None:
    cohort = make_cohort(load_source("breast_cancer"), dropout=0.4, epochs=10, seeds=(0, 2), batch_size=50)
    cohort.train(tmp_path / "c.ckpt")
    for stream in range(len(cohort.streams)):
        network = _network(cohort, "breast_cancer", stream, dropout=0.4)
        alone = _alone(cohort, "breast_cancer", stream, OPTIMIZERS["adam"][1](0.0), network=network)
        _assert_equal(cohort, stream, 0, alone, 1e-9)


def test_float32_over_the_first_epochs(tmp_path: Path) -> None:
    cohort = make_cohort(load_source("digits_traits"), precision="32-true", seeds=(0,), batch_size=64)
    cohort.train(tmp_path / "c.ckpt")
    for stream in range(3):
        alone = _alone(
            cohort,
            "digits_traits",
            stream,
            OPTIMIZERS["adam"][1](0.0),
            network=_network(cohort, "digits_traits", stream),
            dtype=torch.float32,
        )
        _assert_equal(cohort, stream, 0, alone, 1e-4)


@pytest.mark.parametrize("form", ["vmapped", "looped"])
def test_under_mixed_precision_the_loss_is_not_rounded(form: Form, tmp_path: Path) -> None:
    """bfloat16 has three digits: a loss or a target in it would train another objective than the measured one."""
    make = partial(make_cohort, load_source("linnerud"), seeds=(0,), epochs=1, form=form, model=custom("Unbiased"))
    cohort = make(precision="bf16-mixed")
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    loss = cohort.module.task.loss

    def parts(logits: Tensor, targets: Tensor) -> Parts:
        seen.append((logits.dtype, targets.dtype))
        return loss.parts(logits, targets)

    cohort.module.task = dataclasses.replace(cohort.module.task, loss=Loss(parts))
    history = cohort.train(tmp_path / "c.ckpt")
    assert len(seen) > 2  # of training and of measuring
    assert set(seen) == {(torch.float32, torch.float32)}
    # The network itself does compute in bfloat16 when it is trained, and not when it is measured.
    exact = make(precision="32-true").train(tmp_path / "c.ckpt")
    assert np.array_equal(history.curve("val", "loss")[..., 0], exact.curve("val", "loss")[..., 0])
    rounded = np.abs(history.curve("train", "running_loss") / exact.curve("train", "running_loss") - 1)
    assert 1e-6 < rounded.max() < 0.02


def test_company_does_not_matter(tmp_path: Path) -> None:
    """A fit with two others and with seventeen: uneven folds, dropout, other alphas beside it."""
    make = partial(make_cohort, load_source("wine"), dropout=0.3, epochs=8, folds=4, batch_size=10)
    crowd = make(seeds=(0, 1, 2), penalties=[Penalty(0.0, 0.1), Penalty(0.0, 1.0)])
    alone = make(seeds=(1,), penalties=[Penalty(0.0, 1.0)], only=lambda s: s.fold == 2)
    crowd.train(tmp_path / "a.ckpt")
    alone.train(tmp_path / "b.ckpt")
    stream = crowd.streams.index(alone.streams[0])
    for split in ("train", "val"):
        theirs = crowd.module.history.curve(split, "loss")[stream, 1]
        np.testing.assert_allclose(theirs, alone.module.history.curve(split, "loss")[0, 0], rtol=1e-9)
