"""The page as one file of HTML: style, script, data and the drawing library are all in it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import cache
from importlib import resources
from importlib.util import find_spec, module_from_spec

import jinja2
from markupsafe import Markup

from overfit_lab.report.page.content import Page

# In JSON these may be written as escapes, and then nothing in it can end the script or begin a comment.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page_json(page: Page) -> str:
    """Write a page as JSON that may stand inside a script element."""
    text = json.dumps(asdict(page), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def render_page(page: Page) -> str:
    """Write a page as HTML that needs no other file; the same page gives the same text."""
    return _template().render(
        page=page,
        style=Markup(_own("page.css")),
        script=Markup(_in_script(_own("page.js"))),
        # What draws nothing carries nothing.
        plotly=Markup(_in_script(_plotly())) if page.curves else None,
        data=Markup(page_json(page)),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_own("page.html.j2"))


def _own(name: str) -> str:
    return resources.files("overfit_lab.report.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Read the drawing library out of the package that carries it, which itself is slow to import and not needed."""
    spec = find_spec("plotly")
    if spec is None:
        raise ModuleNotFoundError("plotly is not installed")
    package = resources.files(module_from_spec(spec))
    return package.joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _in_script(text: str) -> str:
    """Keep a script from ending the element that it stands in."""
    return re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE)
