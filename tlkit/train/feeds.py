"""Feeds: the batches of an epoch, from a bank or from images.

In: a bank or a catalog. Out: inputs and labels, in an order that is a function of seed and epoch.
Next door: loop.py, which takes steps on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.batches import batches, even_parts
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage, Pixels, refuse
from tlkit.data.pixels import Decoded
from tlkit.data.transforms import Augmentation
from tlkit.ranks import here
from tlkit.train.bank import Bank, none_readable
from tlkit.train.events import Tick

Parts = Generator[tuple[Tensor, Tensor], None, None]
"""Inputs and labels (B,), batch by batch."""


Begun = tuple[Parts, Future[tuple[Tensor, Tensor] | None]]
"""An epoch, and the first batch of it, or None where it has none."""


class Feed(Protocol):
    """Where the loop's batches come from."""

    @property
    def images(self) -> int:
        """Images in an epoch."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def module(self) -> nn.Module:
        """What the inputs are given to."""

    def epoch(self, number: int, done: int = 0) -> Parts:
        """One pass, in that epoch's order, without the first `done` batches.

        Of each batch this process's share, which is at least one image.
        """

    def paths(self, number: int, batches: range) -> list[Path]:
        """The images of these batches of an epoch."""


@dataclass(frozen=True, kw_only=True)
class BankFeed:
    """Rows of a bank; epochs take its views in turn."""

    module: nn.Module
    bank: Bank
    batch: int
    seed: int

    @property
    def images(self) -> int:
        return len(self.bank.labels)

    @property
    def steps(self) -> int:
        return len(even_parts(self.images, self.batch))

    def epoch(self, number: int, done: int = 0) -> Parts:
        view = (number - 1) % self.bank.views
        for whole in _split(self.images, self.batch, self.seed, number)[done:]:
            part = whole[here().part(len(whole))]
            yield self.bank.at(part, view), self.bank.labels[torch.from_numpy(part)]

    def paths(self, number: int, batches: range) -> list[Path]:
        return _within(self, self.bank.catalog.paths, number, batches)


@dataclass(frozen=True, kw_only=True)
class ImageFeed:
    """Images read anew in every epoch, augmented differently in each."""

    module: nn.Module
    catalog: Catalog
    augmentation: Augmentation
    pixels: Decoded
    """Of the catalog's images."""
    batch: int
    seed: int
    workers: int

    @property
    def images(self) -> int:
        return len(self.catalog)

    @property
    def steps(self) -> int:
        return len(even_parts(self.images, self.batch))

    def epoch(self, number: int, done: int = 0) -> Parts:
        shares = [
            whole[here().part(len(whole))]
            for whole in _split(self.images, self.batch, self.seed, number)[done:]
        ]
        order = np.concatenate([*shares, np.empty(0, np.int64)])

        def look(image: Pixels, position: int) -> Pixels:
            return self.augmentation.look(image, int(order[position]), number - 1)

        for part in batches(
            self.catalog.paths.take(order),
            look,
            sizes=[len(one) for one in shares],
            source=lambda position: self.pixels(int(order[position])),
            workers=self.workers,
        ):
            # All were read before the first epoch; a file that vanished since ends the fit.
            refuse(
                list(part.bad.values()), do="put them back: they were readable when the fit began"
            )
            labels = torch.from_numpy(self.catalog.labels[order[part.index]])
            yield part.images[:, 0], labels

    def paths(self, number: int, batches: range) -> list[Path]:
        return _within(self, self.catalog.paths, number, batches)


class Ahead:
    """The epochs of a feed, of which the next may begin to be read while a model is judged."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tlkit-ahead")
        self._begun: Begun | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True)
        if self._begun is not None:
            self._begun[0].close()

    def begin(self, number: int) -> None:
        """Read the first batch of an epoch, in a thread; those behind it are read ahead then."""
        self._begun = self._read(number)

    def epoch(self, number: int, done: int = 0) -> Parts:
        """As the feed's own, which must be the one that was begun, if one was."""
        (parts, begun), self._begun = self._begun or self._read(number, done), None
        with contextlib.closing(parts):
            first = begun.result()
            if first is not None:
                yield first
                yield from parts

    def _read(self, number: int, done: int = 0) -> Begun:
        parts = self._feed.epoch(number, done)
        return parts, self._pool.submit(next, parts, None)


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch: a permutation that is a function of the seed and the epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _split(count: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch, as numbers of images."""
    return np.split(shuffled(count, seed, epoch), np.cumsum(even_parts(count, batch))[:-1])


def _within(
    feed: BankFeed | ImageFeed, paths: Sequence[Path], number: int, batches: range
) -> list[Path]:
    """The images of these batches of an epoch, of the feed's."""
    split = _split(feed.images, feed.batch, feed.seed, number)
    return [paths[i] for batch in batches for i in split[batch]]


def readable(
    catalog: Catalog, *, workers: int
) -> Generator[Tick, None, tuple[Catalog, tuple[BadImage, ...]]]:
    """Decode every image once before hours are spent on them: those that can be read, and the bad.

    Each process decodes its share. Raises `ImageError` where none can be read.
    """
    bad: list[BadImage] = []
    gone: list[int] = []
    done = 0
    nothing = np.zeros((1, 1, 3), np.uint8)
    share = here().part(len(catalog))
    paths = catalog.paths[share]
    for part in batches(
        paths,
        lambda image, position: nothing,
        sizes=even_parts(len(paths), 256),
        at_least_px=1,
        workers=workers,
    ):
        gone += [share.start + position for position in part.bad]
        bad.extend(part.bad.values())
        done += len(part.index) + len(part.bad)
        yield Tick(what="checking images", done=done, total=len(paths))
    found = here().gather((gone, bad))
    every = [one for _, those in found for one in those]
    kept = np.delete(np.arange(len(catalog)), [one for those, _ in found for one in those])
    if not len(kept):
        raise none_readable(every)
    return catalog.take(kept), tuple(every)
