"""Pixels: decoded images that are kept from epoch to epoch, as many as a budget holds.

In: paths. Out: an image's pixels, from its file or from where they were kept;
they are the same, so a cache changes how long an epoch takes and nothing else.
Next door: images.py (reading a file), batches.py (who asks, from several threads at once).
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlkit.data.digests import digest_of_bytes
from tlkit.data.images import Detail, Pixels, content, decode, decode_each, read
from tlkit.files import disk_errors


class Room:
    """Bytes for pixels, in memory (`ram`) or in a file without a name (`disk`)."""

    def __init__(self, where: str, budget: int) -> None:
        self.budget = budget if where != "none" else 0
        self._end = 0
        self._lock = threading.Lock()
        self._bytes: mmap.mmap | None = None
        if self.budget and where == "disk":
            with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
                # Reserved: a sparse file on a full disk would end the process with a signal.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.budget)
                else:
                    file.truncate(self.budget)
                self._bytes = mmap.mmap(file.fileno(), self.budget)
        elif self.budget:
            # Taken from the system page by page, as it is filled.
            self._bytes = mmap.mmap(-1, self.budget)

    def keep(self, image: Pixels) -> Pixels | None:
        """The same pixels in this room; None where it is full."""
        with self._lock:
            begin, self._end = self._end, self._end + image.nbytes
            if self._bytes is None or self._end > self.budget:
                self._end = begin
                return None
        place = np.frombuffer(self._bytes, np.uint8, math.prod(image.shape), begin)
        kept = place.reshape(image.shape)
        kept[:] = image
        return kept


class Decoded:
    """The images of some paths, by their numbers."""

    def __init__(self, paths: Sequence[Path], *, at_least_px: Detail, room: Room) -> None:
        self.paths = paths
        self.at_least_px = at_least_px
        self._room = room
        self._kept: dict[int, Pixels] = {}

    def __call__(self, number: int) -> Pixels:
        """(H, W, 3), not to be written to. Raises `Unreadable`."""
        found = self._kept.get(number)
        if found is not None:
            return found
        image = read(self.paths[number], at_least_px=self.at_least_px)
        kept = self._room.keep(image)
        if kept is not None:
            self._kept[number] = kept
        return image


@dataclass(frozen=True)
class Decoding:
    """The pixels of an image, and the digest of the very bytes that they were decoded from."""

    pixels: Pixels
    """(H, W, 3), not to be written to."""
    digest: bytes


def decoding(data: bytes, at_least_px: Detail) -> Decoding:
    """Decode what a file holds. Raises `Unreadable`."""
    return Decoding(decode(data, at_least_px=at_least_px), digest_of_bytes(data))


class Shared:
    """Images that several networks look at, one behind the other: read and decoded once for all.

    Each gets the very pixels that it would have read. What the room has no place for is read anew
    by each.
    """

    def __init__(self, sizes: Collection[Detail], room: Room) -> None:
        """`sizes` are the `at_least_px` of all the networks."""
        self._sizes = frozenset(sizes)
        self._room = room
        self._kept: dict[str, dict[Detail, Decoding]] = {}
        self._full = False

    def __call__(self, path: Path, at_least_px: Detail) -> Decoding:
        """An image as a network of that size sees it. Raises `Unreadable`."""
        name = str(path)
        found = self._kept.get(name, {}).get(at_least_px)
        if found is not None:
            return found
        data = content(path).data
        if self._full or at_least_px not in self._sizes:
            return decoding(data, at_least_px)
        digest, each = digest_of_bytes(data), decode_each(data, self._sizes)
        kept: dict[int, Pixels | None] = {}
        for one in each.values():
            if id(one) not in kept:
                kept[id(one)] = self._room.keep(one)
        there = {
            px: Decoding(place, digest)
            for px, one in each.items()
            if (place := kept[id(one)]) is not None
        }
        self._full = self._full or len(there) < len(each)
        self._kept[name] = there
        return Decoding(each[at_least_px], digest)


class ReadOnce:
    """Images that several networks look at side by side: each file is read once for all.

    So they see one and the same image, whoever writes to it meanwhile. Its bytes are held until the
    last has looked; as the networks go in step, those are few.
    """

    def __init__(self, paths: Sequence[Path], networks: int) -> None:
        self._paths = paths
        self._networks = networks
        self._lock = threading.Lock()
        self._there: dict[int, tuple[Future[bytes], int]] = {}
        """By position: the bytes, and how many networks have yet to look."""

    def __call__(self, position: int, at_least_px: Detail) -> Pixels:
        """(H, W, 3) for the next network. Raises `Unreadable`."""
        with self._lock:
            data, left = self._there.pop(position, (None, self._networks))
            mine = data is None
            data = Future() if data is None else data
            if left > 1:
                self._there[position] = data, left - 1
        if mine:
            try:
                data.set_result(content(self._paths[position]).data)
            except BaseException as error:
                data.set_exception(error)
        return decode(data.result(), at_least_px=at_least_px)
