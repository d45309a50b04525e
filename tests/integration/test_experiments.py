"""Every experiment composes, trains one epoch, and says what is expected of it."""

import math
from pathlib import Path

import polars as pl
import pytest
from omegaconf import OmegaConf

from overfit_lab import load_study
from overfit_lab.config import conf_directory
from scripts.benchmarks.experiments import EXPERIMENTS, main
from tests.integration.conftest import Train

FILES = {path.stem: path for path in sorted((conf_directory() / "experiment").glob("*.yaml"))}


def jobs(name: str) -> int:
    """How many jobs an experiment sweeps; the one that it stands on may sweep, too."""
    config = OmegaConf.load(FILES[name])
    below = [part for part in OmegaConf.select(config, "defaults") if part in FILES]
    swept: dict[str, str] = {}
    for part in [*below, name]:
        swept |= OmegaConf.select(OmegaConf.load(FILES[part]), "hydra.sweeper.params", default={})
    return math.prod(len(str(values).split(",")) for values in swept.values())


def reviews(folder: Path) -> Path:
    """Reviews in the layout of the public data set."""
    for half in ("train", "test"):
        texts = [f"a {'good' if row % 2 else 'bad'} film, number {half} {row}" for row in range(20)]
        pl.DataFrame({"text": texts, "label": [row % 2 for row in range(20)]}).write_parquet(
            folder / f"{half}-00000-of-00001.parquet"
        )
    return folder


@pytest.mark.parametrize("name", list(FILES))
def test_experiment_trains_one_epoch(name: str, train: Train, tmp_path: Path) -> None:
    short = ["training.epochs=1", "training.eval_every=1", "split.repeats=1", "study.report=false"]
    if EXPERIMENTS[name].imdb:
        (tmp_path / "reviews").mkdir()
        short.append(f"data.path={reviews(tmp_path / 'reviews')}")
    result = train("-m", f"experiment={name}", *short, "hydra/launcher=basic")
    assert result.code == 0, result.err
    (path,) = Path("studies").glob("*/study.json")
    study = load_study(path.parent)
    assert path.parent.name.startswith(name)
    assert len(study.runs) == jobs(name)
    assert not study.failed
    for run in study.runs:
        assert run.status == "finished"
        assert run.val_loss.epoch == 1


@pytest.mark.parametrize("name", list(FILES))
def test_experiment_says_what_is_expected_and_where_it_is_from(name: str) -> None:
    comment = " ".join(line.lstrip("# ") for line in FILES[name].read_text().splitlines() if line.startswith("#"))
    assert "Expected: " in comment
    assert "[" in comment.split("Expected: ")[0]


def test_each_experiment_has_an_outcome() -> None:
    assert list(EXPERIMENTS.keys() ^ FILES.keys()) == []


def test_a_seed_of_an_experiment_draws_its_data(train: Train) -> None:
    short = ["training.epochs=1", "training.eval_every=1", "split.repeats=1", "study.report=false", "penalty.alpha=0"]
    assert train("-m", "experiment=ridge_optimum", "seed=0,1", *short, "hydra/launcher=basic").code == 0
    studies = [load_study(f"studies/ridge_optimum-{seed}") for seed in (0, 1)]
    assert studies[0].record.source.fingerprint != studies[1].record.source.fingerprint
    assert [study.runs[0].config["data"]["seed"] for study in studies] == [0, 1]
    assert [study.record.source.bayes_risk for study in studies] == [1.0, 1.0]


def test_bench_without_the_reviews_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["imdb_network_size"])
    assert capsys.readouterr().err == "imdb_network_size is left out: --imdb names the folder of the reviews\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ridge"], "argument NAME: 'ridge'; allowed are ridge_optimum, early_stopping, "),
        (["ridge_optimum", "--seeds", "0"], "argument --seeds: '0'; allowed is a whole number from 1"),
        (["imdb_network_size", "--imdb", "nowhere"], "--imdb nowhere: there is no such folder"),
    ],
)
def test_mistakes_of_the_bench_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"scripts/bench experiments: {message}")
    assert err.count("\n") == 1
