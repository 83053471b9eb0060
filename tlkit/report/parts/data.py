"""Data: what is wrong with the folder that was learnt from, as `tlkit check` finds it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tlkit.data.audit import KINDS, Finding
from tlkit.report.part import Made, Part, Subject
from tlkit.report.thumbnails import thumbnails

MOST_SHOWN, MOST_FILES = 8, 4
"""Findings of a kind, and files of a finding, on the page; `tlkit check --html` shows more."""
MOST_TOLD = 1000
"""Findings of a kind in report.json."""
MOST_UNREADABLE = 50
"""Unreadable images of those that were judged, on the page."""
PHOTO_BYTES = 2 << 20


def data(subject: Subject) -> Made:
    """Findings of the audit, the quarantine, and images that could not be read."""
    audit = subject.audit
    left_out = sum(one.images.get("left_out", 0) for one in subject.cards[:1])
    findings = () if audit is None else audit.findings
    by_kind = {kind: [one for one in findings if one.kind == kind] for kind in KINDS}
    shown = [one for those in by_kind.values() for one in those[:MOST_SHOWN]]
    pictures = _pictures(None if audit is None else audit.folder, shown)
    moved = Counter(one.why.partition(":")[0] for one in subject.moved)
    return Made(
        data={
            "folder": None if audit is None else str(audit.folder),
            "images": None if audit is None else audit.images,
            "serious": None if audit is None else audit.serious,
            "findings": {
                kind: {
                    "count": len(those),
                    "serious": KINDS[kind].serious,
                    "first": [
                        {"files": list(one.files), "about": one.about} for one in those[:MOST_TOLD]
                    ],
                }
                for kind, those in by_kind.items()
                if those
            },
            "quarantine": dict(moved),
            "left_out_by_fit": left_out,
            "unreadable": [{"file": str(one.path), "reason": one.reason} for one in subject.bad],
        },
        show={
            "rows": [
                {
                    "kind": kind,
                    "about": KINDS[kind].about,
                    "serious": KINDS[kind].serious,
                    "count": len(those),
                    "shown": [
                        {
                            "about": one.about,
                            "photos": [(file, pictures[file]) for file in one.files[:MOST_FILES]],
                        }
                        for one in those[:MOST_SHOWN]
                    ],
                }
                for kind, those in by_kind.items()
                if those
            ],
            "looked": audit is not None,
            "compared": audit is not None and audit.compared,
            "most": MOST_SHOWN,
            "most_unreadable": MOST_UNREADABLE,
        },
    )


def _pictures(folder: Path | None, shown: list[Finding]) -> dict[str, str]:
    files = list(dict.fromkeys(file for one in shown for file in one.files[:MOST_FILES]))
    paths = [None if folder is None else folder / file for file in files]
    made, _ = thumbnails(paths, most_bytes=PHOTO_BYTES)
    return dict(zip(files, made, strict=True))


DATA = Part(
    name="data",
    title="The photos themselves",
    make=data,
    template="data.html",
    keys={
        "folder": "that was looked at, the fit's; null where nobody looked",
        "images": "in it",
        "serious": "findings with which a score is not to be believed",
        "findings": "of each kind count, serious, and the first 1000: files, about",
        "quarantine": "files that `tlkit check --fix` has moved away, by kind",
        "left_out_by_fit": "unreadable images that the fit went on without",
        "unreadable": "those of the images judged here: file, reason",
    },
)
