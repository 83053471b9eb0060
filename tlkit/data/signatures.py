"""Signatures: what a file is, by its first bytes, where it is not what was expected.

In: the beginning of a file. Out: its kind in words, and what a photo of that kind needs to be read.
Only for messages: what can be read, the libraries decide that read it.
"""

from __future__ import annotations

from collections.abc import Callable

BYTES = 512
"""Of a file that are looked at."""

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (6, b"\0\0\0\0", "a BMP image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"AVI ", "a video"),
    (8, b"CR\x02\x00", "a camera's raw file"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIU\x00", "a camera's raw file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"PK\x03\x04", "a ZIP archive, or what torch.save writes"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x80\x02", "a pickle"),
)
"""(position, bytes, what they say)."""

BRANDS = {
    b"heic": "a HEIC photo", b"heix": "a HEIC photo", b"hevc": "a HEIC photo",
    b"heim": "a HEIC photo", b"heis": "a HEIC photo", b"mif1": "a HEIC photo",
    b"msf1": "a HEIC photo", b"avif": "an AVIF image", b"avis": "an AVIF image",
    b"crx ": "a camera's raw file",
}  # fmt: skip
"""Of files that are made of boxes, as ISO/IEC 14496-12 has them; all others are videos."""

REMEDIES: dict[str, str] = {
    "a HEIC photo": "to read it, pip install pillow-heif",
    "an AVIF image": "to read it, pip install --upgrade pillow",
    "a JPEG XL image": "convert it to JPEG or PNG",
    "a camera's raw file": "develop it to JPEG or PNG",
    "a Photoshop file": "save it as JPEG or PNG",
    "an SVG drawing": "draw it to PNG",
    "a PDF document": "draw its pages to PNG",
    "a video": "take frames out of it as JPEG or PNG",
}
"""For what shows something, and is no image that is read."""


def kind_of(data: bytes) -> str:
    """Return what a file is that begins with these bytes; empty where that cannot be told."""
    if not data:
        return "an empty file"
    for position, magic, kind in MAGIC:
        # A text may begin with the letters of a bitmap, and much has these four zeros.
        fits = kind != "a BMP image" or data.startswith(b"BM")
        if fits and data[position : position + len(magic)] == magic:
            return kind
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12].lower(), "a video")
    return _text_kind(data[:BYTES])


def _text_kind(data: bytes) -> str:
    """Return what kind of text it is; empty for what is none."""
    try:
        text = data.decode("utf-8").lstrip("\ufeff \t\r\n").lower()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # not a letter that was cut in two
            return ""
        text = data[: error.start].decode("utf-8").lstrip("\ufeff \t\r\n").lower()
    if any(character < " " and character not in "\t\r\n\f" for character in text):
        return ""
    kinds: tuple[tuple[Callable[[str], bool], str], ...] = (
        (lambda text: text.startswith("version https://git-lfs"), "a pointer of Git LFS"),
        (lambda text: "<svg" in text, "an SVG drawing"),
        (lambda text: text.startswith(("<!doctype html", "<html")), "a web page"),
        (lambda text: text.startswith(("{", "[")), "JSON"),
    )
    return next((kind for fits, kind in kinds if fits(text)), "text")


def remedy(kind: str) -> str:
    """Return what makes an image of that kind readable; empty where nothing is known."""
    return REMEDIES.get(kind, "")
