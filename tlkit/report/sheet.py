"""Sheet: photos under headings as one HTML file with thumbnails; it needs no network.

In: a title, groups of photos with what is said of each. Out: the text of the page. What a photo is
shown for is the caller's to say. A photo that cannot be read has a placeholder.
Next door: audit_page.py (findings), page.py (a report), thumbnails.py (photos as data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.report.html import render
from tlkit.report.thumbnails import thumbnails

MOST_BYTES = 24 << 20
"""Of thumbnails in a page; photos for which there is no room have placeholders too."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A photo and the lines under it."""

    path: Path
    caption: Sequence[str]
    """The first line is set in bold; a line of no words is left out."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Photos under one heading."""

    heading: str
    about: str
    """A sentence under the heading; may be empty."""
    photos: Sequence[Shown]


def sheet(title: str, lead: Sequence[str], groups: Sequence[Group]) -> str:
    """The whole file: a title, paragraphs under it, and groups in their order."""
    paths = [one.path for group in groups for one in group.photos]
    pictures, _ = thumbnails(paths, most_bytes=MOST_BYTES)
    left = iter(pictures)
    return render(
        "sheet.html",
        title=title,
        lead=lead,
        groups=[
            {
                "heading": group.heading,
                "about": group.about,
                "photos": [
                    {
                        "file": one.path.name,
                        "picture": next(left),
                        "caption": [line for line in one.caption if line],
                    }
                    for one in group.photos
                ],
            }
            for group in groups
        ],
    )
