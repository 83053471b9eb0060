"""Audit page: what was found in a folder, as one HTML file with thumbnails; it needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlkit.data.audit import KINDS, Audit, Finding
from tlkit.errors import printable
from tlkit.report.html import render
from tlkit.report.thumbnails import thumbnail

MOST_SHOWN, MOST_FILES = 200, 8
"""Findings of a kind, and files of a finding, that are shown."""


def page(audit: Audit) -> str:
    """The whole file."""
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
    return render(
        "audit.html",
        folder=printable(str(audit.folder)),
        images=audit.images,
        classes=audit.classes,
        compared=audit.compared,
        rows=rows,
    )


def _shown(folder: Path, finding: Finding) -> dict[str, Any]:
    return {
        "about": printable(finding.about),
        "pictures": [
            {"file": printable(file), "data": thumbnail(folder / file)}
            for file in finding.files[:MOST_FILES]
        ],
    }
