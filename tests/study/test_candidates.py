"""What of a study can be selected, and what stands in the way; from records alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overfit_lab.config import Config, config_id, run_id
from overfit_lab.errors import UserError
from overfit_lab.records import RunFiles
from overfit_lab.study import load_study
from overfit_lab.study.candidates import gather_candidates
from tests.records.signing import sign
from tests.study.made_up import Losses, add_run, fold_columns, make_study

Make = Callable[..., Config]

# Four folds of unequal size: the mean over rows is not that over folds.
FOLDS = fold_columns(5, 5, 4, 2)
EPOCHS = 6


def _losses(seed: int, level: float = 1.0) -> Losses:
    """Return losses as they are stored, which is in single precision."""
    losses = np.random.default_rng(seed).gamma(2.0, level / 2, (1, EPOCHS, FOLDS.shape[1]))
    return losses.astype(np.float32).astype(np.float64)


@pytest.fixture
def make(config: Make) -> Make:
    """Compose a configuration of the study."""
    return lambda *overrides: config("split.folds=4", f"training.epochs={EPOCHS}", *overrides)


def test_losses_on_labels_of_several_noise_levels_are_not_compared(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    for share in (0, 0.2):
        add_run(study, make(f"data.label_noise={share}"), _losses(0), FOLDS)
    with pytest.raises(UserError, match=r"data\.label_noise: the runs have 0 and 0\.2, so they were validated on diff"):
        gather_candidates(load_study(tmp_path))


def test_train_sizes_say_how_many_validation_rows_there_are_for_each_train_row(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    rows = pl.DataFrame({"row": range(18), "role": ["test"] * 2 + ["dev"] * 16, "repeat": [None] * 2 + [0] * 16})
    folds = pl.Series("fold", [None, None, *FOLDS[0].tolist()])
    rows.with_columns(folds).write_parquet(study.split)
    # Folds of 5, 5, 4 and 2 rows, 4 in the mean, and 12 train rows.
    for size, ratio in ((None, None), (6, 4 / 6), (0.25, 4 / 3)):
        own = make(f"data.train_size={'null' if size is None else size}")
        add_run(study, own, _losses(0), FOLDS)
        (candidate,) = (c for c in gather_candidates(load_study(tmp_path))[0] if c.config_id == config_id(own))
        assert candidate.val_train_ratio == (None if ratio is None else pytest.approx(ratio))


def test_the_lowest_pooled_mean_at_each_best_epoch_comes_first(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    made = {width: _losses(width) for width in (4, 8, 16, 32)}
    for width, losses in made.items():
        add_run(study, make(f"model.width={width}"), losses, FOLDS, parameters=width)
    candidates, left_out, seeds = gather_candidates(load_study(tmp_path))
    assert (left_out, seeds) == ([], (0,))

    expected = {}
    for width, losses in made.items():
        pooled = [float(np.mean([losses[0, t, row] for row in range(16)])) for t in range(EPOCHS)]
        expected[width] = min(pooled), pooled.index(min(pooled)) + 1
    assert [c.parameters for c in candidates] == sorted(expected, key=lambda width: expected[width])
    for candidate in candidates:
        loss, epoch = expected[candidate.parameters]
        values = made[candidate.parameters][0, epoch - 1]
        assert candidate.loss == pytest.approx(loss, rel=1e-12)
        assert (candidate.epoch, candidate.horizon) == (epoch, EPOCHS)
        assert candidate.se == pytest.approx(np.sqrt(sum((values - loss) ** 2) / 15 / 16), rel=1e-12)
        by_fold = [values[:5].mean(), values[5:10].mean(), values[10:14].mean(), values[14:].mean()]
        np.testing.assert_allclose(candidate.fold_losses[candidate.best], by_fold, rtol=1e-12)
        assert candidate.settings == {"model.width": candidate.parameters}
        np.testing.assert_array_equal(candidate.load_losses(), made[candidate.parameters][0])
        np.testing.assert_array_equal(candidate.load_folds(), FOLDS[0])


def test_losses_are_averaged_over_the_seeds_that_all_share(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    wide = {seed: _losses(seed) for seed in (0, 1, 2)}
    narrow = {seed: _losses(10 + seed, level=2.0) for seed in (1, 2, 3)}
    # A lucky seed, which the others do not have, does not make it the best.
    narrow[3][:] = 0.001
    for width, runs in ((16, wide), (4, narrow)):
        for seed, losses in runs.items():
            add_run(study, make(f"model.width={width}", f"seed={seed}"), losses, FOLDS, parameters=width)
    (first, second), _, seeds = gather_candidates(load_study(tmp_path))
    assert seeds == (1, 2)
    assert [[run.config["seed"] for run in c.runs] for c in (first, second)] == [[1, 2], [1, 2]]
    assert (first.parameters, second.parameters) == (16, 4)
    for candidate, runs in ((first, wide), (second, narrow)):
        mean = ((runs[1] + runs[2]) / 2)[0].mean(axis=1)
        # So few epochs have no trend: the best epoch is that of the lowest mean, of the seeds together.
        assert candidate.epoch == mean.argmin() + 1
        assert candidate.loss == pytest.approx(mean.min(), rel=1e-12)
        np.testing.assert_allclose(candidate.load_losses(), (runs[1] + runs[2])[0] / 2, rtol=1e-12)
        assert candidate.settings == {"model.width": candidate.parameters}


def test_configurations_without_a_common_seed_are_not_compared(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    add_run(study, make("model.width=4", "seed=0"), _losses(0), FOLDS)
    add_run(study, make("model.width=8", "seed=1"), _losses(1), FOLDS)
    with pytest.raises(UserError, match="no seed in common"):
        gather_candidates(load_study(tmp_path))


def test_the_order_does_not_hang_on_that_of_the_files(tmp_path: Path, make: Make) -> None:
    """Equal losses, written in two orders."""
    orders = []
    for name, widths in (("up", (4, 8, 16)), ("down", (16, 8, 4))):
        study = make_study(tmp_path / name, make())
        for width in widths:
            add_run(study, make(f"model.width={width}"), _losses(0), FOLDS, parameters=width)
        candidates, _, _ = gather_candidates(load_study(tmp_path / name))
        orders.append([c.parameters for c in candidates])
    assert orders == [[4, 8, 16]] * 2


def test_what_diverged_is_left_out_and_said(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    sound, lost = make("model.width=4"), make("model.width=8")
    add_run(study, sound, _losses(0), FOLDS)
    add_run(study, lost, _losses(1, level=0.1), FOLDS, status="diverged")
    candidates, left_out, _ = gather_candidates(load_study(tmp_path))
    assert [c.config_id for c in candidates] == [config_id(sound)]
    assert [(one.config_id, one.why) for one in left_out] == [(config_id(lost), f"run {run_id(lost)} diverged")]
    shutil.rmtree(study.run(run_id(sound)).directory)
    with pytest.raises(UserError, match=f"no configuration can be selected; {config_id(lost)}: run .* diverged"):
        gather_candidates(load_study(tmp_path))


def test_a_record_that_lacks_folds_is_left_out_and_said(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    whole, partial = make("model.width=4"), make("model.width=8")
    add_run(study, whole, _losses(0), FOLDS)
    add_run(study, partial, _losses(1, level=0.1), fold_columns(5, 5, 6))
    candidates, (left_out,), _ = gather_candidates(load_study(tmp_path))
    assert [c.config_id for c in candidates] == [config_id(whole)]
    assert left_out.why == f"run {run_id(partial)} has 3 of 4 folds; missing: repeat 0 fold 3"


def test_a_loss_that_is_never_finite_is_left_out(tmp_path: Path, make: Make) -> None:
    study = make_study(tmp_path, make())
    for seed in (0, 1):
        add_run(study, make("model.width=4", f"seed={seed}"), _losses(0), FOLDS, parameters=4)
        add_run(study, make("model.width=8", f"seed={seed}"), np.full_like(_losses(0), np.nan), FOLDS)
    candidates, (left_out,), _ = gather_candidates(load_study(tmp_path))
    assert [c.parameters for c in candidates] == [4]
    assert left_out.why == "its validation loss is not finite at any epoch"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["split.folds=4", "split.seed=1"], "split.seed=1, but the study is split with seed=0; their losses are of"),
        (["split=holdout"], "split.kind=holdout, but the study is split with kind=kfold"),
        (["split.folds=4", "task.loss=mean_squared_error"], "task.loss: the runs have binary_cross_entropy and mean_"),
        (["split.folds=4", "data.scale_targets=true"], "data.scale_targets: the runs have False and True"),
    ],
)
def test_losses_that_cannot_be_compared(
    tmp_path: Path, config: Make, make: Make, other: list[str], message: str
) -> None:
    study = make_study(tmp_path, make())
    add_run(study, make(), _losses(0), FOLDS)
    add_run(study, config(f"training.epochs={EPOCHS}", *other), _losses(1), FOLDS)
    with pytest.raises(UserError, match=message):
        gather_candidates(load_study(tmp_path))


def _edit(files: RunFiles, change: Callable[[dict[str, object]], object]) -> None:
    record = json.loads(files.record.read_text())
    change(record)
    files.record.write_text(json.dumps(record))
    sign(files)


@pytest.mark.parametrize("key", ["penalty", "seed", "config_id"])
def test_an_edited_configuration_is_named(tmp_path: Path, make: Make, key: str) -> None:
    study = make_study(tmp_path, make())
    files = add_run(study, make(), _losses(0), FOLDS)

    def change(record: dict[str, object]) -> None:
        config = record["config"]
        assert isinstance(config, dict)
        if key == "penalty":
            config["penalty"]["alpha"] = 7.0
        elif key == "seed":
            config["seed"] = 7
        else:
            record["config_id"] = "0"

    _edit(files, change)
    with pytest.raises(UserError, match=r"run\.json: its configuration is not the one .* it was edited"):
        gather_candidates(load_study(tmp_path))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_losses_of_another_run_are_noticed(tmp_path: Path, make: Make, seeds: tuple[int, ...]) -> None:
    study = make_study(tmp_path, make())
    files, *_ = [add_run(study, make(f"seed={seed}"), _losses(seed), FOLDS) for seed in seeds]
    for seed in seeds:
        other = add_run(study, make("model.width=4", f"seed={seed}"), _losses(5), FOLDS)
    files.val_losses.write_bytes(other.val_losses.read_bytes())
    sign(files)
    with pytest.raises(UserError, match=r"val_losses\.npz does not hold the losses that run\.json beside it tells of"):
        gather_candidates(load_study(tmp_path))


@pytest.mark.parametrize("what", ["epoch", "columns"])
def test_losses_that_do_not_fit_their_record_are_noticed(tmp_path: Path, make: Make, what: str) -> None:
    study = make_study(tmp_path, make())
    files = add_run(study, make(), _losses(0), FOLDS)
    if what == "epoch":
        _edit(files, lambda record: record.update(val_loss={"mean": 0.5, "se": None, "epoch": 99}))
    else:
        kept = dict(files.load_val_losses())
        np.savez(files.val_losses, **{**kept, "folds": kept["folds"][:, 1:]})
    sign(files)
    with pytest.raises(UserError, match="does not hold the losses"):
        gather_candidates(load_study(tmp_path))


def test_blocks_of_rows_are_compared_as_rows_are(tmp_path: Path, make: Make) -> None:
    """Where a validation set is large, a column is the mean of a block, and has no row's number."""
    study = make_study(tmp_path, make())
    blocks = np.full_like(FOLDS, -1)
    for width in (4, 8):
        add_run(study, make(f"model.width={width}"), _losses(width), FOLDS, rows=blocks, parameters=width)
    candidates, _, _ = gather_candidates(load_study(tmp_path))
    for candidate in candidates:
        assert candidate.loss == pytest.approx(_losses(candidate.parameters)[0].mean(axis=1).min(), rel=1e-12)
    assert candidates[0].layout == candidates[1].layout


@pytest.mark.parametrize(
    ("overrides", "alpha"),
    [
        (["penalty.alpha=0.5"], 0.5),
        (["penalty=none"], 0.0),
        (["penalty=none", "optimizer=adamw", "optimizer.decoupled_decay=0.3"], 0.3),
        (["penalty.alpha=0", "optimizer=adamw", "optimizer.decoupled_decay=0.3"], 0.3),
        (["penalty.alpha=2", "optimizer=adamw", "optimizer.decoupled_decay=0.3"], 2.0),
    ],
)
def test_the_strength_of_a_penalty(tmp_path: Path, make: Make, overrides: list[str], alpha: float) -> None:
    config = make(*overrides)
    add_run(make_study(tmp_path, config), config, _losses(0), FOLDS)
    (candidate,), _, _ = gather_candidates(load_study(tmp_path))
    assert candidate.alpha == alpha


def test_metrics_are_means_over_fits_at_the_best_epoch(tmp_path: Path, make: Make) -> None:
    losses = _losses(0)
    best = int(losses[0].mean(axis=1).argmin()) + 1
    values = {(0, 0): 0.5, (0, 1): 0.75}
    rows = [
        (0, fold, epoch, split, metric, (value if epoch == best and split == "val" else 99.0))
        for (_, fold), value in values.items()
        for epoch in range(EPOCHS + 1)
        for split in ("train", "val")
        for metric in ("loss", "accuracy")
    ]
    rows += [(0, fold, best, "val", "auroc", float("nan") if fold else 1.0) for fold in (0, 1)]
    schema = ["repeat", "fold", "epoch", "split", "metric", "value"]
    study = make_study(tmp_path, make())
    add_run(study, make(), losses, FOLDS, curves=pl.DataFrame(rows, schema=schema, orient="row"))
    (candidate,), _, _ = gather_candidates(load_study(tmp_path))
    assert candidate.metrics == {"accuracy": 0.625, "auroc": None}
