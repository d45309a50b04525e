"""The networks by their commands: one sweep over kinds of networks, selected among and tested at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import overfit_lab
from overfit_lab import cli
from tests.integration.conftest import Train

WORDS = """
import numpy as np
from overfit_lab.data import Source

def reviews():
    x = np.random.default_rng(0).integers(12, size=(80, 5))
    return Source("reviews", "binary", x, (x == 7).any(axis=1), tokens=12)
"""


def test_a_sweep_over_kinds_of_networks_and_its_final_test(train: Train, tmp_path: Path) -> None:
    models = "model=linear,cnn,resnet,transformer,random_features"
    quick = ("data=digits_ink", "training.epochs=1", "training.batch_size=256", "split.folds=2", "study.name=kinds")
    result = train("-m", models, "penalty.alpha=0,0.1", *quick, "study.report=false")
    assert result.code == 0, result.err
    study = overfit_lab.load_study(tmp_path / "studies/kinds")
    assert [failed.error for failed in study.failed] == []
    kinds = {run.config["model"]["_target_"].rpartition(".")[2]: run for run in study.runs}
    assert set(kinds) == {"Linear", "CNN", "ResNet", "Transformer", "RandomFeatures"}
    # Images of 4 x 8 pixels and one output. 9 x 16 + 16, 9 x 16 x 32 + 32, 1 x 2 x 32 + 1; and 256 + 1.
    assert (kinds["CNN"].parameters, kinds["RandomFeatures"].parameters) == (160 + 4640 + 65, 257)
    assert len(study.runs) == 10
    assert all(np.isfinite(run.val_loss.mean or np.nan) for run in study.runs)
    assert cli.main(["finalize", str(tmp_path / "studies/kinds")]) == 0


def test_a_transformer_reads_tokens(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.py").write_text(WORDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("data=custom", "data.name=reviews", "data._target_=words.reviews", "study.report=false")
    small = ("model=transformer", "model.embedding=8", "model.depth=1", "training.epochs=2", "split.folds=2")
    result = train(*own, *small, "data.scale_inputs=false")
    assert result.code == 0, result.err
    [run] = overfit_lab.load_study(tmp_path / "studies/reviews-kfold").runs
    # An embedding and a position for each of 12 tokens and 5 places, a block of 12 E^2 + 13 E, and what is behind it.
    assert run.parameters == (12 + 5) * 8 + 12 * 64 + 13 * 8 + 2 * 8 + 8 + 1
    refused = train(*own, *small)
    assert (refused.code, "data.scale_inputs=true: the inputs of reviews are token numbers" in refused.err) == (2, True)
    refused = train(*own, "data.scale_inputs=false")
    assert (refused.code, "the inputs are token numbers, which mean nothing as numbers" in refused.err) == (2, True)
