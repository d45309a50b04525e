"""What the test rows give, against scikit-learn and sums written out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.preprocessing import StandardScaler

from overfit_lab.cohort import Cohort
from overfit_lab.config import Config
from overfit_lab.data.split import Fold, Split
from overfit_lab.data.unseal import UnsealedRows, unseal
from overfit_lab.plan import Plan, prepare
from overfit_lab.records import TestRecord, ValidationRecord
from overfit_lab.study import final_test
from overfit_lab.study.final_test import measure_test
from overfit_lab.train import Trained, train_cohort

Make = Callable[..., Config]
Array = NDArray[np.float64]
VALIDATION = ValidationRecord(
    loss=0.4, se=0.03, metrics={}, selection_bias=0.05, selection_bias_by_folds=None, corrected=0.45
)


def _trained(config: Config) -> tuple[Trained, Plan]:
    """Train on all development rows."""
    plan = prepare(config)
    rows = plan.split.development
    plan = dataclasses.replace(plan, split=Split(plan.split.test, rows, (Fold(0, -1, rows, rows[:0]),)))
    return train_cohort(Cohort((plan,))), plan


def _measure(
    config: Config, keep: Callable[[UnsealedRows], Any] = lambda opened: slice(None)
) -> tuple[TestRecord, Array, Array]:
    """Measure on some of the test rows; return the record, and targets and outputs in the target's own units."""
    trained, plan = _trained(config)
    opened = unseal(plan.source, plan.split, lambda: None)
    kept = keep(opened)
    opened = dataclasses.replace(opened, x=opened.x[kept], y=opened.y[kept], rows=opened.rows[kept])
    record = measure_test(trained, plan, opened, VALIDATION)

    development = plan.split.development
    scaled = StandardScaler().fit(plan.source.x[development]).transform(opened.x)
    own = trained.modules[0].network.stacked_parameters()
    value = scaled
    names = sorted({name.rsplit(".", 1)[0] for name in own}, key=int)
    for i, name in enumerate(names):
        weight, bias = (own[f"{name}.{kind}"][0, 0].detach().double().numpy() for kind in ("weight", "bias"))
        value = value @ weight.T + bias
        value = np.tanh(value) if i < len(names) - 1 else value
    if config.data.scale_targets:
        value = StandardScaler().fit(plan.source.y[development]).inverse_transform(value)
    return record, opened.y, value


def _config(config: Make, *overrides: str) -> Config:
    return config(
        *("model.width=4", "model.activation=tanh", "training.epochs=8", "trainer.precision=64-true"), *overrides
    )


def _values(record: TestRecord) -> dict[str, float | None]:
    return {name: interval.value for name, interval in record.metrics.items()}


def test_multiclass(config: Make) -> None:
    record, y, logits = _measure(_config(config, "data=wine"))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert record.rows == len(y) == 36
    assert record.loss.value == pytest.approx(metrics.log_loss(y, probabilities), rel=1e-9)
    labels = logits.argmax(1)
    assert _values(record) == pytest.approx(
        {"accuracy": metrics.accuracy_score(y, labels), "f1": metrics.f1_score(y, labels, average="macro")}, rel=1e-9
    )


def test_binary(config: Make) -> None:
    record, y, logits = _measure(_config(config, "data=breast_cancer"))
    p = 1 / (1 + np.exp(-logits))
    assert record.loss.value == pytest.approx(metrics.log_loss(y[:, 0], p[:, 0]), rel=1e-9)
    expected = {
        "accuracy": metrics.accuracy_score(y, p > 0.5),
        "f1": metrics.f1_score(y, p > 0.5),
        "auroc": metrics.roc_auc_score(y, p),
    }
    assert _values(record) == pytest.approx(expected, rel=1e-9)


def test_multilabel(config: Make) -> None:
    record, y, logits = _measure(_config(config, "data=digits_traits", "training.epochs=2", "training.batch_size=200"))
    p = 1 / (1 + np.exp(-logits))
    expected = np.mean([metrics.log_loss(y[:, i], p[:, i]) for i in range(y.shape[1])])
    assert record.loss.value == pytest.approx(expected, rel=1e-9)
    values = _values(record)
    assert values["accuracy"] == pytest.approx(np.mean((p > 0.5) == (y > 0)), rel=1e-9)
    assert values["f1"] == pytest.approx(metrics.f1_score(y, p > 0.5, average="macro", zero_division=0), rel=1e-9)


@pytest.mark.parametrize("scaled", ["false", "true"])
def test_regression_is_measured_in_the_targets_own_units(config: Make, scaled: str) -> None:
    record, y, values = _measure(_config(config, "data=linnerud", f"data.scale_targets={scaled}"))
    expected = {
        "mean_absolute_error": metrics.mean_absolute_error(y, values),
        "mean_squared_error": metrics.mean_squared_error(y, values),
        "r2": metrics.r2_score(y, values),
    }
    assert _values(record) == pytest.approx(expected, rel=1e-9)
    if scaled == "false":
        assert record.loss.value == pytest.approx(metrics.mean_squared_error(y, values), rel=1e-9)


def test_unit_regression(config: Make) -> None:
    record, y, logits = _measure(_config(config, "data=digits_ink", "training.epochs=2", "training.batch_size=200"))
    p = 1 / (1 + np.exp(-logits))
    assert record.loss.value == pytest.approx(metrics.mean_squared_error(y, p), rel=1e-9)
    mae = metrics.mean_absolute_error(y, p)
    assert _values(record)["mean_absolute_error"] == pytest.approx(mae, rel=1e-9)


def test_intervals(config: Make) -> None:
    record, y, logits = _measure(_config(config, "data=wine"))
    accuracy = record.metrics["accuracy"]
    # Wilson's interval, in closed form.
    n, z = len(y), 1.959963984540054
    p = float(np.mean(logits.argmax(1) == y))
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert accuracy.method == "wilson"
    assert accuracy.low == pytest.approx((centre - half) / (1 + z * z / n))
    assert accuracy.high == pytest.approx((centre + half) / (1 + z * z / n))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(n), y]
    se = losses.std(ddof=1) / math.sqrt(n)
    loss, gap = record.loss, record.gap
    assert loss.method == "bca"
    assert loss.low is not None
    assert loss.high is not None
    # A bootstrap of a mean is about as wide as the normal interval.
    assert loss.high - loss.low == pytest.approx(2 * z * se, rel=0.25)
    assert loss.low < losses.mean() < loss.high
    # Validation had promised .45 after correction, with a standard error of its own.
    assert gap.value == pytest.approx(losses.mean() - 0.45)
    assert gap.low == pytest.approx(losses.mean() - 0.45 - z * math.hypot(se, 0.03), rel=1e-5)
    assert gap.high == pytest.approx(losses.mean() - 0.45 + z * math.hypot(se, 0.03), rel=1e-5)


def test_bootstrap_samples_are_measured_by_parts(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, plan = _trained(_config(config, "data=linnerud"))
    opened = unseal(plan.source, plan.split, lambda: None)
    whole = measure_test(trained, plan, opened, VALIDATION)
    monkeypatch.setattr(final_test, "ELEMENTS", 7 * opened.y.size)
    assert measure_test(trained, plan, opened, VALIDATION) == whole


def test_few_rows_have_no_interval(config: Make) -> None:
    record, y, _ = _measure(_config(config, "data=breast_cancer"), lambda opened: [0])
    assert (record.rows, len(y)) == (1, 1)
    assert (record.loss.low, record.loss.high) == (None, None)
    assert record.loss.method == "none: there is one row or group only"
    assert (record.gap.low, record.gap.high) == (None, None)
    assert record.gap.value is not None
    # One row has one class.
    assert record.metrics["auroc"].value is None
    assert record.metrics["auroc"].method == "none: not defined on the test rows"


def test_a_class_that_is_missing_leaves_its_metric_undefined(config: Make) -> None:
    record, y, _ = _measure(_config(config, "data=breast_cancer"), lambda opened: opened.y[:, 0] == 1)
    assert set(y.ravel()) == {1}
    assert record.metrics["auroc"].value is None
    assert record.metrics["accuracy"].value is not None


def test_a_loss_that_is_not_finite_is_no_number(config: Make) -> None:
    """A test row may lie so far out that its output is beyond all numbers."""
    trained, plan = _trained(_config(config, "data=linnerud", "trainer.precision=32-true"))
    opened = unseal(plan.source, plan.split, lambda: None)
    far = opened.x.copy()
    far[0] = 1e300
    record = measure_test(trained, plan, dataclasses.replace(opened, x=far), VALIDATION)
    assert (record.loss.value, record.gap.value) == (None, None)
    assert {interval.value for interval in record.metrics.values()} == {None}


PATIENTS = """
import numpy as np
from overfit_lab.data import Source

def patients():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    x = rng.normal(size=(120, 2)) + rng.normal(size=(20, 1))[groups]
    return Source("patients", "binary", x, (x.sum(1) + rng.normal(size=120) > 0).astype(int), {"patient": groups})
"""


def test_rows_of_a_group_are_drawn_together(config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_patients.py").write_text(PATIENTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = _config(
        config, "data=custom", "data.name=patients", "data._target_=of_patients.patients", "split.group=patient"
    )
    trained, plan = _trained(own)
    opened = unseal(plan.source, plan.split, lambda: None)
    record = measure_test(trained, plan, opened, VALIDATION)
    assert len(set(plan.source.groups["patient"][opened.rows])) == record.rows / 6 == 4
    # Whole patients are drawn: no interval that takes rows for independent.
    assert {interval.method for interval in (record.loss, *record.metrics.values())} <= {
        "percentile",
        "none: every resample gives the same value",
    }
    assert record.metrics["accuracy"].method != "wilson"
    assert torch.is_tensor(trained.data[0].train.x)
