"""Images: from a file to RGB pixels, by one policy for every command.

In: a path. Out: (H, W, 3) uint8, upright, or `Unreadable` with the reason.
Next door: pillow.py (Pillow's own settings), transforms.py (augmentation), batches.py (many at
once).

The policy: EXIF orientation is applied, and one that cannot be read is none; transparency is laid
on white; grey becomes three equal channels; 16-bit samples are divided by 257, so that white stays
white; of several frames the first is taken; a file that is cut off is unreadable, and never half
used. Nothing is substituted. What the bytes are decides, not the file's ending, and only formats of
photos are opened (for some others Pillow would run a program).
An image is scaled by the interpolation that the weights were evaluated with, antialiased.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from tlkit import cores
from tlkit.data import signatures
from tlkit.data.pillow import by_own_rules
from tlkit.data.shards import find, state_of
from tlkit.errors import FolderError, ImageError, OptionError, listing, raise_machine_error

Pixels = NDArray[np.uint8]

Found = TypeVar("Found")

POLICY = 2
"""The number of the policy: what was computed from pixels by another one is not used again."""

MOST_PIXELS = 89_478_485
"""Of an image, unless TLKIT_MAX_PIXELS says otherwise: Pillow's own limit, a quarter of a GiB."""

LARGEST_PIXEL = 8
"""Bytes: four channels of 16 bits."""

ATTEMPTS = 100
"""To read a file that is being written to, and to decode while Pillow's settings are being set."""

MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that have nothing to do with the file that was to be opened."""

STRIP = 256
"""Rows that are converted at once."""

FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
"""Of photos, as Pillow calls them; the last two are not in every Pillow."""


@dataclass(frozen=True, kw_only=True)
class Faithful:
    """Detail of an image that is to be scaled as if all its pixels had been decoded.

    A JPEG is decoded at a half, a quarter or an eighth of its size only where that divides both
    sides, and leaves the shorter one four times `px`: then the scaled image differs by a few levels
    at most. A side that is not divided would be stretched by a part of a pixel, which moves edges.
    """

    px: int
    """Larger side of what the image is scaled to fill."""
    any_shape: bool = False
    """Whether the scaled image has a bounded size even where the image is long and narrow."""


Detail = int | Faithful
"""How small a JPEG may be decoded. A number of pixels: its shorter side keeps twice as many."""


class Unreadable(Exception):
    """A file that is not a readable image; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An unreadable file by name, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an image's file holds, from one read."""

    data: bytes
    state: tuple[int, int, int, int, int]
    """Of the very file that was read: inode, bytes, the times of content and inode in ns, and the
    place in a shard."""


def read(path: Path, *, at_least_px: Detail = 0) -> Pixels:
    """The upright RGB pixels of a file: (H, W, 3) uint8.

    With `at_least_px` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as far as `Detail`
    allows. Raises `Unreadable`, also for an image of more than
    `most_pixels()`, or one so narrow that it would have more with a shorter side of `at_least_px`.
    """
    return decode(content(path).data, at_least_px=at_least_px)


def decode(data: bytes, *, at_least_px: Detail = 0) -> Pixels:
    """The same of what a file holds."""

    def pixels(image: Image.Image) -> Pixels:
        if image.format != "JPEG":
            return _upright(image)
        size = _shrunk(image.size, at_least_px)
        found = _plain_jpeg(data, image, size)
        if found is None:
            if isinstance(at_least_px, Faithful):
                image.draft(None, size)
            elif at_least_px:
                image.draft(None, (2 * at_least_px, 2 * at_least_px))
            found = _upright(image)
        return found

    return _opened(data, at_least_px, pixels)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of the image in a file's bytes, as they are stored. Raises `Unreadable`."""
    return _opened(data, 0, lambda image: image.size)


def in_memory(image: Image.Image | NDArray[np.uint8], *, at_least_px: Detail = 0) -> Pixels:
    """Return the upright RGB pixels of an image in memory, by the policy for files.

    Takes an image of Pillow's, or uint8 (H, W), (H, W, 3) in RGB or (H, W, 4) in RGBA. Raises
    `Unreadable` as `read` does.
    """
    try:
        if not isinstance(image, Image.Image):
            image = Image.fromarray(np.ascontiguousarray(image))
        # Pixels that are loaded only now follow no setting of the program.
        with by_own_rules():
            _refuse_large(image.size, at_least_px)
            return _upright(image)
    except (MemoryError, KeyboardInterrupt, Unreadable, OptionError):
        raise
    except Exception as error:  # of an image that is not loaded yet, whatever its decoder raises
        raise Unreadable(_briefly(error)) from error


def _opened(data: bytes, at_least_px: Detail, look: Callable[[Image.Image], Found]) -> Found:
    """What `look` makes of an image that is not too large. Raises `Unreadable`."""
    for _ in range(ATTEMPTS):
        try:
            with by_own_rules() as undisturbed, _open(data) as image:
                _refuse_large(image.size, at_least_px)
                found = look(image)
                if undisturbed():
                    return found
        except (MemoryError, KeyboardInterrupt, Unreadable, OptionError):
            raise
        except Warning:  # the program has just set that they are errors
            continue
        except Exception as error:  # decoders raise whatever the broken bytes lead them to
            raise Unreadable(_reason(data, error)) from error
    raise Unreadable("another thread changes Pillow's settings all the time")


def decode_each(data: bytes, sizes: Collection[Detail]) -> dict[Detail, Pixels]:
    """For each of these `at_least_px` the pixels that `decode` gives, those that are equal once.

    The data is decoded once for each scale that is called for. Raises `Unreadable` where any of the
    sizes does.
    """
    found: dict[tuple[int, int], Pixels] = {}
    each: dict[Detail, Pixels] = {}
    for px in sizes:
        scale = _scale(data, px)
        if scale not in found:
            found[scale] = decode(data, at_least_px=px)
        each[px] = found[scale]
    return each


def _scale(data: bytes, at_least_px: Detail) -> tuple[int, int]:
    """Width and height that what a file holds is decoded to. Raises `Unreadable`."""

    def scale(image: Image.Image) -> tuple[int, int]:
        return _shrunk(image.size, at_least_px) if image.format == "JPEG" else image.size

    return _opened(data, at_least_px, scale)


def most_pixels() -> int:
    """The limit of an image. Raises `OptionError` for a TLKIT_MAX_PIXELS that is no number."""
    text = os.environ.get("TLKIT_MAX_PIXELS", "")
    if not text:
        return MOST_PIXELS
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise OptionError(
        "the limit of an image's pixels cannot be used",
        found=f"TLKIT_MAX_PIXELS={text}",
        expected="a whole number, 1 or more",
        do="correct or unset it",
    )


def content(path: Path) -> Content:
    """All of an image's file, in one state of it. Raises `Unreadable`."""
    try:
        member = find(path)
        if member is None:
            return _one_state(path)
        _refuse_long(member.size)
        # A shard's own size says nothing of an image in it.
        state = (member.state[0], member.size, *member.state[2:], member.begin)
        return Content(data=member.read(), state=state)
    except (OSError, ValueError, FolderError) as error:
        raise Unreadable(_no_file(path, error)) from error


def _one_state(path: Path) -> Content:
    """All of a file of its own: of one that is written meanwhile, half may be the old content."""
    # Before it is opened: a pipe would never end, and a device might not either.
    _refuse_no_file(path.stat())
    for _ in range(ATTEMPTS):
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            _refuse_no_file(before)
            data = file.read()
            if state_of(before) == state_of(os.fstat(file.fileno())):
                return Content(data=data, state=(*state_of(before), 0))
    raise Unreadable("it is being written to all the time")


def _refuse_no_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable("a folder")
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("no file, but a pipe, a socket or a device")
    _refuse_long(status.st_size)


def _refuse_long(size: int) -> None:
    most = LARGEST_PIXEL * most_pixels()
    if size > most:
        raise Unreadable(f"{size:,} bytes, and an image may have {most:,}")


def _open(data: bytes) -> Image.Image:
    """By what the bytes are. Raises `UnidentifiedImageError`, and what Pillow raises beside it."""
    Image.preinit()  # the usual formats; all of them take a tenth of a second to import
    with contextlib.suppress(UnidentifiedImageError):
        return Image.open(io.BytesIO(data), formats=_known_formats())
    Image.init()
    if "HEIF" not in Image.OPEN and data[4:8] == b"ftyp" and find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
    return Image.open(io.BytesIO(data), formats=_known_formats())


def _known_formats() -> list[str]:
    return [one for one in FORMATS if one in Image.OPEN]


def _refuse_large(size: tuple[int, int], detail: Detail) -> None:
    most = most_pixels()
    width, height = size
    if width * height > most:
        raise Unreadable(
            f"{width} x {height} are more than {most:,} pixels; TLKIT_MAX_PIXELS sets the limit"
        )
    if isinstance(detail, Faithful) and detail.any_shape:
        return
    at_least_px = detail.px if isinstance(detail, Faithful) else detail
    shorter = min(size)
    if shorter < at_least_px and max(size) * at_least_px**2 > most * shorter:
        raise Unreadable(f"{width} x {height} pixels are too narrow to be scaled to {at_least_px}")


def _shrunk(size: tuple[int, int], detail: Detail) -> tuple[int, int]:
    """Width and height of which a JPEG is decoded."""
    if isinstance(detail, Faithful):
        exact = [one for one in (2, 4, 8) if not (size[0] % one or size[1] % one)]
        factor = max((one for one in exact if min(size) >= 4 * one * detail.px), default=1)
        return size[0] // factor, size[1] // factor
    factor = min(size) // (2 * detail) if detail else 1
    factor = max(one for one in (1, 2, 4, 8) if one <= max(1, factor))
    return math.ceil(size[0] / factor), math.ceil(size[1] / factor)


def _plain_jpeg(data: bytes, image: Image.Image, size: tuple[int, int]) -> Pixels | None:
    """A JPEG in grey or colour, by a faster way to the very pixels that Pillow gives.

    None where Pillow has to decide: other colours, and whatever is out of the ordinary.
    """
    if image.mode not in ("RGB", "L"):
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
    except (ValueError, TypeError):
        return None
    if pixels.shape != (size[1], size[0], 3):
        return None
    return np.ascontiguousarray(UPRIGHT[_orientation(image)](pixels))


def _upright(image: Image.Image) -> Pixels:
    image.load()
    # Then: Pillow turns a TIFF while it loads it, and forgets the tag.
    return np.ascontiguousarray(UPRIGHT[_orientation(image)](_rgb(image)))


def _orientation(image: Image.Image) -> int:
    """From 1 to 8; 1, which is upright, where the tag is none of these or cannot be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Warning:
        raise
    except Exception:  # as many kinds of error as there are ways to break a table of tags
        return 1
    return found if found in UPRIGHT else 1


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


def _no_file(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in MACHINE:
        raise_machine_error(error)  # no image is unreadable for that
    if isinstance(error, FolderError):  # the shard that it is in
        return _briefly(error)
    if not path.exists():
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return _briefly(error)


def _reason(data: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _not_an_image(data) if data else "empty file"
    return _briefly(error)


def _not_an_image(data: bytes) -> str:
    """Say what it is instead, and what would make it readable."""
    kind = signatures.kind_of(data)
    remedy = signatures.remedy(kind)
    if kind == "a HEIC photo" and find_spec("pillow_heif"):
        remedy = "it is damaged, or of a kind that pillow-heif does not read"
    known = ": ".join(part for part in (kind, remedy) if part) if kind != "text" else ""
    return f"not an image that Pillow knows{f', but {known}' if known else ''}"


def _briefly(error: Exception) -> str:
    text = str(error).replace("\n", " ")[:200]
    return f"{type(error).__name__}: {text}"


def _rgb(image: Image.Image) -> Pixels:
    """Any mode of Pillow's to (H, W, 3) uint8."""
    if image.mode.startswith(("I", "F")):
        return _deep(np.asarray(image), image.mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    # A copy: torch shares memory only with what may be written to.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> Pixels:
    """A transparent image laid on white, strip by strip: four copies of it would be too many."""
    found = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        layer = image.crop((0, top, image.width, bottom)).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        found[top:bottom] = np.asarray(flat)[..., :3]
    return found


def _deep(samples: NDArray[np.generic], mode: str) -> Pixels:
    """Samples of more than 8 bits to (H, W, 3) uint8.

    Integers are 16-bit and divided by 257. Floats are taken as [0, 1], or as [0, 255] where one
    exceeds 1; what lies outside is clipped, infinite or not; what is no number is black.
    """
    factor = 1 / 257
    if mode == "F":
        # Of what is a number; an infinite one is larger than 1.
        factor = 1.0 if np.fmax.reduce(samples, axis=None, initial=0.0) > 1 else 255.0
    found = np.empty((*samples.shape, 3), np.uint8)
    for top in range(0, len(samples), STRIP):
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one, and then black
            values = np.nan_to_num(samples[top : top + STRIP].astype(np.float64))
        found[top : top + STRIP] = np.clip(np.rint(values * factor), 0, 255)[..., None]
    return found


def resize(image: Pixels, shorter_px: int, interpolation: str) -> Pixels:
    """Scale (H, W, 3) so that the shorter side has `shorter_px` pixels, as torchvision does."""
    height, width = image.shape[:2]
    long_px = long_side(height, width, shorter_px)
    size = (long_px, shorter_px) if width <= height else (shorter_px, long_px)
    return resize_to(image, size, interpolation)


def long_side(height: int, width: int, shorter_px: int) -> int:
    """Return the longer side of an image whose shorter side is scaled, rounded down."""
    return int(shorter_px * max(height, width) / min(height, width))


def resize_to(image: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Scale (H, W, 3) to a height and width.

    By the interpolation that the weights expect, antialiased where it shrinks: every pixel of the
    image counts.
    """
    if image.shape[:2] == size:
        return image
    cores.check_not_forked()
    # Here, so that a command that is refused has not waited for torch.
    import torch
    from torch.nn import functional

    # torch shares memory only with what lies in order and may be written to.
    own = np.require(image, requirements=["C", "W"])
    pixels = torch.from_numpy(own).permute(2, 0, 1)[None]
    scaled = functional.interpolate(pixels, size=size, mode=interpolation, antialias=True)
    found: Pixels = scaled[0].permute(1, 2, 0).numpy()
    return found


def in_channels(image: Pixels, channels: int) -> Pixels:
    """(..., H, W, 3) -> (..., H, W, channels): as it is, or for one channel its luma (BT.601).

    A grey image's three equal channels become exactly the one they were made of.
    """
    if channels == image.shape[-1]:
        return image
    flat = image.reshape(-1, image.shape[-2], 3)
    grey = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return grey.reshape(*image.shape[:-1], 1)


REPAIR = "repair or remove them, or leave them out with --on-bad skip"


def refuse(bad: Sequence[BadImage], *, do: str = REPAIR) -> None:
    """Raise one `ImageError` that names every unreadable file, if there is any."""
    if not bad:
        return
    raise ImageError(
        f"{len(bad)} unreadable image{'s' if len(bad) > 1 else ''}",
        found=listing([f"{one.path}: {one.reason}" for one in bad]),
        expected="files that Pillow can decode",
        do=do,
    )
