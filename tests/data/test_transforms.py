"""Transforms: a view is a function of seed, image and number, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from tlkit.backbone import InputSpec
from tlkit.data.images import resize
from tlkit.data.transforms import PRESETS, augmentation, plain
from tlkit.errors import OptionError, UnknownName

SPEC = InputSpec(crop_px=16, resize_px=20, mean=(0.5,) * 3, std=(0.5,) * 3)
RANDOM = [name for name, one in PRESETS.items() if one.distinct is None]
IMAGE = np.random.default_rng(0).integers(0, 256, (28, 40, 3), dtype=np.uint8)


@lru_cache
def look_of(choice: str, seed: int = 0):
    return augmentation(choice, SPEC, seed).look


def views(choice: str, places, seed: int = 0) -> list[bytes]:
    look = look_of(choice, seed)
    return [look(IMAGE, number, view).tobytes() for number, view in places]


PLACES = [(number, view) for number in range(4) for view in range(4)]


def test_importing_the_module_imports_neither_albumentations_nor_torch():
    code = (
        "import sys, tlkit.data.transforms as t; "
        "s = t.InputSpec(crop_px=2, resize_px=2, mean=(0.,)*3, std=(1.,)*3); "
        "[t.augmentation(one, s, 0) for one in ('none', 'mirror')]; "
        "sys.exit('albumentations' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what every preset does -----------------------------------------------------------------------


@pytest.mark.parametrize("choice", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 16), (20, 20), (150, 200), (200, 9)])
def test_every_preset_gives_a_square_of_the_networks_size(choice, shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    for view in range(3):
        seen = look_of(choice)(image, 0, view)
        assert seen.shape == (16, 16, 3)
        assert seen.dtype == np.uint8
    assert np.array_equal(image, before)


@pytest.mark.parametrize("choice", PRESETS)
def test_a_view_can_be_computed_again_in_any_order_and_by_a_new_pipeline(choice):
    forward = views(choice, PLACES)
    assert views(choice, PLACES[::-1])[::-1] == forward
    fresh = augmentation(choice, SPEC, 0).look
    assert [fresh(IMAGE, *place).tobytes() for place in PLACES] == forward


@pytest.mark.parametrize("choice", PRESETS)
def test_many_threads_see_what_one_sees(choice):
    places = PLACES * 3
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda place: views(choice, [place])[0], places))
    assert seen == views(choice, PLACES) * 3


@pytest.mark.parametrize("choice", RANDOM)
def test_a_random_preset_repeats_itself_in_no_view_of_no_image_and_for_no_seed(choice):
    seen = [one for seed in range(3) for one in views(choice, PLACES, seed)]
    # An image cut to its full width can meet another such cut, rarely.
    assert len(set(seen)) >= len(seen) - 2


@pytest.mark.parametrize("choice", [name for name in PRESETS if name not in RANDOM])
def test_a_preset_without_chance_has_as_many_views_as_it_says(choice):
    seen = {view for seed in range(3) for view in views(choice, PLACES, seed)}
    assert len(seen) == PRESETS[choice].distinct


@pytest.mark.parametrize("choice", PRESETS)
def test_a_plain_colour_keeps_its_shape_and_stays_a_plain_colour_where_colour_is_kept(choice):
    flat = np.full((40, 30, 3), (200, 90, 40), np.uint8)
    for view in range(6):
        seen = look_of(choice)(flat, 0, view)
        if choice not in ("standard", "strong", "vgg"):
            assert (seen == (200, 90, 40)).all()


# --- the presets one by one -----------------------------------------------------------------------


def test_none_is_the_plain_view():
    for number, view in PLACES:
        assert np.array_equal(look_of("none")(IMAGE, number, view), plain(SPEC, IMAGE))


def test_the_plain_view_is_the_middle_of_the_resized_image():
    bicubic = replace(SPEC, interpolation="bicubic")
    small = IMAGE[:10, :12]
    # 20 x 24, and so 2 and 4 pixels from the edges.
    assert np.array_equal(plain(SPEC, small), resize(small, 20, "bilinear")[2:18, 4:20])
    assert np.array_equal(plain(bicubic, small), resize(small, 20, "bicubic")[2:18, 4:20])


def test_mirror_shows_the_plain_view_and_its_mirror_in_turn():
    look = look_of("mirror")
    assert np.array_equal(look(IMAGE, 0, 0), plain(SPEC, IMAGE))
    assert np.array_equal(look(IMAGE, 0, 1), look(IMAGE, 0, 0)[:, ::-1])
    assert np.array_equal(look(IMAGE, 0, 2), look(IMAGE, 0, 0))


def marked() -> np.ndarray:
    """Red above, blue below, brighter towards the right."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[:20, :, 0] = image[20:, :, 2] = np.linspace(60, 250, 40, dtype=np.uint8)
    return image


def is_mirrored(seen: np.ndarray) -> bool:
    light = seen.sum(axis=2).astype(int)
    return bool(light[:, :5].sum() > light[:, -5:].sum())


@pytest.mark.parametrize("choice", ["light", "standard", "strong"])
def test_about_half_of_the_views_are_mirrored(choice):
    count = sum(is_mirrored(look_of(choice)(marked(), 0, view)) for view in range(60))
    assert 15 <= count <= 45


def test_upright_views_are_never_mirrored_nor_upside_down():
    for view in range(60):
        seen = look_of("upright")(marked(), 0, view).astype(int)
        assert not is_mirrored(seen)
        assert seen[:3, :, 0].sum() > seen[:3, :, 2].sum()


def test_aerial_views_come_in_all_eight_orientations():
    square = augmentation("aerial", SPEC, 0).look
    kinds = set()
    for view in range(120):
        seen = square(marked(), 0, view).astype(int)
        red = [part[..., 0].sum() for part in (seen[:8], seen[8:], seen[:, :8], seen[:, 8:])]
        light = seen.sum(axis=2)
        ends = [part.sum() for part in (light[:, :5], light[:, -5:], light[:5], light[-5:])]
        upright = abs(red[0] - red[1]) > abs(red[2] - red[3])
        kinds.add(
            (upright, red[0] > red[1], ends[0] > ends[1])
            if upright
            else (upright, red[2] > red[3], ends[2] > ends[3])
        )
    assert len(kinds) == 8


# --- a user's own pipeline ------------------------------------------------------------------------


def write(path, *steps):
    """A pipeline as albumentations itself writes it."""
    library = pytest.importorskip("albumentations")
    kind = "json" if path.suffix == ".json" else "yaml"
    pipeline = library.Compose([getattr(library, name)(**options) for name, options in steps])
    library.save(pipeline, path, data_format=kind)
    return str(path)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml", "mine.json", "mine.YAML"])
def test_a_users_pipeline_is_applied_and_its_image_brought_to_size(tmp_path, name):
    one = augmentation(write(tmp_path / name, ("InvertImg", {"p": 1.0})), SPEC, 0)
    assert (one.name, one.distinct) == ("file", None)
    assert np.array_equal(one.look(IMAGE, 0, 0), plain(SPEC, 255 - IMAGE))


def test_a_users_pipeline_that_gives_the_right_size_is_not_resized_again(tmp_path):
    path = write(tmp_path / "mine.yaml", ("Resize", {"height": 16, "width": 16}))
    seen = augmentation(path, SPEC, 0).look(IMAGE, 0, 0)
    assert seen.shape == (16, 16, 3)
    assert not np.array_equal(seen, plain(SPEC, IMAGE))


def test_a_users_pipeline_draws_from_streams_of_its_own_too(tmp_path):
    path = write(
        tmp_path / "mine.yaml",
        ("RandomCrop", {"height": 16, "width": 16}),
        ("RandomBrightnessContrast", {"p": 1.0}),
    )
    forward = views(path, PLACES)
    assert len(set(forward)) == len(forward)
    assert views(path, PLACES[::-1])[::-1] == forward
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda place: views(path, [place])[0], PLACES)) == forward
    assert not set(views(path, PLACES, seed=1)) & set(forward)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json"])
@pytest.mark.parametrize("text", ["", "{", "- 1\n- 2", '{"transform": 3}', "a: !!python/object:x"])
def test_a_file_that_is_no_pipeline_is_an_error_that_names_it(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match="cannot be used") as caught:
        augmentation(str(tmp_path / name), SPEC, 0)
    assert name in caught.value.about
    assert "albumentations.save" in caught.value.expected


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OptionError, match="FileNotFoundError"):
        augmentation(str(tmp_path / "gone.yaml"), SPEC, 0)


@pytest.mark.parametrize("step", [("Normalize", {}), ("ToFloat", {}), ("ToTensorV2", {})])
def test_a_pipeline_that_does_not_give_an_image_is_told_to_leave_normalising_to_us(tmp_path, step):
    look = augmentation(write(tmp_path / "mine.yaml", step), SPEC, 0).look
    with pytest.raises(OptionError, match="take Normalize and ToTensorV2 out"):
        look(IMAGE, 0, 0)


def test_an_unknown_preset_lists_those_there_are_and_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'mirror'") as caught:
        augmentation("miror", SPEC, 0)
    assert all(name in caught.value.expected for name in PRESETS)
    assert ".yaml" in caught.value.expected


def test_every_preset_says_what_it_does():
    assert all(one.about for one in PRESETS.values())


def test_scale_jitter_draws_the_shorter_side_from_its_range():
    """A picture of a ramp: the step between neighbours tells how much it was enlarged."""
    ramp = np.broadcast_to((np.arange(64) * 3).astype(np.uint8)[None, :, None], (64, 64, 3)).copy()
    look = augmentation("vgg", SPEC, 0, jitter="64,128").look
    spans = set()
    for view in range(60):
        seen = look(ramp, 0, view)
        assert seen.shape == (SPEC.crop_px, SPEC.crop_px, 3)
        spans.add(int(np.ptp(seen[0, :, 0].astype(int))))
    assert min(spans) < 0.62 * max(spans)
    assert max(spans) <= 3 * SPEC.crop_px
    fixed = augmentation("vgg", SPEC, 0, jitter="64,64").look
    assert len({int(np.ptp(fixed(ramp, 0, view)[0, 2:-2, 0].astype(int))) for view in range(9)}) < 4


def test_the_automatic_jitter_is_the_papers_at_224_px():
    from dataclasses import replace

    from tlkit.data.transforms import _sizes

    assert _sizes("auto", replace(SPEC, crop_px=224, resize_px=256)) == (256, 512)


@pytest.mark.parametrize("choice", PRESETS)
def test_a_network_that_wants_grey_gets_one_channel_and_grey_stays_exactly_as_it_was(choice):
    grey = InputSpec(crop_px=20, resize_px=24, mean=(0.0,), std=(1.0,), channels=1)
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (24, 24, 1), np.uint8), 3, axis=2)
    seen = augmentation(choice, grey, 0).look(image, 0, 0)
    assert seen.shape == (20, 20, 1)
    assert seen.dtype == np.uint8
    if choice == "none":
        assert (seen == image[2:22, 2:22, :1]).all()
