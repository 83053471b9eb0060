"""Digests: what tells the content of every image, without reading those that have not changed.

In: paths. Out: 16 bytes for each.
For many images of one folder the digests are kept in the cache beside its names, by what changes
with a file: its inode, size and times, and its place where it is in a shard. So the next start asks
the disk for these and reads nothing. As in git's index, what has changed just now is not kept: it
could change again within one tick of the disk's clock.
Next door: manifest.py (the entry in the cache), shards.py (reading).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import cache
from tlkit.data import manifest
from tlkit.data.images import Unreadable, content
from tlkit.data.names import Paths
from tlkit.data.shards import find, state_of
from tlkit.errors import FolderError
from tlkit.files import write_bytes

BYTES = 16
DIGEST = np.dtype((np.void, BYTES))
ROW = np.dtype([("state", "<i8", 5), ("digest", DIGEST)])
FILE = "digests-2.bin"
"""The first one's states may be of other content: they were asked for before it was read."""
AT_ONCE = 4096

HELD = 64 << 20
"""Bytes of images that may wait to be decoded."""

NO_STATE = (0, 0, 0, 0, 0)


class Held:
    """What images hold that were read to be hashed, as much as there is room for.

    So what is hashed and then decoded is read once.
    """

    def __init__(self, room: int = HELD) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._there: dict[int, bytes] = {}

    def keep(self, number: int, data: bytes) -> None:
        """Hold what image `number` has, if there is room."""
        with self._lock:
            if len(data) <= self._room:
                self._room -= len(data)
                self._there[number] = data

    def take(self, number: int) -> bytes | None:
        """What image `number` has, and hold it no longer; None where it is not held."""
        with self._lock:
            data = self._there.pop(number, None)
            self._room += len(data or b"")
            return data


def digest_of_bytes(data: bytes) -> bytes:
    """16 bytes that tell an image's content from any other."""
    return hashlib.blake2b(data, digest_size=BYTES).digest()


def states(paths: Paths) -> NDArray[np.int64]:
    """(N, 5): inode, bytes, the times of content and inode in ns, and the place in a shard.

    All 0 for what is not there, or is no file.
    """
    found = np.zeros((len(paths), 5), np.int64)
    for begin in range(0, len(paths), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        found[part] = [_state(one) for one in paths[part].texts()]
    return found


def digests(paths: Paths, *, workers: int = 0, held: Held | None = None) -> NDArray[np.void]:
    """(N,) of 16 bytes: `digest_of_bytes` of what each holds.

    Of what has none that can be read (a pipe would never end) they tell its path. `held` takes what
    had to be read.
    """
    began_ns = manifest.now_ns()
    place = manifest.entry(paths.root)
    if place is None or (len(paths) < manifest.MANY and not os.path.isfile(place / FILE)):
        return _read(paths, np.arange(len(paths)), workers, held)["digest"]
    kept = _kept(place / FILE)
    found, known = _looked_up(states(paths), kept)
    missing = np.flatnonzero(~known)
    if not len(missing):
        return found
    read = _read(paths, missing, workers, held)
    found[missing] = read["digest"]
    # The state of the very file that was read: another may have its name by now, or had it before.
    state = read["state"]
    old = (state[:, 2:4].max(axis=1) < began_ns - manifest.JUST_NOW_NS) & (state[:, 0] != 0)
    new = read[old]
    if len(new):
        with cache.if_it_can_be_written(), manifest.held(paths.root, place):
            # Others may have written meanwhile.
            write_bytes(place / FILE, np.concatenate([_kept(place / FILE), new]).tobytes())
    return found


def _state(text: str) -> tuple[int, int, int, int, int]:
    with contextlib.suppress(OSError, FolderError):
        try:
            status = os.stat(text)
        except NotADirectoryError:
            member = find(text)
            if member is None:
                raise
            # A shard's own size says nothing of an image in it.
            return (*member.state[:1], member.size, *member.state[2:], member.begin)
        if stat.S_ISREG(status.st_mode):
            return (*state_of(status), 0)
    return NO_STATE


def _read(
    paths: Paths, numbers: NDArray[np.int64], workers: int, held: Held | None
) -> NDArray[Any]:
    """A row of the index for each of these; of what cannot be read the state is none."""

    def row(number: int) -> tuple[tuple[int, ...], bytes]:
        path = paths[number]
        try:
            found = content(path)
        except Unreadable:
            return NO_STATE, digest_of_bytes(b"unreadable " + os.fsencode(path))
        if held is not None:
            held.keep(number, found.data)
        return found.state, digest_of_bytes(found.data)

    rows = np.zeros(len(numbers), ROW)
    with ThreadPoolExecutor(workers or None, thread_name_prefix="tlkit-digest") as pool:
        # As many at once as may wait for a thread.
        for begin in range(0, len(numbers), AT_ONCE):
            some = list(pool.map(row, numbers[begin : begin + AT_ONCE].tolist()))
            part = rows[begin : begin + len(some)]
            part["state"] = [state for state, _ in some]
            part["digest"] = np.frombuffer(b"".join(digest for _, digest in some), DIGEST)
    return rows


def _kept(file: Path) -> NDArray[Any]:
    """The rows of the index; those that are whole."""
    with contextlib.suppress(OSError):
        data = file.read_bytes()
        return np.frombuffer(data, ROW, len(data) // ROW.itemsize)
    return np.zeros(0, ROW)


def _looked_up(
    now: NDArray[np.int64], kept: NDArray[Any]
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """The digests of files in these states, and which of them are known."""
    found, known = np.zeros(len(now), DIGEST), np.zeros(len(now), bool)
    if len(kept):
        rows = np.ascontiguousarray(kept["state"]).view(f"V{5 * 8}").ravel()
        asked = np.ascontiguousarray(now).view(rows.dtype).ravel()
        order = np.argsort(rows, kind="stable")
        at = order[np.minimum(np.searchsorted(rows[order], asked), len(rows) - 1)]
        known = (rows[at] == asked) & (now[:, 0] != 0)
        found[known] = kept["digest"][at[known]]
    return found, known
