"""Pixels: decoded images that are kept from epoch to epoch, as many as a budget holds.

In: the paths of a training. Out: an image's pixels, from its file or from where they were kept;
they are the same, so a cache changes how long an epoch takes and nothing else.
Next door: images.py (reading a file), batches.py (who asks, from several threads at once).
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlkit.data.images import Pixels, read
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

    def __init__(self, paths: Sequence[Path], *, at_least_px: int, room: Room) -> None:
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
