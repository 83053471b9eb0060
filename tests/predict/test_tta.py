"""Test-time views: where they lie, and that averaging keeps its laws."""

import numpy as np
import pytest

from tlkit.data.images import read
from tlkit.data.transforms import plain
from tlkit.errors import OptionError, UnknownName
from tlkit.options import PredictOptions
from tlkit.predict.tta import POLICIES, seen, views_of
from tlkit.testing import TINY

SPEC = TINY.weights()[0].input
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 91, 3), dtype=np.uint8)


def look(tta, image=IMAGE, **options):
    if tta == "multi":
        options = {"scales": "32,40", "grid": 3, **options}
    return seen(image, views_of(PredictOptions(tta=tta, **options), SPEC), SPEC)


def test_policy_none_is_the_view_of_evaluation():
    assert np.array_equal(look("none")[0], plain(SPEC, IMAGE))


def test_mirror_gives_a_picture_and_its_mirror_the_same_set_of_views():
    for tta in ("mirror", "ten", "multi"):
        one, other = look(tta), look(tta, image=np.ascontiguousarray(IMAGE[:, ::-1]))
        assert sorted(view.tobytes() for view in one) == sorted(view.tobytes() for view in other)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 2), ("five", 5), ("ten", 10)])
def test_a_policy_has_the_views_that_its_name_says(tta, count):
    assert look(tta).shape == (count, 32, 32, 3)


def test_multi_is_scales_times_grid_times_grid_times_mirror():
    assert len(look("multi")) == 2 * 3 * 3 * 2
    assert len(look("multi", mirror=False)) == 2 * 3 * 3
    paper = views_of(PredictOptions(tta="multi", scales="256,384,512", grid=5), SPEC)
    assert len(paper) == 150


def test_a_grid_reaches_every_corner_of_the_scaled_image():
    views = look("multi", scales="64", grid=2, mirror=False)
    from tlkit.data.images import resize

    scaled = resize(IMAGE, 64, "bilinear")
    corners = [scaled[:32, :32], scaled[:32, -32:], scaled[-32:, :32], scaled[-32:, -32:]]
    assert all(np.array_equal(view, corner) for view, corner in zip(views, corners, strict=True))


def test_a_grid_of_one_is_the_middle():
    views = look("multi", scales=str(SPEC.resize_px), grid=1, mirror=False)
    assert np.array_equal(views, look("none"))


def test_numbers_for_a_policy_without_numbers_are_refused():
    with pytest.raises(OptionError, match="--grid 3"):
        look("five", grid=3)


@pytest.mark.parametrize("scales", ["16", "256,", "abc", "", "-40", "256;384", "99999"])
def test_scales_that_cannot_be_used_say_what_can(scales):
    with pytest.raises(OptionError, match="--scales 32,48,64"):
        look("multi", scales=scales)


def test_an_unknown_policy_lists_them_all():
    with pytest.raises(UnknownName) as caught:
        look("mirorr")
    assert all(name in caught.value.expected for name in POLICIES)
    assert "'mirror'" in caught.value.do


def test_small_images_have_views_too():
    tiny = np.zeros((3, 9, 3), np.uint8)
    for tta in POLICIES:
        assert look(tta, image=tiny).shape[1:] == (32, 32, 3)


def test_reading_for_a_policy_keeps_enough_pixels(tmp_path):
    from PIL import Image

    path = tmp_path / "large.jpg"
    Image.fromarray(np.repeat(np.repeat(IMAGE, 12, axis=0), 12, axis=1)).save(path)
    assert min(read(path, at_least_px=100).shape[:2]) >= 200
