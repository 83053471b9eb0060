"""Images: every kind of file to the same pixels, or a reason why not."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlkit.data.images as module
from tlkit.data.images import BadImage, Faithful, Unreadable, read, refuse, resize
from tlkit.errors import ImageError, OptionError

# An upright picture that looks different in each of the eight orientations.
UPRIGHT = np.zeros((24, 32, 3), np.uint8)
UPRIGHT[:12, :16] = (250, 40, 30)
UPRIGHT[:12, 16:] = (30, 240, 50)
UPRIGHT[12:, :16] = (20, 60, 230)

ORIENTATION = 0x0112
# What a camera stores for each value of the tag (EXIF 2.3): where row 0 and column 0 lie.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[:, ::-1],
}


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without fine detail, which survives JPEG and shrinking."""
    y, x = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
    return np.stack([255 * x, 255 * y, 128 + 100 * np.sin(5 * x)], axis=2).astype(np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str = "a.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read(tmp_path / name)


def is_rgb(pixels: np.ndarray) -> bool:
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_every_orientation_is_read_upright(tmp_path, name, value):
    stored = Image.fromarray(np.ascontiguousarray(STORED[value](UPRIGHT)))
    exif = Image.Exif()
    exif[ORIENTATION] = value
    options = {"a.jpg": {"quality": 95, "subsampling": 0}, "a.webp": {"lossless": True}}
    pixels = saved(tmp_path, stored, name, exif=exif, **options.get(name, {}))
    assert pixels.shape == UPRIGHT.shape
    assert np.abs(pixels.astype(int) - UPRIGHT).max() <= (25 if name == "a.jpg" else 0)


def test_a_draft_is_turned_upright_too(tmp_path):
    large = np.repeat(np.repeat(UPRIGHT, 16, axis=0), 16, axis=1)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.ascontiguousarray(STORED[6](large))).save(tmp_path / "a.jpg", exif=exif)
    pixels = read(tmp_path / "a.jpg", at_least_px=30)
    assert pixels.shape[0] < 384
    assert pixels.shape[0] / pixels.shape[1] == 24 / 32
    assert np.abs(pixels[5, 5].astype(int) - UPRIGHT[0, 0]).max() < 10


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("at_least_px", [0, 20, 50, 90])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "how", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}], ids=str
)
def test_the_faster_way_gives_the_pixels_of_pillow(
    tmp_path, monkeypatch, value, at_least_px, mode, how
):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(201, 333)).convert(mode).save(path, exif=exif, **how)
    fast = read(path, at_least_px=at_least_px)
    monkeypatch.setattr(module, "_plain_jpeg", lambda *args: None)
    assert np.array_equal(fast, read(path, at_least_px=at_least_px))


def test_jpegs_in_other_colours_are_left_to_pillow(tmp_path, monkeypatch):
    decoded = []
    real = module.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        module.simplejpeg, "decode_jpeg", lambda *a, **k: decoded.append(1) or real(*a, **k)
    )
    Image.fromarray(smooth(40, 50)).convert("CMYK").save(tmp_path / "a.jpg")
    assert is_rgb(read(tmp_path / "a.jpg"))
    assert decoded == []
    Image.fromarray(smooth(40, 50)).save(tmp_path / "b.jpg", keep_rgb=True)
    fast = read(tmp_path / "b.jpg")
    monkeypatch.setattr(module, "_plain_jpeg", lambda *args: None)
    assert np.array_equal(fast, read(tmp_path / "b.jpg"))


# --- colours --------------------------------------------------------------------------------------


def test_colours_are_rgb_in_this_order(tmp_path):
    pixels = saved(tmp_path, Image.fromarray(UPRIGHT))
    assert is_rgb(pixels)
    assert np.array_equal(pixels, UPRIGHT)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = saved(tmp_path, Image.fromarray(grey))
    assert np.array_equal(pixels, np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_is_0_and_255(tmp_path):
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    assert np.array_equal(saved(tmp_path, bits)[..., 0], np.eye(8) * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = saved(tmp_path, image.convert(mode))
    assert is_rgb(pixels)
    black, clear, half = pixels[0].tolist()
    assert black == [0, 0, 0]
    assert clear == [255, 255, 255]
    assert all(abs(one - 127) <= 1 for one in half)


def test_a_palette_is_looked_up_and_its_transparent_colour_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert saved(tmp_path, image)[0].tolist() == [[200, 10, 20], [0, 0, 0]]
    clear = saved(tmp_path, image, transparency=1)
    assert clear[0].tolist() == [[200, 10, 20], [255, 255, 255]]


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_colour_that_is_declared_transparent_is_white(tmp_path, mode, colour):
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    pixels = saved(tmp_path, image, transparency=colour)
    assert pixels[0].tolist() == [[255, 255, 255], [0, 0, 0]]


def test_print_colours_become_screen_colours(tmp_path):
    ink = Image.fromarray(UPRIGHT).convert("CMYK")
    pixels = saved(tmp_path, ink, "a.jpg", quality=95, subsampling=0)
    assert is_rgb(pixels)
    assert np.abs(pixels.astype(int) - UPRIGHT).max() <= 30


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_greys_and_white_stays_white(tmp_path, name):
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    deep[-1, -1] = 65535
    pixels = saved(tmp_path, Image.fromarray(deep), name)
    assert is_rgb(pixels)
    assert len(np.unique(pixels)) == 256
    assert (pixels[0, 0].tolist(), pixels[-1, -1].tolist()) == ([0] * 3, [255] * 3)
    assert np.abs(pixels[..., 0] - deep / 257).max() <= 0.5


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floats_are_shares_of_white_or_of_255(tmp_path, top):
    ramp = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    pixels = saved(tmp_path, Image.fromarray(ramp), "a.tif")
    assert is_rgb(pixels)
    assert np.array_equal(pixels[..., 0].ravel(), np.arange(256))


def test_floats_outside_their_range_are_clipped_and_gaps_are_black(tmp_path):
    odd = np.array([[-5.0, np.nan, 100.0, 300.0, np.inf, -np.inf]], np.float32)
    assert saved(tmp_path, Image.fromarray(odd), "a.tif")[0, :, 0].tolist() == [
        0,
        0,
        100,
        255,
        255,
        0,
    ]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    pixels = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels[4, 4].astype(int) - (255, 0, 0)).max() < 8


def test_the_ending_does_not_decide_what_a_file_is(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read(tmp_path / "a.jpg"), UPRIGHT)


@pytest.mark.parametrize("name", ["Käfer 猫.png", "a b's\n.png"])
def test_any_file_name_can_be_read(tmp_path, name):
    assert np.array_equal(saved(tmp_path, Image.fromarray(UPRIGHT), name), UPRIGHT)


# --- what cannot be read --------------------------------------------------------------------------


def bytes_of(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth(120, 160)).save(file, format=format)
    return file.getvalue()


@pytest.mark.parametrize("at_least_px", [0, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_file_that_is_cut_off_is_unreadable_and_never_half_used(tmp_path, format, at_least_px):
    data = bytes_of(format)
    path = tmp_path / "a"
    for part in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(Unreadable):
            read(path, at_least_px=at_least_px)
    path.write_bytes(data)
    assert read(path).shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"these are words", "not an image"),
        (bytes(5000), "not an image"),
        (b"\xff\xd8\xff\xe0", "."),
    ],
)
def test_a_file_that_is_no_image_is_unreadable_with_the_reason(tmp_path, data, reason):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path / "a.jpg")


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(Unreadable, match="a folder"):
        read(tmp_path / "folder.jpg")
    with pytest.raises(Unreadable, match="no such file"):
        read(tmp_path / "missing.jpg")


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zeros.jpg"):
        with pytest.raises(Unreadable, match="a pipe, a socket or a device"):
            read(tmp_path / name)


def test_only_formats_of_photos_are_opened(tmp_path, monkeypatch):
    """Pillow hands PostScript to a program."""
    Image.fromarray(UPRIGHT).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(Unreadable, match="not an image"):
        read(tmp_path / "a.jpg")
    assert started == []


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch, format
):
    Image.new("L", (400, 300)).save(tmp_path / "a", format=format)
    for limit in ("119999", "50000"):
        monkeypatch.setenv("TLKIT_MAX_PIXELS", limit)
        with pytest.raises(Unreadable, match=f"400 x 300 are more than {int(limit):,}"):
            read(tmp_path / "a")
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "120000")
    assert read(tmp_path / "a").shape == (300, 400, 3)


def test_a_limit_that_is_no_number_is_an_error_not_a_bad_image(tmp_path, monkeypatch):
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "many")
    with pytest.raises(OptionError, match="TLKIT_MAX_PIXELS=many"):
        read(tmp_path / "a.png")


def test_a_file_too_large_for_any_image_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "100")
    (tmp_path / "a.png").write_bytes(bytes(801))
    with pytest.raises(Unreadable, match="801 bytes, and an image may have 800"):
        read(tmp_path / "a.png")


def test_an_image_that_scaling_would_blow_up_is_refused(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").shape == (1, 60_000, 3)
    assert read(tmp_path / "a.png", at_least_px=32).shape == (1, 60_000, 3)
    with pytest.raises(Unreadable, match="60000 x 1 pixels are too narrow to be scaled to 224"):
        read(tmp_path / "a.png", at_least_px=224)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0nonsense", b"Exif"])
def test_an_orientation_that_cannot_be_read_is_none(tmp_path, name, exif):
    options = {"a.jpg": {"quality": 95}, "a.webp": {"lossless": True}}
    pixels = saved(tmp_path, Image.fromarray(UPRIGHT), name, exif=exif, **options.get(name, {}))
    assert pixels.shape == UPRIGHT.shape


def test_heic_is_read_where_the_package_for_it_is_installed(tmp_path, monkeypatch):
    asked = []

    class Package:
        @staticmethod
        def register_heif_opener():
            asked.append(1)

    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(module, "import_module", lambda name: Package)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(Unreadable, match="not an image"):
        read(tmp_path / "a.heic")
    assert asked == [1]


def test_running_out_of_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    (tmp_path / "a.jpg").write_bytes(b"any")
    with pytest.raises(MemoryError):
        read(tmp_path / "a.jpg")


def test_all_unreadable_files_are_named_in_one_error():
    refuse([])
    with pytest.raises(ImageError) as caught:
        refuse([BadImage(path=Path(f"{one}.jpg"), reason=f"reason {one}") for one in "abc"])
    assert caught.value.found.splitlines() == [f"{one}.jpg: reason {one}" for one in "abc"]
    assert caught.value.about == "3 unreadable images"


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least_px", [1, 20, 33, 64, 100, 150, 299, 600])
def test_a_draft_keeps_twice_the_pixels_asked_for_and_looks_alike(tmp_path, at_least_px):
    Image.fromarray(smooth(300, 500)).save(tmp_path / "a.jpg", quality=95)
    whole, draft = read(tmp_path / "a.jpg"), read(tmp_path / "a.jpg", at_least_px=at_least_px)
    assert min(draft.shape[:2]) >= min(2 * at_least_px, 300)
    assert draft.shape[0] <= whole.shape[0]
    scaled = resize(whole, draft.shape[0], "bilinear")[:, : draft.shape[1]]
    off = np.abs(scaled.astype(int) - draft[:, : scaled.shape[1]])
    assert off.mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize(
    ("size", "px", "decoded"),
    [
        ((640, 400), 50, (320, 200)),
        ((640, 400), 51, (640, 400)),  # the shorter side would not keep four times as many
        ((640, 400), 25, (160, 100)),
        ((642, 401), 25, (642, 401)),  # half a pixel more would stretch it
        ((644, 404), 12, (161, 101)),  # an eighth divides neither
    ],
)
def test_a_faithful_draft_divides_both_sides_and_keeps_four_times_the_pixels(
    tmp_path, mode, size, px, decoded
):
    Image.fromarray(smooth(size[1], size[0])).convert(mode).save(tmp_path / "a.jpg")
    found = read(tmp_path / "a.jpg", at_least_px=Faithful(px=px))
    assert found.shape[1::-1] == decoded


def test_a_faithful_draft_scales_to_what_the_whole_image_does(tmp_path):
    Image.fromarray(smooth(600, 800)).save(tmp_path / "a.jpg", quality=90)
    draft = read(tmp_path / "a.jpg", at_least_px=Faithful(px=64))
    assert draft.shape[0] < 600
    one, other = (
        resize(image, 64, "bicubic").astype(int) for image in (draft, read(tmp_path / "a.jpg"))
    )
    assert np.abs(one - other).max() <= 4


def test_an_image_that_is_squashed_may_be_narrow(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(Unreadable, match="too narrow"):
        read(tmp_path / "a.png", at_least_px=Faithful(px=224))
    assert read(tmp_path / "a.png", at_least_px=Faithful(px=224, any_shape=True)).shape[0] == 1


def test_only_large_jpegs_are_drafted(tmp_path):
    Image.fromarray(smooth(300, 500)).save(tmp_path / "a.jpg")
    Image.fromarray(smooth(300, 500)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.jpg", at_least_px=20).shape[0] < 300
    assert read(tmp_path / "a.png", at_least_px=20).shape[0] == 300


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (40, 40), (3, 200), (1, 1), (31, 33)])
@pytest.mark.parametrize("px", [1, 16, 32, 80])
def test_resizing_sets_the_shorter_side_and_keeps_the_shape(shape, px, interpolation):
    pixels = resize(np.zeros((*shape, 3), np.uint8), px, interpolation)
    assert is_rgb(pixels)
    assert min(pixels.shape[:2]) == px
    for side, before in zip(pixels.shape[:2], shape, strict=True):
        # The longer side is rounded down.
        assert 0 <= before * px / min(shape) - side < 1


def test_shrinking_averages_so_that_a_fine_checkerboard_becomes_grey():
    board = np.zeros((60, 60, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    for px in (30, 20, 12, 6):
        for how in ("bilinear", "bicubic"):
            assert np.abs(resize(board, px, how).astype(int) - 127.5).max() < 16


def test_resizing_keeps_the_mean_and_a_plain_colour():
    picture = smooth(90, 120)
    for px in (30, 45, 180):
        assert np.abs(resize(picture, px, "bilinear").mean() - picture.mean()) < 2
        flat = resize(np.full((90, 120, 3), 77, np.uint8), px, "bicubic")
        assert (flat == 77).all()


@pytest.mark.parametrize("px", [48, 6])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_scaling_is_pillows_for_the_interpolation_asked_for(px, interpolation):
    picture = smooth(24, 32)
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    found = resize(picture, px, interpolation)
    wanted = Image.fromarray(picture).resize(found.shape[1::-1], how[interpolation])
    assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= 1


def test_what_is_scaled_may_lie_in_memory_in_any_order():
    picture = smooth(24, 32)
    turned = np.ascontiguousarray(picture[:, ::-1])
    assert np.array_equal(resize(picture[:, ::-1], 12, "bicubic"), resize(turned, 12, "bicubic"))


def test_the_right_size_is_left_alone():
    picture = smooth(40, 60)
    assert np.array_equal(resize(picture, 40, "bilinear"), picture)


def test_of_a_file_that_is_too_long_for_an_image_nothing_is_read(tmp_path, monkeypatch):
    from tlkit.data.digests import digests
    from tlkit.data.names import Names, Paths

    monkeypatch.setenv("TLKIT_MAX_PIXELS", "1000")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(8001)
    monkeypatch.setattr(Path, "open", lambda path, *how: pytest.fail("it was read"))
    (found,) = digests(Paths(tmp_path, Names.of(["huge.jpg"])))
    assert len(found.tobytes()) == 16
    with pytest.raises(Unreadable, match="8,001 bytes, and an image may have 8,000"):
        read(tmp_path / "huge.jpg")


def test_a_file_that_is_written_to_meanwhile_is_read_in_one_state(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old" * 1000)
    fstat, times = os.fstat, []

    def written_to(number):
        times.append(1)
        if len(times) == 2:  # when it has been read
            path.write_bytes(b"new one" * 1000)
        return fstat(number)

    monkeypatch.setattr(module.os, "fstat", written_to)
    found = module.content(path)
    assert found.data == b"new one" * 1000
    assert found.state == (*module.state_of(path.stat()), 0)
    assert len(times) == 4


def test_a_file_that_is_written_to_all_the_time_is_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    fstat = os.fstat

    def written_to(number):
        path.write_bytes(path.read_bytes() + b"more")
        return fstat(number)

    monkeypatch.setattr(module.os, "fstat", written_to)
    with pytest.raises(Unreadable, match="written to all the time"):
        read(path)
