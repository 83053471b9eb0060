"""Manifest: what a scan of a large folder has found, kept in the cache for the next start.

In: the arrays of a scan, and the state of every folder that it has listed. Out: the same arrays,
mapped from the disk, if each of these folders is still as it was: only they are looked at again.
A folder that was changed shortly before the scan may change once more within one tick of the disk's
clock. What such a scan has found is not kept.
Next door: folder.py (the scan), digests.py (what is in the files), tlkit/cache.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import cache
from tlkit.data.names import Names
from tlkit.data.shards import State, state_of
from tlkit.errors import DiskError
from tlkit.files import write_bytes

VERSION = 2
MANY = 10_000
"""Images from which a folder is worth an entry: fewer are listed in a blink."""

JUST_NOW_NS = 2_000_000_000
"""Within which a change may not show in a time: some disks count in two seconds."""

FILE = "names.safetensors"
KINDS = {"U8": np.uint8, "I64": np.int64}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a scan has found."""

    files: Names
    arrays: Mapping[str, NDArray[np.int64]]
    """Whatever belongs to the files."""
    told: Mapping[str, Any]
    """What is not an array, as JSON takes it."""


def load(folder: Path) -> Manifest | None:
    """What the last scan has found, if it is there and nothing has changed since."""
    place = entry(folder)
    if place is None or not os.path.isfile(place / FILE):
        return None
    # Whatever is wrong with the file: the folder is scanned again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError, DiskError):
        with (place / FILE).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        arrays, told = _read(mapped)
        sources = Names.of_text(arrays.pop("sources").tobytes())
        states = arrays.pop("states").reshape(-1, 4)
        for one, state in zip(sources, states.tolist(), strict=True):
            if state_of(os.stat(one)) != tuple(state):
                return None
        with cache.if_it_can_be_written():  # what is mapped can be read without a lock too
            lock = cache.begin(place, _about(folder))
            weakref.finalize(mapped, cache.end, lock)
        data, ends = arrays.pop("names"), arrays.pop("ends")
        begins = np.zeros_like(ends)
        begins[1:] = ends[:-1] + 1
        return Manifest(files=Names(data, begins, ends), arrays=arrays, told=told)
    return None


def save(folder: Path, found: Manifest, sources: Mapping[str, State], began_ns: int) -> None:
    """Keep what a scan that began then has found, where that is allowed and can be trusted."""
    newest = max(max(state[2:]) for state in sources.values())
    place = entry(folder)
    if place is None or len(found.files) < MANY or newest > began_ns - JUST_NOW_NS:
        return
    from safetensors.numpy import save as packed

    files = found.files
    arrays = {
        "names": files.data,
        "ends": files.ends,
        "sources": np.frombuffer(
            "".join(f"{one}\0" for one in sources).encode("utf-8", "surrogateescape"), np.uint8
        ),
        "states": np.array(list(sources.values()), dtype=np.int64),
        **found.arrays,
    }
    told = {"told": json.dumps(found.told)}
    with cache.if_it_can_be_written(), held(folder, place):
        whole = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
        write_bytes(place / FILE, packed(whole, metadata=told))


@contextlib.contextmanager
def held(folder: Path, place: Path) -> Iterator[None]:
    """Write to the entry of a folder; afterwards the cache is as small as it has to be."""
    lock = cache.begin(place, _about(folder))
    try:
        yield
    finally:
        cache.end(lock)
        cache.prune(keep=[place.name])


def entry(folder: Path) -> Path | None:
    """Where in the cache a folder's names are kept; None where nothing is to be."""
    if not cache.limit():
        return None
    text = json.dumps([VERSION, str(folder), os.path.realpath(folder)])
    name = re.sub(r"\W+", "-", os.path.basename(os.path.abspath(folder)), flags=re.ASCII)[:40]
    return cache.root() / f"{name}-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def now_ns() -> int:
    """The clock that files are dated by."""
    return time.time_ns()


def _about(folder: Path) -> dict[str, str]:
    return {"what": f"names of the images in {folder}", "folder": os.path.realpath(folder)}


def _read(mapped: mmap.mmap) -> tuple[dict[str, NDArray[Any]], Mapping[str, Any]]:
    """The arrays of a safetensors file, where they lie, and what it tells beside them."""
    length = int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8 : 8 + length])
    told = json.loads(header.pop("__metadata__")["told"])
    arrays = {}
    for name, one in header.items():
        begin, end = one["data_offsets"]
        kind = np.dtype(KINDS[one["dtype"]])
        array = np.frombuffer(mapped, kind, (end - begin) // kind.itemsize, 8 + length + begin)
        arrays[name] = array.reshape(one["shape"])
    return arrays, told
