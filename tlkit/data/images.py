"""Images: from a file to RGB pixels, by one policy for every command.

In: a path. Out: (H, W, 3) uint8, upright, or `Unreadable` with the reason.
Next door: transforms.py (augmentation), batches.py (many at once).

The policy: EXIF orientation is applied; transparency is laid on white; grey becomes three equal
channels; 16-bit samples are divided by 257, so that white stays white; of several frames the first
is taken; a file that is cut off is unreadable, and never half used. Nothing is substituted.
An image is scaled by the interpolation that the weights were evaluated with, antialiased.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from tlkit.errors import ImageError, listing

Pixels = NDArray[np.uint8]

POLICY = 2
"""The number of the policy: what was computed from pixels by another one is not used again."""

# A file that is cut off must raise: a grey half would be learnt as if it were the photo.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# One thread per image, many images at once: OpenCV's own threads would only compete.
cv2.setNumThreads(1)


class Unreadable(Exception):
    """A file that is not a readable image; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An unreadable file by name, with the reason."""

    path: Path
    reason: str


def read(path: Path, *, at_least_px: int = 0) -> Pixels:
    """The upright RGB pixels of a file: (H, W, 3) uint8.

    With `at_least_px` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter
    side keeps twice that many pixels. Raises `Unreadable`.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if image.format != "JPEG":
                return _rgb(ImageOps.exif_transpose(image))
            pixels = _plain_jpeg(data, image, _shrunk(image.size, at_least_px))
            if pixels is None:
                if at_least_px:
                    image.draft(None, (2 * at_least_px, 2 * at_least_px))
                pixels = _rgb(ImageOps.exif_transpose(image))
            return pixels
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise Unreadable(_reason(path, error)) from error


def _shrunk(size: tuple[int, int], at_least_px: int) -> tuple[int, int]:
    """Width and height of which a JPEG is decoded."""
    factor = min(size) // (2 * at_least_px) if at_least_px else 1
    factor = max(one for one in (1, 2, 4, 8) if one <= max(1, factor))
    return math.ceil(size[0] / factor), math.ceil(size[1] / factor)


def _plain_jpeg(data: bytes, image: Image.Image, size: tuple[int, int]) -> Pixels | None:
    """A JPEG in grey or colour, by a faster way to the very pixels that Pillow gives.

    None where Pillow has to decide: other colours, and whatever is out of the ordinary.
    """
    if image.mode not in ("RGB", "L"):
        return None
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
    except (ValueError, KeyError, TypeError, SyntaxError):
        return None
    if pixels.shape != (size[1], size[0], 3) or orientation not in UPRIGHT:
        return None
    return np.ascontiguousarray(UPRIGHT[orientation](pixels))


UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
"""What undoes each orientation of the EXIF standard."""


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if path.stat().st_size == 0 else "not an image that Pillow knows"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = str(error).replace("\n", " ")[:200]
    return f"{type(error).__name__}: {text}"


def _rgb(image: Image.Image) -> Pixels:
    """Any mode of Pillow's to (H, W, 3) uint8."""
    if image.mode.startswith(("I", "F")):
        return _deep(np.asarray(image), image.mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    # A copy: torch shares memory only with what may be written to.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _deep(samples: NDArray[np.generic], mode: str) -> Pixels:
    """Samples of more than 8 bits to (H, W, 3) uint8.

    Integers are 16-bit and divided by 257. Floats are taken as [0, 1], or as [0, 255] where one
    exceeds 1; what lies outside is clipped.
    """
    values = samples.astype(np.float64)
    if mode == "F":
        values = np.nan_to_num(values)
        values = values * 255 if values.max(initial=0.0) <= 1.0 else values
    else:
        values = values / 257
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def resize(image: Pixels, shorter_px: int, interpolation: str) -> Pixels:
    """(H, W, 3) scaled so that the shorter side has `shorter_px` pixels.

    By the interpolation that the weights expect, antialiased where it shrinks: every pixel of the
    image counts.
    """
    height, width = image.shape[:2]
    if min(height, width) == shorter_px:
        return image
    # Here, so that a command that is refused has not waited for torch.
    import torch
    from torch.nn import functional

    scale = shorter_px / min(height, width)
    size = (max(shorter_px, round(height * scale)), max(shorter_px, round(width * scale)))
    # torch shares memory only with what lies in order and may be written to.
    own = np.require(image, requirements=["C", "W"])
    pixels = torch.from_numpy(own).permute(2, 0, 1)[None]
    scaled = functional.interpolate(pixels, size=size, mode=interpolation, antialias=True)
    found: Pixels = scaled[0].permute(1, 2, 0).numpy()
    return found


def centre(image: Pixels, px: int) -> Pixels:
    """The (px, px, 3) square in the middle of an image that is at least that large."""
    top = (image.shape[0] - px) // 2
    left = (image.shape[1] - px) // 2
    return image[top : top + px, left : left + px]


def in_channels(image: Pixels, channels: int) -> Pixels:
    """(..., H, W, 3) -> (..., H, W, channels): as it is, or for one channel its luma (BT.601).

    A grey image's three equal channels become exactly the one they were made of.
    """
    if channels == image.shape[-1]:
        return image
    flat = image.reshape(-1, image.shape[-2], 3)
    grey = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return grey.reshape(*image.shape[:-1], 1)


def refuse(
    bad: Sequence[BadImage],
    *,
    do: str = "repair or remove them, or leave them out with --on-bad skip",
) -> None:
    """Raise one `ImageError` that names every unreadable file, if there is any."""
    if not bad:
        return
    raise ImageError(
        f"{len(bad)} unreadable image{'s' if len(bad) > 1 else ''}",
        found=listing([f"{one.path}: {one.reason}" for one in bad]),
        expected="files that Pillow can decode",
        do=do,
    )
