"""Suggest: which photos to label next.

In: heads, photos without a class, those that have labels. Out: a `Suggested`: photos that the heads
are unsure of, and that tell the most beside what is known. Vectors and probabilities come from one
pass of the network, or from the bank, so that a second question, and a fit in fp32 that learns from
the answers, run no network again.
Next door: choice.py (the rule by which they are chosen), vectors.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import runs
from tlkit.artifact import load_all
from tlkit.ask.choice import METHOD, METHOD_BESIDE, Photos, candidates_of, chosen, margins
from tlkit.ask.vectors import Scored, photos, scored
from tlkit.card import versions
from tlkit.data.folder import Catalog, expand, scan_parts
from tlkit.data.images import BadImage
from tlkit.data.shards import contents
from tlkit.errors import FolderError, few
from tlkit.files import (
    as_path,
    disk_errors,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.options import SuggestOptions, own_parameters, signature
from tlkit.report.sheet import Group, Shown, sheet
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.events import Event, Note

PHOTOS = "photos"
"""The folder of links in what is written."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A photo worth a label, and why."""

    path: Path
    label: str
    """The likeliest class."""
    probability: float
    second: str
    """The class that comes next."""
    second_probability: float
    familiarity: float | None
    """The share of the validation images that were less like what was learnt from; None where the
    heads do not know."""

    @property
    def margin(self) -> float:
        """How much likelier the likeliest class is than the next: 0 is undecided."""
        return self.probability - self.second_probability


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How many photos the heads should be right on, by their own calibrated probabilities."""

    photos: int
    right: float
    """The mean probability of the likeliest class: a share of the photos."""
    spread: float
    """Standard deviation of that share (Poisson-binomial), if the probabilities are true."""


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """Photos to label next, the first of them most worth it."""

    heads: tuple[Path, ...]
    classes: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]
    candidates: int
    """The least certain photos, of which the suggestions were chosen."""
    labelled: int
    """Photos with labels that were reckoned with."""
    expected: Expected
    """On the suggestions."""
    expected_all: Expected
    """On all photos that could be read."""
    bad: tuple[BadImage, ...]


@with_own_settings
def suggest_events(
    head: runs.Paths | None,
    paths: runs.Paths,
    options: SuggestOptions | None = None,
    *,
    labelled: str | Path | None = None,
    weights: str = "",
    out: str | Path | None = None,
) -> Generator[Event, None, Suggested]:
    """Choose photos to label next: yields events, returns the `Suggested`.

    `head` is a head file, a run, or several that read the same vectors; the newest run where it is
    None. `paths` are photos, or folders of them, searched to every depth. `labelled` is the folder
    of those that have labels; the one that the heads were fitted on where it is None. Where `out`
    is given, that folder appears when all is done, or not at all. Raises `TlkitError`.
    """
    options = SuggestOptions() if options is None else options
    named = expand([str(one) for one in runs.as_paths(paths)])
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        for one in named:
            runs.refuse_among_photos(place, one)
    heads = load_all(runs.head_files(head), weights=weights)
    catalog = photos(named)
    if place is not None:
        refuse_unwritable(place)
    taught = yield from _labelled([one.path for one in heads], labelled)
    if taught is not None:
        catalog = yield from _without(catalog, taught)
    found = yield from scored(heads, catalog, options)
    known = None if taught is None else (yield from scored(heads, taught, options))
    result = _suggested([one.path for one in heads], heads[0].classes, found, known, options.count)
    if place is not None:
        with new_folder(place) as staged:
            _write(staged, named, options, result)
    return result


def default_out(paths: Sequence[str | Path]) -> Path:
    """runs/FOLDER-suggest, with a number behind it from the second on."""
    return runs.next_free(Path(paths[0]), "suggest")


def _labelled(
    heads: Sequence[Path], named: str | Path | None
) -> Generator[Event, None, Catalog | None]:
    """The photos that have labels: those to learn from in the folder named, or in the fits' own."""
    if named is not None:
        return photos([scan_parts(as_path(named, "folder")).train.root])
    folders = sorted({one for one in map(runs.folder_of, heads) if one is not None})
    with contextlib.suppress(FolderError):
        if folders:
            return photos([scan_parts(one).train.root for one in folders])
    where = f"in {few([str(one) for one in folders], 3)} any more" if folders else "known"
    yield Note(
        text=f"the photos that the head was fitted on are not {where}, so the choice is made "
        "without them; a better one is made where --labelled names their folder"
    )
    return None


def _without(catalog: Catalog, taught: Catalog) -> Generator[Event, None, Catalog]:
    """The photos that have no label yet. Raises `FolderError` where all have one."""
    known = {os.path.realpath(one) for one in taught.paths}
    new = [place for place, one in enumerate(catalog.paths) if os.path.realpath(one) not in known]
    if not new:
        raise FolderError(
            "all of these photos have a label already",
            found=f"{len(catalog)} photos, each of which is in {taught.root}",
            expected="photos that the head has not learnt from",
            do="name a folder of others",
        )
    if labelled := len(catalog) - len(new):
        yield Note(text=f"{labelled} photos that have a label already are left out")
    return catalog.take(np.array(new))


def _photos(found: Scored) -> Photos:
    return Photos(found.probabilities, lambda places: found.bank.at(places, 0))


def _suggested(
    heads: Sequence[Path],
    classes: tuple[str, ...],
    found: Scored,
    known: Scored | None,
    count: int,
) -> Suggested:
    told, bank = found.probabilities, found.bank
    count = min(count, len(told))
    picked = chosen(_photos(found), count, None if known is None else _photos(known))
    paths = bank.catalog.paths
    order = np.argsort(-told[picked], axis=1, kind="stable")[:, :2]
    suggestions = [
        Suggestion(
            path=paths[place],
            label=classes[first],
            probability=float(told[place, first]),
            second=classes[second],
            second_probability=float(told[place, second]),
            familiarity=None if found.familiarity is None else float(found.familiarity[place]),
        )
        for place, (first, second) in zip(picked.tolist(), order.tolist(), strict=True)
    ]
    return Suggested(
        heads=tuple(heads),
        classes=classes,
        suggestions=tuple(suggestions),
        candidates=len(candidates_of(margins(told), count)),
        labelled=0 if known is None else len(known.probabilities),
        expected=_expected(told[picked]),
        expected_all=_expected(told),
        bad=bank.bad,
    )


def _expected(told: NDArray[np.float32]) -> Expected:
    """From the probabilities (n, C) of n photos."""
    sure = told.max(axis=1).astype(np.float64)
    spread = np.sqrt((sure * (1 - sure)).sum()) / len(sure)
    return Expected(photos=len(sure), right=float(sure.mean()), spread=float(spread))


def _write(staged: Path, named: Sequence[Path], options: SuggestOptions, result: Suggested) -> None:
    write_text(staged / "suggest.json", as_json(named, options, result))
    lines = "".join(f"{one.path}\n" for one in result.suggestions)
    write_bytes(staged / "suggest.txt", os.fsencode(lines))
    write_text(staged / "suggest.html", page(named, result))
    (staged / PHOTOS).mkdir()
    digits = max(3, len(str(len(result.suggestions))))
    for number, one in enumerate(result.suggestions, start=1):
        _link(one.path, staged / PHOTOS / _numbered(f"{number:0{digits}}-", one.path.name))


LONGEST_NAME = 255
"""Bytes, on nearly every file system."""


def _numbered(number: str, name: str) -> str:
    """The number and the name; of one that would be too long, its beginning and its ending."""
    stem, ending = os.path.splitext(name)
    room = LONGEST_NAME - len(os.fsencode(number + ending))
    inside = os.fsencode(stem)
    kept = stem if len(inside) <= room else inside[: max(0, room)].decode("utf-8", "ignore")
    return number + kept + ending


def _link(photo: Path, place: Path) -> None:
    """A link to a photo; a copy where none can be made, or where it lies in a tar file."""
    if photo.exists():
        with contextlib.suppress(OSError, NotImplementedError):
            place.symlink_to(photo.resolve())
            return
    with disk_errors(place):
        place.write_bytes(contents(photo))


def as_json(named: Sequence[Path], options: SuggestOptions, result: Suggested) -> str:
    """All of it."""
    return runs.as_json(
        {
            "photos": [str(one) for one in named],
            "heads": [str(one) for one in result.heads],
            "classes": list(result.classes),
            "options": dataclasses.asdict(options),
            "method": _method(result),
            "candidates": result.candidates,
            "labelled": result.labelled,
            "expected_right": {
                "suggestions": dataclasses.asdict(result.expected),
                "all": dataclasses.asdict(result.expected_all),
            },
            "suggestions": [
                dataclasses.asdict(one) | {"path": str(one.path), "margin": one.margin}
                for one in result.suggestions
            ],
            "unreadable": [{"path": str(one.path), "reason": one.reason} for one in result.bad],
            "versions": versions(),
        }
    )


def in_words(result: Suggested) -> str:
    """What the heads expect of themselves."""
    one, every = result.expected, result.expected_all
    return (
        f"By their own probabilities, the names would be right on {one.right:.0%} "
        f"\N{PLUS-MINUS SIGN} {one.spread:.0%} of these {one.photos}, and on {every.right:.0%} "
        f"\N{PLUS-MINUS SIGN} {every.spread:.1%} of all {every.photos:,} photos "
        "(one standard deviation)."
    )


def page(named: Sequence[Path], result: Suggested) -> str:
    """The suggestions as one HTML file with thumbnails."""
    shown = [
        Shown(
            path=one.path,
            caption=(
                f"{number}. {one.label} {one.probability:.0%}?",
                f"or {one.second} {one.second_probability:.0%}",
                ""
                if one.familiarity is None
                else f"less familiar than {1 - one.familiarity:.0%} of the validation photos",
                str(one.path),
            ),
        )
        for number, one in enumerate(result.suggestions, start=1)
    ]
    group = Group(
        heading="Label these next", about="The most worth a label come first.", photos=shown
    )
    heads = few([str(one) for one in result.heads], 3)
    lead = [f"Asked: {heads}. {in_words(result)}", _method(result)]
    return sheet(f"{few([str(one) for one in named], 3)}: what to label next", lead, [group])


def _method(result: Suggested) -> str:
    return METHOD_BESIDE if result.labelled else METHOD


def suggest(
    head: runs.Paths | None,
    paths: runs.Paths,
    *,
    labelled: str | Path | None = None,
    weights: str = "",
    out: str | Path | None = None,
    **options: Any,
) -> Suggested:
    """Choose the photos that are most worth a label.

    `labelled` is the folder of photos that have labels; by default the one that the head was fitted
    on. `options` are the fields of `tlkit.SuggestOptions`; an unknown one is an error that lists
    them. Nothing is written unless `out` says where. Raises `TlkitError`.
    """
    given = SuggestOptions.of(options)
    return finish(suggest_events(head, paths, given, labelled=labelled, weights=weights, out=out))


suggest.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(suggest), SuggestOptions, returns=Suggested
)
