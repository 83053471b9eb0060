"""HTML: one page that needs no network, from a template.

In: a template of templates/ and its values. Out: the text of a page with its style sheet and its
script in it. What comes from files is escaped. A policy in the page's head (CSP) lets the browser
run and style by nothing but those two, told by their digests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from tlkit.errors import printable

LONGEST_NAME = 90
"""Characters of a name on a page."""


def render(template: str, **values: Any) -> str:
    """A page from a template that extends base.html."""
    from markupsafe import Markup

    folder = files("tlkit.report") / "templates"
    style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    page: str = (
        environment()
        .get_template(template)
        .render(
            **values,
            policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
            style=Markup(style),
            script=Markup(script),
            version=version("tlkit"),
        )
    )
    return page


@functools.cache
def environment() -> Any:
    """Where templates are found, and the filters that they use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        loader=PackageLoader("tlkit.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"name": _name, "plain": _plain, "percent": _percent}
    return made


def _name(text: object) -> Any:
    """A name that may hold anything, short, and in a direction of its own."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(_plain(text))


def _plain(text: object, longest: int = LONGEST_NAME) -> str:
    """The same where an element cannot stand."""
    shown = printable(str(text))
    if len(shown) <= longest:
        return shown
    # Names of one data set differ at either end.
    half = (longest - 1) // 2
    return f"{shown[:half]}\N{HORIZONTAL ELLIPSIS}{shown[half + 1 - longest :]}"


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _digest(text: str) -> str:
    """As a content security policy names a script."""
    found = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(found).decode("ascii")
