import numpy as np
import pytest

from overfit_lab.analysis.rules import (
    DEFAULT_RULES,
    ArgMin,
    GeneralisationLoss,
    Patience,
    ProgressQuotient,
    Rule,
    Stop,
    Up,
)

FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
# Lowest at epoch 4, then 1.02, 1.04... of it: 5 % above at epoch 7, 10 % at epoch 9.
U = [1.6, 1.3, 1.1, 1.0, 1.02, 1.04, 1.06, 1.08, 1.11, 1.14, 1.17, 1.2]


@pytest.mark.parametrize(
    ("rule", "stopped_at", "epoch"),
    [
        (ArgMin(), 12, 4),
        (GeneralisationLoss(5), 7, 4),
        (GeneralisationLoss(10), 9, 4),
        (GeneralisationLoss(1), 5, 4),
        (Patience(1), 5, 4),
        (Patience(5), 9, 4),
        (Patience(8), 12, 4),
        # Ends of strips of 2: 1.3, 1.0, 1.04, 1.08, 1.14, 1.2 at epochs 2, 4, 6, 8, 10, 12.
        (Up(1, strip=2), 6, 4),
        (Up(3, strip=2), 10, 4),
        (Up(4, strip=2), 12, 4),
        # Ends of strips of 5: 1.02 and 1.14.
        (Up(1), 10, 4),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else str(value),
)
def test_rule_fires_at_the_epoch_found_by_hand(rule: Rule, stopped_at: int, epoch: int) -> None:
    assert rule.stop(U) == Stop(stopped_at, epoch)


@pytest.mark.parametrize(
    "rule", [GeneralisationLoss(20), Patience(9), Up(5, strip=2), Up(2)], ids=lambda rule: rule.name
)
def test_rule_that_asks_for_more_never_fires(rule: Rule) -> None:
    assert rule.stop(U) == Stop(None, None)


def test_up_needs_its_strips_in_succession() -> None:
    # Ends of strips of 1 rise at epochs 2, 3, 5, 6 and 7.
    assert Up(3, strip=1).stop([1.0, 1.1, 1.2, 0.9, 1.0, 1.1, 1.2]) == Stop(7, 4)


def test_generalisation_loss_forgets_a_hump_before_a_new_low() -> None:
    assert GeneralisationLoss(10).stop([1.0, 1.05, 0.5, 0.54, 0.56]) == Stop(5, 3)


def test_patience_starts_again_at_every_new_low() -> None:
    assert Patience(3).stop([1.0, 1.1, 1.1, 0.9, 1.0, 1.0, 1.0]) == Stop(7, 4)
    # A value as low as the best is no improvement on it.
    assert Patience(3).stop([1.0, 1.0, 1.0, 1.0]) == Stop(4, 1)


def test_progress_quotient_by_hand() -> None:
    val = [1.0, 0.8, 0.9, 0.96, 1.0, 1.04]
    # Strips of 2 end at epochs 2, 4 and 6, with GL 0, 20 and 30; mean / min of the train loss is 1.5, 1.25 and 1.01, so
    # the progress is 500, 250 and 10, and the quotient 0, .08 and 3.
    train = [1.0, 0.5, 0.6, 0.4, 0.408, 0.4]
    assert ProgressQuotient(0.05, strip=2).stop(val, train) == Stop(4, 2)
    assert ProgressQuotient(0.75, strip=2).stop(val, train) == Stop(6, 2)
    assert ProgressQuotient(2.9, strip=2).stop(val, train) == Stop(6, 2)
    assert ProgressQuotient(3.1, strip=2).stop(val, train) == Stop()


def test_progress_quotient_of_training_that_stands_still() -> None:
    assert ProgressQuotient(100.0, strip=2).stop([1.0, 1.0, 1.0, 1.1], [0.5] * 4) == Stop(4, 1)
    assert ProgressQuotient(strip=2).stop([1.0] * 4, [0.5] * 4) == Stop()


def test_progress_quotient_asks_for_the_train_loss() -> None:
    with pytest.raises(ValueError, match=r"train_loss is None; PQ0\.75 needs it"):
        ProgressQuotient().stop(U)
    with pytest.raises(ValueError, match="train_loss has 2 epochs; it must have 12"):
        ProgressQuotient().stop(U, [1.0, 2.0])


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.name)
def test_falling_curve_stops_no_rule(rule: Rule) -> None:
    assert rule.stop(FALLING, FALLING) == Stop()


@pytest.mark.parametrize(
    ("rule", "stopped_at"), [(ArgMin(), 10), (GeneralisationLoss(), 6), (Patience(3), 8), (Up(1), 10)]
)
def test_diverged_curve_counts_as_infinitely_bad(rule: Rule, stopped_at: int) -> None:
    assert rule.stop([*FALLING[:5], *[np.nan] * 5]) == Stop(stopped_at, 5)


def test_names_are_those_of_the_literature() -> None:
    assert [rule.name for rule in DEFAULT_RULES] == ["argmin", "GL5", "PQ0.75", "UP3", "patience10"]


@pytest.mark.parametrize("loss", [[], [[1.0, 2.0]], 1.0])
def test_curve_of_another_shape_is_refused(loss: object) -> None:
    with pytest.raises(ValueError, match=r"it must be \[epochs\]"):
        ArgMin().stop(loss)  # type: ignore[arg-type]
