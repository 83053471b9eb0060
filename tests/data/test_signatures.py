"""Signatures: what a file is that is no photo or no head, by its first bytes."""

import io
import json
import pickle
import tarfile
import zipfile

import pytest
from PIL import Image

from tlkit.data.images import Unreadable, decode
from tlkit.data.signatures import BYTES, REMEDIES, kind_of, remedy


def saved(form):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, form)
    return file.getvalue()


def packed(kind):
    file = io.BytesIO()
    with kind(file) as archive:
        if isinstance(archive, zipfile.ZipFile):
            archive.writestr("a", "text")
        else:
            archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return file.getvalue()


def boxes(brand):
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + bytes(100)


KINDS = {
    "a PNG image": saved("PNG"),
    "a JPEG image": saved("JPEG"),
    "a GIF image": saved("GIF"),
    "a BMP image": saved("BMP"),
    "a WebP image": saved("WEBP"),
    "a TIFF image": saved("TIFF"),
    "a HEIC photo": boxes(b"heic"),
    "an AVIF image": boxes(b"avif"),
    "a video": boxes(b"isom"),
    "a camera's raw file": b"II*\0\x10\0\0\0CR\x02\0" + bytes(100),
    "a Photoshop file": b"8BPS" + bytes(100),
    "a PDF document": b"%PDF-1.7\n",
    "an SVG drawing": b"<?xml version='1.0'?><svg width='1'/>",
    "a ZIP archive, or what torch.save writes": packed(lambda file: zipfile.ZipFile(file, "w")),
    "a tar file": packed(lambda file: tarfile.TarFile(fileobj=file, mode="w")),
    "a pickle": pickle.dumps({}, protocol=2),
    "a web page": b"\n<!DOCTYPE html><html></html>",
    "JSON": json.dumps({"a": 1}).encode(),
    "text": "Wörter".encode() * BYTES,
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "an empty file": b"",
    "": b"\x00\x01\x02\x80" * 100,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_known_by_its_first_bytes(kind):
    assert kind_of(KINDS[kind]) == kind
    assert kind_of(KINDS[kind][:BYTES]) == kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in REMEDIES])
def test_what_is_no_image_that_is_read_is_named_with_what_to_do(kind):
    if kind == "an AVIF image":
        pytest.skip("Pillow may read it, and then says itself what is wrong")
    with pytest.raises(Unreadable) as caught:
        decode(KINDS[kind])
    assert kind in str(caught.value)
    assert remedy(kind) in str(caught.value)


def test_a_heic_photo_names_the_package_that_reads_it():
    assert "pip install pillow-heif" in remedy("a HEIC photo")
