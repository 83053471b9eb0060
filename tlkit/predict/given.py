"""Given: the images that a caller from Python hands over, on the disk or in memory.

In: a path, an image, or any number of these. Out: `Given`, one path for each answer, and for images
in memory what gives their pixels.
Next door: data/folder.py (what folders mean), ensemble.py (who answers).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.data.folder import find_images
from tlkit.data.images import Detail, Pixels, decode, in_memory, read
from tlkit.errors import DataError, briefly, raise_machine_error
from tlkit.files import as_list, as_path
from tlkit.predict.run import Source


class _File(Protocol):
    def read(self) -> bytes: ...


Single = str | bytes | os.PathLike[str] | Image.Image | NDArray[Any] | _File
"""A path, or an image in memory."""

Images = Single | Iterable[Single]
"""What `Classifier.predict` takes."""

_LONE = bytes | bytearray | memoryview | Image.Image
"""Types whose items are no images."""

Reader = Callable[[Detail], Pixels]
"""`at_least_px` -> the pixels of one image. Raises `Unreadable`."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """N images to be answered, in order."""

    paths: Sequence[Path]
    """(N,) of files; "image 0" and so on, by its position, for an image in memory."""
    source: Source | None = None
    """What gives the pixels of each; None where all are files."""


def given_images(images: Any) -> Given:
    """List what a caller has handed over. Raises `TlkitError` for what is no image."""
    values = _each(images)
    if all(map(_is_path, values)):
        return Given(paths=find_images([as_path(value, "image") for value in values]))
    paths: list[Path] = []
    readers: list[Reader] = []
    # Pillow's images load their pixels when they are first used, which is not safe in two threads.
    lock = threading.Lock()
    for position, value in enumerate(values):
        if _is_path(value):
            inside = find_images([as_path(value, "image")])
            paths += inside
            readers += [_on_disk(path) for path in inside]
        else:
            paths.append(Path(f"image {position}"))
            readers.append(_in_memory(value, position, lock))
    return Given(paths=paths, source=lambda position, px: readers[position](px))


def _each(images: Any) -> list[Any]:
    """Return the images as a list; a single one as a list of itself."""
    if _is_pixels(images):
        # (N, H, W, 3) are N images.
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, _LONE) or _is_path(images) or hasattr(images, "read"):
        return [images]
    return as_list(images, "image")


def _is_pixels(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind not in "OUST" and value.ndim > 1


def _is_path(value: Any) -> bool:
    """Tell whether a value is a path: no path has a zero byte, which every JPEG and PNG has."""
    if isinstance(value, bytes):
        return b"\0" not in value
    return isinstance(value, str | os.PathLike)


def _on_disk(path: Path) -> Reader:
    return lambda px: read(path, at_least_px=px)


def _in_memory(value: Any, position: int, lock: threading.Lock) -> Reader:
    """Return what reads an image in memory. Raises `DataError` for what is none."""
    if isinstance(value, Image.Image):

        def reader(px: Detail) -> Pixels:
            with lock:
                return in_memory(value, at_least_px=px)

        return reader
    if hasattr(value, "read"):
        value = _content(value, position)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return lambda px: decode(data, at_least_px=px)
    if not isinstance(value, np.ndarray):
        raise _refused(position, f"a value of the type {type(value).__name__}")
    pixels = value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value
    colours = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not colours or not pixels.size:
        raise _refused(position, f"an array of {value.dtype} and of shape {value.shape}")
    return lambda px: in_memory(pixels, at_least_px=px)


def _content(file: _File, position: int) -> bytes:
    """Read an open file. Raises `DataError` for one that is closed or gives text."""
    try:
        return file.read()
    except (OSError, ValueError) as error:  # text that cannot be decoded is a `ValueError` too
        raise_machine_error(error)
        raise _refused(position, f"a file that cannot be read: {briefly(error)}") from error


def _refused(position: int, found: str) -> DataError:
    return DataError(
        f"image {position} is no image",
        found=found,
        expected="a path, an image of Pillow's, a uint8 array (H, W, 3) in RGB, an open file, or "
        "the bytes of an image file",
        do="pass the path, or convert it to one of these",
    )
