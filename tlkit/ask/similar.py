"""Similar: the photos of a folder that are most like an image.

In: images, a folder of photos. Out: a `Similar`: for each image its nearest neighbours by the
cosine of features, and how such a similarity stands among those of random pairs of the folder.
Next door: index.py (the search), vectors.py (features).
"""

from __future__ import annotations

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
from tlkit.ask.index import Index, Nearest
from tlkit.ask.vectors import extractor_by, extractor_of, fill, photos
from tlkit.card import versions
from tlkit.data.folder import expand
from tlkit.data.images import BadImage, refuse
from tlkit.errors import OptionError, listing
from tlkit.files import as_path, new_folder, refuse_occupied, refuse_unwritable, write_text
from tlkit.options import SimilarOptions, own_parameters, signature
from tlkit.report.sheet import Group, Shown, sheet
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.bank import Extractor
from tlkit.train.events import Event

PAIRS = 10_000
"""Random pairs of photos that a similarity is held against."""

SPARE = 8
"""Names that an image may have in the folder, through links; it is not its own neighbour."""

OF_HEAD = ("backbone", "attach", "pool", "freeze", "precision")
"""Options that a head has its own answer to."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A photo like the image."""

    path: Path
    similarity: float
    """Cosine of the features: 1 for the same photo."""
    above: float
    """The share of random pairs of the folder that are less alike."""
    above_low: float
    above_high: float
    """The 95 % interval of that share (Clopper-Pearson)."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is most like one image, the most alike first."""

    image: Path
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, kw_only=True)
class Similar:
    """The neighbours of each image."""

    found: tuple[Found, ...]
    photos: int
    """That were searched."""
    features: str
    """Whose they are, in words."""
    pairs: tuple[float, float, float] | None
    """Similarities below which 5, 50 and 95 % of random pairs of the folder are; None where there
    is one photo only."""
    bad: tuple[BadImage, ...]
    """Photos that could not be read."""


@with_own_settings
def similar_events(
    images: runs.Paths,
    folder: runs.Paths,
    options: SimilarOptions | None = None,
    *,
    head: runs.Paths | None = None,
    out: str | Path | None = None,
) -> Generator[Event, None, Similar]:
    """Find what is most like each image: yields events, returns the `Similar`.

    With a `head` (a file or a run) by the vectors in front of it, else by the features that a fit
    with these options would read. An image of the folder is not its own neighbour. Where `out` is
    given, that folder appears when all is done, or not at all. Raises `TlkitError`, among them
    `ImageError` for an image that cannot be read.
    """
    options = SimilarOptions() if options is None else options
    named = expand([str(one) for one in runs.as_paths(folder)])
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        for one in named:
            runs.refuse_among_photos(place, one)
    queried = expand([str(one) for one in runs.as_paths(images)])
    asked, searched = photos(queried, once=False), photos(named)
    extractor, words = _extractor(head, options, len(asked) + len(searched))
    if place is not None:
        refuse_unwritable(place)
    queries = yield from fill(extractor, asked, what="features of the image")
    refuse(list(queries.bad))
    bank = yield from fill(extractor, searched, what="features")
    index = Index(bank)
    nearest = index.nearest(queries.at(np.arange(len(asked)), 0), options.count + SPARE)
    pairs = index.random_pairs(PAIRS)
    paths = bank.catalog.paths
    result = Similar(
        found=tuple(
            Found(image=image, neighbours=_neighbours(image, paths, one, pairs, options.count))
            for image, one in zip(asked.paths, nearest, strict=True)
        ),
        photos=len(index),
        features=words,
        pairs=_middle(pairs),
        bad=bank.bad,
    )
    if place is not None:
        with new_folder(place) as staged:
            write_text(staged / "similar.json", as_json(named, options, result))
            write_text(staged / "similar.html", page(named, result))
    return result


def default_out(folder: str | Path) -> Path:
    """runs/FOLDER-similar, with a number behind it from the second on."""
    return runs.next_free(Path(folder), "similar")


def _extractor(
    head: runs.Paths | None, options: SimilarOptions, images: int
) -> tuple[Extractor, str]:
    """What gives the features, and whose they are."""
    if head is None:
        runs_it = extractor_by(options, images)
        return runs_it, f"{options.backbone}, up to {runs_it.cut.at}"
    options.refuse(OF_HEAD, "no --head: a head says what its network is")
    files = runs.head_files(head)
    if len(files) > 1:
        raise OptionError(
            "there are several heads",
            found=listing([str(one) for one in files], most=5),
            expected="one, whose vectors are compared",
            do="name one of them",
        )
    weights = "" if options.weights == SimilarOptions().weights else options.weights
    loaded = load_all(files, weights=weights)[0]
    return extractor_of(loaded, options, images)[0], f"in front of the head {loaded.path}"


def _neighbours(
    image: Path, paths: Sequence[Path], found: Nearest, pairs: NDArray[np.float32], count: int
) -> tuple[Neighbour, ...]:
    itself = os.path.realpath(image)
    rows = [
        (paths[place], similarity)
        for place, similarity in zip(
            found.places.tolist(), found.similarities.tolist(), strict=True
        )
    ]
    others = [one for one in rows if os.path.realpath(one[0]) != itself][:count]
    return tuple(_neighbour(path, similarity, pairs) for path, similarity in others)


def _neighbour(path: Path, similarity: float, pairs: NDArray[np.float32]) -> Neighbour:
    from scipy.stats import beta

    less, every = int(np.searchsorted(pairs, similarity)), len(pairs)
    return Neighbour(
        path=path,
        similarity=similarity,
        above=less / max(1, every),
        above_low=float(beta.ppf(0.025, less, every - less + 1)) if less else 0.0,
        above_high=float(beta.ppf(0.975, less + 1, every - less)) if less < every else 1.0,
    )


def _middle(pairs: NDArray[np.float32]) -> tuple[float, float, float] | None:
    if not len(pairs):
        return None
    low, middle, high = np.quantile(pairs, [0.05, 0.5, 0.95]).tolist()
    return (low, middle, high)


def as_json(named: Sequence[Path], options: SimilarOptions, result: Similar) -> str:
    """All of it."""
    shares = ("q05", "q50", "q95")
    return runs.as_json(
        {
            "folder": [str(one) for one in named],
            "photos": result.photos,
            "features": result.features,
            "options": dataclasses.asdict(options),
            "method": "exact search by the cosine of the features",
            "random_pairs": result.pairs
            and {"count": PAIRS, **dict(zip(shares, result.pairs, strict=True))},
            "found": [
                {
                    "image": str(one.image),
                    "neighbours": [
                        dataclasses.asdict(each) | {"path": str(each.path)}
                        for each in one.neighbours
                    ],
                }
                for one in result.found
            ],
            "unreadable": [{"path": str(one.path), "reason": one.reason} for one in result.bad],
            "versions": versions(),
        }
    )


def in_words(result: Similar) -> str:
    """How alike any two photos of the folder are."""
    if result.pairs is None:
        return "One photo searched."
    low, middle, high = result.pairs
    return (
        f"{result.photos:,} photos searched. Of {PAIRS:,} random pairs of them, half are more "
        f"alike than {middle:.3f}; 90 % are between {low:.3f} and {high:.3f}."
    )


def page(named: Sequence[Path], result: Similar) -> str:
    """The neighbours of each image as one HTML file with thumbnails."""
    groups = [
        Group(
            heading=f"Like {one.image.name}",
            about="The image itself comes first.",
            photos=[
                Shown(path=one.image, caption=("the image", str(one.image))),
                *(
                    Shown(
                        path=each.path,
                        caption=(
                            f"{number}. {each.similarity:.3f}",
                            f"above {each.above:.2%} of random pairs",
                            str(each.path),
                        ),
                    )
                    for number, each in enumerate(one.neighbours, start=1)
                ),
            ],
        )
        for one in result.found
    ]
    lead = [in_words(result), f"Cosines of features: {result.features}."]
    return sheet(f"Similar photos in {named[0]}", lead, groups)


def similar(
    images: runs.Paths,
    folder: runs.Paths,
    *,
    head: runs.Paths | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Similar:
    """Find the photos of a folder that are most like each image.

    `options` are the fields of `tlkit.SimilarOptions`; an unknown one is an error that lists them.
    Nothing is written unless `out` says where. Raises `TlkitError`.
    """
    given = SimilarOptions.of(options)
    return finish(similar_events(images, folder, given, head=head, out=out))


similar.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(similar), SimilarOptions, returns=Similar
)
