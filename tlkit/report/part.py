"""Part: the contract of a report's parts, tlkit's own and those of installed packages.

In: a `Subject`, all that is known of heads on images with known classes. Out: a `Made`, or None
where there is nothing to tell. A part is a row in `parts/`, or an entry point in the group
`tlkit.reports` that leads to a `Part`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.card import Card
from tlkit.data.audit import Audit
from tlkit.data.images import BadImage
from tlkit.data.quarantine import Move
from tlkit.metrics import Evaluation
from tlkit.train.events import Epoch


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one way of looking reached on the images, and what it cost."""

    name: str
    """As `--tta` takes it."""
    scores: Evaluation
    views: int
    seconds_per_image: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a report is about: N images of C classes."""

    run: Path
    """The run folder."""
    cards: tuple[Card, ...]
    """Of its heads, at least one; all of a cross-validation."""
    heads: tuple[Head, ...]
    """Loaded; none where the probabilities are those that the fit has written down."""
    judged: str
    """The images in words."""
    judged_by_fit: bool
    """Whether the probabilities are of heads that had not learnt from the images, as the fit has
    written them down: the heads of now may have."""
    of_fit: int | None
    """How many of the images the fit had, in its train or val part; None where these are gone."""
    files: tuple[str, ...]
    """N names."""
    paths: tuple[Path | None, ...]
    """N files; None where there is none any more."""
    labels: NDArray[np.int64]
    """(N,), indices into `classes`."""
    probabilities: NDArray[np.float64]
    """(N, C), calibrated, of the plain view; of several heads together."""
    scores: Evaluation
    bad: tuple[BadImage, ...] = ()
    """Unreadable images, which take no part."""
    history: tuple[Epoch, ...] = ()
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """metrics.json of the run: what the fit reached."""
    command: str = ""
    """That the run is from; empty where that cannot be told."""
    policies: tuple[Policy, ...] = ()
    """The plain view and those that were asked for; empty where none was."""
    audit: Audit | None = None
    """Of the folder of the fit; None where nobody looked."""
    moved: tuple[Move, ...] = ()
    """What lies in that folder's quarantine."""
    maps: bool = True
    """Whether class activation maps are wanted."""
    device: str = "auto"
    """Where heads compute, as `--device` takes it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""
        return self.cards[0].classes

    @property
    def called(self) -> NDArray[np.int64]:
        """(N,) the likeliest class of each image."""
        called: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return called


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a part tells."""

    data: Mapping[str, Any]
    """What report.json has of it: numbers (no NaN), texts, lists and objects with names."""
    show: Mapping[str, Any] = field(default_factory=dict)
    """What its template needs besides."""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNGs: figure-PART-NAME.png, and figure-PART.png for the name ""."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section of the page.

    The template is Jinja's, with `data` and `show` of what was made, and whatever they hold is
    escaped. The filter `name` shows a name that may hold anything. The page's policy allows no
    script, no style attribute and nothing from elsewhere: an image is a data URI
    (`tlkit.report.thumbnails`), a drawing is SVG.
    """

    name: str
    """Lower-case letters, digits and hyphens: its key in report.json and its place on the page."""
    title: str
    make: Callable[[Subject], Made | None]
    template: str
    keys: Mapping[str, str] = field(default_factory=dict)
    """What the keys of its `data` mean."""
