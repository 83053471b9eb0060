"""Store: rows that were computed once, found again by what they were made of.

In: keys, which are digests of all that a row depends on within its folder, and rows as they are
computed. Out: the rows' places, and the rows.
Each pass writes a segment of its own: NAME.rows, and after it NAME.keys. A key is written when its
row is safe on the disk. So what a pass that was stopped has done is found by the next one, two
passes at once do not meet, and no row is ever half there.
A row is kept in half precision, as shares of its largest number: 11 bits of each number that is not
far smaller than that.
Next door: bank.py, which knows what the rows are; tlkit/cache.py, where the folders lie.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import shutil
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.errors import AnswerError, DiskError
from tlkit.files import disk_errors

KEY_BYTES = 16
KEY = np.dtype((np.void, KEY_BYTES))
SAFE_EVERY_S = 2.0
"""What at most is computed again after a crash."""

PRESENT = 64 << 20
"""Bytes of rows that are read before their pages are let go of."""

MOST_MAPPED = 64
"""Segments in memory at once: each holds one of the files that a process may have open."""

ROUNDING = 2.0**-11
"""Largest share of itself by which a number of a row is another than what was computed, unless it
is far smaller than the row's largest."""

AROUND = 64 << 10
"""Bytes that become present where a row is read by itself: Linux's fault_around_bytes."""


class Store:
    """The rows of one folder, all of one shape."""

    def __init__(
        self,
        folder: Path,
        shape: Sequence[int],
        *,
        behind: Sequence[Path] = (),
        spare: Callable[[], Path] | None = None,
    ) -> None:
        """Rows are read from the folders `behind` too, and written to the first alone.

        `spare` makes a folder, which goes with the store, for when that one cannot be written.
        """
        self.folder = folder
        """Where rows are written."""
        self.refused: DiskError | None = None
        """Why rows are written to the spare folder; None where they are not."""
        self._behind = tuple(behind)
        self._spare = spare
        self.shape = tuple(shape)
        self._kind = np.dtype([("largest", "<f4"), ("shares", "<f2", self.shape)])
        self._segments: list[tuple[Path, int]] = []
        """Files of rows, and how many are whole."""
        self._maps: OrderedDict[int, tuple[mmap.mmap, NDArray[np.void]]] = OrderedDict()
        """Of the segments that were read last."""
        self._mapping = threading.Lock()  # an epoch is read while a model is judged
        self._seen = 0
        self._starts: list[int] = []
        self._keys: list[NDArray[np.void]] = []
        self._sorted: tuple[NDArray[np.void], NDArray[np.int64]] | None = None
        self._writing: _Segment | None = None
        self._opened: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in what other processes have settled since."""
        for folder in (*self._behind, self.folder):
            for keys in sorted(folder.glob("*.keys")):
                if keys.name not in self._opened:
                    self._open(keys)

    def find(self, keys: NDArray[np.void]) -> NDArray[np.int64]:
        """Where the row of each key is, in the shape of `keys`; -1 for one that has none."""
        if self._sorted is None:
            # Of a key that was written twice the last row counts.
            every = np.concatenate([np.zeros(0, KEY), *self._keys])
            order = np.argsort(every, kind="stable")
            self._sorted = every[order], order
        there, order = self._sorted
        at = np.searchsorted(there, keys, side="right") - 1
        if not len(there):
            return at
        return np.where(there[at] == keys, order[at], -1)

    def rows(self, places: NDArray[np.int64]) -> Tensor:
        """(n,) -> (n, ...) fp32."""
        starts = np.array([*self._starts, np.iinfo(np.int64).max])
        owner = np.searchsorted(starts, places, side="right") - 1
        owners = np.unique(owner)
        if len(owners) == 1 and _behind_each_other(places):  # mostly: nothing is gathered
            return self._read(owners[0], places)
        found = torch.empty(len(places), *self.shape, dtype=torch.float32)
        for number in owners:
            mine = np.flatnonzero(owner == number)
            for begin in range(0, len(mine), PRESENT // AROUND):
                some = mine[begin : begin + PRESENT // AROUND]
                found[torch.from_numpy(some)] = self._read(number, places[some])
        return found

    def _read(self, number: int, places: NDArray[np.int64]) -> Tensor:
        """(n,) places in one segment -> (n, ...) fp32."""
        at = places - self._starts[number]
        size = self._kind.itemsize
        segment = self._mapped(number)
        if _behind_each_other(at):
            part = segment[at[0] : at[-1] + 1]
        else:
            part, size = segment[at], max(size, AROUND)
        # torch makes floats of halves several times as fast as NumPy does.
        if not np.isfinite(part["largest"]).all():  # by a version that took in what is no number
            raise AnswerError(
                "the cache has features that are not finite",
                found=f"NaN or infinite numbers in {self.folder}",
                expected="finite numbers",
                do="delete them (tlkit cache --clear); computed again, the image is named",
            )
        largest = torch.from_numpy(part["largest"].copy()).view(-1, *[1] * len(self.shape))
        found = torch.from_numpy(part["shares"]).float().mul_(largest)
        self._seen += len(at) * size
        if self._seen > PRESENT:
            self._forget()
        return found

    def _forget(self) -> None:
        """Let go of the pages that were read: they stay in the disk's cache, and are not ours."""
        self._seen = 0
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows does it by itself
            with self._mapping:
                for one, _ in self._maps.values():
                    one.madvise(mmap.MADV_DONTNEED)

    def _mapped(self, number: int) -> NDArray[np.void]:
        """The rows of a segment, in memory as they are read. Raises `DiskError`."""
        with self._mapping:
            if number not in self._maps:
                path, whole = self._segments[number]
                with disk_errors(path), path.open("rb") as file:
                    place = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                self._maps[number] = place, np.frombuffer(place, self._kind, whole)
                if len(self._maps) > MOST_MAPPED:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(number)
            return self._maps[number][1]

    def append(self, keys: NDArray[np.void], rows: Tensor) -> None:
        """Write (n, ...) rows; they can be read after `settle`. Raises `DiskError`.

        Where the disk refuses them, and there is a spare folder, what was not safe is lost, and
        `refused` says why.
        """
        try:
            self._append(keys, rows)
        except DiskError as error:
            self._move_on(error)
            self._append(keys, rows)

    def _append(self, keys: NDArray[np.void], rows: Tensor) -> None:
        with disk_errors(self.folder):
            if self._writing is None:
                self._writing = _Segment(self.folder)
            values = rows.float().numpy()
            packed = np.empty(len(values), self._kind)
            largest = np.abs(values.reshape(len(values), -1)).max(axis=1, initial=0.0)
            largest[largest == 0] = 1.0
            packed["largest"] = largest
            with np.errstate(invalid="ignore"):  # what is no number stays none
                packed["shares"] = values / largest.reshape(-1, *[1] * len(self.shape))
            self._writing.add(keys.tobytes(), packed.tobytes())

    def settle(self) -> None:
        """Make everything that was appended safe and readable, as far as it is not lost.

        Raises `DiskError`.
        """
        if self._writing is None:
            return
        try:
            with disk_errors(self.folder):
                keys = self._writing.close()
        except DiskError as error:
            self._move_on(error)
            return
        self._writing = None
        self._open(keys)

    def _move_on(self, error: DiskError) -> None:
        """Write to the spare folder from now on. Raises the error where there is none."""
        if self._spare is None:
            raise error
        begun, self._writing = self._writing, None
        if begun is not None:
            begun.abandon()
        self._behind = (*self._behind, self.folder)
        self.folder, self._spare, self.refused = self._spare(), None, error
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.refresh()

    def _open(self, keys: Path) -> None:
        """Take in a segment, as far as it is whole."""
        rows = keys.with_suffix(".rows")
        try:
            sizes = keys.stat().st_size, rows.stat().st_size
        except FileNotFoundError:  # half deleted, by a process that was stopped
            return
        whole = min(sizes[0] // KEY_BYTES, sizes[1] // self._kind.itemsize)
        if not whole:
            return
        self._opened.add(keys.name)
        start = self._starts[-1] + self._segments[-1][1] if self._segments else 0
        self._segments.append((rows, whole))
        self._starts.append(start)
        self._keys.append(np.fromfile(keys, KEY, whole))
        self._sorted = None


def trim(folder: Path, most: int) -> None:
    """Delete the oldest segments until all have at most so many bytes. Raises `DiskError`.

    For a folder that nobody reads or writes.
    """
    segments = []
    with disk_errors(folder):
        every = {
            one.with_suffix("") for kind in (".rows", ".keys") for one in folder.glob("*" + kind)
        }
        for name in sorted(every):
            # Keys go last: rows without keys are nothing that anybody could read.
            both = (name.with_suffix(".rows"), name.with_suffix(".keys"))
            files = [one for one in both if one.exists()]
            segments.append((files, sum(one.stat().st_size for one in files)))
        total = sum(size for _, size in segments)
        for files, size in segments:
            if total <= most:
                return
            for one in files:
                one.unlink(missing_ok=True)
            total -= size


def _behind_each_other(places: NDArray[np.int64]) -> bool:
    return bool((np.diff(places) == 1).all())


class _Segment:
    """A pair of files that is being written."""

    def __init__(self, folder: Path) -> None:
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self._keys_path = folder / f"{name}.keys"
        self._keys: BinaryIO = self._keys_path.open("xb")
        try:
            self._rows: BinaryIO = self._keys_path.with_suffix(".rows").open("xb")
        except OSError:
            self._keys.close()
            self._keys_path.unlink(missing_ok=True)
            raise
        self._waiting: list[bytes] = []
        self._safe_at = time.monotonic()

    def add(self, keys: bytes, rows: bytes) -> None:
        self._rows.write(rows)
        self._waiting.append(keys)
        if time.monotonic() - self._safe_at > SAFE_EVERY_S:
            self._make_safe()

    def abandon(self) -> None:
        """Leave what is safe of a segment that the disk has refused."""
        for file in (self._rows, self._keys):
            with contextlib.suppress(OSError):
                file.close()
        with contextlib.suppress(OSError):
            if not self._keys_path.stat().st_size:
                self._keys_path.with_suffix(".rows").unlink()
                self._keys_path.unlink()

    def _make_safe(self) -> None:
        for file, data in ((self._rows, b""), (self._keys, b"".join(self._waiting))):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._waiting = []
        self._safe_at = time.monotonic()

    def close(self) -> Path:
        try:
            self._make_safe()
        finally:
            self._rows.close()
            self._keys.close()
        return self._keys_path
