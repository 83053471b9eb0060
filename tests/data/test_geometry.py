"""Geometry: what a network sees is what the library of its weights shows it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import tlkit_timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.models import get_pretrained_cfg
from torchvision.models import get_model_weights

from tlkit.backbone import InputSpec
from tlkit.data.geometry import cover, crop, detail, offset, scale, scaled_size
from tlkit.data.images import Faithful, read
from tlkit.data.transforms import PRESETS, augmentation, plain
from tlkit.plugins import choose, find

PHOTOS = Path(__file__).parents[3] / "shared" / "data"
LEVELS = 2
"""Largest difference to what Pillow makes of the same pixels."""

SIZES = (
    (37, 500), (501, 333), (333, 500), (499, 375), (375, 499), (224, 225), (301, 224), (61, 40),
    (613, 459), (400, 400),
)  # fmt: skip
"""Height and width."""


def made_photos() -> list[np.ndarray]:
    """Coarse patterns with noise, of sizes that no factor divides."""
    photos = []
    for number, (height, width) in enumerate(SIZES):
        random = np.random.default_rng(number)
        y, x = np.mgrid[0:height, 0:width]
        waves = [128 + 90 * np.sin(x / (3 + k) + y / (7 - k) + number) for k in range(3)]
        noise = random.normal(0, 12, (height, width, 3))
        photos.append(np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8))
    return photos


def real_photos(count: int = 50) -> list[np.ndarray]:
    """Photos of people's cameras, spread over the sets that lie beside the project."""
    paths = sorted(PHOTOS.glob("*/*/*/*.jpg"))
    if len(paths) < count:
        pytest.skip(f"fewer than {count} photos in {PHOTOS}")
    return [read(path) for path in paths[:: len(paths) // count][:count]]


@pytest.fixture(scope="module", params=["made", "real"])
def photos(request):
    return made_photos() if request.param == "made" else real_photos()


def torchvision_weights():
    """Each different preprocessing of the weights of every network that comes from torchvision."""
    different = {}
    for entry in find():
        if entry.distribution != "tlkit" or entry.name in ("timm", "tiny"):
            continue
        try:
            published = get_model_weights(entry.name)
        except ValueError:  # a network that torchvision does not have
            continue
        specs = {one.name: one.input for one in choose(entry.name).backbone.weights()}
        for member in published:
            preset = member.transforms()
            key = (preset.crop_size[0], preset.resize_size[0], preset.interpolation.value)
            different[key] = (specs[member.name], preset)
    return different


def test_every_torchvision_weight_set_sees_what_its_own_transform_shows(photos):
    different = torchvision_weights()
    assert {key[0] for key in different} >= {224, 299}
    for spec, preset in different.values():
        # Before the normalisation, which is checked with the weights.
        preset.mean, preset.std = [0.0] * 3, [1.0] * 3
        for photo in photos:
            shown = (preset(Image.fromarray(photo)) * 255).round().permute(1, 2, 0).numpy()
            assert_same_view(spec, photo, shown)


def assert_same_view(spec: InputSpec, photo: np.ndarray, shown: np.ndarray) -> None:
    """The very pixels by Pillow's resampling; a level or two beside them by tlkit's own."""
    assert np.array_equal(by_pillow(spec, photo, in_passes=False), shown)
    seen = plain(spec, photo).astype(int)
    # In passes, because some versions of Pillow scale columns before rows where that is faster.
    assert np.abs(seen - by_pillow(spec, photo, in_passes=True)).max() <= LEVELS
    assert np.abs(seen - shown).mean() < 0.5


def by_pillow(spec: InputSpec, photo: np.ndarray, *, in_passes: bool) -> np.ndarray:
    """The plain view, resampled by Pillow; `in_passes` rows before columns."""

    def resize_to(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
        how = Image.Resampling[interpolation.upper()]
        scaled = Image.fromarray(image)
        if in_passes:
            scaled = scaled.resize((size[1], scaled.height), how)
        return np.asarray(scaled.resize(size[::-1], how))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlkit.data.geometry.resize_to", resize_to)
        return plain(spec, photo)


@lru_cache
def timm_tags() -> list[str]:
    """One tag for each different preprocessing of timm's weights."""
    import timm

    different = {}
    for tag in timm.list_pretrained():
        cfg = get_pretrained_cfg(tag)
        border = cfg.mean if cfg.crop_mode == "border" else None
        key = (cfg.input_size, cfg.crop_pct, cfg.crop_mode, cfg.interpolation, border)
        different.setdefault(key, tag)
    return sorted(different.values())


@lru_cache
def spec_of(tag: str) -> InputSpec:
    # As the weight set has it, which takes a quarter of a second to look up.
    return tlkit_timm._input(tag)


def shown_by_timm(tag: str, photo: np.ndarray) -> np.ndarray:
    """What timm's own evaluation makes of a photo, before the normalisation."""
    cfg = get_pretrained_cfg(tag)
    transform = create_transform(
        cfg.input_size, is_training=False, interpolation=cfg.interpolation, mean=cfg.mean,
        std=cfg.std, crop_pct=cfg.crop_pct, crop_mode=cfg.crop_mode, normalize=False,
    )  # fmt: skip
    return transform(Image.fromarray(photo)).permute(1, 2, 0).numpy()


def test_the_tags_of_timm_have_every_crop_mode_and_a_rectangle():
    specs = [spec_of(tag) for tag in timm_tags()]
    assert {one.crop_mode for one in specs} == {"center", "pad", "squash", "border"}
    assert any(one.size[0] != one.size[1] for one in specs)


def test_every_timm_weight_set_sees_what_its_own_transform_shows(photos):
    # Each tag two photos in turn, so that all of both are looked at, and the suite stays quick.
    turn = cycle(photos)
    for tag in timm_tags():
        spec = spec_of(tag)
        for photo in islice(turn, 2):
            assert_same_view(spec, photo, shown_by_timm(tag, photo))


USUAL = ("resnet50.a1_in1k", "resnet50.tv_in1k", "vit_base_patch16_siglip_224.webli")


@pytest.mark.parametrize("tag", USUAL)
def test_usual_tags_of_timm_see_all_photos_as_timm_does(tag, photos):
    spec = spec_of(tag)
    assert spec in [one.input for one in choose(f"timm/{tag}").backbone.weights()]
    for photo in photos:
        assert_same_view(spec, photo, shown_by_timm(tag, photo))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite_sees_what_timm_shows_it(number, photos):
    (weights,) = choose(f"efficientnet_lite{number}").backbone.weights()
    tag = f"tf_efficientnet_lite{number}.in1k"
    assert (weights.input.mean, weights.input.std) == (
        get_pretrained_cfg(tag).mean, get_pretrained_cfg(tag).std,
    )  # fmt: skip
    for photo in photos:
        assert_same_view(weights.input, photo, shown_by_timm(tag, photo))


def test_the_original_classifier_answers_as_it_does_on_timms_own_crops():
    from tlkit.weights import obtain

    backbone = choose("efficientnet_lite0").backbone
    weights = obtain(backbone.weights(), "default")
    network = backbone.build(weights)
    parts = network.features, network.neck, network.classifier
    classifier = torch.nn.Sequential(*parts).eval()

    def labels(views):
        images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return classifier((images - 0.5) / 0.5).argmax(dim=1)

    photos = real_photos()
    ours = labels([plain(weights.input, photo) for photo in photos])
    theirs = labels([shown_by_timm("tf_efficientnet_lite0.in1k", photo) for photo in photos])
    assert torch.equal(ours, theirs)


# --- what the libraries leave open ----------------------------------------------------------------

SPEC = InputSpec(crop_px=16, resize_px=20, mean=(0.5,) * 3, std=(0.5,) * 3)
TALL = replace(SPEC, crop_px=24, crop_width_px=16, resize_px=30, resize_width_px=20)
MODES = [
    SPEC,
    TALL,
    replace(SPEC, crop_mode="squash"),
    replace(TALL, crop_mode="squash"),
    replace(SPEC, crop_mode="border"),
    replace(SPEC, crop_mode="pad", resize_px=12),
]


@pytest.mark.parametrize("spec", MODES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (5, 700), (33, 31), (16, 16), (200, 9)])
@pytest.mark.parametrize("choice", ["none", "light", "vgg"])
def test_every_view_has_the_networks_size_whatever_the_mode(spec, shape, choice):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert choice in PRESETS
    assert augmentation(choice, spec, 0).look(image, 0, 0).shape == (*spec.size, 3)


def test_a_border_has_the_mean_and_padding_is_black():
    white = np.full((20, 40, 3), 255, np.uint8)
    bordered = plain(replace(SPEC, crop_mode="border", resize_px=16, mean=(0.2, 0.4, 0.6)), white)
    assert bordered[0, 8].tolist() == [51, 102, 153]
    assert bordered[8, 8].tolist() == [255] * 3
    padded = plain(replace(SPEC, crop_mode="pad", resize_px=12), white)
    assert padded[0, 8].tolist() == [0] * 3


def test_a_squashed_image_is_there_from_edge_to_edge():
    halves = np.zeros((40, 200, 3), np.uint8)
    halves[:, 190:] = 255
    squashed = plain(replace(SPEC, crop_mode="squash", resize_px=16), halves)
    assert squashed[8, -1].min() > 150
    assert squashed[8, 0].max() == 0
    assert plain(SPEC, halves).max() == 0


@pytest.mark.parametrize("shape", [(10, 10), (11, 16), (16, 11), (10, 30)])
def test_the_middle_has_as_much_left_out_on_either_side(shape):
    height, width = shape
    rows = np.repeat(np.arange(height, dtype=np.uint8)[:, None], width, axis=1)
    columns = np.repeat(np.arange(width, dtype=np.uint8)[None], height, axis=0)
    spec = replace(SPEC, crop_px=10)
    square = crop(spec, np.stack([rows, columns, rows], axis=2))
    assert square.shape == (10, 10, 3)
    for first, last, side in (
        (square[0, 0, 0], square[-1, -1, 0], height),
        (square[0, 0, 1], square[-1, -1, 1], width),
    ):
        assert int(last) - int(first) == 9
        assert abs(int(first) - (side - 1 - int(last))) <= 1


@pytest.mark.parametrize("spec", [SPEC, TALL])
@pytest.mark.parametrize("shape", [(1, 9), (31, 47), (100, 30)])
def test_an_image_that_is_covered_has_room_for_a_crop_of_that_height(spec, shape):
    px = 2 * spec.crop_px
    covered = cover(spec, np.zeros((*shape, 3), np.uint8), px)
    assert covered.shape[0] >= px
    assert covered.shape[1] >= px * spec.size[1] // spec.size[0]


def test_the_first_version_rounds_as_tlkit_0_1_0_did():
    first = SPEC.as_of_0_1_0()
    assert scaled_size(SPEC, 50, 71, 20) == (20, 28)
    assert scaled_size(SPEC, 50, 74, 20) == (20, 29)
    assert scaled_size(first, 50, 74, 20) == (20, 30)
    assert (offset(SPEC, 7), offset(first, 7)) == (4, 3)
    assert detail(first) == 20
    assert detail(SPEC) == Faithful(px=20)


def test_the_first_version_knew_the_middle_alone():
    for spec in (replace(SPEC, crop_mode="squash"), replace(SPEC, crop_mode="pad", resize_px=12)):
        first = spec.as_of_0_1_0()
        assert (first.crop_mode, first.preprocessing) == ("center", 1)
        assert first.resize_px >= first.crop_px
        image = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
        assert not np.array_equal(plain(spec, image), plain(first, image))


def test_scaling_to_another_size_keeps_the_mode():
    image = np.zeros((40, 80, 3), np.uint8)
    assert scale(SPEC, image, 30).shape[:2] == (30, 60)
    assert scale(replace(SPEC, crop_mode="squash"), image, 30).shape[:2] == (30, 30)
    assert scale(replace(SPEC, crop_mode="border"), image, 30).shape[:2] == (15, 30)
    assert scale(TALL, image, 60).shape[:2] == (60, 120)


@pytest.mark.parametrize("mode", ["squash", "center"])
def test_a_network_for_rectangles_is_fitted_asked_and_explained(mode, install, colours, tmp_path):
    import tlkit
    from tlkit.report.explain import explain

    install(
        "tlkit-tall",
        "from dataclasses import replace\n"
        "from tlkit.testing import TINY\n"
        "def weights():\n"
        "    (one,) = TINY.weights()\n"
        "    sizes = dict(crop_px=40, crop_width_px=24, resize_px=50, resize_width_px=30)\n"
        f"    return (replace(one, input=replace(one.input, crop_mode={mode!r}, **sizes)),)\n"
        "tall = replace(TINY, name='tall', weights=weights)\n",
        ["tall"],
    )
    result = tlkit.fit(colours, backbone="tall", out=tmp_path / "run")
    head = tlkit.load(result.head)
    assert head.evaluate(colours).accuracy > 0.9
    for tta in ("mirror", "multi", "dense"):
        assert len(head.predict(colours, tta=tta)) == 24
    (shown,) = explain(head.head, [next(colours.rglob("*.png"))])
    height, width = shown.square.shape[:2]
    assert height / width == pytest.approx(40 / 24)
    assert shown.overlay().shape == shown.square.shape
