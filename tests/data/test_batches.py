"""Batches: the order of the paths, whatever the threads do."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tlkit.cores import cores
from tlkit.data.batches import AHEAD, _readers, batches, even_parts
from tlkit.data.images import read

COUNT = 11


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Eleven images, each of one grey of its own."""
    folder = tmp_path_factory.mktemp("greys")
    for number in range(COUNT):
        Image.new("RGB", (6, 4), (number * 20,) * 3).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def whole(image, position):
    return image


def run(paths, look=whole, sizes=(4, 4, 3), **options):
    return list(batches(paths, look, sizes=list(sizes), at_least_px=0, **options))


def test_images_come_in_the_order_of_the_paths_in_the_sizes_asked_for(paths):
    made = run(paths)
    assert [len(one.index) for one in made] == [4, 4, 3]
    assert np.concatenate([one.index for one in made]).tolist() == list(range(COUNT))
    for one in made:
        assert one.bad == {}
        for image, position in zip(one.images, one.index, strict=True):
            pixels = image[0].permute(1, 2, 0).numpy()
            assert np.array_equal(pixels, read(paths[position]))


@pytest.mark.parametrize("workers", [2, 5, 0])
def test_the_number_of_threads_does_not_change_a_bit(paths, workers):
    def slow_first(image, position):
        time.sleep(0.004 if position % 3 == 0 else 0)
        return image + np.uint8(position)

    for one, other in zip(
        run(paths, slow_first, workers=1), run(paths, slow_first, workers=workers), strict=True
    ):
        assert torch.equal(one.images, other.images)
        assert np.array_equal(one.index, other.index)


def test_one_view_and_several_have_a_place_of_their_own(paths):
    (one,) = run(paths, sizes=[COUNT])
    assert one.images.shape == (COUNT, 1, 3, 4, 6)
    (three,) = run(paths, lambda image, _: np.stack([image, image + 1, image + 2]), sizes=[COUNT])
    assert three.images.shape == (COUNT, 3, 3, 4, 6)
    assert three.images.dtype == torch.uint8
    assert torch.equal(three.images[:, 2], one.images[:, 0] + 2)


def test_images_are_laid_out_channels_last(paths):
    (one,) = run(paths, sizes=[COUNT])
    assert one.images[:, 0].is_contiguous(memory_format=torch.channels_last)


def test_a_mirrored_view_is_copied_as_it_is_seen(paths):
    def mirrored(image, position):
        ramp = np.zeros((4, 6, 3), np.uint8) + np.arange(6, dtype=np.uint8)[None, :, None]
        return ramp[:, ::-1]

    (one,) = run(paths, mirrored, sizes=[COUNT])
    assert one.images[0, 0, 0, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_an_unreadable_file_is_told_by_position_and_the_others_stay(paths, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    mixed = [*paths[:2], broken, *paths[2:5], tmp_path / "gone.png"]
    first, second = run(mixed, sizes=[4, 3])
    assert first.index.tolist() == [0, 1, 3]
    assert second.index.tolist() == [4, 5]
    assert {**first.bad, **second.bad}.keys() == {2, 6}
    assert first.bad[2].path == broken
    assert second.bad[6].reason == "no such file"
    assert np.array_equal(first.images[2, 0].permute(1, 2, 0).numpy(), read(paths[2]))


def test_a_stretch_without_a_readable_file_is_an_empty_batch(paths, tmp_path):
    gone = [tmp_path / "a.png", tmp_path / "b.png"]
    empty, full = run([*gone, *paths[:2]], sizes=[2, 2])
    assert len(empty.images) == len(empty.index) == 0
    assert set(empty.bad) == {0, 1}
    assert full.index.tolist() == [2, 3]


def test_no_paths_make_no_batches():
    assert run([], sizes=even_parts(0, 4)) == []


def most_readers_at_once(paths, look, **options):
    """How many images were looked at at one time, at most."""
    now, most, lock = 0, 0, threading.Lock()

    def counted(image, position):
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        look()
        with lock:
            now -= 1
        return image

    run(paths * 9, counted, sizes=[9] * COUNT, **options)
    return most


def waits():
    time.sleep(0.01)


def test_threads_that_wait_for_a_disk_get_company(paths, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert most_readers_at_once(paths, waits) > 3
    assert most_readers_at_once(paths, waits, workers=2) <= 2


@pytest.mark.parametrize(
    ("took", "readers"),
    [([(1.0, 1.0)], 4), ([(1.0, 0.5), (2.0, 1.0)], 8), ([(1.0, 0.0)], 32), ([(0.5, 1.0)], 2)],
)
def test_readers_are_as_many_as_keep_four_cores_busy(took, readers):
    assert _readers(took, 4) == readers


def readers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("tlkit-read")]


def test_closing_early_ends_the_threads(paths):
    before = len(readers())
    stream = batches(paths, whole, sizes=[2, 2, 2, 5], at_least_px=0, workers=3)
    next(stream)
    assert len(readers()) > before
    stream.close()
    assert len(readers()) == before


def test_an_error_of_the_look_reaches_the_caller_and_ends_the_threads(paths):
    def fall_over(image, position):
        if position == 5:
            raise ArithmeticError("a fault of the program, not of the file")
        return image

    before = len(readers())
    with pytest.raises(ArithmeticError):
        run(paths, fall_over, workers=2)
    assert len(readers()) == before


@pytest.mark.parametrize("ahead", [0, 9])
def test_only_a_few_batches_are_read_ahead_or_as_many_images_as_may_be(paths, ahead):
    seen = []

    def note(image, position):
        seen.append(position)
        return image

    stream = batches(paths * 10, note, sizes=[2] * 55, at_least_px=0, workers=2, ahead=ahead)
    next(stream)
    most = 2 + max((AHEAD - 1) * 2, ahead)
    end = time.monotonic() + 60
    while len(seen) < most and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(seen) == most
    stream.close()


def test_images_that_wait_do_not_hide_how_many_are_to_read(paths):
    names = set()

    def wait(image, position):
        names.add(threading.current_thread().name)
        time.sleep(0.02)
        return image

    list(batches(paths * 6, wait, sizes=[6] * 11, at_least_px=0, ahead=66))
    assert len(names) > 2 * cores()  # the first pool's, and those of one that is larger


def test_the_size_wanted_reaches_the_reader(tmp_path):
    Image.new("RGB", (256, 256)).save(tmp_path / "a.jpg")
    shapes = []

    def note(image, position):
        shapes.append(image.shape[0])
        return image[:1, :1]

    for at_least in (0, 32):
        list(batches([tmp_path / "a.jpg"], note, sizes=[1], at_least_px=at_least))
    assert shapes[0] == 256 > shapes[1] >= 64


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(1, 8) | st.integers(1, 300))
@example(3, 2)
@example(2, 1)
def test_parts_add_up_are_even_and_leave_no_image_alone(count, most):
    sizes = even_parts(count, most)
    assert sum(sizes) == count
    if not sizes:
        assert count == 0
        return
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    assert sizes[-1] >= 1
    assert sizes[0] <= most + (most == 2)
    assert sizes[-1] > 1 or count == 1 or most == 1
    assert len(sizes) <= -(-count // most)
