"""Bank: what the frozen part makes of every view of every image, computed once.

In: a cut model, an engine, a catalog, an augmentation. Out: a `Bank`, whatever the cut is: vectors
for a head, feature maps for the last stages. Training then never runs the frozen part again.
Next door: probe.py and loop.py, which read it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.batches import batches, even_parts
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage, Pixels
from tlkit.data.transforms import Augmentation
from tlkit.errors import FolderError, listing
from tlkit.files import disk_errors
from tlkit.model.assemble import Cut
from tlkit.model.device import Engine
from tlkit.train.events import Tick

BATCH = 32
"""Views that go through the frozen part at once."""

IN_MEMORY_BYTES = 4 << 30
"""A larger bank is a file that the system pages in and out."""


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Stored outputs of the frozen part for N images that could be read."""

    values: Tensor
    """(N, V, ...) fp32 on the CPU."""
    labels: Tensor
    """(N,) int64."""
    bad: tuple[BadImage, ...]

    @property
    def views(self) -> int:
        return self.values.shape[1]

    def take(self, rows: NDArray[np.int64], *, views: int) -> Bank:
        """The first `views` views of the images in these rows, as a bank of its own."""
        index = torch.from_numpy(rows)
        values = _room((len(rows), views, *self.values.shape[2:]))
        torch.index_select(self.values[:, :views], 0, index, out=values)
        return Bank(values=values, labels=self.labels[index], bad=())


def fill(
    cut: Cut,
    engine: Engine,
    catalog: Catalog,
    augmentation: Augmentation,
    *,
    views: int,
    what: str,
    workers: int = 0,
) -> Generator[Tick, None, Bank]:
    """Run the frozen part once over V views of each image. Yields ticks, returns the bank.

    Unreadable images are in `bad` and take no row; the caller decides whether that ends the fit.
    Raises `DiskError` where a bank larger than memory finds no room.
    """

    def look(image: Pixels, position: int) -> Pixels:
        return np.stack([augmentation.look(image, position, view) for view in range(views)])

    values: Tensor | None = None
    rows: list[NDArray[np.int64]] = []
    bad: list[BadImage] = []
    done = 0
    sizes = even_parts(len(catalog), max(1, BATCH // views))
    px = cut.model.spec.resize_px
    for part in batches(catalog.paths, look, sizes=sizes, at_least_px=px, workers=workers):
        bad.extend(part.bad.values())
        if len(part.index):
            with torch.inference_mode():
                output = engine.run(cut.frozen, part.images.flatten(0, 1)).cpu()
            output = output.unflatten(0, (len(part.index), views))
            if values is None:
                values = _room((len(catalog), *output.shape[1:]))
            values[done : done + len(output)] = output
            rows.append(part.index)
            done += len(output)
        yield Tick(what=what, done=done + len(bad), total=len(catalog))
    if values is None:
        raise none_readable(catalog, bad)
    labels = torch.from_numpy(catalog.labels[np.concatenate(rows)])
    return Bank(values=values[:done], labels=labels, bad=tuple(bad))


def none_readable(catalog: Catalog, bad: Sequence[BadImage]) -> FolderError:
    """The error for a part of which every image is unreadable."""
    return FolderError(
        f"no image in {catalog.root} can be read",
        found=listing([f"{one.path}: {one.reason}" for one in bad], most=3),
        expected="images that Pillow can decode",
        do="check the files",
    )


def _room(shape: tuple[int, ...]) -> Tensor:
    """Space for fp32 values: memory, or a file without a name where there is too much."""
    count = math.prod(shape)
    if count * 4 <= IN_MEMORY_BYTES:
        return torch.empty(shape)
    with disk_errors(Path(tempfile.gettempdir())), tempfile.NamedTemporaryFile() as file:
        # Reserved at once: a sparse file on a full disk would end the process with a signal.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, count * 4)
        return torch.from_file(file.name, shared=True, size=count, dtype=torch.float32).view(shape)
