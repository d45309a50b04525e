"""Digests: whatever is not what was written is noticed, named and set aside."""

from __future__ import annotations

import copy
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overfit_lab.analysis.onset import Onset
from overfit_lab.errors import UserError
from overfit_lab.records import (
    SCHEMA_VERSION,
    Damaged,
    Descriptive,
    Environment,
    FitRecord,
    RunFiles,
    RunRecord,
    ValLoss,
    ValLosses,
)

CURVES = pl.DataFrame(
    {"repeat": 0, "fold": 1, "epoch": [0, 1], "split": "val", "metric": "loss", "value": [0.5, float("nan")]}
)
VAL_LOSSES = ValLosses(
    epochs=np.arange(3),
    losses=np.arange(6, dtype=np.float32).reshape(1, 3, 2),
    rows=np.array([[4, 7]]),
    folds=np.zeros((1, 2), dtype=np.int64),
)


def record_of(run_id: str) -> RunRecord:
    onset = Onset("overfit", epoch=5, ci=(3, 9), detected_at=12, best_epoch=5, p_value=0.01)
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        config_id="def",
        status="diverged",
        config={"seed": 0, "model": {"width": 4, "_target_": None}, "penalty": {"alpha": 1e-07}, "name": "Größe"},
        overrides=["seed=0"],
        parameters=3,
        onset=onset,
        val_loss=ValLoss(mean=0.1 + 0.2, se=float("inf"), epoch=5),
        train_loss=1e16,
        fits=[
            FitRecord(
                repeat=0,
                fold=1,
                seed=0,
                status="diverged",
                diverged_at=7,
                onset=onset,
                best_epoch=5,
                val_loss=0.25,
            )
        ],
        descriptive=Descriptive(
            weight_norm=2.0, distance_from_init=1.0, effective_dof=None, effective_dof_rows=None, normalised_margin=-0.5
        ),
        seconds=1.5,
        device="cpu",
        environment=Environment(overfit_lab="0", torch="2", lightning="2", python="3", git=None, command="x"),
        interruptions=2,
        epochs_repeated=0.125,
    )


def saved(folder: Path, run_id: str = "abc") -> RunFiles:
    files = RunFiles(folder / run_id)
    files.directory.mkdir(parents=True)
    files.save(record_of(run_id), CURVES, VAL_LOSSES)
    return files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFiles]:
    """A run for the properties below, which put back what they change."""
    files = saved(tmp_path_factory.mktemp("runs"))
    yield files
    files.verify()


def damage(files: RunFiles) -> str:
    """What is wrong with a run, in one line."""
    with pytest.raises(Damaged) as caught:
        files.verify()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def verified(files: RunFiles) -> RunRecord | UserError:
    try:
        return files.verify()
    except UserError as error:
        return error


def test_what_was_saved_is_trusted(whole: RunFiles) -> None:
    record = whole.verify()
    assert record == whole.load()
    assert record.files is not None
    assert record.digest is not None
    left_out = {"files": None, "digest": None}
    assert record.model_copy(update=left_out) == record_of("abc").model_copy()


def test_saving_returns_what_is_read(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    assert files.save(record_of(tmp_path.name), CURVES, VAL_LOSSES) == files.load() == files.verify()


@pytest.mark.parametrize("name", ["curves", "val_losses"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_byte_that_changes_is_noticed(whole: RunFiles, name: str, data: st.DataObject) -> None:
    path: Path = getattr(whole, name)
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1), label="byte")
    bits = data.draw(st.integers(1, 255), label="bits")
    try:
        path.write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
        assert damage(whole) == f"{path} is missing or damaged: it is not what was written there"
        with pytest.raises(Damaged, match="it is not what was written there"):
            whole.load_curves() if name == "curves" else whole.load_val_losses()
        # The other one is read all the same.
        assert whole.load_val_losses() is not None if name == "curves" else len(whole.load_curves()) == 2
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["curves", "val_losses"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_end_that_is_missing_or_too_much_is_noticed(whole: RunFiles, name: str, data: st.DataObject) -> None:
    path: Path = getattr(whole, name)
    content = path.read_bytes()
    length = data.draw(st.integers(0, len(content) - 1), label="length")
    try:
        for other in (content[:length], content + content[length:]):
            path.write_bytes(other)
            assert damage(whole) == f"{path} is missing or damaged: it is not what was written there"
        path.unlink()
        assert damage(whole).startswith(f"{path} is missing or damaged: ")
    finally:
        path.write_bytes(content)


def leaves(values: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401 - JSON
    """Where the values of a JSON document stand."""
    if isinstance(values, dict | list) and values:
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(values: Any, path: tuple[str | int, ...], value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON document with another value at one place."""
    copied = copy.deepcopy(values)
    inside = copied
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return copied


def value_at(values: Any, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401 - JSON
    for key in path:
        values = values[key]
    return values


def test_every_value_that_is_edited_is_noticed(whole: RunFiles) -> None:
    """Also one that the schema would take; and one that was removed, or written differently, is an edit."""
    content = whole.record.read_bytes()
    values = json.loads(content)
    places = [place for place in leaves(values) if place != ("schema_version",)]
    assert len(places) > 50
    try:
        for place in places:
            now = value_at(values, place)
            others: list[Any] = [None, 7, 1.25, "x", "\ud800"]
            if isinstance(now, str):
                others.append(now + "0")
            elif isinstance(now, float):
                others.append(float(np.nextafter(now, np.inf)))
            elif isinstance(now, int):
                others.append(now + 1)
            for other in others:
                if other == now:
                    continue
                whole.record.write_text(json.dumps(changed(values, place, other)))
                assert damage(whole).startswith(f"{whole.record} is damaged: "), (place, other)
        for key in values:
            if key in ("schema_version", "digest"):
                continue
            whole.record.write_text(json.dumps({k: v for k, v in values.items() if k != key}))
            assert damage(whole) == f"{whole.record} is damaged: it was edited", key
        # Laid out differently it says the same.
        whole.record.write_text(json.dumps(values, sort_keys=True))
        whole.verify()
    finally:
        whole.record.write_bytes(content)


def test_without_its_digest_a_record_is_not_trusted(whole: RunFiles) -> None:
    """Whoever edits it could remove the digest, too."""
    content = whole.record.read_bytes()
    values = json.loads(content)
    try:
        for edited in (
            {key: value for key, value in values.items() if key != "digest"},
            {key: value for key, value in values.items() if key not in ("digest", "files")},
        ):
            whole.record.write_text(json.dumps({**edited, "seconds": 7.5}))
            assert damage(whole).startswith(f"{whole.record} is damaged: ")
    finally:
        whole.record.write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_change_of_a_byte_of_the_record_passes_for_another_content(whole: RunFiles, data: st.DataObject) -> None:
    """Unless it still says the same, as another blank does."""
    content = whole.record.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1), label="byte")
    value = data.draw(st.integers(0, 255), label="value")
    cut = data.draw(st.booleans(), label="cut")
    end = b"" if cut else bytes([value]) + content[place + 1 :]
    try:
        whole.record.write_bytes(content[:place] + end)
        found = verified(whole)
        if isinstance(found, UserError):
            # Where the version itself became a higher one, it is not damaged.
            what = " is damaged: " if isinstance(found, Damaged) else " has schema version "
            assert str(found).startswith(f"{whole.record}{what}")
            assert "\n" not in str(found)
        else:
            assert found.model_dump(mode="json") == json.loads(content)
    finally:
        whole.record.write_bytes(content)


def test_a_record_of_another_run_is_not_trusted(tmp_path: Path) -> None:
    one, other = saved(tmp_path, "abc"), saved(tmp_path, "xyz")
    shutil.copy(other.record, one.record)
    # By itself it is whole.
    assert one.load().run_id == "xyz"
    assert damage(one) == f"{one.record} is damaged: it is of run xyz, not of the folder that it lies in"
    other.verify()


def test_files_of_another_run_are_not_trusted(tmp_path: Path) -> None:
    one, other = saved(tmp_path, "abc"), RunFiles(tmp_path / "xyz")
    other.directory.mkdir()
    more = CURVES.with_columns(pl.col("value") + 1)
    other.save(record_of("xyz"), more, VAL_LOSSES.model_copy(update={"epochs": np.arange(1, 4)}))
    for path, theirs in ((one.curves, other.curves), (one.val_losses, other.val_losses)):
        content = path.read_bytes()
        shutil.copy(theirs, path)
        assert damage(one) == f"{path} is missing or damaged: it is not what was written there"
        path.write_bytes(content)
    one.verify()


def as_of_version(files: RunFiles, version: int) -> None:
    """Let a run look as an older version wrote it."""
    values = json.loads(files.record.read_text())
    for key in ("digest", "files", "interruptions", "epochs_repeated", *(["descriptive"] if version == 1 else [])):
        del values[key]
    files.record.write_text(json.dumps({**values, "schema_version": version}))


@pytest.mark.parametrize("version", [1, 2])
def test_what_an_older_version_wrote_is_read(tmp_path: Path, version: int) -> None:
    files = saved(tmp_path)
    as_of_version(files, version)
    record = files.verify()
    assert (record.schema_version, record.files, record.digest) == (version, None, None)
    assert (record.interruptions, record.epochs_repeated) == (0, 0.0)
    assert (record.descriptive is None) == (version == 1)
    assert files.load_curves().equals(CURVES)
    assert np.array_equal(files.load_val_losses().losses, VAL_LOSSES.losses)
    # What cannot be read is found there, too.
    files.curves.write_bytes(files.curves.read_bytes()[:-9])
    assert damage(files).startswith(f"{files.curves} is missing or damaged: ")


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_missing_of_an_older_run_is_noticed(tmp_path: Path, version: int) -> None:
    files = saved(tmp_path)
    as_of_version(files, version)
    files.val_losses.unlink()
    assert damage(files).startswith(f"{files.val_losses} is missing or damaged: ")


def test_a_newer_version_is_not_damaged(tmp_path: Path) -> None:
    """It must not be set aside and computed again by an older program."""
    files = saved(tmp_path)
    values = json.loads(files.record.read_text())
    files.record.write_text(json.dumps({**values, "schema_version": SCHEMA_VERSION + 1}))
    for read in (files.load, files.verify):
        with pytest.raises(UserError) as caught:
            read()
        assert not isinstance(caught.value, Damaged)
        assert str(caught.value) == (
            f"{files.record} has schema version {SCHEMA_VERSION + 1}; this overfit_lab reads up to {SCHEMA_VERSION}: "
            "upgrade it"
        )


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b'"x"', b"{}", b"\xff", b'{"schema_version": null}', b"[", b'{"schema_version": 1e999}'],
)
def test_no_record_at_all(tmp_path: Path, content: bytes) -> None:
    files = saved(tmp_path)
    files.record.write_bytes(content)
    assert damage(files).startswith(f"{files.record} is damaged: ")
    files.record.unlink()
    assert damage(files).startswith(f"{files.record} is damaged: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_set_aside_is_kept(tmp_path: Path) -> None:
    files = saved(tmp_path)
    files.save_failure("abc", {}, ValueError("x"))
    before = contents(files.directory)
    failure = before.pop("failure.json")
    files.set_aside()
    assert contents(files.directory) == {
        "failure.json": failure,
        **{f"{name}.damaged": content for name, content in before.items()},
    }
    # The next one takes the place of the last one, and what is not there is no matter.
    files.set_aside()
    files.record.write_bytes(b"{")
    files.set_aside()
    assert contents(files.directory)["run.json.damaged"] == b"{"
    # It is computed again as if nothing had been.
    files.save(record_of("abc"), CURVES, VAL_LOSSES)
    files.verify()


def _set_aside(folders: list[Path], gate: Barrier) -> None:
    for folder in folders:
        gate.wait(60)
        RunFiles(folder).set_aside()


def test_two_may_set_the_same_aside_at_once(tmp_path: Path) -> None:
    runs = [saved(tmp_path, f"run{i}") for i in range(20)]
    before = [contents(files.directory) for files in runs]
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)
    folders = [files.directory for files in runs]
    processes = [context.Process(target=_set_aside, args=(folders, gate)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for files, own in zip(runs, before, strict=True):
        assert contents(files.directory) == {f"{name}.damaged": content for name, content in own.items()}
