"""Test-time views: where they lie, and that averaging keeps its laws."""

from dataclasses import replace

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
    return each(seen(image, views_of(PredictOptions(tta=tta, **options), SPEC), SPEC))


def each(found):
    """The pixels of every view."""
    return [found.pixels[place] for place in found.of]


CROPS = [name for name in POLICIES if not name.startswith("dense")]


def test_policy_none_is_the_view_of_evaluation():
    assert np.array_equal(look("none")[0], plain(SPEC, IMAGE))


@pytest.mark.parametrize("mode", ["center", "pad", "squash", "border"])
def test_every_crop_mode_has_its_plain_view_among_the_views(mode):
    spec = replace(SPEC, crop_mode=mode, resize_px=32 if mode != "pad" else 29)
    for tta in ("none", "mirror", "five", "ten"):
        found = each(seen(IMAGE, views_of(PredictOptions(tta=tta), spec), spec))
        assert np.array_equal(found[0], plain(spec, IMAGE))
        assert {view.shape for view in found} == {(32, 32, 3)}


def test_mirror_gives_a_picture_and_its_mirror_the_same_set_of_views():
    for tta in ("mirror", "ten", "multi", "vgg150", "dense", "dense+crops"):
        # Scales that OpenCV makes alike from both, to the last bit.
        scales = {"scales": "32,40"} if POLICIES[tta].uses else {}
        one, other = (look(tta, image, **scales) for image in (IMAGE, IMAGE[:, ::-1].copy()))
        assert sorted(view.tobytes() for view in one) == sorted(view.tobytes() for view in other)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 2), ("five", 5), ("ten", 10)])
def test_a_policy_has_the_views_that_its_name_says(tta, count):
    assert np.stack(look(tta)).shape == (count, 32, 32, 3)


def test_multi_is_scales_times_grid_times_grid_times_mirror():
    assert len(look("multi")) == 2 * 3 * 3 * 2
    assert len(look("multi", mirror=False)) == 2 * 3 * 3


def paper(tta, **options):
    spec = replace(SPEC, crop_px=224, resize_px=256)
    return views_of(PredictOptions(tta=tta, **options), spec)


def test_the_papers_evaluation_has_three_scales_and_150_crops():
    views = paper("vgg150")
    assert len(views) == 150 == len(set(views))
    assert {view.shorter_px for view in views} == {256, 384, 512}
    assert views == paper("multi", scales="256,384,512", grid=5)


@pytest.mark.parametrize("crop_px", [28, 32, 224, 240, 299])
def test_automatic_scales_are_as_much_larger_than_any_input_as_the_papers(crop_px):
    views = views_of(PredictOptions(tta="dense"), replace(SPEC, crop_px=crop_px, resize_px=400))
    factors = sorted({view.shorter_px / crop_px for view in views})
    assert factors == pytest.approx([8 / 7, 12 / 7, 16 / 7], abs=0.5 / crop_px + 1e-9)


def test_dense_is_the_whole_image_at_every_scale_and_mirrored():
    views = look("dense", scales="32,70")
    assert [view.shape for view in views] == [(32, 41, 3)] * 2 + [(70, 91, 3)] * 2
    assert np.array_equal(views[2], IMAGE)
    assert np.array_equal(views[3], IMAGE[:, ::-1])
    assert len(look("dense", mirror=False)) == 3


def test_dense_and_crops_count_alike_however_many_views_they_have():
    views = paper("dense+crops")
    dense, crops = ([one for one in views if one.whole is whole] for whole in (True, False))
    assert (len(dense), len(crops)) == (6, 150)
    assert sum(one.weight for one in dense) == pytest.approx(1)
    assert sum(one.weight for one in crops) == pytest.approx(1)


def test_each_scale_of_an_image_is_made_once(monkeypatch):
    import tlkit.predict.tta as module

    made = []
    real = module.scale
    monkeypatch.setattr(module, "scale", lambda *args: made.append(args[2]) or real(*args))
    look("dense+crops", scales="32,40,70")
    assert sorted(made) == [32, 40, 70]


@pytest.mark.parametrize(
    ("shape", "tta", "scales", "different"),
    [
        ((70, 70), "multi", "32", 2),  # nowhere to go but mirrored
        ((70, 91), "multi", "32", 6),  # three places from left to right
        ((70, 91), "multi", "32,40", 6 + 18),
        ((70, 91), "vgg150", "40", 50),
        ((70, 70), "dense+crops", "32", 4),
    ],
)
def test_the_same_square_of_an_image_is_taken_once(shape, tta, scales, different):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    options = {} if tta == "vgg150" else {"grid": 3}
    views = views_of(PredictOptions(tta=tta, scales=scales, **options), SPEC)
    found = seen(image, views, SPEC)
    assert len(found.pixels) == len(found.whole) == different
    assert len(found.of) == len(views)
    assert (
        len({(one.tobytes(), whole) for one, whole in zip(found.pixels, found.whole, strict=False)})
        == different
    )


@pytest.mark.parametrize("tta", POLICIES)
def test_grey_networks_get_one_channel(tta):
    grey = replace(SPEC, channels=1, mean=(0.5,), std=(0.5,))
    views = each(seen(IMAGE, views_of(PredictOptions(tta=tta), grey), grey))
    assert {view.shape[2] for view in views} == {1}


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
    with pytest.raises(OptionError, match="--grid 3") as caught:
        look("five", grid=3)
    assert caught.value.expected == "--tta multi or --tta dense+crops, which take it"
    for tta, number in (("vgg150", {"mirror": False}), ("dense", {"grid": 2})):
        with pytest.raises(OptionError, match=next(iter(number))):
            look(tta, **number)


@pytest.mark.parametrize("scales", ["16", "256,", "abc", "", "-40", "256;384", "99999"])
def test_scales_that_cannot_be_used_say_what_can(scales):
    with pytest.raises(OptionError, match="--scales 37,55,73"):
        look("multi", scales=scales)


def test_an_unknown_policy_lists_them_all():
    with pytest.raises(UnknownName) as caught:
        look("mirorr")
    assert all(name in caught.value.expected for name in POLICIES)
    assert "'mirror'" in caught.value.do


def test_small_images_have_views_too():
    tiny = np.zeros((3, 9, 3), np.uint8)
    for tta in CROPS:
        assert np.stack(look(tta, image=tiny)).shape[1:] == (32, 32, 3)
    assert {view.shape for view in look("dense", image=tiny, scales="32")} == {(32, 96, 3)}


def test_reading_for_a_policy_keeps_enough_pixels(tmp_path):
    from PIL import Image

    path = tmp_path / "large.jpg"
    Image.fromarray(np.repeat(np.repeat(IMAGE, 12, axis=0), 12, axis=1)).save(path)
    assert min(read(path, at_least_px=100).shape[:2]) >= 200
