"""The page as a file: one that needs no other, that shows every name as text, and that is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from overfit_lab.records import SourceRecord, StudyFiles
from overfit_lab.report import write_report
from overfit_lab.report.page import page_json
from overfit_lab.study import load_study
from tests.report.made_up import add_run, configuration, losses, make_study, make_sweep
from tests.report.test_page_content import NEVER, content

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\u2028'
FETCHING = ("src", "href", "data", "action", "poster", "srcset", "formaction")


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def html(files: StudyFiles) -> str:
    return write_report(load_study(files.directory)).page.read_text(encoding="utf-8")


def data(outline: Outline) -> Any:  # noqa: ANN401 - JSON
    return json.loads(outline.scripts[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    return make_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def page(files: StudyFiles) -> str:
    return html(files)


def test_it_needs_no_other_file(page: str) -> None:
    outline = Outline(page)
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in outline.elements}
    for _, attributes in outline.elements:
        for name in FETCHING:
            assert (attributes.get(name) or "#").startswith("#")
    [style] = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    assert not re.search(r"url\(|@import|@font-face|https?:", style)
    [policy] = [a["content"] for tag, a in outline.elements if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_it_is_as_large_as_what_draws_it_and_little_more(page: str) -> None:
    assert 3e6 < len(page.encode()) < 6e6


def test_its_data_are_its_content(files: StudyFiles, page: str) -> None:
    expected = json.loads(json.dumps(asdict(content(files))))
    assert data(Outline(page)) == expected
    assert expected["curves"]["narrow0"]["epochs"] == list(range(21))


def test_the_same_study_gives_the_same_bytes(files: StudyFiles, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files.directory.parent)
    relative = write_report(load_study(files.directory.name)).page
    assert relative.read_text(encoding="utf-8") == page


def test_names_values_and_errors_are_text(tmp_path: Path) -> None:
    files = make_study(tmp_path, NASTY)
    source = SourceRecord(name=NASTY, problem="binary", rows=9, features=1, outputs=1, fingerprint=NASTY)
    record = files.load().model_copy(update={"source": source})
    files.record.write_text(record.model_dump_json())
    for name, tag in (("a", NASTY), ("b", "plain")):
        add_run(files.run(name), configuration(4, 0.0, activation=tag), NEVER, losses(9))
    files.run("c").save_failure("c", configuration(4, 0.0, activation=NASTY), ValueError(NASTY))
    text = html(files)
    outline, harmless = Outline(text), Outline(html(make_sweep(tmp_path / "other")))
    # Nothing ended a script or began an element.
    assert len(outline.scripts) == len(harmless.scripts) == 3
    assert not {"img"} & {tag for tag, _ in outline.elements}
    assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)
    shown = NASTY.replace("\u2028", "\N{REPLACEMENT CHARACTER}")
    assert outline.text.count(shown) >= 3
    known = data(outline)
    assert shown in (known["name"], known["map"]["x"]["labels"])
    assert shown in known["map"]["x"]["labels"]
    assert known["runs"][2]["sentences"] == [f"failed: ValueError: {' '.join(NASTY.split())}"]
    assert "\u2028" not in text


def test_json_may_stand_in_a_script(files: StudyFiles) -> None:
    assert not set(page_json(content(files))) & set("<>&\u2028\u2029")


def test_it_can_be_read_aloud(page: str) -> None:
    outline = Outline(page)
    tags = [tag for tag, _ in outline.elements]
    assert dict(outline.elements)["html"] == {"lang": "en"}
    assert any(a.get("name") == "viewport" for tag, a in outline.elements if tag == "meta")
    assert tags.count("h1") == 1
    assert all("scope" in a for tag, a in outline.elements if tag == "th")
    ids = {a["id"] for _, a in outline.elements if "id" in a}
    for _, attributes in outline.elements:
        for name in ("aria-describedby", "aria-labelledby"):
            assert attributes.get(name) is None or attributes[name] in ids
        target = attributes.get("href") or "#"
        assert target == "#" or target[1:] in ids


@pytest.mark.parametrize("failed", [False, True])
def test_a_study_without_finished_runs_has_a_page_without_figures(tmp_path: Path, failed: bool) -> None:
    files = make_study(tmp_path)
    if failed:
        files.run("broken").save_failure("broken", configuration(4, 0.0), ValueError("no memory"))
    text = html(files)
    assert len(text) < 1e5
    assert ("no memory" in Outline(text).text) == failed
    assert not any((a.get("class") or "") == "plot" for _, a in Outline(text).elements)


def test_writing_a_page_does_not_import_what_draws_it(files: StudyFiles) -> None:
    code = (
        "import sys; from overfit_lab.report import write_report; from overfit_lab.study import load_study; "
        "write_report(load_study(sys.argv[1])); sys.exit('plotly' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(files.directory)], check=False).returncode == 0
