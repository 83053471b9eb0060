"""Thumbnails: photos and pictures as data URIs, no more of them than a page may weigh."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tlkit.data.images import Pixels, Unreadable, read

PX = 160
"""Longer side; a page shows it at two thirds, for screens with many pixels."""

AT_ONCE = 32
"""Photos that are read beyond the last one that there is room for."""


def thumbnail(path: Path, *, px: int = PX) -> str:
    """A photo, small; empty where it cannot be read."""
    try:
        pixels = read(path, at_least_px=px // 2)
    except Unreadable:
        return ""
    return as_uri(pixels, px=px)


def thumbnails(
    paths: Iterable[Path | None], *, most_bytes: int, px: int = PX
) -> tuple[list[str], int]:
    """The same of many, and what is left of `most_bytes`; empty too from where there is no room."""
    wanted = list(paths)
    found: list[str] = []
    left = most_bytes
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(wanted), AT_ONCE):
            some = wanted[begin : begin + AT_ONCE]
            made: Sequence[str] = [""] * len(some)
            if left > 0:
                made = list(pool.map(lambda one: thumbnail(one, px=px) if one else "", some))
            for one in made:
                left -= len(one)
                found.append(one if left > 0 else "")
    return found, max(0, left)


def as_uri(pixels: Pixels, *, px: int) -> str:
    """(H, W, 3) as a JPEG of at most `px` by `px`."""
    image = Image.fromarray(pixels)
    image.thumbnail((px, px))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=78)
    return uri(file.getvalue(), "jpeg")


def uri(data: bytes, kind: str) -> str:
    """A file of that kind of image."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
