"""A cohort goes on from its checkpoint as if nothing had happened, and never unpickles what it finds."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab import config as cfg
from overfit_lab.data import load_source
from overfit_lab.files import write_atomically
from overfit_lab.objective import Penalty
from overfit_lab.training import checkpoint
from overfit_lab.training.checkpoint import CheckpointFile
from overfit_lab.training.history import History
from overfit_lab.training.module import CohortModule
from overfit_lab.training.runner import train
from overfit_lab.training.stack import Form
from overfit_lab.training.supervision import Stopped, Supervision
from tests.training.cohorts import Cohort, custom, make_cohort, mlp

FORMS: tuple[Form, ...] = ("layered", "vmapped", "looped")


class Interruption(Exception):
    """Stands for whatever ends a process in the middle of its training."""


ADAMW = cfg.AdamW(kind="adamw", lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decoupled_decay=0.1)


def _plain(epochs: int = 8) -> Cohort:
    return make_cohort(load_source("wine"), dropout=0.3, epochs=epochs, checkpoint_seconds=0, precision="32-true")


def _mixed(form: Form, dropout: float) -> Cohort:
    """Optimizers, penalties and widths of their own."""
    return make_cohort(
        load_source("wine"),
        penalties=[Penalty(0.0, 0.1), Penalty(0.01, 0.0), Penalty(0.0, 0.0)],
        optimizers=[ADAMW, ADAMW, ADAMW.model_copy(update={"lr": 0.003, "decoupled_decay": 1.0})],
        models=[mlp(width, "tanh", dropout) for width in (3, 8, 5)],
        form=form,
        epochs=4,
        checkpoint_seconds=0,
        precision="32-true",
    )


def _draws_and_keeps_statistics() -> Cohort:
    return make_cohort(
        load_source("wine"),
        model=custom("Everything"),
        form="looped",
        epochs=4,
        checkpoint_seconds=0,
        seeds=(0,),
        precision="32-true",
    )


def _in_float64() -> Cohort:
    return make_cohort(load_source("wine"), dropout=0.3, epochs=4, checkpoint_seconds=0, precision="64-true")


def _with_an_optimizer_of_the_users(name: str) -> Cohort:
    own = cfg.CustomOptimizer.model_validate({"kind": "custom", "_target_": f"torch.optim.{name}", "lr": 0.01})
    return make_cohort(
        load_source("wine"),
        penalties=[Penalty(0.0, 0.1)] * 2,
        optimizers=[own, own.model_copy(update={"lr": 0.02})],
        models=[mlp(width, "tanh", 0.0) for width in (3, 8)],
        epochs=4,
        checkpoint_seconds=0,
        precision="32-true",
    )


COHORTS: dict[str, Callable[[], Cohort]] = {
    "layered": _plain,
    **{f"mixed {form}": partial(_mixed, form, 0.3) for form in FORMS},
    # Here a network has layers that drop nothing, and is given no noise.
    **{f"mixed {form} without dropout": partial(_mixed, form, 0.0) for form in FORMS},
    "draws and keeps statistics": _draws_and_keeps_statistics,
    "float64": _in_float64,
    # One for all members and one for each.
    **{name: partial(_with_an_optimizer_of_the_users, name) for name in ("NAdam", "Adafactor")},
}


def _interrupt_at(epoch: int, make: Callable[[], Cohort] = _plain) -> Cohort:
    cohort = make()

    def interrupt(history: History) -> None:
        if history.epochs == epoch:
            raise Interruption

    cohort.module.listeners = (interrupt,)
    return cohort


def _assert_identical(ours: History, theirs: History) -> None:
    assert ours.curves.keys() == theirs.curves.keys()
    for curve in ours.curves:
        assert np.array_equal(ours.curve(*curve), theirs.curve(*curve)), curve
    for own, other in zip(ours.val_losses, theirs.val_losses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))
    assert ours.diverged_at is not None
    assert theirs.diverged_at is not None
    assert torch.equal(ours.diverged_at, theirs.diverged_at)


@pytest.mark.parametrize(
    ("name", "epoch"), [("layered", 1), ("layered", 2), ("layered", 8), *((name, 3) for name in COHORTS)]
)
def test_a_resumed_cohort_is_bit_identical(name: str, epoch: int, tmp_path: Path) -> None:
    """Interrupted while an epoch is measured: the checkpoint of the epoch before is the last one."""
    make = COHORTS[name]
    first = make()
    undisturbed = first.train(tmp_path / "a.ckpt")
    path = tmp_path / "b.ckpt"
    with pytest.raises(Interruption):
        _interrupt_at(epoch, make).train(path)
    assert path.exists() == (epoch > 1)

    seen: list[int] = []
    resumed_cohort = make()
    resumed_cohort.module.listeners = (lambda history: seen.append(history.epochs),)
    resumed = resumed_cohort.train(path)
    assert seen == list(range(epoch if epoch > 1 else 0, first.training.epochs + 1))
    _assert_identical(undisturbed, resumed)
    states = first.module.network.state_dict(), resumed_cohort.module.network.state_dict()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*(s.values() for s in states), strict=True))


def test_a_checkpoint_that_is_kept_gives_the_history_at_once(tmp_path: Path) -> None:
    """As parts of a cohort do that were trained before an interruption."""
    path = tmp_path / "c.ckpt"
    first = _plain(epochs=3)
    trainer = cfg.TrainerConfig(accelerator="cpu", precision="32-true")
    trained = train(first.module, first.data, training=first.training, trainer=trainer, checkpoint=path, keep=True)
    assert path in tmp_path.iterdir()
    assert {file.suffix for file in tmp_path.iterdir()} == {".ckpt", ".history"}
    again, epochs = _plain(epochs=3), []
    again.module.listeners = (lambda history: epochs.append(history.epochs),)
    found = train(again.module, again.data, training=again.training, trainer=trainer, checkpoint=path, keep=True)
    assert epochs == []
    _assert_identical(trained, found)
    assert torch.equal(first.module.network.flat, again.module.network.flat)
    assert path.exists()


def test_a_module_may_be_looked_at_before_it_is_trained(tmp_path: Path) -> None:
    """What was computed before the fit, gradients included, changes nothing in it."""
    looked_at = _plain(epochs=2)
    looked_at.module.network.eval()(torch.zeros(6, 1, 13))
    assert looked_at.module.network.gradients
    looked_at.module.network.train()
    found = looked_at.train(tmp_path / "a.ckpt")
    _assert_identical(found, _plain(epochs=2).train(tmp_path / "b.ckpt"))


class StopAfter(Supervision):
    """Tells a training to stop once it has asked so many times, and keeps what it hears."""

    def __init__(self, questions: int) -> None:
        self.questions = questions
        self.heard: list[float] = []

    @property
    def stop_requested(self) -> bool:
        self.questions -= 1
        return self.questions < 0

    def reached(self, epoch: float) -> None:
        self.heard.append(epoch)


class Asleep(StopAfter):
    """One that others have taken for dead: the cohort is theirs."""

    def check(self) -> None:
        raise Stopped


@pytest.mark.parametrize("questions", [0, 10**6])
def test_whoever_was_taken_for_dead_saves_nothing(questions: int, tmp_path: Path) -> None:
    """Neither when told to stop nor when it is time: the checkpoint is what its successor goes on from."""
    cohort, path = _plain(), tmp_path / "a.ckpt"
    training = cohort.training.model_copy(update={"checkpoint_seconds": 0})
    trainer = cfg.TrainerConfig.model_validate({"accelerator": "cpu", "precision": cohort.precision})
    with pytest.raises(Stopped):
        train(
            cohort.module,
            cohort.data,
            training=training,
            trainer=trainer,
            checkpoint=path,
            supervision=Asleep(questions),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(COHORTS))
def test_a_cohort_that_is_told_to_stop_goes_on_from_that_very_step(name: str, tmp_path: Path) -> None:
    """It is stopped at each step in turn; one training is stopped over and over again."""
    make = COHORTS[name]
    first = make()
    undisturbed = first.train(tmp_path / "a.ckpt")
    steps = first.data.steps
    assert steps > 3
    path, heard = tmp_path / "b.ckpt", [0.0]
    for stops in itertools.count():  # noqa: B007 - how often it went around is looked at below
        cohort, stop = make(), StopAfter(2)
        trainer = cfg.TrainerConfig.model_validate({"accelerator": "cpu", "precision": cohort.precision})
        try:
            resumed = train(
                cohort.module, cohort.data, training=cohort.training, trainer=trainer, checkpoint=path, supervision=stop
            )
        except Stopped:
            # From where the one before has stopped: no step is taken twice, and none is lost.
            assert stop.heard[0] == heard[-1]
            heard = stop.heard
        else:
            break
    assert stops > first.training.epochs * (steps - 1) / 3
    _assert_identical(undisturbed, resumed)
    states = first.module.network.state_dict(), cohort.module.network.state_dict()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*(s.values() for s in states), strict=True))


def test_saving_takes_no_more_than_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own, on which an epoch takes a second and saving one, too."""
    now, saved = [0.0], []

    def slow(_: CheckpointFile, module: CohortModule) -> None:
        saved.append(module.completed)
        now[0] += 1.0

    monkeypatch.setattr(CheckpointFile, "save", slow)
    monkeypatch.setattr("overfit_lab.training.checkpoint.time.monotonic", lambda: now[0])

    def tick(history: History) -> None:
        now[0] += 1.0

    cohort = _plain(epochs=150)
    cohort.training = cohort.training.model_copy(update={"checkpoint_seconds": 0.5})
    cohort.module.listeners = (tick,)
    cohort.train(tmp_path / "c.ckpt")
    # At first after half a second, and then when what it took is 1.8 % of the time.
    assert saved[0] <= 1
    assert all(55 <= later - earlier <= 58 for earlier, later in itertools.pairwise(saved[1:]))
    assert len(saved) <= 4


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def _is_set_aside(path: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Train with a damaged file in place of the checkpoint: as from scratch, and the file is named and kept."""
    damaged = path.read_bytes()
    found = _plain().train(path).curve("val", "loss")
    assert np.array_equal(found, _plain().train(path.with_name("fresh.ckpt")).curve("val", "loss"))
    assert (
        f"{path} cannot be read as a checkpoint ({fault}): set aside as c.damaged, training from scratch"
        in capsys.readouterr().err
    )
    return path.with_suffix(".damaged").read_bytes() == damaged


def test_a_checkpoint_that_is_no_checkpoint_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.ckpt"
    path.write_bytes(pickle.dumps(_Payload()))
    assert _is_set_aside(path, "it is none, or of another version", capsys)
    torch.save({"name": "c.ckpt", "state": _Payload()}, path)
    assert _is_set_aside(path, "it is none, or of another version", capsys)
    # As somebody would have to write it who wants it to be trusted.
    head, content = b"overfit_lab checkpoint 2\n", path.with_suffix(".damaged").read_bytes()
    path.write_bytes(head + hashlib.sha256(content).digest() + content)
    assert _is_set_aside(path, "it holds something else than tensors and plain values", capsys)
    assert not Path("owned").exists()


def test_a_truncated_an_edited_and_a_foreign_checkpoint_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.ckpt"
    with pytest.raises(Interruption):
        _interrupt_at(3).train(path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:20], whole[:-2000] + bytes([whole[-2000] ^ 1]) + whole[-1999:]):
        path.write_bytes(damaged)
        fault = "it is none, or of another version" if len(damaged) == 20 else "it is truncated or was edited"
        assert _is_set_aside(path, fault, capsys)
    path.write_bytes(b"")
    assert _is_set_aside(path, "it is none, or of another version", capsys)
    # Of another cohort, and of one that has another network.
    other = tmp_path / "other.ckpt"
    other.write_bytes(whole)
    with pytest.raises(Interruption):
        _interrupt_at(3, _in_float64).train(other)
    assert "other.ckpt cannot be read as a checkpoint (it was written as c.ckpt)" in capsys.readouterr().err
    other.rename(path)
    with pytest.raises(Interruption):
        _interrupt_at(3, _in_float64).train(path)
    assert "it was written as other.ckpt" in capsys.readouterr().err
    assert _is_set_aside(path, "it is of another network", capsys)


def _pieces(path: Path) -> list[Path]:
    """The files of a checkpoint's history, the oldest first."""
    return sorted(path.parent.glob(f"{path.stem}.*.history"), key=lambda piece: piece.stat().st_mtime_ns)


def _stop_after_each(epochs: Sequence[int], path: Path) -> None:
    """Interrupt a training while these epochs are measured, each time in another process, as it were."""
    for epoch in epochs:
        with pytest.raises(Interruption):
            _interrupt_at(epoch).train(path)


def test_the_history_is_appended_to_by_each_process_in_a_piece_of_its_own(tmp_path: Path) -> None:
    undisturbed = _plain().train(tmp_path / "a.ckpt")
    path = tmp_path / "b.ckpt"
    sizes: list[int] = []
    for count, epoch in enumerate((3, 5, 7), start=1):
        _stop_after_each([epoch], path)
        pieces = _pieces(path)
        assert len(pieces) == count
        # Nobody touches what another has written.
        assert [piece.stat().st_size for piece in pieces[:-1]] == sizes
        sizes.append(pieces[-1].stat().st_size)
    _assert_identical(undisturbed, _plain().train(path))


def test_a_checkpoint_does_not_grow_with_the_epochs(tmp_path: Path) -> None:
    sizes, appended = [], []

    def look(history: History) -> None:
        if history.epochs > 1:
            sizes.append((tmp_path / "c.ckpt").stat().st_size)
            appended.append(_pieces(tmp_path / "c.ckpt")[0].stat().st_size)

    cohort = _plain(epochs=12)
    cohort.module.listeners = (look,)
    cohort.train(tmp_path / "c.ckpt")
    assert max(sizes[2:]) <= min(sizes[2:]) + 1024
    growth = np.diff(appended)
    assert growth.min() > 0
    assert growth.max() <= growth.min() + 1024


def test_what_was_appended_after_the_checkpoint_is_not_read(tmp_path: Path) -> None:
    """As by a process that is killed between the two, or that was thought dead and goes on writing."""
    undisturbed = _plain().train(tmp_path / "a.ckpt")
    path = tmp_path / "b.ckpt"
    _stop_after_each([3], path)
    (piece,) = _pieces(path)
    with piece.open("ab") as file:
        file.write(b"half a part")
    _stop_after_each([5], path)
    assert piece.read_bytes().endswith(b"half a part")
    (path.parent / "b.00000000.history").write_bytes(b"of a process that never saved a checkpoint")
    _assert_identical(undisturbed, _plain().train(path))


def test_a_part_that_could_not_be_appended_is_appended_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of saving, whose caller goes on: what was written in vain is written over."""
    undisturbed = _plain().train(tmp_path / "a.ckpt")
    path, calls = tmp_path / "b.ckpt", itertools.count()

    def full_at_times(path: Path, *parts: bytes | memoryview) -> None:
        if next(calls) % 3 == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, *parts)

    save = CheckpointFile.save

    def patient(self: CheckpointFile, module: CohortModule) -> None:
        with contextlib.suppress(OSError):
            save(self, module)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full_at_times)
        patch.setattr(CheckpointFile, "save", patient)
        _stop_after_each([5], path)
    assert next(calls) == 4
    _assert_identical(undisturbed, _plain().train(path))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        pytest.param(
            lambda piece: piece.write_bytes(piece.read_bytes()[:-1]), "{} is truncated or was edited", id="cut"
        ),
        pytest.param(
            lambda piece: piece.write_bytes(b"\x01" + piece.read_bytes()[1:]),
            "{} is truncated or was edited",
            id="edited",
        ),
        pytest.param(lambda piece: piece.unlink(), "No such file or directory", id="gone"),
    ],
)
def test_a_history_that_is_not_what_was_written_is_noticed(
    which: int, damage: Callable[[Path], object], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.ckpt"
    _stop_after_each([3, 5], path)
    piece = _pieces(path)[which]
    damage(piece)
    found = _plain().train(path).curve("val", "loss")
    said = capsys.readouterr().err
    assert f"{path} cannot be read as a checkpoint (" in said
    assert fault.format(piece.name) in said
    assert np.array_equal(found, _plain().train(tmp_path / "fresh.ckpt").curve("val", "loss"))


@pytest.mark.parametrize("place", ["../elsewhere.history", "/elsewhere.history"])
def test_a_history_lies_beside_its_checkpoint(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.ckpt"
    _stop_after_each([3], path)
    head, content = b"overfit_lab checkpoint 2\n", path.read_bytes()
    found = torch.load(io.BytesIO(content[len(head) + 32 :]), weights_only=True)
    found["history"] = [(place, *found["history"][0][1:])]
    buffer = io.BytesIO()
    torch.save(found, buffer)
    path.write_bytes(head + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    assert _is_set_aside(path, f"its history {place} does not lie beside it", capsys)


def test_a_clusters_environment_and_checkpoints_of_lightnings_own_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = _plain(epochs=2).train(tmp_path / "a.ckpt").curve("val", "loss")
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "job")
    torch.save({"foreign": 1}, tmp_path / "hpc_ckpt_1.ckpt")
    (tmp_path / "run").mkdir()
    assert np.array_equal(alone, _plain(epochs=2).train(tmp_path / "run" / "a.ckpt").curve("val", "loss"))
