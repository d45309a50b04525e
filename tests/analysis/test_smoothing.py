import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overfit_lab.analysis.smoothing import (
    BANDWIDTHS,
    ar1_correlation,
    estimate_phi,
    find_spikes,
    focus,
    jitter_sd,
    local_linear,
    select_smoother,
)
from scripts.benchmarks.scenarios import SCENARIOS, ar1
from tests.reference import onset as reference

Array = NDArray[np.float64]
EVERY = np.arange(1.0, 61)
LOG_SPACED = np.unique(np.round(np.geomspace(1, 400, 50)))
GRIDS = pytest.mark.parametrize("epochs", [EVERY, LOG_SPACED], ids=["every epoch", "log-spaced"])


def noisy_u(epochs: Array, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return 1 / epochs + 0.2 * np.log(epochs) + 0.03 * rng.standard_normal(len(epochs))


@GRIDS
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_smoother_is_the_weighted_line_of_the_reference(epochs: Array, bandwidth: float) -> None:
    loss = noisy_u(epochs, seed=0)
    expected = reference.smooth(epochs, loss, bandwidth)
    np.testing.assert_allclose(local_linear(epochs, bandwidth) @ loss, expected, rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(1, 500), min_size=8, max_size=40), st.sampled_from(BANDWIDTHS))
def test_smoother_keeps_lines_in_log_epoch(passes: set[int], bandwidth: float) -> None:
    epochs = np.array(sorted(passes), dtype=np.float64)
    line = 2 - 0.3 * np.log(epochs)
    smoother = local_linear(epochs, bandwidth)
    np.testing.assert_allclose(smoother @ line, line, rtol=1e-8)
    assert np.all(np.diag(smoother) < 1)


@GRIDS
@pytest.mark.parametrize("seed", range(4))
def test_bandwidth_is_that_of_explicit_leave_one_out(epochs: Array, seed: int) -> None:
    loss = noisy_u(epochs, seed)
    expected = local_linear(epochs, reference.choose_bandwidth(epochs, loss))
    np.testing.assert_array_equal(select_smoother(epochs, loss), expected)


def test_focus_leaves_out_the_first_descent() -> None:
    loss = np.array([2.0, 1.31, 1.3, 1.1, 1.0, 1.0, 1.0, 1.1, 1.2, 1.3, 1.31])
    np.testing.assert_array_equal(np.flatnonzero(focus(loss)), np.arange(2, 10))


def test_focus_holds_eight_epochs_of_a_curve_that_only_rises() -> None:
    np.testing.assert_array_equal(np.flatnonzero(focus(np.arange(20.0))), np.arange(8))


def test_correlation_decays_with_the_gap_in_epochs() -> None:
    correlation = ar1_correlation(np.array([1.0, 2.0, 4.0]), 0.5)
    np.testing.assert_allclose(correlation, [[1, 0.5, 0.125], [0.5, 1, 0.25], [0.125, 0.25, 1]])


@GRIDS
def test_jitter_is_that_of_the_reference(epochs: Array) -> None:
    loss = noisy_u(epochs, seed=1)
    np.testing.assert_allclose(jitter_sd(epochs, loss, 0.3), reference.jitter_sd(epochs, loss, 0.3), rtol=1e-9)


def test_jitter_of_evenly_spaced_epochs_is_the_textbook_formula() -> None:
    # Far out, log epoch is as good as linear.
    epochs, phi = np.arange(1e6, 1e6 + 40), 0.3
    loss = ar1(1, 40, phi, np.random.default_rng(0))[0]
    squares = (loss[:-2] - 2 * loss[1:-1] + loss[2:]) ** 2 / 6 * 3 / (3 - 4 * phi + phi**2)
    assert jitter_sd(epochs, loss, phi)[20] == pytest.approx(np.sqrt(squares[14:25].mean()), rel=1e-4)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6])
def test_jitter_recovers_the_standard_deviation_of_ar1_noise(phi: float) -> None:
    series = 2.5 * ar1(200, 100, phi, np.random.default_rng(0))
    sd = [jitter_sd(np.arange(1.0, 101), one, phi) for one in series]
    assert np.sqrt(np.mean(np.square(sd))) == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_phi_is_that_of_the_reference(seed: int) -> None:
    epochs = np.arange(1.0, 81)
    loss = 1 / epochs + 0.05 * ar1(1, 80, 0.55, np.random.default_rng(seed))[0]
    smoother = local_linear(epochs, 0.25)
    expected = reference.autocorrelation(epochs, loss, smoother)
    assert estimate_phi(epochs, loss, smoother) == pytest.approx(expected, abs=1e-9)


# Where a few examples make the loss, their own wandering stays in the mean and counts as jitter too. Spikes are set
# aside before.
AVERAGING_OUT = [s for s in SCENARIOS if len(s.fall) == 100 and s.spread == 1 and s.every == 1 and not s.spikes]


@pytest.mark.parametrize("scenario", AVERAGING_OUT, ids=lambda s: s.name)
def test_phi_is_not_mistaken_for_the_trend(scenario: object) -> None:
    assert isinstance(scenario, type(SCENARIOS[0]))
    epochs = np.arange(1.0, 101)
    curves = [scenario.draw(np.random.default_rng(seed)).val_losses.mean(axis=1) for seed in range(20)]
    phi = np.mean([estimate_phi(epochs, loss, select_smoother(epochs, loss), floor=0.0) for loss in curves])
    assert phi == pytest.approx(scenario.phi, abs=0.15)


def test_phi_of_a_short_or_noiseless_curve_is_the_floor() -> None:
    short, long = np.arange(1.0, 21), np.arange(1.0, 101)
    rng = np.random.default_rng(0)
    assert estimate_phi(short, rng.standard_normal(20), local_linear(short, 0.25)) == 0.3
    assert estimate_phi(long, np.zeros(100), local_linear(long, 0.25)) == 0.3


T = np.arange(1.0, 41)
U = T**-0.8 + 0.002 * T**1.5
FALLING = T**-0.5


def spiked(curve: Array, *epochs: int, height: float = 1.0) -> Array:
    """Raise a curve at some epochs, counted from 1."""
    return curve + height * np.isin(T, epochs)


@pytest.mark.parametrize("where", [(3,), (4,), (20,), (38,), (20, 21), (5, 8, 30)])
@pytest.mark.parametrize("jitter", [0.0, 0.02])
def test_spikes_are_found_wherever_they_are(where: tuple[int, ...], jitter: float) -> None:
    own = 1 + jitter * np.random.default_rng(0).standard_normal(40)
    found = find_spikes(spiked(U * own, *where), spiked(FALLING * own, *where))
    assert T[found].tolist() == list(where)
    # In other units, too.
    scaled = find_spikes(1e3 * spiked(U * own, *where), 1e3 * spiked(FALLING * own, *where))
    np.testing.assert_array_equal(scaled, found)


@pytest.mark.parametrize(
    ("loss", "train_loss"),
    [
        pytest.param(U, FALLING, id="nothing leaps"),
        pytest.param(spiked(U, 20), FALLING, id="the validation loss alone"),
        pytest.param(U, spiked(FALLING, 20), id="the train loss alone"),
        pytest.param(U + (T > 20), FALLING + (T > 20), id="both rise and stay"),
        pytest.param(np.exp(T), np.exp(T), id="both explode"),
        pytest.param(U - (T == 20) / 2, FALLING - (T == 20) / 2, id="both fall and are back"),
        pytest.param(spiked(U, 20, 21, 22), spiked(FALLING, 20, 21, 22), id="three epochs long"),
        pytest.param(spiked(U, 20, height=0.03), spiked(FALLING, 20, height=0.03), id="a small leap"),
        pytest.param(spiked(U, 1, 2, 39, 40), spiked(FALLING, 1, 2, 39, 40), id="at the ends"),
        pytest.param(U[:4], FALLING[:4], id="four epochs"),
    ],
)
def test_what_is_no_spike(loss: Array, train_loss: Array) -> None:
    assert not find_spikes(loss, train_loss).any()


def test_where_the_losses_leap_at_every_other_epoch_a_leap_is_usual() -> None:
    own = np.where(T % 2 == 0, 1.3, 1.0)
    assert not find_spikes(U * own, 2 * FALLING * own).any()


def test_spikes_of_both_losses_are_those_of_the_reference() -> None:
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        jumps = rng.exponential(0.15, 40) * (rng.random(40) < 0.3)
        loss, train_loss = (c * (1 + 0.03 * rng.standard_normal(40)) + jumps for c in (U, FALLING))
        expected = reference.spikes(loss, train_loss)
        assert np.flatnonzero(find_spikes(loss, train_loss)).tolist() == expected
        found += len(expected)
    assert found > 20
