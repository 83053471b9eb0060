"""Bank: what the frozen part makes of every view of every image, computed once.

In: a cut model, an engine, a catalog, an augmentation. Out: a `Bank`, whatever the cut is: vectors
for a head, feature maps for the last stages. Training then never runs the frozen part again.
The rows are in a `Store`, found by the bytes of the image and all else that they depend on. So the
next fit on the same images finds them, a changed image is computed alone, and so is what a pass
that was stopped has left. The bytes are those that were decoded: an image that changes between the
look at what it holds and the pass is found by what the pass has read.
Next door: store.py (rows on the disk), probe.py and loop.py (reading a bank).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from tlkit import cache
from tlkit.data.batches import batches
from tlkit.data.digests import HELD, Held, digest_of_bytes, digests
from tlkit.data.folder import Catalog
from tlkit.data.geometry import detail
from tlkit.data.images import POLICY, BadImage, Detail, Pixels, content, decode
from tlkit.data.names import Paths
from tlkit.data.pixels import Decoding
from tlkit.data.transforms import Augmentation
from tlkit.errors import DiskError, ImageError, listing
from tlkit.files import disk_errors, write_bytes
from tlkit.model.assemble import Cut, Pool
from tlkit.model.device import Compute
from tlkit.model.engine import (
    PROMISE,
    Choice,
    Runner,
    Scores,
    Work,
    choose,
    example_for,
    off_by,
    start,
    work_of,
)
from tlkit.model.finite import check_finite
from tlkit.ranks import here
from tlkit.train.events import Note, Tick
from tlkit.train.store import KEY, KEY_BYTES, ROUNDING, Store, trim
from tlkit.weights import digest

BATCH = 32
"""Views that go through the frozen part at once."""

IN_BLOCK = 1 << 20
"""Numbers that are read from a bank at once: 4 MiB, which stay in a processor's cache."""

READ_AHEAD = 1 << 26
"""Bytes of views that may wait for the frozen part: an engine takes a second or two to start, in
which the other cores read."""

ANSWER = "answer.npy"

SAME = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest difference, as a share of the largest number, between answers of one frozen part: a GPU
may take another algorithm every time."""


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Stored outputs of the frozen part for N images that could be read."""

    rows: Callable[[NDArray[np.int64]], Tensor]
    """Places (n,) -> (n, ...) fp32 on the CPU."""
    places: NDArray[np.int64]
    """(N, V) of each view's row."""
    shape: tuple[int, ...]
    """Of a row."""
    labels: Tensor
    """(N,) int64."""
    catalog: Catalog
    """Of the N images. Not their paths: those of many images take more memory than their names."""
    bad: tuple[BadImage, ...]

    @property
    def views(self) -> int:
        return int(self.places.shape[1])

    @property
    def numbers(self) -> int:
        """How many numbers all rows hold."""
        return len(self.places) * self.views * math.prod(self.shape)

    def at(self, index: NDArray[np.int64], view: int) -> Tensor:
        """(n, ...) of one view of these images."""
        return self.rows(self.places[index, view])

    def blocks(self) -> Iterator[Tensor]:
        """Every row, in parts (n, ...), the views of an image behind each other."""
        places = self.places.ravel()
        step = max(1, IN_BLOCK // math.prod(self.shape))
        for begin in range(0, len(places), step):
            yield self.rows(places[begin : begin + step])

    def take(self, index: NDArray[np.int64], *, views: int) -> Bank:
        """The first `views` views of these images, as a bank of its own; nothing is copied."""
        return Bank(
            rows=self.rows,
            places=self.places[index, :views],
            shape=self.shape,
            labels=self.labels[torch.from_numpy(index)],
            catalog=self.catalog.take(index),
            bad=(),
        )


NUDGES = 8
"""Times that rows are moved by as much as the bank may have rounded them."""


def hang_on_rounding(probabilities: Callable[[Tensor], Tensor], rows: Tensor) -> NDArray[np.int64]:
    """Return the positions of rows (n, ...) whose probabilities the bank is too coarse for.

    A row has 11 bits of each number, which is nothing to training but may be to an answer: if
    `probabilities` (n, C) of a row move by more than half of `PROMISE` when each of its numbers is
    moved, up or down, by what rounding takes at most, the image has to be asked about anew.
    """
    settled = probabilities(rows)
    moved = torch.zeros(len(rows), dtype=settled.dtype)
    signs = torch.Generator().manual_seed(0)
    for _ in range(NUDGES):
        up = torch.randint(0, 2, rows.shape, generator=signs, dtype=torch.int8).to(rows.dtype)
        nudged = probabilities(rows * (1 + ROUNDING * (2 * up - 1)))
        moved = torch.maximum(moved, (nudged - settled).abs().amax(dim=1))
    positions: NDArray[np.int64] = (moved > PROMISE / 2).nonzero().flatten().numpy()
    return positions


Reader = Callable[[Path, Detail], Decoding]
"""(a file, `at_least_px`) -> what `images.read` makes of it, and of which bytes."""


class _Keys:
    """What the rows of N images, seen as an augmentation does, are found by."""

    def __init__(self, images: NDArray[np.void], augmentation: Augmentation, views: int) -> None:
        self._images = images
        self._augmentation = augmentation
        self.table = np.empty((len(images), views), KEY)
        """(N, V)"""
        for number in range(len(images)):
            self._fill(number)

    def _fill(self, number: int) -> None:
        image = self._images[number].tobytes()
        for view in range(self.table.shape[1]):
            self.table[number, view] = _key(image, self._augmentation.identity(number, view))

    def correct(self, digests: Mapping[int, bytes]) -> dict[int, bytes]:
        """Take in what was read of these images; those of which it is not what they held before."""
        changed = {
            number: one for number, one in digests.items() if one != self._images[number].tobytes()
        }
        for number, one in changed.items():
            self._images[number] = np.void(one)
            self._fill(number)
        return changed


@dataclass
class _Seen:
    """What a process has seen of the images that it has looked at in a pass, by their numbers."""

    bad: dict[int, str] = field(default_factory=dict)
    """Why images cannot be read."""
    changed: dict[int, bytes] = field(default_factory=dict)
    """The digests of images that held something else before the pass."""
    lone: set[int] = field(default_factory=set)
    """Images of which nothing can be said of those that held the same before the pass."""
    lost: bool = False
    """Whether the disk has refused rows."""


@dataclass
class _Pass:
    """Images on their way through the frozen part, by their numbers in the catalog."""

    catalog: Catalog
    augmentation: Augmentation
    keys: _Keys
    what: str
    """For the ticks."""
    held: Held
    """What has been read of images already."""
    bad: dict[int, str] = field(default_factory=dict)
    """Why images cannot be read."""
    changed: dict[int, bytes] = field(default_factory=dict)
    """The digests of images that held something else when they were looked at before the pass."""


class Extractor:
    """Runs the frozen part of a cut over images that it has not seen yet. Made by `extractor`."""

    def __init__(
        self,
        cut: Cut,
        compute: Compute,
        choice: Choice,
        work: Work,
        store: Store,
        *,
        keep: bool,
        workers: int,
    ) -> None:
        self.cut = cut
        self.choice = choice
        self.store = store
        self._compute = compute
        self._work = work
        self._keep = keep
        self._workers = workers
        self._example = example_for(cut.model.spec)
        self.started: Runner | None = None
        """The engine, once there was something to compute."""
        self.read: Reader | None = None
        """Set by who shares images out among extractors; None: they are read."""
        self.whose = f"the frozen part of the network, before {cut.at},"
        """What an error calls that which computes the rows."""
        self.scores: Scores | None = None
        """Set where a head answers from the rows: what it makes of them, which an engine must not
        change."""
        self.beside: tuple[Store, ...] = ()
        """Set by `together`: of vectors that the frozen part gives behind its own."""

    def fill(
        self, catalog: Catalog, augmentation: Augmentation, *, views: int, what: str
    ) -> Generator[Tick | Note, None, Bank]:
        """A bank of V views of each image. Yields ticks, returns the bank.

        Unreadable images are in `bad` and take no row; the caller decides whether that ends the
        fit. Raises `ImageError` where none can be read, `DiskError` where there is no room.
        """
        bank = yield from self.look_up(catalog, augmentation, views=views, what=what)
        if not len(bank.places):
            raise none_readable(bank.bad)
        return bank

    def look_up(
        self, catalog: Catalog, augmentation: Augmentation, *, views: int, what: str
    ) -> Generator[Tick | Note, None, Bank]:
        """The same where it does not matter that none can be read."""
        yield Tick(what=what, done=0, total=len(catalog))
        held = Held(0 if here().several else HELD)
        images = self._images(catalog, held)
        run = _Pass(catalog, augmentation, _Keys(images, augmentation, views), what, held)
        # An image may have changed, or the disk refused a row: what is missing then is computed.
        while (yield from self._round(run)):
            pass
        if run.changed:
            yield Note(text=_about_changed([catalog.paths[number] for number in run.changed]))
        good = np.setdiff1d(np.arange(len(catalog)), list(run.bad))
        keys = run.keys.table[good]
        if here().several:
            self.store.refresh()
            exchange(self.store, keys.ravel())
        places = self.store.find(keys)
        if (places < 0).any() and self.store.refused is not None:
            raise self.store.refused  # when it came from another process
        return Bank(
            rows=self.store.rows,
            places=places,
            shape=self.store.shape,
            labels=torch.from_numpy(catalog.labels[good]),
            catalog=catalog.take(good),
            bad=tuple(
                BadImage(path=catalog.paths[number], reason=run.bad[number])
                for number in sorted(run.bad)
            ),
        )

    def _round(self, run: _Pass) -> Generator[Tick | Note, None, bool]:
        """Compute what is missing; whether something may be missing still."""
        keys = run.keys.table
        # Copies of one image, seen alike, are computed once: by the first of them.
        lacks = np.logical_and.reduce(here().gather(self._lacks(keys)))
        lacks[list(run.bad)] = False
        missing = np.flatnonzero(lacks)
        _, first, copies = np.unique(
            keys[missing].view(f"V{KEY_BYTES * keys.shape[1]}").ravel(),
            return_index=True,
            return_inverse=True,
        )
        first_of = missing[first][copies]
        own = _share(np.sort(missing[first]), max(1, BATCH // keys.shape[1]))
        seen, stores = _Seen(), (self.store, *self.beside)
        folders = {one.folder for one in stores}
        try:
            yield from self._compute_rows(run, own, seen)
        finally:
            for store in stores:
                store.settle()
                if store.refused is not None:
                    cache.go_without(store.refused)
                    seen.lost = seen.lost or store.folder not in folders
            if self._keep:
                cache.prune(keep=[one.folder.name for one in stores])
        every = here().gather(seen)
        bad = {number: reason for one in every for number, reason in one.bad.items()}
        lone = {number for one in every for number in one.lone}
        for one in every:
            run.keys.correct(one.changed)
            run.changed |= one.changed
        spoilt = np.isin(first_of, [number for number in bad if number not in lone])
        copied = zip(missing[spoilt].tolist(), first_of[spoilt].tolist(), strict=True)
        run.bad |= bad | {number: bad[first] for number, first in copied}
        # Others that held the same before are to be looked at themselves.
        others = int(np.isin(first_of, list(lone)).sum()) > len(lone)
        return others or any(one.lost for one in every)

    def lacking(self, catalog: Catalog, augmentation: Augmentation) -> int:
        """How many images' plain views would have to be computed."""
        keys = _Keys(self._images(catalog, Held(0)), augmentation, 1)
        return int(self._lacks(keys.table).sum())

    def _lacks(self, keys: NDArray[np.void]) -> NDArray[np.bool_]:
        """(N, V) -> (N,) whether any of an image's rows is not there."""
        stores = (self.store, *self.beside)
        lacks: NDArray[np.bool_] = np.any([one.find(keys) < 0 for one in stores], axis=(0, 2))
        return lacks

    def let_go(self) -> None:
        """Of rows that were computed, where they are not kept: banks of them cannot be read on."""
        if not self._keep:
            self.store = Store(_temporary(), self.store.shape)
            weakref.finalize(self.store, shutil.rmtree, self.store.folder, ignore_errors=True)

    def _images(self, catalog: Catalog, held: Held) -> NDArray[np.void]:
        """(N,) what tells the content of each image."""
        paths = catalog.paths[here().part(len(catalog))]
        own = digests(paths, workers=self._workers, held=held)
        return np.concatenate(here().gather(own))

    def _compute_rows(
        self, run: _Pass, missing: NDArray[np.int64], seen: _Seen
    ) -> Generator[Tick | Note, None, None]:
        """Run the frozen part over the images of these numbers; `seen` takes what they were."""
        total = len(run.catalog)
        if not len(missing):
            yield Tick(what=run.what, done=total, total=total)
            return
        views = run.keys.table.shape[1]
        read: dict[int, bytes] = {}
        """The digests of what was decoded."""

        def look(image: Pixels, position: int) -> Pixels:
            number = int(missing[position])
            return np.stack([run.augmentation.look(image, number, view) for view in range(views)])

        paths = run.catalog.paths.take(missing)
        at_least_px = detail(self.cut.model.spec)

        def source(position: int) -> Pixels:
            number, path = int(missing[position]), paths[position]
            data = run.held.take(number)
            if self.read is not None:
                decoded = self.read(path, at_least_px)
                read[number] = decoded.digest
                return decoded.pixels
            data = content(path).data if data is None else data
            read[number] = digest_of_bytes(data)  # also of what is no image
            return decode(data, at_least_px=at_least_px)

        parts = batches(
            paths,
            look,
            sizes=_stretches(len(missing), max(1, BATCH // views)),
            source=source,
            workers=self._workers,
            ahead=READ_AHEAD // (views * math.prod(self._example.shape[1:])),
        )
        done = total - len(missing)
        with contextlib.closing(parts):
            # The first before the engine starts: more are then read while it does.
            first = list(itertools.islice(parts, 1))
            runner = self.started or (yield from self.start())
            pairs = ((part, part.images.flatten(0, 1)) for part in itertools.chain(first, parts))
            for part, rows in runner.each(pairs):
                unread = {int(missing[position]): one for position, one in part.bad.items()}
                numbers = missing[part.index]
                now = {one: read.pop(one) for one in (*numbers.tolist(), *unread) if one in read}
                changed = run.keys.correct(now)
                seen.bad |= {number: one.reason for number, one in unread.items()}
                seen.changed |= changed
                # Of what could not be read at all nothing says that it is what it was.
                seen.lone |= {*changed, *(number for number in unread if number not in now)}
                if rows is not None:
                    self._check(rows, paths.take(part.index))
                    self._append(run.keys.table[numbers], rows)
                done += len(part.index) + len(part.bad)
                yield Tick(what=run.what, done=done, total=total)

    def _check(self, rows: Tensor, images: Paths) -> None:
        """Raise `AnswerError`, which names the images, unless all their rows are finite."""
        check_finite(
            rows.reshape(len(images), -1),
            of=self.whose,
            do="leave these images out, or use other --weights, or --precision fp32 where the "
            "fit chose bf16",
            images=images,
        )

    def _append(self, keys: NDArray[np.void], rows: Tensor) -> None:
        """(n, V) and (n * V, ...)"""
        if not self.beside:
            self.store.append(keys, rows)
            return
        stores = (self.store, *self.beside)
        parts = rows.split([one.shape[0] for one in stores], dim=1)
        for store, part in zip(stores, parts, strict=True):
            lacking = store.find(keys.ravel()) < 0
            if lacking.any():
                store.append(keys.ravel()[lacking], part[torch.from_numpy(lacking)])

    def start(self) -> Generator[Note, None, Runner]:
        """Start the engine, now that there is something to compute."""
        yield Note(text=self.choice.reason)
        self.started = start(
            self.choice, self.cut.frozen, self._compute, self._example, self._work,
            keep=self._keep, scores=self.scores,
        )  # fmt: skip
        if self.started.fallback:
            yield Note(text=self.started.fallback)
        return self.started


def extractor(
    cut: Cut,
    compute: Compute,
    *,
    backbone: str,
    engine: str = "auto",
    images: int = 0,
    keep: bool = True,
    workers: int = 0,
) -> Extractor:
    """What runs the frozen part of a cut that is placed, for so many `images` (views) in all.

    With `keep` the rows stay in the cache, where it may hold anything; else they go with the store.
    Raises `DiskError`, and what `engine.choose` raises.
    """
    keep = keep and cache.limit() > 0
    work, answer = work_of(cut.frozen, compute, example_for(cut.model.spec)[:1], images)
    choice = choose(engine, compute, work)
    held, behind = None, tuple[Path, ...]()
    if keep:
        folder = _folder(about := _about(cut, compute, choice, backbone), answer)
        same = SAME[compute.precision]
        with here().first_before_others():
            try:
                held = _entry(folder, about, answer, same)
            except DiskError as error:
                cache.go_without(error)
                # It can be read, perhaps.
                behind = (folder,) if _has_rows_of_this(folder, answer, same) else ()
    if held is not None:
        store = Store(Path(held.lock_file).parent, answer.shape[1:], spare=_temporary)
        weakref.finalize(store, cache.end, held)
    else:
        keep = False
        store = Store(_temporary(), answer.shape[1:], behind=behind)
        weakref.finalize(store, shutil.rmtree, store.folder, ignore_errors=True)
    return Extractor(cut, compute, choice, work, store, keep=keep, workers=workers)


def together(cut: Cut, runs: Sequence[Extractor]) -> Extractor:
    """One that fills the stores of all, in one pass; it gives banks of the first.

    `cut` is theirs, but its frozen part gives the vectors of all behind each other.
    """
    first, *others = runs
    made = Extractor(
        cut, first._compute, first.choice, first._work, first.store,
        keep=first._keep, workers=first._workers,
    )  # fmt: skip
    made.beside = tuple(one.store for one in others)
    return made


def _stretches(count: int, size: int) -> list[int]:
    """All of one size but the last, whoever counts: what is left of a pass that was stopped goes
    through the network in the very batches that it would have gone in, and gives the same bits.
    """
    whole, rest = divmod(count, size)
    return [size] * whole + [rest] * (rest > 0)


def _share(missing: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Of the images to compute those that fall to this process: whole batches of one pass."""
    own = here().part(-(-len(missing) // size))
    return missing[own.start * size : own.stop * size]


def exchange(store: Store, keys: NDArray[np.void]) -> None:
    """Take in the rows of these keys (n,) that only other processes have.

    Nothing is sent where the store's folder is one for all of them. A row is the same bits behind
    it: halves of one largest number come out of their floats as they were.
    """
    ranks = here()
    wanted = np.unique(np.concatenate(ranks.gather(keys[store.find(keys) < 0])))
    holds = np.array(ranks.gather(store.find(wanted) >= 0))
    holder = holds.argmax(axis=0)
    step = max(1, IN_BLOCK // math.prod(store.shape))
    for rank in range(ranks.size):
        own = wanted[holder == rank]
        for begin in range(0, len(own), step):
            some = own[begin : begin + step]
            rows = store.rows(store.find(some)) if ranks.rank == rank else None
            rows = ranks.agree(rows, of=rank)
            lacking = store.find(some) < 0
            if rows is not None and lacking.any():
                store.append(some[lacking], rows[torch.from_numpy(lacking)])
    store.settle()


def _about_changed(paths: Sequence[Path]) -> str:
    """What is said of images that changed between two looks at them."""
    which = f"image {paths[0]}" if len(paths) == 1 else f"{len(paths)} images, {paths[0]} first,"
    return f"{which} changed while it was read: what the file holds now counts"


def _temporary() -> Path:
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise DiskError(
            "no folder for temporary files can be written",
            found=str(error.strerror or error),
            expected="room for what the frozen part makes of the images",
            do="free some space, or set TMPDIR to a folder on a disk that has some",
        ) from error
    with disk_errors(folder):
        return Path(tempfile.mkdtemp(prefix="tlkit-"))


def _about(cut: Cut, compute: Compute, choice: Choice, backbone: str) -> dict[str, str]:
    """All that a row depends on besides the image and how it is looked at."""
    neck = cut.model.neck
    # No tensor tells one pooling from another.
    pooled = {"pooling": neck.how} if isinstance(neck, Pool) else {}
    return pooled | {
        "what": f"features, up to {cut.at}, of {backbone}",
        "backbone": backbone,
        "computed up to": cut.at,
        "frozen tensors": digest(cut.frozen.state_dict().items()),
        "input": str(cut.model.spec),
        "decoder": str(POLICY),
        # Of version 0.1.0 they may be of what an image held a moment before.
        "found by": "the bytes that were decoded",
        "engine": f"{choice.name}, {compute.words}, {compute.layout}",
    }


def _folder(about: Mapping[str, str], answer: Tensor) -> Path:
    """Where the cache has rows of this kind."""
    text = json.dumps([about, list(answer.shape)], sort_keys=True)
    name = re.sub(r"\W+", "-", about["backbone"])[:40]
    return cache.root() / f"{name}-{_blake(text.encode()).hexdigest()}"


def _entry(folder: Path, about: Mapping[str, str], answer: Tensor, same: float) -> FileLock | None:
    """The cache's folder for rows of this kind, held; emptied if they were made by other code, and
    without the oldest of them if there are more than the cache may hold.

    None where another process is using what other code has made. Raises `DiskError`.

    What the tensors do not tell, code does: a plugin may change without a new version. So the
    answer to one image is kept too, and has to be the same.
    """
    kept = folder / ANSWER
    with disk_errors(folder):
        own = _made_by_this(folder, answer, same)
    if not own:
        if cache.is_held(folder):
            return None
        with disk_errors(folder):
            cache.delete(folder)
    elif not cache.is_held(folder):
        # All folders on one backbone meet here: else it would grow for ever.
        trim(folder, cache.limit())
    held = cache.begin(folder, about)
    if not kept.exists():
        file = io.BytesIO()
        np.save(file, answer.numpy())
        write_bytes(kept, file.getvalue())
    return held


def _has_rows_of_this(folder: Path, answer: Tensor, same: float) -> bool:
    """Whether rows can be read there that were made by code that gives this answer."""
    with contextlib.suppress(OSError):
        return (folder / ANSWER).exists() and _made_by_this(folder, answer, same)
    return False


def _made_by_this(folder: Path, answer: Tensor, same: float) -> bool:
    """Whether what is there, if anything, was made by code that gives this answer."""
    kept = folder / ANSWER
    if not kept.exists():
        return not any(folder.glob("*.keys"))
    before = torch.from_numpy(np.load(kept, allow_pickle=False))
    return before.shape == answer.shape and off_by(before, answer) <= same


def _blake(data: bytes) -> Any:
    return hashlib.blake2b(data, digest_size=KEY_BYTES)


def _key(image: bytes, view: str) -> bytes:
    """Of one view of an image's bytes."""
    found: bytes = _blake(image + view.encode()).digest()
    return found


def none_readable(bad: Sequence[BadImage]) -> ImageError:
    """The error for a part of which every image is unreadable."""
    return ImageError(
        "no image can be read",
        found=listing([f"{one.path}: {one.reason}" for one in bad], most=3),
        expected="images that Pillow can decode",
        do="check the files",
    )
