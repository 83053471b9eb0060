"""Preprocess: from an image file to the input of an exported network, with Pillow and numpy alone.

This file stands in every export, beside `preprocessing.json`, which holds the numbers:

    from preprocess import preprocess
    images = numpy.stack([preprocess(path) for path in paths])

Every step is here: which pixels a file has (orientation, transparency, bit depth, colours), how
they are scaled, and which of them are cropped. tlkit compares an export with its own answers on the
images that this function makes. They are, bit by bit, the pixels that tlkit itself makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Settings = Mapping[str, Any]

ROUNDING = ("torchvision", "tlkit 0.1.0")


def preprocess(file: str | Path | BinaryIO, settings: Settings | None = None) -> Pixels:
    """Return the input of the network for one image: (channels, height, width) uint8.

    `settings` are those of the `preprocessing.json` beside this file, where they are not given.
    """
    if settings is None:
        text = Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8")
        settings = json.loads(text)
    view = scale_and_crop(decode(file, settings), settings)
    return np.ascontiguousarray(in_channels(view, settings["channels"]).transpose(2, 0, 1))


def decode(file: str | Path | BinaryIO, settings: Settings) -> Pixels:
    """Return the upright RGB pixels of an image file: (H, W, 3) uint8, of the first frame."""
    with Image.open(file) as image:
        if image.format == "JPEG":
            draft(image, settings)
        image.load()
        # Not before: Pillow turns a TIFF while it loads it, and forgets the tag.
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # a broken table of tags
            orientation = 1
        return upright(rgb(image), orientation)


def draft(image: Image.Image, settings: Settings) -> None:
    """Let a large JPEG be decoded at a half, a quarter or an eighth of its size."""
    shorter, px = min(image.size), max(settings["resize_size"])
    if settings["rounding"] == "tlkit 0.1.0":
        image.draft(None, (2 * px, 2 * px))
        return
    width, height = image.size
    for factor in (8, 4, 2):
        if width % factor == height % factor == 0 and shorter >= 4 * factor * px:
            image.draft(None, (width // factor, height // factor))
            return


def rgb(image: Image.Image) -> Pixels:
    """Return (H, W, 3) uint8 of an image in any mode of Pillow."""
    if image.mode.startswith(("I", "F")):
        return from_deep(np.asarray(image), image.mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer))[..., :3]
    return np.asarray(image.convert("RGB"))


def from_deep(samples: Any, mode: str) -> Pixels:
    """Return (H, W, 3) uint8 of grey samples of more than 8 bits.

    Integers are 16-bit and divided by 257. Floats are taken as [0, 1], or as [0, 255] where one
    exceeds 1. What is no number is black.
    """
    factor = 1 / 257
    if mode == "F":
        factor = 1.0 if np.fmax.reduce(samples, axis=None, initial=0.0) > 1 else 255.0
    with np.errstate(invalid="ignore"):
        values = np.rint(np.nan_to_num(samples.astype(np.float64)) * factor)
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def upright(image: Pixels, orientation: int) -> Pixels:
    """Undo an orientation of the EXIF standard, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def scaled_size(height: int, width: int, settings: Settings) -> tuple[int, int]:
    """Return the height and width that an image is scaled to, before it is cropped."""
    high, wide = settings["resize_size"]
    if settings["rounding"] == "tlkit 0.1.0":
        factor = high / min(height, width)
        return max(high, round(height * factor)), max(high, round(width * factor))
    if settings["crop_mode"] == "squash":
        return high, wide
    if settings["crop_mode"] == "border":
        ratio = max(height / high, width / wide)
    elif high == wide:
        long_px = int(high * max(height, width) / min(height, width))
        return (long_px, high) if width <= height else (high, long_px)
    else:
        ratio = min(height / high, width / wide)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def scale_and_crop(image: Pixels, settings: Settings) -> Pixels:
    """Scale (H, W, 3) and cut the network's input from the middle; what lacks is filled."""
    scaled = scaled_size(image.shape[0], image.shape[1], settings)
    for axis in (1, 0):  # rows are scaled before columns
        begin, end = window(scaled[axis], settings["crop_size"][axis], settings["rounding"])
        image = resample(image, axis, scaled[axis], slice(begin, end), settings["interpolation"])
    height, width = settings["crop_size"]
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    view: Pixels = np.full((height, width, 3), settings["fill"], np.uint8)
    view[top : top + image.shape[0], left : left + image.shape[1]] = image
    return view


def window(scaled: int, wanted: int, rounding: str) -> tuple[int, int]:
    """Return where the crop begins and ends on one side of the scaled image."""
    room = max(0, scaled - wanted)
    begin = room // 2 if rounding == "tlkit 0.1.0" else round(room / 2)
    return begin, begin + min(scaled, wanted)


def resample(image: Pixels, axis: int, scaled: int, part: slice, interpolation: str) -> Pixels:
    """Scale one axis of an image, antialiased, and return a part of the result.

    As torch scales uint8: weights are whole numbers of at most 15 bits, and sums are rounded.
    """
    length = image.shape[axis]
    if scaled == length:
        return image[part] if axis == 0 else image[:, part]
    first, weights, bits = taps(length, scaled, interpolation)
    first, weights = first[part], weights[part]
    columns = np.minimum(first[:, None] + np.arange(weights.shape[1]), length - 1)
    matrix = np.zeros((len(first), length))
    np.add.at(matrix, (np.arange(len(first))[:, None], columns), weights)
    lines = np.moveaxis(image, axis, 0)
    # Sums of products of whole numbers, which floats of 64 bits hold exactly.
    sums = matrix @ lines.reshape(length, -1).astype(np.float64)
    values = np.floor((sums + (1 << (bits - 1))) / (1 << bits)).clip(0, 255).astype(np.uint8)
    return np.moveaxis(values.reshape(-1, *lines.shape[1:]), 0, axis)


def taps(length: int, scaled: int, interpolation: str) -> tuple[Any, Any, int]:
    """Return for each new pixel the first old one (N,), the weights (N, K), and their bits."""
    reach = 2.0 if interpolation == "bicubic" else 1.0
    ratio = length / scaled
    stretch = max(ratio, 1.0)
    middle = ratio * (np.arange(scaled) + 0.5)
    first = np.maximum((middle - reach * stretch + 0.5).astype(int), 0)
    last = np.minimum((middle + reach * stretch + 0.5).astype(int), length)
    pixel = first[:, None] + np.arange((last - first).max())
    distance = np.abs((pixel - middle[:, None] + 0.5) * (1 / stretch))
    weights = np.where(pixel < last[:, None], kernel(distance, interpolation), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = weights * (1 << bits)
    return first, np.trunc(whole + np.where(whole < 0, -0.5, 0.5)), bits


def kernel(distance: Any, interpolation: str) -> Any:
    """Return the weight of a pixel by its distance; bicubic with a = -0.5, as Pillow has it."""
    if interpolation == "bilinear":
        return np.maximum(0.0, 1 - distance)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def in_channels(view: Pixels, channels: int) -> Pixels:
    """Return (H, W, channels): as it is, or for one channel its luma (BT.601)."""
    if channels == 3:
        return view
    red, green, blue = (view[..., channel].astype(np.int64) for channel in range(3))
    luma = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15
    return luma.astype(np.uint8)[..., None]
