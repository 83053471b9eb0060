"""Audit: what is wrong with a folder of images, before anything is learnt from it.

In: the `Parts` of a folder. Out: an `Audit`, findings of the kinds in `KINDS`.
Every image is read once, by the decoder that a fit uses. What two images share is told by their
bytes, or, re-encoded or scaled, by how they look: a hash of the coarse structure finds candidates
(the signs of a cosine transform, as pHash does: Zauner 2010), small colour copies decide.
Next door: folder.py (what is in the folder), quarantine.py (moving away what was found).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tlkit.data import quarantine
from tlkit.data.batches import even_parts, stretches
from tlkit.data.digests import digest_of_bytes, digests, states
from tlkit.data.folder import Catalog, Parts, spelling
from tlkit.data.images import BadImage, Pixels, content, decode, size_of
from tlkit.steps import Tick

HASH_BITS_APART = 12
"""Of 63, for images that may be the same one: half of the bits differ between any two photos."""

LOOKS_APART = 9.0
"""Mean difference of small copies, of 255, up to which two images are the same one."""

COPY_PX = 16
"""Side of the small copies."""

MOST_TO_COMPARE = 200_000
"""Images up to which all pairs are looked at: their number grows with the square."""

CELLS = 1 << 22
"""Pairs that are compared at once."""

TINY_PX, DARK, BLANK, NARROW, UNEVEN = 32, 16.0, 2.5, 4.0, 5.0
"""A shorter side of fewer pixels; a mean below and a spread below, of 255; sides in a larger ratio;
classes in a larger ratio: these are told."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A row of the table."""

    about: str
    serious: bool
    """Whether a score is not to be believed with it, or a fit refuses it."""
    moves: str = "none"
    """What `--fix` takes away: `none`, `all` of a finding's files, or all `but the first`."""


KINDS: Mapping[str, Kind] = {
    "unreadable": Kind(about="cannot be decoded", serious=True, moves="all"),
    "leak": Kind(
        about="one image in two parts: the score is of what was learnt by heart",
        serious=True,
        moves="but the first",
    ),
    "conflict": Kind(about="one image in two classes", serious=True, moves="all"),
    "label": Kind(about="likely in the wrong class", serious=False),
    "duplicate": Kind(about="one image twice in a class", serious=False, moves="but the first"),
    "blank": Kind(about="one colour, or nearly", serious=False, moves="all"),
    "dark": Kind(about="nearly black", serious=False),
    "tiny": Kind(about=f"a shorter side below {TINY_PX} px", serious=False),
    "narrow": Kind(about=f"one side more than {NARROW:.0f} times the other", serious=False),
    "imbalance": Kind(
        about=f"the largest class has more than {UNEVEN:.0f} times the images of the smallest",
        serious=False,
    ),
    "lookalike": Kind(
        about="class folders whose names differ in letter case, blanks or dots at an end, or "
        "Unicode form: two names of one class, or one folder on another disk",
        serious=False,
    ),
    "left out": Kind(about="lies in the folder and is not used", serious=False),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found."""

    kind: str
    """A name in `KINDS`."""
    files: tuple[str, ...]
    """Below the folder; of a leak those that stay (of the test part, else of val) come first."""
    about: str
    """What exactly."""
    exact: bool = True
    """Whether the files of a group are the same bytes, rather than look the same."""

    @property
    def to_move(self) -> tuple[str, ...]:
        """What `--fix` takes away."""
        moves = KINDS[self.kind].moves
        return {"none": (), "all": self.files, "but the first": self.files[1:]}[moves]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All that was found in a folder."""

    folder: Path
    images: int
    classes: Mapping[str, int]
    """Images of each class, all parts together."""
    findings: tuple[Finding, ...]
    compared: bool
    """Whether images that look the same were searched for."""
    stamps: Mapping[str, quarantine.Stamp] = field(default_factory=dict)
    """Of the files that `--fix` takes away, in the state in which they were looked at."""

    @property
    def serious(self) -> int:
        """Findings with which a score is not to be believed."""
        return sum(KINDS[one.kind].serious for one in self.findings)


def brief(parts: Parts) -> Iterator[str]:
    """What can be told before a fit without reading the images: the same bytes in two places.

    Only files of one size are compared: of a small folder nearly none is read.
    """
    there = _named(parts)
    now = {part: states(one.paths) for part, one in there.items()}
    files = np.concatenate([one[one[:, 0] != 0, 1] for one in now.values()])
    sizes, counts = np.unique(files, return_counts=True)
    kept, where = [], []
    for number, (part, catalog) in enumerate(there.items()):
        alike = (now[part][:, 0] != 0) & np.isin(now[part][:, 1], sizes[counts > 1])
        some = catalog.take(np.flatnonzero(alike))
        kept.append(digests(some.paths))
        where.append(np.stack([np.full(len(some), number), some.labels], axis=1))
    _, group, copies = np.unique(np.concatenate(kept), return_inverse=True, return_counts=True)
    rows = np.column_stack([group, np.concatenate(where)])

    def different(*columns: int) -> NDArray[np.int64]:
        """In how many parts or classes each group is."""
        return np.bincount(np.unique(rows[:, [0, *columns]], axis=0)[:, 0], minlength=len(copies))

    leaks, conflicts = int((different(1) > 1).sum()), int((different(2) > 1).sum())
    if leaks:
        yield f"images in more than one part: {leaks}; the score is of what was learnt by heart"
    if conflicts:
        yield f"images in more than one class: {conflicts}"
    for names in _spelt_alike(parts.train):
        yield f"{names} differ in nothing but letter case, end blanks, end dots or Unicode form"
    if others := int(((different(1, 2) == 1) & (copies > 1)).sum()):
        yield f"images that are there more than once: {others}"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is kept of an image."""

    digest: bytes
    width: int
    height: int
    mean: float
    spread: float
    bits: int
    copy: Pixels
    """(COPY_PX, COPY_PX, 3)"""


def audit(
    folder: Path, parts: Parts, *, near: bool = True, workers: int = 0
) -> Generator[Tick, None, Audit]:
    """Look at every image of a folder. With `near` also for those that only look the same."""
    there = _named(parts)
    places = [_Place(folder, name, one, i) for name, one in there.items() for i in range(len(one))]
    looks: list[_Look | BadImage] = []
    stamps = np.zeros((len(places), len(quarantine.stamp_of(folder))), np.int64)

    def read(position: int) -> bytes:
        # Before it is read: what is exchanged from here on has another stamp, and is not moved.
        stamps[position] = quarantine.stamp_of(places[position].path)
        return content(places[position].path).data

    for stretch in stretches(
        [one.path for one in places],
        lambda data, _: _look(data),
        sizes=even_parts(len(places), 64),
        source=read,
        workers=workers,
    ):
        looks += [one for _, one in stretch]
        yield Tick(what="looking at images", done=len(looks), total=len(places))
    compared = near and len(places) <= MOST_TO_COMPARE
    found = [
        *_alone(places, looks),
        *_shared(places, looks, compared=compared),
        *_imbalance(parts.train),
        *_lookalikes(parts.train),
        *_left_out(there),
    ]
    to_move = {file for one in found for file in one.to_move}
    return Audit(
        folder=folder,
        images=len(places),
        classes={
            name: int(sum(one.counts[i] for one in there.values()))
            for i, name in enumerate(parts.train.classes)
        },
        findings=tuple(found),
        compared=compared,
        stamps={
            place.file: tuple(stamp)
            for place, stamp in zip(places, stamps.tolist(), strict=True)
            if place.file in to_move
        },
    )


def _named(parts: Parts) -> dict[str, Catalog]:
    """The parts, the ones that are judged by first: of a leak, their files stay."""
    return dict(reversed(parts.named.items()))


class _Place:
    """Where an image lies."""

    def __init__(self, folder: Path, part: str, catalog: Catalog, index: int) -> None:
        self.part = part
        self.label = catalog.classes[catalog.labels[index]]
        self.path = catalog.root / catalog.files[index]
        self.file = self.path.relative_to(folder).as_posix()


def _look(data: bytes) -> _Look:
    """What is kept of what a file holds. Raises `Unreadable`."""
    image = decode(data, at_least_px=2 * COPY_PX)
    width, height = size_of(data)  # it may have been decoded at a part of it
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    return _Look(
        digest=digest_of_bytes(data),
        width=width,
        height=height,
        mean=float(grey.mean()),
        spread=float(grey.std()),
        bits=_hash(small),
        copy=np.asarray(cv2.resize(image, (COPY_PX, COPY_PX), interpolation=cv2.INTER_AREA)),
    )


def _hash(small: NDArray[np.generic]) -> int:
    """63 signs of the lowest frequencies of a (32, 32) grey image against their median."""
    waves = cv2.dct(small.astype(np.float32))[:8, :8].ravel()[1:]
    signs = waves > np.median(waves)
    return int(np.packbits(np.append(signs, False)).view(">u8")[0])


def _alone(places: Sequence[_Place], looks: Sequence[_Look | BadImage]) -> Iterator[Finding]:
    """What an image shows by itself."""
    for place, look in zip(places, looks, strict=True):
        files = (place.file,)
        if isinstance(look, BadImage):
            yield Finding(kind="unreadable", files=files, about=look.reason)
            continue
        sides = f"{look.width} x {look.height} px"
        if look.spread < BLANK:
            yield Finding(kind="blank", files=files, about=f"brightness {look.mean:.0f} of 255")
        elif look.mean < DARK:
            yield Finding(kind="dark", files=files, about=f"mean brightness {look.mean:.0f} of 255")
        if min(look.width, look.height) < TINY_PX:
            yield Finding(kind="tiny", files=files, about=sides)
        if max(look.width, look.height) > NARROW * min(look.width, look.height):
            yield Finding(kind="narrow", files=files, about=sides)


def _shared(
    places: Sequence[_Place], looks: Sequence[_Look | BadImage], *, compared: bool
) -> Iterator[Finding]:
    """Groups of images that are one."""
    good = [number for number, one in enumerate(looks) if not isinstance(one, BadImage)]
    seen = [one for one in looks if not isinstance(one, BadImage)]
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(one.digest, i), i) for i, one in enumerate(seen)]
    if compared:
        pairs += _alike(seen)
    for group in _groups(pairs, len(seen)):
        where = [places[good[i]] for i in group]
        # In each part links come last: what stays must not be a link to what is moved.
        order = list(dict.fromkeys(one.part for one in where))
        where.sort(key=lambda one: (order.index(one.part), one.path.is_symlink()))
        exact = len({seen[i].digest for i in group}) == 1
        how = "the same bytes" if exact else "look the same"
        parts = list(dict.fromkeys(one.part for one in where))
        labels = list(dict.fromkeys(one.label for one in where))
        files = tuple(one.file for one in where)
        if len(labels) > 1:
            about = f"{how}; classes {', '.join(labels)}"
            yield Finding(kind="conflict", files=files, about=about, exact=exact)
        if len(parts) > 1:
            # Of each part that is judged by, its own copies beside each other are no leak.
            stays = tuple(one.file for one in where if one.part == parts[0])[:1]
            others = tuple(one.file for one in where if one.part != parts[0])
            about = f"{how}; in {' and '.join(parts)}"
            yield Finding(kind="leak", files=stays + others, about=about, exact=exact)
        for part in parts:
            for label in labels:
                same = tuple(one.file for one in where if (one.part, one.label) == (part, label))
                if len(same) > 1:
                    yield Finding(kind="duplicate", files=same, about=how, exact=exact)


def _alike(seen: Sequence[_Look]) -> list[tuple[int, int]]:
    """Pairs of images that look the same."""
    bits = np.array([one.bits for one in seen], dtype=np.uint64)
    copies = np.array([one.copy for one in seen], dtype=np.int16).reshape(len(seen), -1)
    # A blank image has no structure to tell it by.
    there = np.flatnonzero([one.spread >= BLANK for one in seen])
    found: list[tuple[int, int]] = []
    step = max(1, CELLS // max(1, len(there)))
    for begin in range(0, len(there), step):
        rows = there[begin : begin + step]
        apart = _ones(bits[rows, None] ^ bits[None, there[begin:]])
        for row, column in np.argwhere(apart <= HASH_BITS_APART):
            one, other = int(rows[row]), int(there[begin + column])
            if one < other and np.abs(copies[one] - copies[other]).mean() <= LOOKS_APART:
                found.append((one, other))
    return found


def _ones(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits of each are 1."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        counted: NDArray[np.uint8] = np.bitwise_count(numbers)
        return counted
    return _ones_by_table(numbers)


def _ones_by_table(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    bits = np.unpackbits(numbers[..., None].view(np.uint8), axis=-1)
    return np.asarray(bits.sum(axis=-1, dtype=np.uint8))


def _groups(pairs: Collection[tuple[int, int]], count: int) -> list[list[int]]:
    """What hangs together by pairs, with more than one member, in order."""
    # Here, so that a fit, which only takes a brief look, need not wait for scipy.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones, others = (list(each) for each in zip(*pairs, strict=True)) if pairs else ([], [])
    graph = coo_array((np.ones(len(ones), bool), (ones, others)), shape=(count, count))
    _, names = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for number, name in enumerate(names):
        members.setdefault(int(name), []).append(number)
    return [one for one in members.values() if len(one) > 1]


def _imbalance(train: Catalog) -> Iterator[Finding]:
    counts = train.counts
    if len(counts) and counts.max() > UNEVEN * counts.min():
        few, many = train.classes[int(counts.argmin())], train.classes[int(counts.argmax())]
        about = f"{many} has {counts.max()} images, {few} has {counts.min()}"
        yield Finding(kind="imbalance", files=(), about=about)


def _lookalikes(train: Catalog) -> Iterator[Finding]:
    for names in _spelt_alike(train):
        yield Finding(kind="lookalike", files=(), about=names)


def _spelt_alike(train: Catalog) -> Iterator[str]:
    """Yield the names of classes that look alike, with what differs in them shown."""
    groups: dict[str, list[str]] = {}
    for name in train.classes:
        groups.setdefault(spelling(name), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            # Escaped: on a screen they may be the same.
            yield f"class folders {', '.join(map(ascii, names))}"


def _left_out(there: Mapping[str, Catalog]) -> Iterator[Finding]:
    for part, catalog in there.items():
        for one in catalog.left_out:
            if one == f"hidden: {quarantine.NAME}":
                continue  # what was left out by its own advice
            yield Finding(kind="left out", files=(), about=f"{part}: {one}")
        if catalog.more_left_out:
            about = f"{part}: {catalog.more_left_out:,} other entries"
            yield Finding(kind="left out", files=(), about=about)
