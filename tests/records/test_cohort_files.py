"""What a study holds of its cohorts: read back as written, in whose hands it is, and removed without a rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overfit_lab.claim import STALE_SECONDS, acquire
from overfit_lab.errors import UserError
from overfit_lab.records import SCHEMA_VERSION, CohortFiles, CohortRecord, Damaged


@pytest.fixture
def files(tmp_path: Path) -> CohortFiles:
    return CohortFiles(tmp_path / "cohorts")


def record_of(*runs: str, **told: Any) -> CohortRecord:  # noqa: ANN401 - whatever a record holds
    return CohortRecord(schema_version=SCHEMA_VERSION, runs=list(runs), max_fits=None, **told)


def contents(files: CohortFiles) -> set[str]:
    return {path.name for path in files.directory.iterdir()}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    command=st.text(max_size=20),
    overrides=st.lists(st.text(max_size=9), max_size=3),
    max_fits=st.none() | st.integers(1, 10**6),
)
def test_it_is_read_back_as_it_was_written(
    files: CohortFiles, config: dict[str, Any], command: str, overrides: list[str], max_fits: int | None
) -> None:
    told = {"command": command, "sweep": "token", "threads": 2, "folder": "/a b"}
    record = record_of("b", "a", configs={"a": config, "b": {}}, overrides={"a": overrides, "b": []}, **told)
    record = record.model_copy(update={"max_fits": max_fits})
    files.save("abc", record)
    assert files.load("abc") == record
    assert contents(files) == {"abc.json"}


def test_all_are_read_by_their_names(files: CohortFiles) -> None:
    assert files.load_all() == {}
    records = {name: record_of(name) for name in ("c", "a", "b")}
    for name, record in records.items():
        files.save(name, record)
        files.checkpoint(name, 0).write_bytes(b"")
        claim = acquire(files.claim(name))
        assert claim is not None
        claim.release()
    assert files.load_all() == records
    assert list(files.load_all()) == ["a", "b", "c"]


@pytest.mark.parametrize("version", [1, 2])
def test_what_an_older_version_wrote_knows_no_more_than_its_runs(files: CohortFiles, version: int) -> None:
    files.directory.mkdir()
    files.record("abc").write_text(json.dumps({"schema_version": version, "runs": ["a", "b"], "max_fits": 3}))
    record = files.load("abc")
    assert (record.runs, record.max_fits, record.configs, record.overrides) == (["a", "b"], 3, {}, {})
    assert (record.sweep, record.threads) == (None, 1)
    assert not files.is_in_hands("abc", record)


def test_damaged_ones_are_set_aside_once(files: CohortFiles, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "empty": "",
        "torn": '{"schema_version": 3, "runs": ["a"',
        "foreign": '{"schema_version": 3, "runs": ["a"], "max_fits": null, "colour": "blue"}',
        "other": '{"schema_version": 3, "runs": "a", "max_fits": null}',
    }
    files.save("whole", record_of("a"))
    for name, text in wrong.items():
        files.record(name).write_text(text)
    assert list(files.load_all()) == ["whole"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(wrong)
    for line, name in zip(lines, sorted(wrong), strict=True):
        assert line.startswith(f"overfit-lab: {files.record(name)} is damaged: ")
        assert line.endswith(f"; set aside as {name}.damaged")
        assert (files.directory / f"{name}.damaged").read_text() == wrong[name]
    assert list(files.load_all()) == ["whole"]
    assert capsys.readouterr().err == ""


def test_one_of_a_newer_version_is_left_where_it_is(files: CohortFiles) -> None:
    files.save("abc", record_of("a"))
    files.record("new").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "runs": []}))
    with pytest.raises(UserError, match="upgrade it") as caught:
        files.load_all()
    assert not isinstance(caught.value, Damaged)
    assert contents(files) == {"abc.json", "new.json"}


def test_one_that_is_not_there(files: CohortFiles) -> None:
    with pytest.raises(Damaged, match=r"abc\.json is damaged"):
        files.load("abc")


def test_in_whose_hands_it_is(files: CohortFiles) -> None:
    record = record_of("a", sweep="token")
    files.save("abc", record)
    assert not files.is_in_hands("abc", record, {"17_3"})
    files.note_job("abc", "17_3")
    assert not files.is_in_hands("abc", record)
    assert files.is_in_hands("abc", record, {"17_3"})
    assert not files.is_in_hands("abc", record, {"17", "17_30", "token"})
    for claimed in (files.claim("abc"), files.sweep("token")):
        claim = acquire(claimed)
        assert claim is not None
        assert files.is_in_hands("abc", record)
        claim.release()
        assert not files.is_in_hands("abc", record)
    # Others, whose names begin as its own do, are no matter.
    others = [acquire(path) for path in (files.claim("abcd"), files.claim("abc.d"), files.sweep("token2"))]
    assert not files.is_in_hands("abc", record)
    for claim in others:
        assert claim is not None
        claim.release()


def test_its_batch_job_is_noted(files: CohortFiles) -> None:
    assert files.jobs() == set()
    assert files.job("abc") is None
    for name, job in (("abc", "17_0"), ("abcd", "17_1"), ("xyz", "17_1")):
        files.save(name, record_of(name))
        files.note_job(name, job)
    # It is queued again under another number.
    files.note_job("abc", "23")
    assert (files.job("abc"), files.job("abcd")) == ("23", "17_1")
    assert files.jobs() == {"23", "17_1"}
    assert list(files.load_all()) == ["abc", "abcd", "xyz"]


def test_a_job_that_is_faster_than_its_note_leaves_nothing(files: CohortFiles) -> None:
    """It has trained the cohort and removed it by now."""
    files.save("abc", record_of("a"))
    files.end("abc")
    files.note_job("abc", "17_0")
    assert not files.directory.exists()


def test_without_sweep_and_job_nobody_has_it(files: CohortFiles) -> None:
    record = record_of("a")
    files.save("abc", record)
    claim = acquire(files.sweep("None"))
    assert claim is not None
    assert not files.is_in_hands("abc", record, {"", "None"})
    claim.release()


def test_a_claim_of_another_machine_counts_while_it_is_fresh(files: CohortFiles) -> None:
    record = record_of("a")
    files.save("abc", record)
    claim = acquire(files.claim("abc"))
    assert claim is not None
    claim.release()
    mark = files.directory / "abc.claim-1"
    mark.write_bytes(json.dumps({**vars(claim.owner), "released": False, "machine": "x"}).encode().ljust(1024))
    assert files.is_in_hands("abc", record)
    then = mark.stat().st_mtime - STALE_SECONDS - 1
    os.utime(mark, (then, then))
    assert not files.is_in_hands("abc", record)


def test_the_end_of_one_is_not_the_end_of_others(files: CohortFiles) -> None:
    for name in ("abc", "abcd", "ab"):
        files.save(name, record_of(name))
        files.note_job(name, f"job of {name}")
        files.checkpoint(name, 0).write_bytes(b"x")
        files.checkpoint(name, 12).write_bytes(b"x")
        (files.directory / f".{name}.0.ckpt.77.partial").write_bytes(b"half")
        (files.directory / f".{name}.claim-2.x7").write_bytes(b"half")
        claim = acquire(files.claim(name))
        assert claim is not None
        claim.release()
    before = contents(files)
    files.end("abc")
    assert before - contents(files) == {
        "abc.json",
        "abc.job",
        "abc.0.ckpt",
        "abc.12.ckpt",
        "abc.claim-1",
        ".abc.0.ckpt.77.partial",
        ".abc.claim-2.x7",
    }
    files.end("abc")
    files.end("ab")
    files.end("abcd")
    # The folder goes with the last one.
    assert not files.directory.exists()
    files.end("abcd")


def test_what_is_being_written_is_not_cleaned_away(files: CohortFiles) -> None:
    """Another command cleans up whenever it looks: what a cohort or somebody alive is writing stays."""
    files.save("abc", record_of("a"))
    leading = acquire(files.sweep("token"))
    assert leading is not None
    kept = {".abc.0.ckpt.7f.partial", ".abc.job.7f.partial", f".{files.sweep('token').name}.claim-2.x7"}
    left = {".gone.0.ckpt.7f.partial", ".sweep-gone.claim-1.x7"}
    for name in kept | left:
        (files.directory / name).write_bytes(b"half")
    files.clean()
    assert contents(files) == kept | {"abc.json", f"{files.sweep('token').name}.claim-1"}
    leading.release()


def test_a_sweep_leaves_nothing_but_what_is_not_its_own(files: CohortFiles) -> None:
    files.save("abc", record_of("a", sweep="token"))
    claim = acquire(files.sweep("token"))
    assert claim is not None
    claim.release()
    files.end(files.sweep("token").name)
    assert contents(files) == {"abc.json"}
