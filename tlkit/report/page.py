"""Page: a report as one HTML file, with its numbers as JSON and its figures as PNG.

In: a `Subject`. Out: a `Report`. Next door: parts/ (its sections), html.py (any page).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tlkit.card import now
from tlkit.errors import PluginError, TlkitError, briefly
from tlkit.plugins import Broken, load_as, printing_aside
from tlkit.report.html import environment, render
from tlkit.report.part import Made, Part, Subject
from tlkit.report.parts import PARTS

FORMAT = 1
"""Of report.json."""

LARGEST = 16 << 20
"""Bytes of a page: its photos, its tables and its names are limited so that it cannot be larger."""

LARGEST_PART = 1 << 20
"""Bytes of the page for a part of another package, and four times that for all of them."""

PNG = b"\x89PNG\r\n\x1a\n"
TAG = re.compile(r"<(/?[a-z]+)", re.IGNORECASE)
ACTIVE = frozenset({"meta", "base", "script", "iframe", "object", "embed", "link"})
"""Elements that a stranger's part may not have: they act on the page around it."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is written."""

    html: str
    data: Mapping[str, Any]
    """What report.json holds."""
    figures: Mapping[str, bytes]
    """PNGs by their file names."""


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A part on the page."""

    name: str
    title: str
    html: str
    source: str = ""
    """The package that it is from; empty for tlkit's own."""


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """A part of another package that is not on the page."""

    name: str
    source: str
    reason: str


def written(subject: Subject) -> Report:
    """The report: tlkit's own parts, and those of installed packages.

    One of another package that raises, or does not keep the contract, is named and stops nothing.
    """
    sections: list[_Section] = []
    made: dict[str, Made] = {}
    figures: dict[str, bytes] = {}
    for part in PARTS.own.values():
        if (one := part.make(subject)) is not None:
            sections.append(_section(part, one))
            made[part.name] = one
            figures |= _figures(part, one)
    failed: list[_Failed] = []
    room = 4 * LARGEST_PART
    for found in _strangers():
        told = _asked(found, subject, min(room, LARGEST_PART), figures)
        if isinstance(told, _Failed):
            failed.append(told)
        elif told is not None:
            part, one, section = told
            room -= len(section.html.encode("utf-8", "replace"))
            sections.append(section)
            made[part.name] = one
            figures |= _figures(part, one)
    created = now()
    html = render(
        "report.html", title=str(subject.run.name), subject=subject, sections=sections,
        failed=failed, created=created, summary=made["summary"].data,
    )  # fmt: skip
    data = {
        "report": FORMAT,
        "created": created,
        "tlkit": version("tlkit"),
        "run": str(subject.run),
        "parts": {name: one.data for name, one in made.items()},
        "broken": [
            {"part": one.name, "package": one.source, "reason": one.reason} for one in failed
        ],
        "figures": sorted(figures),
    }
    return Report(html=html, data=data, figures=figures)


def _strangers() -> Iterator[tuple[Part, str] | _Failed]:
    """The parts of installed packages, each with the package; those that cannot be used."""
    used = set(PARTS.own)
    for found in PARTS.installed():
        source = f"{found.distribution} {found.version}"
        part = load_as(found, Part)
        if isinstance(part, Broken):
            yield _Failed(name=found.name, source=source, reason=part.reason)
        elif part.name != found.name or not NAME.fullmatch(part.name):
            reason = f"the part is called '{part.name}', its entry point '{found.name}'"
            yield _Failed(name=found.name, source=source, reason=reason)
        elif part.name in used:
            yield _Failed(name=found.name, source=source, reason="another part has its name")
        else:
            used.add(part.name)
            yield part, source


def _asked(
    found: tuple[Part, str] | _Failed, subject: Subject, room: int, taken: Mapping[str, bytes]
) -> tuple[Part, Made, _Section] | _Failed | None:
    """What a stranger's part tells; None where that is nothing."""
    if isinstance(found, _Failed):
        return found
    part, source = found
    try:
        with printing_aside():
            made = part.make(subject)
            if made is None:
                return None
            section = _section(part, made, source=source)
            _must_fit(part, made, section, room)
            _must_be_free(part, made, taken)
    except Exception as error:  # a stranger's code may raise anything
        why = f"{error.about}: {error.found}" if isinstance(error, TlkitError) else briefly(error)
        return _Failed(name=part.name, source=source, reason=why)
    return part, made, section


def _must_fit(part: Part, made: Made, section: _Section, room: int) -> None:
    """Raise where a stranger's part would break the page, or report.json, for the others."""
    size = max(
        len(json.dumps(made.data, allow_nan=False)), len(section.html.encode("utf-8", "replace"))
    )
    if size > room:
        raise PluginError(
            f"the part '{part.name}' is too large",
            found=f"{size:,} bytes of page, or of report.json",
            expected=f"at most {room:,}",
            do="tell its author",
        )
    tags = [one.lower() for one in TAG.findall(section.html)]
    if ACTIVE & set(tags) or tags.count("section") != tags.count("/section"):
        raise PluginError(
            f"the part '{part.name}' reaches beyond its section",
            found=", ".join(sorted(ACTIVE & set(tags))) or "sections that are not closed, or twice",
            expected=f"HTML without {', '.join(sorted(ACTIVE))}",
            do="tell its author",
        )


def _must_be_free(part: Part, made: Made, taken: Mapping[str, bytes]) -> None:
    named = _figures(part, made)
    bad = [one for one in made.figures if one and not NAME.fullmatch(one)]
    bad += [one for one in named if one in taken]
    bad += [one for one, png in named.items() if not png.startswith(PNG)]
    if bad:
        raise PluginError(
            f"the part '{part.name}' has figures that cannot be written",
            found=", ".join(bad),
            expected="PNGs, named by lower-case letters, digits and hyphens, each name once",
            do="tell its author",
        )


def _section(part: Part, made: Made, *, source: str = "") -> _Section:
    """The part's HTML."""
    if part.name in PARTS.own:
        template = environment().get_template(f"parts/{part.template}")
    else:
        template = environment().from_string(part.template)
    html = template.render(data=made.data, show=made.show)
    html = html.encode("utf-8", "backslashreplace").decode("utf-8")
    return _Section(name=part.name, title=part.title, html=html, source=source)


def _figures(part: Part, made: Made) -> dict[str, bytes]:
    return {
        f"figure-{part.name}{f'-{name}' if name else ''}.png": png
        for name, png in made.figures.items()
    }
