"""Audit page: what was found in a folder, as one HTML file with thumbnails; it needs no network."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from tlkit.data.audit import KINDS, Audit, Finding
from tlkit.data.images import Unreadable, read
from tlkit.errors import printable

PX = 112
"""Side of a thumbnail."""

MOST_SHOWN, MOST_FILES = 200, 8
"""Findings of a kind, and files of a finding, that are shown."""


def page(audit: Audit) -> str:
    """The whole file."""
    from jinja2 import Environment, PackageLoader

    by_kind = [(kind, [one for one in audit.findings if one.kind == kind]) for kind in KINDS]
    rows = [
        {
            "kind": kind,
            "about": KINDS[kind].about,
            "serious": KINDS[kind].serious,
            "findings": found,
            "shown": [_shown(audit.folder, one) for one in found[:MOST_SHOWN]],
        }
        for kind, found in by_kind
        if found
    ]
    # What comes from files is escaped: a name is text, whatever it looks like.
    template = Environment(autoescape=True, loader=PackageLoader("tlkit.report")).get_template(
        "audit.html"
    )
    return template.render(
        folder=printable(str(audit.folder)),
        images=audit.images,
        classes=audit.classes,
        compared=audit.compared,
        rows=rows,
        px=PX,
    )


def _shown(folder: Path, finding: Finding) -> dict[str, Any]:
    return {
        "about": printable(finding.about),
        "pictures": [
            {"file": printable(file), "data": _thumbnail(folder / file)}
            for file in finding.files[:MOST_FILES]
        ],
    }


def _thumbnail(path: Path) -> str:
    """As a data URI; empty where there is no picture."""
    try:
        image = Image.fromarray(read(path, at_least_px=PX))
    except Unreadable:
        return ""
    image.thumbnail((2 * PX, 2 * PX))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
