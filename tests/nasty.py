"""The nasty folder: images of every kind, and what only looks like one, all made by code."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, features

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


def picture(colour: str, seed: int = 0) -> Image.Image:
    """A gradient in that colour, not the same mirrored or turned."""
    base = np.array(COLOURS[colour], np.float64)
    rows, columns = np.mgrid[0:60, 0:80]
    light = 0.6 + 0.4 * rows[..., None] / 60 - 0.2 * columns[..., None] / 80
    noise = np.random.default_rng(seed).normal(0, 4, (60, 80, 1))
    return Image.fromarray(np.clip(base * light + noise, 0, 255).astype(np.uint8))


TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(image: Image.Image, orientation: int, path: Path) -> None:
    """The same picture, lossless, stored turned, with the EXIF tag that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image if orientation == 1 else image.transpose(TURNED_BACK[orientation])
    stored.save(path, exif=exif)


def every_kind(image: Image.Image, folder: Path) -> None:
    """A file of the picture in each mode and format that is read."""
    folder.mkdir(parents=True)
    for orientation in range(1, 9):
        turned(image, orientation, folder / f"orientation{orientation}.png")
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    shares = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    saved: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "plain.png": (image, {}),
        "grey.png": (image.convert("L"), {}),
        "grey-alpha.png": (alpha.convert("LA"), {}),
        "alpha.png": (alpha, {}),
        "palette.png": (image.quantize(64), {}),
        "palette-transparent.png": (image.quantize(64), {"transparency": 3}),
        "two-colours.png": (image.convert("1"), {}),
        "deep.png": (deep, {}),
        "floats.tif": (shares, {}),
        "cmyk.jpg": (image.convert("CMYK"), {}),
        "cmyk.tif": (image.convert("CMYK"), {}),
        "progressive.jpg": (image, {"progressive": True, "quality": 95}),
        "frames.gif": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
        "frames.tif": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
        "some.bmp": (image, {}),
        "some.webp": (image, {"lossless": True}),
        "some.ppm": (image, {}),
        "some.jp2": (image, {}),
    }
    if features.check("avif"):
        saved["some.avif"] = (image, {})
    for name, (one, options) in saved.items():
        one.save(folder / name, **options)
    # Names of all sorts, and an ending that lies.
    jpeg = (folder / "progressive.jpg").read_bytes()
    for name in (
        "a jpeg.png", "line\nbreak.jpg", "日本語 ünï.jpg", "-dash.jpg", "quote'\".jpg",
        "x" * 246 + ".jpg", "semi;colon,comma.jpg", "UPPER.JPG",
    ):  # fmt: skip
        (folder / name).write_bytes(jpeg)
    os.symlink(folder / "plain.png", folder / "link.png")


def bad_files(folder: Path) -> set[str]:
    """Files that are named like images and are none; their names."""
    image = picture("red")
    image.save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n")
    (folder / "bomb.png").write_bytes(bomb(60_000))
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(folder)  # its path may be too long for one
        try:
            plug.bind("socket.png")
        finally:
            os.chdir(here)
    os.symlink(folder / "nowhere.jpg", folder / "broken-link.jpg")
    os.symlink(folder / "loop.jpg", folder / "loop.jpg")
    return {
        "empty.jpg", "cut.jpg", "text.png", "script.png", "bomb.png", "pipe.jpg", "socket.png",
        "broken-link.jpg", "loop.jpg",
    }  # fmt: skip


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
