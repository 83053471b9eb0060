"""Batches: many images at once, read ahead of the network by threads.

In: paths and a function that looks at an image. Out: stretches of what it saw, in the order of the
paths; or `Batch`es, where it sees every image in one shape.
Threads, not processes: decoding and resizing release the interpreter's lock, the network keeps the
memory to itself, and nothing has to be pickled, forked or seeded per worker.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.backbone import InputSpec
from tlkit.cores import cores as count_cores
from tlkit.data.geometry import detail
from tlkit.data.images import REPAIR, BadImage, Detail, Pixels, Unreadable, read, refuse
from tlkit.data.transforms import plain
from tlkit.settings import ProcessSetting, SetAside

Raw = TypeVar("Raw")
Seen = TypeVar("Seen")

AHEAD = 3
"""Stretches that may wait for the network; what bounds the memory."""

MOST_PER_CORE = 8
"""Threads, where they mostly wait for a disk or a network."""


# One thread per image, many images at once: OpenCV's own threads would only compete.
_opencv_aside = SetAside(
    lambda: (ProcessSetting(read=cv2.getNumThreads, write=cv2.setNumThreads, value=1),)
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B images that were read, and those of the same stretch that could not be."""

    images: Tensor
    """(B, V, channels, h, w) uint8, laid out channels-last; V views of each."""
    index: NDArray[np.int64]
    """(B,) positions in the list of paths."""
    bad: Mapping[int, BadImage]
    """By position."""


def batches(
    paths: Sequence[Path],
    look: Callable[[Pixels, int], Pixels],
    *,
    sizes: Sequence[int],
    at_least_px: Detail = 0,
    source: Callable[[int], Pixels] | None = None,
    workers: int = 0,
    ahead: int = 0,
) -> Generator[Batch, None, None]:
    """Read `paths` in order, in batches of these sizes, which add up to their number.

    `look(image, position)` makes (V, h, w, c) or (h, w, c) of an image (H, W, 3); it runs in
    threads, and must give the same shape for every image. `source(position)` gives the pixels
    where they are not simply read with `at_least_px`. `workers` 0: as many threads as keep the
    cores busy, which the first batch tells. Behind that so many images may wait `ahead`, or a few
    batches if that is more.
    """

    def stackable(image: Pixels, position: int) -> Pixels:
        seen = look(image, position)
        return np.ascontiguousarray(seen if seen.ndim == 4 else seen[None])

    def pixels(position: int) -> Pixels:
        return read(paths[position], at_least_px=at_least_px)

    read_ahead = stretches(
        paths, stackable, sizes=sizes, source=source or pixels, workers=workers, ahead=ahead
    )
    with contextlib.closing(read_ahead):
        for stretch in read_ahead:
            yield _collect(stretch)


def plain_views(
    spec: InputSpec,
    paths: Sequence[Path],
    *,
    sizes: Sequence[int],
    source: Callable[[int], Pixels] | None = None,
    workers: int = 0,
    do: str = REPAIR,
) -> Generator[Tensor, None, None]:
    """(B, channels, height, width) uint8, the plain views of images as `batches` has them.

    Raises `ImageError` for those that cannot be read; `do` is what it advises.
    """
    for part in batches(
        paths, lambda image, _: plain(spec, image), sizes=sizes, at_least_px=detail(spec),
        source=source, workers=workers,
    ):  # fmt: skip
        refuse(list(part.bad.values()), do=do)
        yield part.images[:, 0]


def stretches(
    paths: Sequence[Path],
    look: Callable[[Raw, int], Seen],
    *,
    sizes: Sequence[int],
    source: Callable[[int], Raw],
    workers: int = 0,
    ahead: int = 0,
) -> Generator[list[tuple[int, Seen | BadImage]], None, None]:
    """Position and what `look(image, position)` made of each image, or why it is unreadable.

    `sizes`, threads, order, `ahead` as for `batches`. What `source` gives may be anything, such as
    the bytes of a file, and what is seen may differ in shape.
    """
    cores = count_cores()
    took: deque[tuple[float, float]] = deque(maxlen=4096)
    waiting: deque[tuple[int, Future[Seen | BadImage]]] = deque()

    def work(position: int) -> Seen | BadImage:
        began = time.perf_counter(), time.thread_time()
        try:
            return look(source(position), position)
        except Unreadable as error:
            return BadImage(path=paths[position], reason=str(error))
        finally:
            took.append((time.perf_counter() - began[0], time.thread_time() - began[1]))

    def read_on(most: int) -> None:
        """Until so many wait."""
        while len(waiting) < most and (position := next(positions, None)) is not None:
            waiting.append((position, pool.submit(work, position)))

    with _opencv_aside, contextlib.ExitStack() as pools:
        pool = _pool(workers or cores, pools)
        positions = iter(range(len(paths)))
        for number, size in enumerate(sizes):
            read_on(max(AHEAD * size, ahead if number else 0))
            stretch = [waiting.popleft() for _ in range(size)]
            results = [(position, future.result()) for position, future in stretch]
            # The network has not begun yet, so what they waited for was the disk.
            if number == 0 and not workers and (more := _readers(took, cores)) > cores:
                pool = _pool(more, pools)
            if number == 0:  # not before it is known how many are to read
                read_on(ahead)
            yield results


def _pool(threads: int, stack: contextlib.ExitStack) -> ThreadPoolExecutor:
    """Threads that end with the stack, without what they have not begun."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tlkit-read")
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool


def _readers(took: Collection[tuple[float, float]], cores: int) -> int:
    """Threads that keep the cores busy, by the seconds and CPU seconds that images took."""
    wall_s, cpu_s = (sum(each) for each in zip(*took, strict=True))
    wanted: int = round(cores * wall_s / max(cpu_s, 1e-9))
    return min(max(1, wanted), MOST_PER_CORE * cores)


def even_parts(count: int, most: int) -> list[int]:
    """Sizes of about `most` that add up to `count`, as even as can be, the larger first.

    None is a lone image unless it is the only one, or `most` is 1: BatchNorm cannot train on that.
    """
    if most == 1 or count < 2:
        return [1] * count
    parts = max(1, min(-(-count // most), count // 2))
    size, larger = divmod(count, parts)
    return [size + 1] * larger + [size] * (parts - larger)


def _collect(results: list[tuple[int, Pixels | BadImage]]) -> Batch:
    good = [(position, seen) for position, seen in results if not isinstance(seen, BadImage)]
    bad = {position: seen for position, seen in results if isinstance(seen, BadImage)}
    stacked = np.stack([seen for _, seen in good]) if good else np.empty((0, 1, 1, 1, 3), np.uint8)
    return Batch(
        images=torch.from_numpy(stacked).permute(0, 1, 4, 2, 3),
        index=np.array([position for position, _ in good], dtype=np.int64),
        bad=bad,
    )
