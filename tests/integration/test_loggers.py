"""`logger=csv`: a file for each run of a cohort, with what its curves say."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from omegaconf import OmegaConf

import overfit_lab
from tests.integration.conftest import Train


def test_each_run_of_a_cohort_has_a_csv_of_its_own(train: Train, tmp_path: Path) -> None:
    quick = ("data=iris", "split.folds=3", "training.epochs=9", "training.eval_every=2", "study.report=false")
    result = train("-m", "logger=csv", "model.width=4,8", "seed=0,1", *quick)
    assert result.code == 0, result.err
    assert "logger._target_" not in result.err
    study = overfit_lab.load_study(tmp_path / "studies/iris-kfold")
    assert len(study.runs) == 4
    # Who logs it tells no runs apart.
    assert set(study.swept()) == {"model.width", "seed"}
    finals = set()
    for run in study.runs:
        folder = study.files.run(run.run_id).directory
        frame = pl.read_csv(folder / "csv/metrics.csv")
        curves = study.curves(run.run_id).group_by("epoch", "split", "metric").agg(pl.col("value").mean())
        for split in ("train", "val"):
            own = curves.filter(split=split, metric="accuracy").sort("epoch")
            logged = frame.drop_nulls(f"accuracy/{split}")
            assert logged["step"].to_list() == own["epoch"].to_list() == [0, 2, 4, 6, 8, 9]
            assert (logged[f"accuracy/{split}"] - own["value"]).abs().max() < 1e-12  # type: ignore[operator]
        [final] = frame["final/val_loss"].drop_nulls()
        assert final == run.val_loss.mean
        finals.add(final)
        hparams = OmegaConf.to_container(OmegaConf.load(folder / "csv/hparams.yaml"))
        assert isinstance(hparams, dict)
        assert (hparams["model.width"], hparams["seed"]) == (run.config["model"]["width"], run.config["seed"])
        # The event files are there, too.
        assert list(folder.glob("events.out.tfevents.*"))
    assert len(finals) == 4
