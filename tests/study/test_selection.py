"""Selection, against sums written out and SciPy's own distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats

from overfit_lab.config import Config
from overfit_lab.records import Rule, StudyFiles
from overfit_lab.study import load_study
from overfit_lab.study.candidates import gather_candidates
from overfit_lab.study.selection import Selection, select
from tests.records.signing import sign
from tests.study.made_up import Losses, Rows, add_run, fold_columns, make_study

Make = Callable[..., Config]
EPOCHS = 5


def _select(study: StudyFiles, rule: Rule = "min") -> Selection:
    loaded = load_study(study.directory)
    candidates, _, _ = gather_candidates(loaded)
    return select(candidates, rule, loaded.record.split)


def _curve(at_best: NDArray[np.float64], best: int) -> Losses:
    """Make losses, `repeats x epochs x columns`, that are lowest at one epoch, where they are as given."""
    away = np.abs(np.arange(1, EPOCHS + 1) - best)
    return at_best[:, None] + away[:, None]


def _difference_by_fold(ours: NDArray[np.float64], best: NDArray[np.float64], folds: Rows) -> list[float]:
    differences = []
    for repeat, of_column in enumerate(folds):
        for fold in sorted(set(of_column.tolist())):
            columns = [i for i, f in enumerate(of_column) if f == fold]
            differences.append(float(np.mean([ours[repeat, i] - best[repeat, i] for i in columns])))
    return differences


def _p_value(d: list[float], ratio: float) -> float:
    mean = sum(d) / len(d)
    variance = sum((x - mean) ** 2 for x in d) / (len(d) - 1)
    t = mean / math.sqrt((1 / len(d) + ratio) * variance)
    return 2 * float(stats.t(len(d) - 1).cdf(-abs(t)))


def _holm(p_values: list[float]) -> list[float]:
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - step) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _within(d: list[float], count: int) -> bool:
    mean = sum(d) / len(d)
    return mean <= math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1)) / math.sqrt(count)


def _add(
    study: StudyFiles, config: Config, at_best: NDArray[np.float64], folds: Rows, *, best: int = 3, parameters: int = 10
) -> None:
    add_run(study, config, _curve(at_best, best), folds, parameters=parameters)


def _stored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


KFOLD = (["split.folds=4"], np.repeat(fold_columns(6, 6, 5, 5), 1, axis=0), 4, 1 / 3)
# Repeats tell little new: the standard error is over folds of one repeat, the test over all.
REPEATED = (
    ["split.folds=3", "split.repeats=2"],
    np.stack([fold_columns(7, 6, 6)[0], np.random.default_rng(0).permutation(fold_columns(7, 6, 6)[0])]),
    3,
    1 / 2,
)
# Each reshuffled hold-out is as a fold.
RESHUFFLED = (["split=holdout", "split.repeats=5", "split.val_fraction=0.2"], np.zeros((5, 9), dtype=np.int64), 5, 0.25)


@pytest.mark.parametrize(("overrides", "folds", "count", "ratio"), [KFOLD, REPEATED, RESHUFFLED])
def test_each_candidate_against_the_lowest(
    tmp_path: Path, config: Make, overrides: list[str], folds: Rows, count: int, ratio: float
) -> None:
    rng = np.random.default_rng(4)
    base = rng.gamma(2.0, 0.5, folds.shape)
    made = {width: _stored(base + 0.02 * i + rng.normal(0, 0.1, folds.shape)) for i, width in enumerate((4, 8, 16, 32))}
    study = make_study(tmp_path, config(*overrides))
    for i, (width, at_best) in enumerate(made.items()):
        own = config(*overrides, f"model.width={width}", f"training.epochs={EPOCHS}")
        _add(study, own, at_best, folds, best=1 + i, parameters=width)
    lowest, *others = _select(study).candidates

    assert lowest.val_loss == min(values.mean() for values in made.values())
    assert (lowest.difference, lowest.within_one_se, lowest.p_value, lowest.p_holm) == (None, None, None, None)
    assert [one.val_loss for one in others] == sorted(one.val_loss for one in others)
    differences = [_difference_by_fold(made[one.parameters], made[lowest.parameters], folds) for one in others]
    p_values = [_p_value(d, ratio) for d in differences]
    for one, d, p, adjusted in zip(others, differences, p_values, _holm(p_values), strict=True):
        assert one.difference == pytest.approx(sum(d) / len(d), rel=1e-9)
        assert one.within_one_se == _within(d, count)
        assert one.p_value == pytest.approx(p, rel=1e-9)
        assert one.p_holm == pytest.approx(adjusted, rel=1e-9)
        assert one.epoch == 1 + (4, 8, 16, 32).index(one.parameters)
    # Or the comparison would be empty.
    assert 0 < min(p_values) < max(p_values) < 1


@pytest.mark.parametrize(("repeats", "limit"), [(1, math.sqrt(4 / 3) / 2), (2, math.sqrt(8 / 7) / 2)])
def test_within_one_standard_error_is_over_folds_with_ddof_1(
    tmp_path: Path, config: Make, repeats: int, limit: float
) -> None:
    """Differences of 0 and 2 in four folds: sd / sqrt(4) = .577; repeats give a better sd, but no more folds."""
    folds = np.tile(fold_columns(2, 2, 2, 2), (repeats, 1))
    by_fold = np.tile(np.repeat(np.array([0.0, 2.0, 0.0, 2.0]), 2), (repeats, 1))
    overrides = ("split.folds=4", f"split.repeats={repeats}", f"training.epochs={EPOCHS}")
    study = make_study(tmp_path, config(*overrides))
    for width, mean in ((4, None), (8, limit - 0.01), (16, limit + 0.01)):
        at_best = np.ones_like(by_fold) if mean is None else by_fold + mean
        _add(study, config(*overrides, f"model.width={width}"), at_best, folds, parameters=width)
    within = {one.parameters: one.within_one_se for one in _select(study).candidates}
    assert within == {4: None, 8: True, 16: False}


def test_one_standard_error_takes_the_fewest_parameters_then_the_strongest_penalty(
    tmp_path: Path, config: Make
) -> None:
    folds = fold_columns(5, 5, 5, 5)
    noise = _stored(np.random.default_rng(0).normal(0, 0.2, (1, 20)))
    study = make_study(tmp_path, config("split.folds=4"))
    settings = [
        # width, alpha, parameters, above the lowest by
        (64, 0.0, 300, 0.0),
        (16, 0.0, 100, 0.005),
        (16, 0.1, 100, 0.006),
        (16, 0.01, 100, 0.004),
        (4, 0.1, 20, 5.0),
    ]
    for width, alpha, parameters, above in settings:
        own = config(*("split.folds=4", f"model.width={width}", f"penalty.alpha={alpha}", f"training.epochs={EPOCHS}"))
        at_best = np.ones((1, 20)) + (noise - noise.mean() + above if above else 0)
        _add(study, own, at_best, folds, parameters=parameters)
    assert _select(study).chosen.parameters == 300
    selection = _select(study, "one_se")
    assert (selection.chosen.parameters, selection.chosen.alpha) == (100, 0.1)
    assert [one.within_one_se for one in selection.candidates] == [None, True, True, True, False]
    # What was chosen has no lower loss for having been chosen: the bias is that of its epochs, of which one is best.
    assert selection.bias == 0


def test_a_hold_out_is_paired_by_rows_and_has_no_test(tmp_path: Path, config: Make) -> None:
    rng = np.random.default_rng(1)
    folds = np.zeros((1, 30), dtype=np.int64)
    base = rng.gamma(2.0, 2.0, (1, 30))
    made = {4: _stored(base), 8: _stored(base + rng.normal(0.05, 0.5, (1, 30))), 16: _stored(base + 0.01)}
    study = make_study(tmp_path, config("split=holdout"))
    for width, at_best in made.items():
        own = config("split=holdout", f"model.width={width}", f"training.epochs={EPOCHS}")
        _add(study, own, at_best, folds, parameters=width)
    selection = _select(study)
    lowest, *others = selection.candidates
    for one in others:
        d = (made[one.parameters] - made[lowest.parameters])[0]
        assert one.within_one_se == _within(d.tolist(), 30)
        assert one.difference == pytest.approx(d.mean(), rel=1e-9)
        assert (one.p_value, one.p_holm) == (None, None)
    # The same rows, a hundredth higher each: far less than a standard error over rows, and yet surely higher.
    assert {one.parameters: one.within_one_se for one in others if one.parameters == 16} == {16: False}
    assert selection.bias_by_folds is None
    assert selection.bias is not None


def _of_noise(study: StudyFiles, config: Make, overrides: list[str], folds: Rows, count: int) -> None:
    rng = np.random.default_rng(2)
    first = config(*overrides, f"training.epochs={EPOCHS}")
    for width in range(1, count + 1):
        losses = 1 + rng.normal(0, 0.3, (len(folds), EPOCHS, folds.shape[1]))
        own = first.model_copy(update={"model": first.model.model_copy(update={"width": width})})
        add_run(study, own, losses, folds)


@pytest.mark.parametrize(
    ("overrides", "folds"),
    [
        (["split.folds=5"], fold_columns(20, 20, 20, 20, 20)),
        (["split=holdout"], np.zeros((1, 100), dtype=np.int64)),
        (["split.folds=2", "split.repeats=2"], np.tile(fold_columns(50, 50), (2, 1))),
    ],
)
@pytest.mark.parametrize("blocks", [False, True])
def test_of_pure_noise_the_lowest_loss_promises_too_much(
    tmp_path: Path, config: Make, overrides: list[str], folds: Rows, blocks: bool
) -> None:
    """All expect a loss of 1; the lowest of 60 means of 100 values with sd .3 is about 2.3 x .03 lower."""
    study = make_study(tmp_path, config(*overrides))
    _of_noise(study, config, overrides, folds, 12)
    if blocks:
        for files in map(study.run, (path.name for path in study.runs.iterdir())):
            kept = dict(files.load_val_losses())
            np.savez(files.val_losses, **{**kept, "rows": np.full_like(kept["rows"], -1)})
            sign(files)
    selection = _select(study)
    truth = 1 - selection.chosen.loss
    assert truth > 0.03
    assert selection.bias is not None
    assert 0.3 * truth < selection.bias < 2 * truth
    if folds.max() > 0:
        assert selection.bias_by_folds is not None
        assert selection.bias_by_folds > 0


def test_the_bias_by_folds_is_that_of_every_configuration_and_epoch(tmp_path: Path, config: Make) -> None:
    folds = fold_columns(5, 4, 3)
    study = make_study(tmp_path, config("split.folds=3"))
    _of_noise(study, config, ["split.folds=3"], folds, 4)
    choices = []
    for path in study.runs.iterdir():
        losses = study.run(path.name).load_val_losses().losses[0, 1:].astype(np.float64)
        choices += [[epoch[folds[0] == fold].mean() for fold in range(3)] for epoch in losses]
    best = min(choices, key=lambda errors: sum(errors) / 3)
    expected = sum(best[k] - min(errors[k] for errors in choices) for k in range(3)) / 3
    assert _select(study).bias_by_folds == pytest.approx(expected, rel=1e-9)


def test_losses_of_other_rows_have_no_bias_together(tmp_path: Path, config: Make) -> None:
    """Where one keeps rows and the other blocks of them, neither can be drawn with the other."""
    folds = np.zeros((1, 20), dtype=np.int64)
    study = make_study(tmp_path, config("split=holdout"))
    _of_noise(study, config, ["split=holdout"], folds, 2)
    files = study.run(next(study.runs.iterdir()).name)
    kept = dict(files.load_val_losses())
    np.savez(files.val_losses, **{**kept, "rows": np.full_like(kept["rows"], -1)})
    sign(files)
    selection = _select(study)
    assert selection.bias is None
    assert selection.candidates[1].within_one_se is None
    assert _select(study, "one_se").chosen is not None


def test_a_best_epoch_near_the_horizon_is_noticed(tmp_path: Path, config: Make) -> None:
    folds = fold_columns(5, 5)
    for best, late in ((EPOCHS - 1, False), (EPOCHS, True)):
        own = config("split.folds=2", f"training.epochs={EPOCHS}")
        study = make_study(tmp_path / str(best), own)
        _add(study, own, np.ones((1, 10)), folds, best=best)
        assert _select(study).at_horizon == late


def test_one_configuration(tmp_path: Path, config: Make) -> None:
    own = config("split.folds=2", f"training.epochs={EPOCHS}")
    study = make_study(tmp_path, own)
    _add(study, own, np.ones((1, 10)), fold_columns(5, 5))
    selection = _select(study, "one_se")
    assert [one.p_holm for one in selection.candidates] == [None]
    assert selection.bias == 0


def test_runs_on_fewer_train_rows_are_compared_with_more_doubt(tmp_path: Path, config: Make) -> None:
    """The ratio of validation to train rows is that of the run that trained on fewer: 5.5 of 22 rows by 10."""
    overrides, folds, *_ = KFOLD
    rng = np.random.default_rng(1)
    made = {size: _stored(rng.gamma(2.0, 0.5, folds.shape)) for size in ("10", "null")}
    study = make_study(tmp_path, config(*overrides))
    frame = {"row": range(22), "role": ["dev"] * 22, "repeat": [0] * 22, "fold": folds[0].tolist()}
    pl.DataFrame(frame).write_parquet(study.split)
    for size, at_best in made.items():
        _add(study, config(*overrides, f"data.train_size={size}", f"training.epochs={EPOCHS}"), at_best, folds)
    _, other = _select(study).candidates
    d = _difference_by_fold(made["10"], made["null"], folds)
    assert other.p_value == pytest.approx(_p_value(d, 5.5 / 10), rel=1e-9)
