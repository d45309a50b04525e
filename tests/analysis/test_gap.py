import numpy as np
import pytest

from overfit_lab.analysis.gap import gap_at, generalisation_gap


def test_gap_is_validation_minus_train() -> None:
    np.testing.assert_allclose(generalisation_gap([1.0, 0.6, 0.7], [0.9, 0.5, 0.1]), [0.1, 0.1, 0.6])


def test_gap_at_counts_completed_passes() -> None:
    assert gap_at([1.0, 0.75, 0.5], [0.5, 0.5, 0.0], epoch=2) == 0.25


@pytest.mark.parametrize("epoch", [0, 4])
def test_gap_outside_the_curve_is_refused(epoch: int) -> None:
    with pytest.raises(ValueError, match=f"epoch is {epoch}; it must lie from 1 to 3"):
        gap_at([1.0, 0.75, 0.5], [0.5, 0.5, 0.0], epoch)


def test_gap_of_curves_of_unlike_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"val_loss is \(2,\) and train_loss \(3,\)"):
        generalisation_gap([1.0, 2.0], [1.0, 2.0, 3.0])
