"""`overfit-lab finalize`: what it gives, and that it opens the test rows once."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from overfit_lab.config import parse
from overfit_lab.data import load_source
from overfit_lab.data.split import Fold
from overfit_lab.model import initialise
from overfit_lab.records import LedgerLine, StudyFiles
from overfit_lab.study.ledger import read_ledger
from tests.integration.finalizing import (
    QUICK,
    command,
    edit,
    everything,
    finalized,
    keep,
    numbers,
    records_of,
    trained,
)
from tests.reference import plain_loop


def test_what_is_left_on_disk(study: Path) -> None:
    before = everything(study)
    result = command(study.parent, "finalize", "study")
    assert (result.code, result.err) == (0, "")
    after = everything(study)
    assert {name for name in after if name not in before} == {"final.json", "test_ledger.jsonl", ".test_ledger.lock"}
    assert {name for name in before if after.get(name) != before[name]} == {"study.json"}

    files = StudyFiles(study)
    record, split = files.load_final(), files.load_split()
    assert record is not None
    test_rows = np.sort(split.filter(pl.col("role") == "test")["row"].to_numpy())
    (line,) = (LedgerLine.model_validate_json(raw) for raw in files.ledger.read_text().splitlines())
    assert (line.number, line.rows, line.reason, line.intact) == (1, 30, None, True)
    assert line.test_rows == hashlib.sha256(test_rows.tobytes()).hexdigest()
    assert line.source == load_source("iris").fingerprint
    assert (line.config_id, line.epochs) == (record.selection.config_id, record.selection.epoch)
    assert (record.openings, record.test.rows) == (1, 30)
    assert record.ledger == hashlib.sha256(files.ledger.read_bytes()).hexdigest()
    # From scratch, on all other rows, as long as was selected, with the first of the seeds.
    retrain = record.retrain
    assert (retrain.rows, retrain.epochs, retrain.seed) == (120, record.selection.epoch, 0)
    assert [candidate.seeds for candidate in record.selection.candidates] == [2, 2]
    assert "tested on 30 rows, opened once" in result.out
    assert f"warning: {record.warnings[0]}" in result.out


def test_the_same_on_a_copy_is_bit_identical_wherever_it_lies(swept: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a [b]* 'c' \"d\"" / "my study"
    first, second = (Path(shutil.copytree(swept, place)) for place in (tmp_path / "first", odd))
    ours = finalized(first)
    result = command(odd.parent, "finalize", "my study")
    assert (result.code, result.err) == (0, "")
    theirs = StudyFiles(second).load_final()
    assert theirs is not None
    assert numbers(ours) == numbers(theirs)


def test_another_copy_of_the_same_rows_is_named(swept: Path, tmp_path: Path) -> None:
    first, second = (Path(shutil.copytree(swept, tmp_path / name)) for name in ("first", "second"))
    assert not any("same test rows" in line for line in finalized(first).warnings)
    warnings = finalized(second).warnings
    assert "the same test rows were opened in first: this is no first look" in warnings


Factory = Callable[[list[nn.Parameter], list[nn.Parameter]], torch.optim.Optimizer]
LOSSES = {
    "breast_cancer": plain_loop.binary,
    "wine": plain_loop.multiclass,
    "linnerud": plain_loop.regression,
    "digits_traits": plain_loop.binary,
    "digits_ink": plain_loop.unit_regression,
}
BATCH = 50


def _adam(weights: list[nn.Parameter], biases: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": 0.1}, {"params": biases}]
    return torch.optim.Adam(groups, lr=0.1)


def _numpy_logits(network: nn.Sequential, x: NDArray[np.float64]) -> NDArray[np.float64]:
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(layers):
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if i < len(layers) - 1:
            x = np.tanh(x)
    return x


def _numpy_loss(name: str, z: NDArray[np.float64], y: NDArray[Any]) -> float:
    if name == "wine":
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]))
    if name == "linnerud":
        return float(np.mean((z - y) ** 2))
    p = 1 / (1 + np.exp(-z))
    if name == "digits_ink":
        return float(np.mean((p - y) ** 2))
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


@pytest.mark.parametrize("name", LOSSES)
def test_the_test_loss_is_that_of_a_plain_retraining(tmp_path: Path, name: str) -> None:
    """Trained once more in plain PyTorch and evaluated in NumPy: all problem types, in double precision."""
    path = trained(
        tmp_path,
        *(f"data={name}", "split=holdout", "model.width=4", "model.activation=tanh", "penalty.alpha=0.1", "seed=3"),
        *(f"training.batch_size={BATCH}", "training.epochs=6", "trainer.precision=64-true", "optimizer.lr=0.1"),
        "study.report=false",
    )
    record = finalized(path)
    config, source = parse(record.selection.config), load_source(name)
    split = StudyFiles(path).load_split()
    test, development = (np.sort(split.filter(pl.col("role") == role)["row"].to_numpy()) for role in ("test", "dev"))
    steps = math.ceil(len(development) / BATCH)
    network = initialise(config.model, source.features, source.outputs, seed=3, repeat=0, fold=-1)
    assert isinstance(network, nn.Sequential)
    y = source.y
    if config.data.scale_targets:
        y = (y - y[development].mean(0)) / y[development].std(0)
    # The test rows stand where validation rows stand: nothing is trained on them, and no scaling fitted.
    plain = plain_loop.fit(
        network,
        source.x,
        y,
        Fold(0, -1, development, test),
        LOSSES[name],
        _adam,
        seed=3,
        epochs=record.selection.epoch,
        steps=steps,
        widest=math.ceil(len(development) / steps),
    )
    assert isinstance(plain.network, nn.Sequential)
    mean, sd = source.x[development].mean(0), source.x[development].std(0)
    x = (source.x[test] - mean) / np.where(sd > 0, sd, 1)
    logits, y = _numpy_logits(plain.network, x), y[test]
    # Or any other number of epochs would do as well.
    assert record.retrain.epochs == record.selection.epoch < record.selection.horizon == 6
    assert record.retrain.rows == len(development)
    assert record.retrain.train_loss == pytest.approx(plain.train_loss[-1], rel=1e-9)
    assert record.test.loss.value == pytest.approx(_numpy_loss(name, logits, y), rel=1e-9)
    assert record.test.loss.value == pytest.approx(plain.val_loss[-1], rel=1e-9)
    assert record.test.rows == len(test)
    promised = record.validation.corrected
    assert promised is not None
    assert record.test.gap.value == pytest.approx(plain.val_loss[-1] - promised, rel=1e-6)
    if name == "wine":
        assert record.test.metrics["accuracy"].value == pytest.approx(np.mean(logits.argmax(1) == y), abs=1e-9)
    if name == "breast_cancer":
        assert record.test.metrics["accuracy"].value == pytest.approx(np.mean((logits > 0) == y), abs=1e-9)


def test_one_run_says_that_nothing_but_epochs_was_selected(study: Path) -> None:
    keep(study, lambda config: (config["model"]["width"], config["seed"]) == (5, 0))
    record = finalized(study)
    assert "there is one configuration: nothing but its number of epochs was selected" in record.warnings
    (candidate,) = record.selection.candidates
    ((_, run),) = records_of(study)
    assert candidate.val_loss == pytest.approx(run.val_loss.mean)
    assert candidate.epoch == run.val_loss.epoch


def test_a_best_epoch_at_the_horizon_is_said_with_what_to_do(study: Path) -> None:
    record = finalized(study)
    assert record.selection.epoch == 4
    assert any(
        line.startswith("the selected epoch 4 is at the horizon of 4: ") and line.endswith("with training.epochs=8")
        for line in record.warnings
    )


def test_seeds_that_not_all_share_play_no_part_and_are_named(study: Path) -> None:
    keep(study, lambda config: (config["model"]["width"], config["seed"]) != (3, 1))
    record = finalized(study)
    assert "seeds that not all configurations share play no part: 1" in record.warnings
    assert [candidate.seeds for candidate in record.selection.candidates] == [1, 1]


def test_what_was_left_out_is_said(study: Path) -> None:
    path, diverged = records_of(study)[0]
    (study / "runs" / "unfinished").mkdir()
    StudyFiles(study).run("failed").save_failure("failed", {}, ValueError("no"))
    edit(path / "run.json", lambda values: values.update(status="diverged"))
    record = finalized(study, "--partial")
    assert f"configuration {diverged.config_id} was left out: run {diverged.run_id} diverged" in record.warnings
    assert "1 runs that are failed were left out" in record.warnings
    assert "1 runs that are not finished were left out" in record.warnings


def test_the_simplest_within_one_standard_error(study: Path) -> None:
    """The narrow network is much worse, so both rules take the wide one."""
    record = finalized(study, "selection=one_se")
    assert record.selection.rule == "one_se"
    near = [c for c in record.selection.candidates if c.within_one_se is not False]
    assert record.selection.config_id == min(near, key=lambda c: c.parameters).config_id


def test_opened_again_with_a_reason(study: Path) -> None:
    first = finalized(study)
    kept = (study / "final.json").read_bytes()
    second = finalized(study, "--again", "--reason", "the first one was a mistake")
    assert (study / "final-1.json").read_bytes() == kept
    assert numbers(first) == numbers(second)
    assert (first.openings, second.openings) == (1, 2)
    assert "the test rows were opened 2 times: this is no first look any more" in second.warnings
    state = read_ledger(StudyFiles(study))
    assert [line.reason for line in state.lines] == [None, "the first one was a mistake"]
    assert state.fault is None
    third = finalized(study, "selection=one_se", "--again", "--reason", "another rule")
    assert third.openings == 3
    assert {path.name for path in study.glob("final*")} == {"final.json", "final-1.json", "final-2.json"}


def test_a_ledger_that_was_removed_together_with_what_the_study_knew_of_it(swept: Path, study: Path) -> None:
    finalized(study)
    (study / "test_ledger.jsonl").unlink()
    shutil.copy(swept / "study.json", study / "study.json")
    result = command(study.parent, "finalize", str(study))
    assert result.code == 2
    assert "test_ledger.jsonl was removed: the test rows were opened once or more" in result.err
    kept = (study / "final.json").read_bytes()
    assert finalized(study, "--again", "--reason", "lost").openings == 2
    assert (study / "final-1.json").read_bytes() == kept


NETWORK = """
from pathlib import Path
from torch import nn

class Fragile(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.map = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.map(x) * (float("nan") if Path("broken").exists() else 1.0)
"""


def test_a_retraining_that_diverges_leaves_the_test_rows_sealed(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(NETWORK)
    path = trained(tmp_path, "data=iris", "model=custom", "model._target_=fragile.Fragile", *QUICK[:1], *QUICK[2:])
    before = everything(path)
    (tmp_path / "broken").touch()
    result = command(tmp_path, "finalize", str(path))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.endswith("diverged; the test rows stay sealed")
    after = everything(path)
    assert after.pop(".test_ledger.lock") == b""
    assert after == before
    (tmp_path / "broken").unlink()
    result = command(tmp_path, "finalize", str(path))
    assert (result.code, result.err) == (0, "")


def test_a_network_that_fails_while_it_is_retrained_is_a_sentence(tmp_path: Path) -> None:
    # Under a name of its own: a module stays imported.
    lines = "if Path('broken').exists() and self.training:", "    raise ValueError('a [wheel] is off')", "return"
    failing = "\n        ".join(lines)
    text = NETWORK.replace("return", failing)
    (tmp_path / "failing.py").write_text(text)
    path = trained(tmp_path, "data=iris", "model=custom", "model._target_=failing.Fragile", *QUICK[:1], *QUICK[2:])
    (tmp_path / "broken").touch()
    result = command(tmp_path, "finalize", str(path))
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.endswith("failed with ValueError: a [wheel] is off; the test rows stay sealed")
    assert not StudyFiles(path).ledger.exists()


def test_while_another_process_finalizes(study: Path) -> None:
    files = StudyFiles(study)
    with FileLock(files.ledger_lock):
        before = everything(study)
        result = command(study.parent, "finalize", str(study))
        assert result.code == 2
        assert result.err == f"overfit-lab: {study}: another process is finalizing it at this moment\n"
        assert everything(study) == before
    finalized(study)
