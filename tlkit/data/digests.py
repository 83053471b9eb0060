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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.data import manifest
from tlkit.data.images import too_long
from tlkit.data.names import Paths
from tlkit.data.shards import contents, find, state_of
from tlkit.errors import DiskError, FolderError
from tlkit.files import write_bytes

BYTES = 16
DIGEST = np.dtype((np.void, BYTES))
ROW = np.dtype([("state", "<i8", 5), ("digest", DIGEST)])
FILE = "digests.bin"
AT_ONCE = 4096

NO_STATE = (0, 0, 0, 0, 0)


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


def digests(paths: Paths, *, workers: int = 0) -> NDArray[np.void]:
    """(N,) of 16 bytes: `digest_of_bytes` of what each holds.

    Of what has none that can be read (a pipe would never end) they tell its path.
    """
    began_ns = manifest.now_ns()
    place = manifest.entry(paths.root)
    if place is None or (len(paths) < manifest.MANY and not (place / FILE).is_file()):
        return _read(paths, workers)[0]
    now = states(paths)
    kept = _kept(place / FILE)
    found, known = _looked_up(now, kept)
    missing = np.flatnonzero(~known)
    if not len(missing):
        return found
    found[missing], whole = _read(paths.take(missing), workers)
    old = (now[:, 2:4].max(axis=1) < began_ns - manifest.JUST_NOW_NS) & (now[:, 0] != 0)
    good = missing[whole & old[missing]]
    if len(good):
        new = np.zeros(len(good), ROW)
        new["state"], new["digest"] = now[good], found[good]
        with contextlib.suppress(DiskError), manifest.held(paths.root, place):
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


def _digest(path: Path) -> tuple[bytes, bool]:
    """The digest, and whether it is one of content."""
    data, whole = b"unreadable " + os.fsencode(path), False
    with contextlib.suppress(OSError, FolderError):
        member = find(path)
        # Of a file that is too long for an image nothing is read.
        if (path.is_file() or member is not None) and not too_long(
            path.stat().st_size if member is None else member.size
        ):
            data, whole = contents(path), True
    return digest_of_bytes(data), whole


def _read(paths: Paths, workers: int) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Digests, and which of them are of content."""
    found, whole = np.zeros(len(paths), DIGEST), np.zeros(len(paths), bool)
    with ThreadPoolExecutor(workers or None, thread_name_prefix="tlkit-digest") as pool:
        for begin, part in _parts(paths):
            some = list(pool.map(_digest, part))
            found[begin : begin + len(some)] = np.frombuffer(b"".join(d for d, _ in some), DIGEST)
            whole[begin : begin + len(some)] = [one for _, one in some]
    return found, whole


def _parts(paths: Paths) -> Iterator[tuple[int, Paths]]:
    """As many at once as may wait for a thread."""
    for begin in range(0, len(paths), AT_ONCE):
        yield begin, paths[begin : begin + AT_ONCE]


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
