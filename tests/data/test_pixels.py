"""Decoded images that are kept."""

import numpy as np
import pytest
from PIL import Image

import tlkit
import tlkit.data.pixels as module
from tlkit.data import images
from tlkit.data.digests import digest_of_bytes
from tlkit.data.folder import scan
from tlkit.data.images import Unreadable, read
from tlkit.data.pixels import Decoded, Room, Shared
from tlkit.data.transforms import PRESETS, augmentation
from tlkit.errors import DiskError
from tlkit.testing import TINY

IMAGE_BYTES = 64 * 48 * 3


@pytest.fixture
def reads(monkeypatch):
    """The files that were read."""
    seen = []
    monkeypatch.setattr(
        module, "read", lambda path, **how: seen.append(path.name) or read(path, **how)
    )
    return seen


@pytest.mark.parametrize("where", ["ram", "disk"])
@pytest.mark.parametrize("room", [0, 1, 5, 24])
def test_what_fits_is_read_once_and_the_rest_each_time(colours, reads, where, room):
    paths = scan(colours).paths
    bytes_there = room * IMAGE_BYTES + 10
    decoded = Decoded(paths, at_least_px=32, room=Room(where, bytes_there))
    for _ in range(3):
        for number, path in enumerate(paths):
            assert np.array_equal(decoded(number), read(path, at_least_px=32))
    assert len(reads) == room + 3 * (24 - room)


def test_without_a_cache_nothing_is_kept(colours, reads):
    decoded = Decoded(scan(colours).paths, at_least_px=32, room=Room("none", 10**9))
    assert np.array_equal(decoded(3), decoded(3))
    assert len(reads) == 2


def test_one_room_serves_several_parts(colours):
    paths, room = scan(colours).paths, Room("ram", 10**6)
    one = Decoded(paths[:12], at_least_px=32, room=room)
    other = Decoded(paths[12:], at_least_px=32, room=room)
    for _ in range(2):
        assert np.array_equal(one(0), read(paths[0]))
        assert np.array_equal(other(0), read(paths[12]))


def test_an_unreadable_file_is_not_kept(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("no image")
    decoded = Decoded([path], at_least_px=32, room=Room("ram", 10**6))
    for _ in range(2):
        with pytest.raises(Unreadable):
            decoded(0)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_augmentation_writes_into_what_is_kept(colours, preset):
    decoded = Decoded(scan(colours).paths, at_least_px=64, room=Room("ram", 10**6))
    look = augmentation(preset, TINY.weights()[0].input, 0).look
    fresh = read(decoded.paths[0])
    for view in range(5):
        decoded(0)
        kept = decoded(0)
        assert np.array_equal(look(kept, 0, view), look(fresh, 0, view))
    assert np.array_equal(decoded(0), fresh)


@pytest.mark.parametrize("how", [{"cache": "none"}, {"cache": "disk"}, {"cache_gb": 1e-5}], ids=str)
def test_a_cache_changes_no_bit_of_the_head(colours, how):
    options = {"backbone": "tiny", "freeze": "none", "epochs": 3, "augment": "light"}
    digests = [tlkit.fit(colours, **options, **more).card.tensors_sha256 for more in ({}, how)]
    assert digests[0] == digests[1]


def test_epochs_after_the_first_read_no_file(colours, reads):
    tlkit.fit(colours, backbone="tiny", freeze="none", epochs=4)
    assert len(reads) == 24


def test_a_full_disk_is_one_clear_error(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(DiskError, match="No space left"):
        Room("disk", 10**6)


def test_shared_pixels_are_those_that_each_network_would_have_read(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    paths = [tmp_path / "large.jpg", tmp_path / "plain.png"]
    for path in paths:
        Image.fromarray(noise).save(path)
    sizes = (36, 80, 200, 300)  # of the JPEG: an eighth, a quarter, and twice all of it
    decoded = []
    own = images.decode

    def counted(data, *, at_least_px):
        decoded.append(at_least_px)
        return own(data, at_least_px=at_least_px)

    monkeypatch.setattr(images, "decode", counted)
    shared = Shared(sizes, Room("ram", 10_000_000))
    for path, times in zip(paths, (3, 1), strict=True):
        decoded.clear()
        found = [shared(path, px) for px in sizes]
        assert len(decoded) == times
        for px, one in zip(sizes, found, strict=True):
            assert np.array_equal(one.pixels, images.read(path, at_least_px=px))
            assert one.digest == digest_of_bytes(path.read_bytes())


def test_what_has_no_room_is_read_anew(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(path)
    shared = Shared([32], Room("ram", 100))
    for _ in range(2):
        assert np.array_equal(shared(path, 32).pixels, images.read(path))
    with pytest.raises(images.Unreadable):
        shared(tmp_path / "missing.png", 32)


def test_an_image_that_is_exchanged_keeps_the_digest_of_what_was_decoded(tmp_path):
    """One network has looked at it; the other gets the same pixels, and they are called so."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(path)
    shared = Shared([32, 16], Room("ram", 10**6))
    before = digest_of_bytes(path.read_bytes())
    shared(path, 32)
    Image.fromarray(np.full((40, 40, 3), 8, np.uint8)).save(path)
    again = shared(path, 16)
    assert again.pixels.max() == 7
    assert again.digest == before
