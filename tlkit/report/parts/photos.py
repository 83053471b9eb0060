"""Photos: those that the head is most certainly wrong about, and those it is least certain of.

Beside each, where the head is one: its class activation map (explain.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.data.images import BadImage
from tlkit.errors import OptionError
from tlkit.report.explain import explain
from tlkit.report.part import Made, Part, Subject
from tlkit.report.thumbnails import as_uri, thumbnails

MOST = 12
"""Photos of a kind."""
PX = 240
"""Longer side of a photo and of a map."""
PHOTO_BYTES = 2 << 20


def photos(subject: Subject) -> Made:
    """The worst and the least certain images."""
    called, sure = subject.called, subject.probabilities.max(axis=1)
    wrong = np.flatnonzero(called != subject.labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST]
    unsure = np.argsort(sure, kind="stable")[:MOST]
    chosen = list(dict.fromkeys([*worst.tolist(), *unsure.tolist()]))
    maps, without = _maps(subject, chosen)
    made, _ = thumbnails([subject.paths[one] for one in chosen], most_bytes=PHOTO_BYTES, px=PX)
    pictures = dict(zip(chosen, made, strict=True))
    gone = sum(path is None for path in subject.paths)
    if gone:
        of = f"{gone} of {len(subject.paths)} photos are no longer where the fit found them"
        without = f"{of}; {without}" if without else of
    data = {"worst": _told(subject, worst), "unsure": _told(subject, unsure)}
    show = {
        name: [
            told | {"picture": pictures[one], "map": maps.get(one, "")}
            for told, one in zip(data[name], those.tolist(), strict=True)
        ]
        for name, those in (("worst", worst), ("unsure", unsure))
    }
    return Made(data=data, show=show | {"wrong": len(wrong), "without": without})


def _told(subject: Subject, those: NDArray[np.int64]) -> list[dict[str, Any]]:
    called = subject.called
    return [
        {
            "file": subject.files[one],
            "is": subject.classes[subject.labels[one]],
            "called": subject.classes[called[one]],
            "probability": float(subject.probabilities[one, called[one]]),
            "probability_true": float(subject.probabilities[one, subject.labels[one]]),
        }
        for one in those.tolist()
    ]


def _maps(subject: Subject, those: Sequence[int]) -> tuple[dict[int, str], str]:
    """A map for each of these images of the class that it was called, or why there is none."""
    if not subject.maps or not those:
        return {}, ""
    if len(subject.heads) != 1:
        return {}, "no class activation maps: they are of one head, and here are several"
    there = [(one, path) for one in those if (path := subject.paths[one]) is not None]
    called = subject.called
    found = {}
    try:
        for label in sorted({int(called[one]) for one, _ in there}):
            some = [pair for pair in there if called[pair[0]] == label]
            target, paths = subject.classes[label], [path for _, path in some]
            shown = explain(subject.heads[0], paths, target=target, device=subject.device)
            for (one, _), explained in zip(some, shown, strict=True):
                if not isinstance(explained, BadImage):
                    found[one] = as_uri(explained.overlay(), px=PX)
    except OptionError as error:
        return {}, f"no class activation maps: {error.found}; {error.do}"
    return found, ""


PHOTOS = Part(
    name="photos",
    title="Photos worth a look",
    make=photos,
    template="photos.html",
    keys={
        "worst": f"wrong, the {MOST} most certain first: file, is, called, probability (of what "
        "it was called), probability_true (of what it is)",
        "unsure": f"the {MOST} whose likeliest class is least likely, in the same way",
    },
)
