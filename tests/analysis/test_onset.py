import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overfit_lab.analysis import onset as package
from overfit_lab.analysis.onset import Onset, estimate_onset
from scripts.benchmarks.onset import ESTIMATOR, intervals, main, measure
from scripts.benchmarks.scenarios import NULLS, OVERFITTING, SCENARIOS, Scenario, u_shape
from tests.reference import onset as reference

Array = NDArray[np.float64]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
CLEAR = BY_NAME["clear U"]
SPARSE = BY_NAME["clear U, every 5th epoch"]
FALLING = BY_NAME["still falling"]


def draw(scenario: Scenario, seed: int = 0) -> tuple[Array, Array]:
    sample = scenario.draw(np.random.default_rng(seed))
    return sample.val_losses, sample.train_loss


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("clear U", np.arange(1, 61)),
        ("shallow U", np.arange(1, 101, 2)),
        ("early, T=20", np.arange(1, 21)),
        ("epoch-wise double descent", np.arange(1, 101, 2)),
        ("heavy jitter", np.unique(np.round(np.geomspace(1, 100, 60)))),
        ("heavy-tailed U", np.arange(1, 101, 2)),
        ("clear U, 3 spikes", np.arange(1, 61)),
        ("early, T=20, 1 spike", np.arange(1, 21)),
        ("plateau, 3 spikes", np.unique(np.round(np.geomspace(1, 100, 60)))),
        ("plateau, 5 % jitter", np.arange(1, 51)),
        ("still falling", np.arange(1, 41)),
    ],
)
def test_estimate_is_that_of_the_reference(name: str, epochs: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    val_losses, train_loss = (values[np.asarray(epochs, dtype=int) - 1] for values in draw(BY_NAME[name]))
    passes = np.asarray(epochs, dtype=np.float64)
    raw_noise: list[Array] = []
    real_draw = package._draw

    def recording_draw(covariance: Array, replicates: int, rng: np.random.Generator) -> Array:
        raw_noise.append(real_draw(covariance, replicates, rng))
        return raw_noise[0]

    monkeypatch.setattr(package, "_draw", recording_draw)
    estimate = estimate_onset(val_losses, train_loss, epochs=passes, replicates=59)
    for field, value in reference.onset(val_losses, raw_noise[0], passes, train_loss).items():
        assert getattr(estimate, field) == value, field


def test_noise_has_the_covariance_of_the_reference() -> None:
    val_losses = draw(CLEAR)[0][:40]
    epochs = np.arange(1.0, 41)
    smoother = reference.matrix(epochs, 0.25)
    covariance = package._sampling_covariance(val_losses)
    covariance += package._jitter_covariance(epochs, val_losses.mean(axis=1), smoother, 0.3)
    np.testing.assert_allclose(
        covariance, reference.noise_covariance(val_losses, epochs, smoother), rtol=1e-7, atol=1e-12
    )
    drawn = package._draw(covariance, 40_000, np.random.default_rng(0))
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(np.cov(drawn.T) / sd / sd[:, None], covariance / sd / sd[:, None], atol=0.03)


@pytest.mark.parametrize("scenario", OVERFITTING, ids=lambda scenario: scenario.name)
def test_true_onset_is_the_first_minimum_of_the_population(scenario: Scenario) -> None:
    first_rise = int(np.flatnonzero(np.diff(scenario.trend) > 0)[0])
    assert scenario.onset == first_rise + 1


@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_population_of_a_null_never_rises(scenario: Scenario) -> None:
    assert np.all(np.diff(scenario.trend) <= 0)


def test_sample_has_the_trend_of_its_population() -> None:
    large = dataclasses.replace(CLEAR, jitter=0.0, examples=20_000)
    np.testing.assert_allclose(draw(large)[0].mean(axis=1), large.trend, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "bias", "sd", "width"),
    [
        ("clear U", 1.5, 3.5, 12),
        ("clear U, every 5th epoch", 2, 4, 22),
        ("shallow U", 5, 9, 30),
        ("early, T=20", 0.6, 0.9, 5),
        ("epoch-wise double descent", 1.5, 2.5, 9),
        ("heavy jitter", 4, 8, 28),
        ("clear U, 3 spikes", 1.5, 3.5, 12),
        ("early, T=20, 1 spike", 0.6, 0.9, 5),
    ],
)
def test_onset_is_found(name: str, bias: float, sd: float, width: float) -> None:
    scenario = BY_NAME[name]
    assert scenario.onset is not None
    outcomes, reports = measure(scenario, repeats=20, seed=1)
    found, ci = outcomes[ESTIMATOR], intervals(reports, scenario.onset)
    assert found.detection >= (0.8 if name == "shallow U" else 1)
    assert abs(found.bias(scenario.onset)) <= bias
    assert found.sd <= sd
    assert ci.cover >= 0.85
    assert ci.width <= width
    assert ci.second_descent == pytest.approx(float(name == "epoch-wise double descent"), abs=0.1)


@pytest.mark.parametrize(("onset", "bare_cover"), [(24, 0.96), (3, 0.0)])
def test_sparse_grid_covers_an_onset_between_its_epochs(onset: int, bare_cover: float) -> None:
    """Every fifth epoch of a clear U whose minimum lies between two measured ones, or before the first."""
    learned, harm = u_shape(onset, 100, (0.9, 0.8), 2.2)
    scenario = dataclasses.replace(SPARSE, onset=onset, fall=learned, rise=harm)
    covered, bare = [], []
    for seed in range(100):
        sample = scenario.draw(np.random.default_rng([7, seed]))
        ci = estimate_onset(sample.val_losses, sample.train_loss, epochs=sample.epochs, replicates=59).ci
        assert ci is not None
        within = sample.epochs[(ci[0] <= sample.epochs) & (sample.epochs <= ci[1])]
        # Each end lies beside a measured epoch that is no longer within.
        assert ci == (within[0] - 4, within[-1] + 4)
        covered.append(ci[0] <= onset <= ci[1])
        bare.append(within[0] <= onset <= within[-1])
    assert np.mean(covered) >= 0.95
    assert np.mean(bare) <= bare_cover


@pytest.mark.parametrize("seed", range(4))
def test_interval_on_a_dense_grid_is_that_of_the_bootstrap(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_onset(*draw(CLEAR, seed))
    monkeypatch.setattr(package, "_between_measured", lambda passes, low, high: (int(low), int(high)))
    assert estimate_onset(*draw(CLEAR, seed)) == estimate


@pytest.mark.parametrize(
    ("epochs", "ends", "widened"),
    [
        ([1, 2, 3, 4], (2, 3), (2, 3)),
        ([1, 2, 3, 4], (1, 4), (1, 4)),
        ([5, 10, 15, 20, 23], (10, 15), (6, 19)),
        # Before the first measured epoch there are passes too; after the last there is nothing.
        ([5, 10, 15, 20, 23], (5, 23), (1, 23)),
        ([5, 10, 15, 20, 23], (20, 20), (16, 22)),
        ([1, 2, 4, 8, 16], (4, 4), (3, 7)),
        ([0.5, 1, 1.5, 2], (1, 1.5), (1, 1)),
    ],
)
def test_interval_is_widened_to_the_neighbours_of_its_ends(
    epochs: list[float], ends: tuple[float, float], widened: tuple[int, int]
) -> None:
    assert package._between_measured(np.array(epochs, dtype=np.float64), *ends) == widened


def test_rise_through_a_few_examples_is_often_found() -> None:
    # One in seven would be if a rise counted in its standard errors alone [scripts/bench onset].
    outcomes, reports = measure(BY_NAME["heavy-tailed U"], repeats=20, seed=1)
    assert outcomes[ESTIMATOR].detection >= 0.3
    assert intervals(reports, 20).cover >= 0.85


@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_overfitting_is_seldom_claimed_where_there_is_none(scenario: Scenario) -> None:
    outcomes, _ = measure(scenario, repeats=20, seed=1)
    assert outcomes[ESTIMATOR].detection <= (0.35 if scenario.phi > 0.3 else 0.2)


def test_benchmark_writes_its_table(tmp_path: Path) -> None:
    main(["--repeats", "1", "--out", str(tmp_path / "table.txt")])
    table = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert all(scenario.name in table for scenario in SCENARIOS)


def test_overfit() -> None:
    val_losses, train_loss = draw(CLEAR)
    estimate = estimate_onset(val_losses, train_loss)
    assert estimate.verdict == "overfit"
    assert estimate.epoch is not None
    assert estimate.ci is not None
    assert estimate.detected_at is not None
    assert estimate.ci[0] <= estimate.epoch <= estimate.ci[1] < 40
    assert estimate.epoch < estimate.detected_at
    assert estimate.best_epoch == estimate.epoch
    assert estimate.p_value == 1 / 301
    assert not estimate.second_descent


def test_not_reached() -> None:
    estimate = estimate_onset(draw(BY_NAME["plateau"])[0])
    assert estimate.verdict == "not_reached"
    assert (estimate.epoch, estimate.ci, estimate.detected_at) == (None, None, None)
    assert estimate.p_value is not None
    assert estimate.p_value > 0.05


def test_underfit_needs_a_train_loss_that_still_falls() -> None:
    t = np.arange(1.0, 41)
    val_losses = np.outer(t**-0.5, [0.9, 1.0, 1.1])
    assert estimate_onset(val_losses, 0.9 * t**-0.5).verdict == "underfit"
    assert estimate_onset(val_losses, np.full(40, 0.3)).verdict == "not_reached"
    # Its fall is as large a fraction of itself as before, but nothing beside the validation loss.
    assert estimate_onset(val_losses, 0.01 * t**-0.5).verdict == "not_reached"
    assert estimate_onset(val_losses).verdict == "not_reached"


def test_rise_of_both_losses_is_divergence() -> None:
    val_losses, _ = draw(CLEAR)
    estimate = estimate_onset(val_losses, val_losses.mean(axis=1) - 0.05)
    assert estimate == Onset("diverged", best_epoch=estimate.best_epoch, p_value=1 / 301)


def test_curve_is_cut_where_it_is_not_finite() -> None:
    val_losses, train_loss = draw(CLEAR)
    whole = estimate_onset(val_losses[:60], train_loss[:60])
    val_losses[60:, 3] = np.nan
    assert estimate_onset(val_losses, train_loss) == whole
    assert whole.verdict == "overfit"
    falling, train_loss = draw(FALLING)
    train_loss[50:] = np.inf
    assert estimate_onset(falling, train_loss).verdict == "diverged"


@pytest.mark.parametrize("growth", [1.02, 1.1, 1.5, 10.0, 1e5])
def test_explosion_is_divergence_even_while_finite(growth: float) -> None:
    val_losses, train_loss = draw(FALLING)
    factor = growth ** np.maximum(np.arange(100) - 49, 0)
    assert estimate_onset(val_losses * factor[:, None], train_loss * factor).verdict == "diverged"


def test_explosion_does_not_hide_an_earlier_onset() -> None:
    val_losses, train_loss = draw(CLEAR)
    spoilt = val_losses.copy()
    spoilt[90:] *= 1e5
    onset, spoilt_onset = estimate_onset(val_losses, train_loss), estimate_onset(spoilt, train_loss)
    assert spoilt_onset.verdict == "overfit"
    assert spoilt_onset.epoch == onset.epoch


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_too_short(rows: int) -> None:
    estimate = estimate_onset(draw(CLEAR)[0][:rows])
    assert estimate == Onset("too_short", best_epoch=rows or None)


def test_cut_too_short_is_divergence() -> None:
    val_losses, _ = draw(CLEAR)
    val_losses[5:] = np.nan
    assert estimate_onset(val_losses) == Onset("diverged", best_epoch=5)
    assert estimate_onset(np.full((20, 3), np.nan)) == Onset("diverged")


def test_second_descent_leaves_the_onset_at_the_first_minimum() -> None:
    estimate = estimate_onset(*draw(BY_NAME["epoch-wise double descent"]))
    assert estimate.second_descent
    assert estimate.epoch is not None
    assert abs(estimate.epoch - 16) <= 4
    assert estimate.best_epoch is not None
    assert estimate.best_epoch > 80


def test_epochs_name_the_rows() -> None:
    val_losses, train_loss = draw(CLEAR)
    stored = np.unique(np.round(np.geomspace(1, 100, 60))).astype(int)
    estimate = estimate_onset(val_losses[stored - 1], train_loss[stored - 1], epochs=stored)
    assert estimate.verdict == "overfit"
    assert estimate.epoch in stored
    assert estimate.epoch is not None
    assert abs(estimate.epoch - 24) <= 6
    assert estimate_onset(val_losses, epochs=np.arange(1, 101)) == estimate_onset(val_losses)


def test_same_seed_same_estimate() -> None:
    val_losses, train_loss = draw(BY_NAME["shallow U"])
    first = estimate_onset(val_losses, train_loss, seed=3)
    assert estimate_onset(val_losses, train_loss, seed=3) == first
    assert estimate_onset(val_losses.astype(np.float32), train_loss, seed=3).epoch == first.epoch


def test_scale_of_the_loss_does_not_matter() -> None:
    val_losses, train_loss = draw(CLEAR)
    assert estimate_onset(1024 * val_losses, 1024 * train_loss) == estimate_onset(val_losses, train_loss)


def test_examples_that_are_all_alike_show_the_jitter_alone() -> None:
    curve = draw(CLEAR)[0].mean(axis=1, keepdims=True)
    one = estimate_onset(curve)
    assert one.verdict == "overfit"
    assert estimate_onset(np.repeat(curve, 4, axis=1)).epoch == one.epoch


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (np.zeros(20), "not_reached"),
        (np.ones(20), "not_reached"),
        (np.linspace(1, 0, 20), "not_reached"),
        (np.linspace(0, 1, 20), "overfit"),
        ((np.arange(40) - 20.0) ** 2, "overfit"),
    ],
    ids=["zero", "constant", "falling", "rising", "parabola"],
)
def test_curves_without_noise(curve: Array, verdict: str) -> None:
    estimate = estimate_onset(curve[:, None])
    assert estimate.verdict == verdict
    assert estimate.p_value is not None
    assert 0 < estimate.p_value <= 1


def test_rise_below_the_smallest_that_counts_is_ignored() -> None:
    val_losses, train_loss = draw(CLEAR)
    estimate = estimate_onset(val_losses + 100, train_loss)
    assert estimate.verdict == "not_reached"
    assert estimate.p_value is not None
    assert estimate.p_value <= 0.05
    assert estimate_onset(val_losses + 100, train_loss, min_rise=1e-4).verdict == "overfit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_losses": np.ones(10)}, r"val_losses has shape \(10,\); it must be \[epochs, examples >= 1\]"),
        ({"val_losses": np.ones((10, 0))}, r"val_losses has shape \(10, 0\)"),
        ({"train_loss": np.ones(9)}, r"train_loss has shape \(9,\); it must be \(10,\)"),
        ({"epochs": np.arange(9)}, r"epochs has shape \(9,\); it must be \(10,\)"),
        ({"epochs": np.arange(10)}, "it must be positive and strictly increasing"),
        ({"epochs": [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]}, "it must be positive and strictly increasing"),
        ({"replicates": 10}, r"replicates is 10; a test at level 0\.05 needs"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_onset(**({"val_losses": np.ones((10, 2))} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Onset("overfit", 25, (20, 31)), "overfit from epoch 25 [20, 31]"),
        (Onset("not_reached", best_epoch=40), "not reached"),
        (Onset("underfit", best_epoch=50), "underfit"),
        (Onset("diverged"), "diverged"),
        (Onset("too_short"), "too short"),
    ],
)
def test_onset_in_words(estimate: Onset, words: str) -> None:
    assert str(estimate) == words


def test_onset_has_the_fields_of_the_record() -> None:
    names = [field.name for field in dataclasses.fields(Onset)]
    assert names == ["verdict", "epoch", "ci", "detected_at", "best_epoch", "p_value", "second_descent", "spikes"]
