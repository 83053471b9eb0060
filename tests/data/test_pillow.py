"""The user's settings of Pillow."""

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from tlkit.data.images import Unreadable, decode, size_of
from tlkit.data.pillow import by_own_rules


@pytest.fixture
def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    return Image.fromarray(values)


def bytes_of(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_a_file_that_is_cut_off_is_unreadable_whatever_the_program_has_set(
    noise, kind, monkeypatch
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = bytes_of(noise, kind)
    decode(data)
    with pytest.raises(Unreadable):
        decode(data[: len(data) // 3])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_broken_checksum_is_seen_whatever_the_program_has_set(noise, monkeypatch):
    """Pillow skips the checksums of a PNG file where cut off files are to be loaded."""
    data = bytearray(bytes_of(noise, "PNG"))
    data[-20] ^= 1
    for users in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", users)
        with pytest.raises(Unreadable):
            decode(bytes(data))


@pytest.mark.parametrize("limit", [100, None, float("inf"), 10**9])
def test_the_limit_of_pixels_is_tlkits_whatever_the_program_has_set(noise, limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    data = bytes_of(noise, "PNG")
    assert decode(data).shape == (90, 120, 3)
    assert size_of(data) == (120, 90)
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "10799")
    with pytest.raises(Unreadable, match=r"120 x 90 are more than 10,799 pixels"):
        decode(data)
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "1000000000")
    assert decode(data).shape == (90, 120, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def with_broken_tags() -> bytes:
    """A photo turned on its side, with a tag behind that which Pillow warns of."""
    tag = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    broken = b"\x32\x01\x02\x00\xff\x00\x00\x00\xff\xff\x00\x00"
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00" + tag + broken
    return bytes_of(Image.new("RGB", (40, 30), "red"), "WEBP", exif=exif)


@pytest.mark.parametrize("action", ["error", "always", "default", "ignore"])
def test_warnings_of_pillow_change_no_photo_and_are_not_shown(action, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        before = list(warnings.filters)
        assert decode(with_broken_tags()).shape == (40, 30, 3)
        assert warnings.filters == before
    assert not recwarn


def test_the_program_sees_its_own_warnings_of_pillow():
    with by_own_rules():
        pass
    image = Image.open(io.BytesIO(with_broken_tags()))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        dict(image.getexif())
    assert [warning for warning in seen if warning.category is UserWarning]


def test_another_thread_keeps_its_settings_while_tlkit_decodes(noise, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    cut = bytes_of(noise, "PNG")[:-4000]
    seen = []

    def program():
        seen.append(bool(ImageFile.LOAD_TRUNCATED_IMAGES))
        seen.append(ImageFile.LOAD_TRUNCATED_IMAGES == True)  # noqa: E712
        with pytest.raises(Image.DecompressionBombError):
            Image.open(io.BytesIO(cut))
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(io.BytesIO(cut)) as image:
            image.load()
            seen.append(image.size)

    with by_own_rules() as undisturbed:
        thread = threading.Thread(target=program)
        thread.start()
        thread.join()
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        assert undisturbed()
    assert seen == [True, True, (120, 90)]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS is None


def test_what_a_program_sets_meanwhile_stays_and_is_not_decoded_by(noise, monkeypatch):
    """In the middle of a decoding it was loaded, half of it, by the rule that came then."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    cut = bytes_of(noise, "PNG")[:-4000]
    load, times = ImageFile.ImageFile.load, []

    def disturbed(self):
        times.append(1)
        if len(times) == 1:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", disturbed)
    with pytest.raises(Unreadable):
        decode(cut)
    assert len(times) > 1
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_blocks_in_many_threads_leave_what_they_met(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    check, filters = Image._decompression_bomb_check, list(warnings.filters)
    data = bytes_of(Image.new("RGB", (8, 8)), "PNG")
    threads = [threading.Thread(target=lambda: [decode(data) for _ in range(50)]) for _ in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image._decompression_bomb_check is check
    assert warnings.filters == filters
