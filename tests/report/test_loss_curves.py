from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.errors import UserError
from overfit_lab.report.loss_curves import LossCurves, load_loss_curves, loss_curves, mean_over_fits, rule_epochs
from overfit_lab.study import load_study
from tests.records.signing import sign
from tests.report.made_up import curves_frame, make_sweep


def test_losses_of_fits_keep_their_places_whatever_the_order_of_rows() -> None:
    train, val = np.arange(6.0).reshape(2, 3), 10 + np.arange(6.0).reshape(2, 3)
    curves = loss_curves(curves_frame({"val": val, "train": train}).sample(fraction=1, shuffle=True, seed=1))
    np.testing.assert_array_equal(curves.epochs, [0, 1, 2])
    np.testing.assert_array_equal(curves.train, train)
    np.testing.assert_array_equal(curves.val, val)


def test_losses_against_the_right_labels_are_there_where_some_were_made_wrong() -> None:
    train, val = np.arange(6.0).reshape(2, 3), 10 + np.arange(6.0).reshape(2, 3)
    frame = curves_frame({"val": val, "train": train})
    assert loss_curves(frame).val_clean is None
    clean = frame.filter(pl.col("metric") == "loss").with_columns(
        pl.lit("loss_clean").alias("metric"), pl.col("value") / 2
    )
    curves = loss_curves(pl.concat([clean, frame]).sample(fraction=1, shuffle=True, seed=1))
    np.testing.assert_array_equal(curves.val, val)
    np.testing.assert_array_equal(curves.val_clean, val / 2)


def test_the_mean_ends_where_a_fit_does() -> None:
    losses = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, np.inf, np.nan, 6.0]])
    np.testing.assert_array_equal(mean_over_fits(losses), [2.0, np.nan, np.nan, 5.0])


def test_rules_read_the_mean_curve_without_the_untrained_network() -> None:
    # Two fits with the mean 9, 5, 4, 3, 4, 5, ...: the lowest after three passes, although epoch 0 counts as row 0.
    mean = np.array([9.0, 5.0, 4.0, 3.0, *range(4, 20)])
    train = np.linspace(1, 0.1, len(mean))
    curves = LossCurves(np.arange(len(mean)), np.stack([train] * 2), np.stack([mean - 1, mean + 1]), np.zeros(2, int))
    epochs = rule_epochs(curves)
    assert epochs["rule_argmin"] == 3
    assert epochs["rule_GL5"] == 3
    assert epochs["rule_patience10"] == 3


def test_rules_name_epochs_where_not_every_one_was_measured() -> None:
    mean = np.array([9.0, 5.0, 4.0, 3.0, *range(4, 20)])[None]
    curves = LossCurves(5 * np.arange(mean.shape[1]), 0.1 * mean, mean, np.zeros(1, int))
    assert rule_epochs(curves)["rule_argmin"] == 15


def test_fits_know_which_shuffle_they_are_on() -> None:
    frame = curves_frame({"train": np.ones((2, 3)), "val": np.ones((2, 3))})
    later = frame.with_columns(repeat=pl.lit(1, dtype=frame.schema["repeat"]))
    curves = loss_curves(pl.concat([later, frame]))
    np.testing.assert_array_equal(curves.repeats, [0, 0, 1, 1])


def test_rules_do_not_fire_on_a_falling_curve() -> None:
    falling = np.linspace(2, 1, 21)[None]
    assert set(rule_epochs(LossCurves(np.arange(21), falling, falling, np.zeros(1, int))).values()) == {None}


def test_curves_with_rows_missing_are_named(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    path = files.run("narrow0").curves
    pl.read_parquet(path)[:-7].write_parquet(path)
    sign(files.run("narrow0"))
    with pytest.raises(UserError, match=r"narrow0.curves\.parquet is damaged"):
        load_loss_curves(load_study(files.directory))
