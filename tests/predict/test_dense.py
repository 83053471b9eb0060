"""Dense evaluation: it is the convolutional network that the paper means, or it is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tlkit_densenet
import tlkit_inception
import tlkit_resnet
import tlkit_small
import tlkit_timm
import tlkit_vgg
import torch
from torch import nn

import tlkit
from tlkit.artifact import Head, read_card
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.data.images import read, resize
from tlkit.errors import OptionError
from tlkit.model.assemble import assemble
from tlkit.model.device import drawn
from tlkit.model.heads import make_head
from tlkit.options import PredictOptions
from tlkit.predict import dense
from tlkit.predict.dense import Window, window_of
from tlkit.predict.run import predict, prepare
from tlkit.testing import TINY
from tlkit.weights import obtain

CLASSES = ("blue", "green", "red")
HEAD = Path("run/head.safetensors")


@pytest.fixture(scope="module")
def card(colours, tmp_path_factory):
    """A card to hang on networks that were never fitted."""
    out = tmp_path_factory.mktemp("fit") / "run"
    return read_card(tlkit.fit(colours, backbone="tiny", epochs=1, out=out).head)


def network(backbone, *, head="linear", attach="replace", pool="keep", px=None):
    """A random network in eval mode; `px` makes its input smaller, for speed."""
    weights = obtain(backbone.weights(), "none" if backbone is not TINY else "default")
    px = px or weights.input.crop_px
    # Not enlarged before it is cropped: the plain view of an image of that size is the image.
    weights = replace(weights, input=replace(weights.input, crop_px=px, resize_px=px))
    with drawn("dense"):
        built = backbone.build(weights)
        model = assemble(
            built,
            lambda width: make_head(head, width, len(CLASSES), 8, 0.3),
            attach=attach,
            pool=pool,
        )
        norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
        for one in norms:
            one.momentum = 1.0
        side = model.spec.crop_px
        with torch.no_grad():
            images = torch.randint(0, 256, (2, model.spec.channels, side, side))
            if norms:  # with the initial statistics a deep random network's numbers vanish
                model.features.train()(model.normalise(images.byte()))
            # Of a size that makes classes differ, also behind many layers.
            model.eval()
            last = model.head.layers if head == "linear" else model.head.layers[-1]
            last.weight.mul_(3 / model(images.byte()).std())
    return model


def looked(model, card, paths, **options):
    """(N, C) probabilities of paths."""
    cool = replace(card.calibration, temperature=1.0)
    card = replace(card, classes=CLASSES, calibration=cool)
    head = Head(card=card, model=model, path=HEAD)
    return np.stack([one.probabilities for one in predict(head, paths, PredictOptions(**options))])


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Saves noise of a size as a file; the same size gives the same noise."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("noise")

    def make(height, width):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = folder / f"{height}x{width}.png"
        Image.fromarray(pixels).save(path)
        return path

    return make


NETWORKS = {
    "vgg11": (tlkit_vgg.vgg11, {"head": "mlp"}, True),
    "vgg11, pool flatten": (tlkit_vgg.vgg11, {"pool": "flatten", "px": 96, "head": "vgg"}, True),
    "vgg11, pool avg": (tlkit_vgg.vgg11, {"pool": "avg", "px": 64}, False),
    "vgg_small": (tlkit_small.vgg_small, {}, True),
    "vgg_small, last": (tlkit_small.vgg_small, {"attach": "last"}, True),
    "inception_small, grey": (tlkit_small.inception_small, {"attach": "append"}, True),
    "resnet18": (tlkit_resnet.resnet18, {"px": 96}, False),
    "densenet40": (tlkit_small.densenet40, {}, False),
    "densenet121": (tlkit_densenet.densenet121, {"px": 64}, False),
    "googlenet": (tlkit_inception.googlenet, {"attach": "append", "px": 64}, False),
    "inception_v3": (tlkit_inception.inception_v3, {"px": 107}, False),
    "timm/test_resnet": (tlkit_timm.timm.backbone("test_resnet"), {}, False),
    "timm/tf_efficientnet_lite0": (
        tlkit_timm.timm.backbone("tf_efficientnet_lite0"), {"px": 64, "attach": "append"}, False,
    ),
    "tiny": (TINY, {}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_of_the_inputs_size_gets_the_plain_answer(name, card, photo):
    backbone, options, by_windows = NETWORKS[name]
    model = network(backbone, **options)
    assert (window_of(model, name) is not None) == by_windows
    px = model.spec.crop_px
    path = photo(px, px)
    plain = looked(model, card, [path])
    assert plain.std() > 0.01  # else everything would agree
    found = looked(model, card, [path], tta="dense", scales=str(px), mirror=False)
    assert np.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("most", [1, dense.MOST])
def test_windows_are_the_network_with_its_linear_layers_made_convolutions(
    card, photo, monkeypatch, most
):
    monkeypatch.setattr(dense, "MOST", most)
    model = network(tlkit_small.vgg_small, head="mlp", attach="last")
    window = window_of(model, "")
    assert window == Window(height=2, width=2)
    scale = model.head.scale
    with torch.no_grad():
        scale.shift.normal_()
        scale.factor.uniform_(0.5, 2)
    body = [one for one in model.body if isinstance(one, nn.Linear | nn.ReLU)]
    convolutional = nn.Sequential(
        convolution(body[0], 2), *(convolution(one, 1) for one in body[1:])
    )
    layers = [convolution(one, 1) for one in model.head.layers]
    path = photo(70, 110)
    image = torch.from_numpy(resize(read(path), 48, "bilinear").copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = convolutional(model.features(model.normalise(image)))
        found = (found - scale.shift[:, None, None]) * scale.factor[:, None, None]
        scores = nn.Sequential(*layers)(found)
        assert scores.shape[2:] == (2, 3)
        wanted = scores.mean(dim=(2, 3)).softmax(dim=1).numpy()
    given = looked(model, card, [path], tta="dense", scales="48", mirror=False)
    assert np.allclose(given, wanted, atol=1e-5)


def convolution(layer, px):
    """A linear layer as a convolution of px by px; anything else as it is, in eval mode."""
    if not isinstance(layer, nn.Linear):
        return layer.eval()
    made = nn.Conv2d(layer.in_features // px**2, layer.out_features, px)
    with torch.no_grad():
        made.weight.copy_(layer.weight.unflatten(1, (-1, px, px)))
        made.bias.copy_(layer.bias)
    return made


def test_a_mean_is_the_score_map_averaged(card, photo):
    model = network(tlkit_resnet.resnet18, px=64)
    path = photo(100, 150)
    image = torch.from_numpy(read(path).copy()).permute(2, 0, 1)[None]
    layer = convolution(model.head.layers, 1)
    with torch.inference_mode():
        found = model.features(model.normalise(image))
        assert found.shape[3] > found.shape[2] > 2
        wanted = layer(found).mean(dim=(2, 3)).softmax(dim=1).numpy()
    given = looked(model, card, [path], tta="dense", scales="100", mirror=False)
    assert np.allclose(given, wanted, atol=1e-5)


def test_posteriors_are_averaged_over_scales_and_mirrors(card, photo):
    model = network(TINY)
    paths = [photo(50, 70), photo(64, 40)]
    single = [
        looked(model, card, paths, tta="dense", scales=scale, mirror=False)
        for scale in ("32", "41", "70")
    ]
    together = looked(model, card, paths, tta="dense", scales="32,41,70", mirror=False)
    assert np.allclose(together, np.mean(single, axis=0), atol=1e-6)
    from PIL import Image, ImageOps

    flipped = paths[0].with_name("flipped.png")
    ImageOps.mirror(Image.open(paths[0])).save(flipped)
    alone = looked(model, card, [paths[0], flipped], tta="dense", scales="41", mirror=False)
    both = looked(model, card, paths[:1], tta="dense", scales="41")
    assert np.allclose(both[0], alone.mean(axis=0), atol=1e-6)


def test_dense_and_crops_is_the_mean_of_the_two(card, photo):
    model = network(TINY)
    paths = [photo(50, 70)]
    dense_only = looked(model, card, paths, tta="dense")
    crops = looked(model, card, paths, tta="multi", grid=3)
    both = looked(model, card, paths, tta="dense+crops", grid=3)
    assert np.abs(dense_only - crops).max() > 1e-4
    assert np.allclose(both, (dense_only + crops) / 2, atol=1e-6)


def test_images_of_any_shape_come_in_order_and_each_as_if_alone(card, photo, tmp_path):
    model = network(tlkit_small.vgg_small)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    paths = [photo(40, 60), photo(60, 40), bad, photo(33, 200), photo(40, 60), photo(50, 50)]
    cool = replace(card.calibration, temperature=1.0)
    card = replace(card, classes=CLASSES, calibration=cool)
    head = Head(card=card, model=model, path=HEAD)
    options = PredictOptions(tta="dense", batch=16)
    results = list(predict(head, paths, options))
    assert [one.path for one in results] == paths
    assert results[2].reason
    for path, one in zip(paths, results, strict=True):
        if path != bad:
            assert np.allclose(
                looked(model, card, [path], tta="dense")[0], one.probabilities, atol=1e-6
            )


REFUSED = {
    "a hidden layer behind a mean": (TINY, {"head": "mlp"}, "ReLU"),
    "a maximum": (TINY, {"pool": "max"}, "max"),
    "mean and maximum": (TINY, {"pool": "avgmax"}, "avgmax"),
    "tokens": (tlkit_timm.timm.backbone("test_vit"), {}, "tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_dense_evaluation_says_why_before_an_image_is_read(
    name, card, monkeypatch, colours
):
    backbone, options, reason = REFUSED[name]
    monkeypatch.setattr("tlkit.data.batches.read", lambda *a, **k: pytest.fail("it was read"))
    head = Head(card=card, model=network(backbone, **options), path=HEAD)
    with pytest.raises(OptionError, match="no dense evaluation") as caught:
        next(predict(head, scan(colours).paths, PredictOptions(tta="dense")))
    assert reason in caught.value.found
    assert "run/head.safetensors" in caught.value.about


def test_features_of_one_size_and_features_that_pool_are_refused():
    model = network(TINY)
    inner = model.features

    class Fixed(nn.Module):
        def forward(self, images):
            if images.shape[3] != 32:
                raise AssertionError("32 only")
            return inner(images)

    model.features = Fixed()
    with pytest.raises(OptionError, match="refuse 32 x 49 pixels: AssertionError"):
        window_of(model, "")
    model.features = nn.Sequential(inner, nn.AdaptiveAvgPool2d(1))
    with pytest.raises(OptionError, match="does not grow"):
        window_of(model, "")


def test_a_scale_below_the_input_is_refused_for_dense_too(card):
    head = Head(card=card, model=network(TINY), path=HEAD)
    with pytest.raises(OptionError, match="--scales 31"):
        prepare([head], PredictOptions(tta="dense", scales="31,64"))


def test_a_fitted_head_evaluates_densely(colours, tmp_path):
    result = tlkit.fit(colours, backbone="tiny", epochs=3, out=tmp_path / "run")
    assert load(result.head).evaluate(colours, tta="dense").accuracy > 0.9


@pytest.mark.parametrize("options", [{}, {"pool": "flatten"}], ids=str)
def test_a_compiled_network_scores_whole_images_as_eager_does(options, colours):
    pytest.importorskip("openvino")
    head = tlkit.fit(colours, backbone="tiny", **options).head
    asked = tlkit.load(head)
    eager, compiled = (
        [one.probabilities for one in asked.predict(colours, tta="dense", engine=name)]
        for name in ("eager", "openvino")
    )
    assert np.allclose(eager, compiled, atol=1e-5)
