"""Networks for small images."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import tlkit_small
import torch
from tlkit_small.layers import Inception
from torch import nn

import tlkit
from tlkit.errors import WeightsError
from tlkit.model.build import Plan, build
from tlkit.weights import obtain


def network(backbone):
    return backbone.build(obtain(backbone.weights(), "default"))


def assembled(backbone, **changes):
    plan = Plan(
        weights="none", attach="replace", head="linear", hidden=8, dropout=0.0, pool="keep",
        freeze="none", seed=0,
    )  # fmt: skip
    return build(backbone, replace(plan, **changes), 10).cut


@pytest.mark.parametrize("channels", [10, 20, 192])
def test_the_inception_module_gives_88_channels_and_keeps_the_size(channels):
    module = Inception(channels)
    assert module(torch.randn(2, channels, 12, 12)).shape == (2, 88, 12, 12)
    weights = sum(one.numel() for one in module.parameters() if one.ndim > 1)
    # 1x1, 1x1 + 5x5, 1x1 + 3x3 + 3x3, 1x1
    assert weights == (
        channels * 16 + channels * 16 + 16 * 24 * 25
        + channels * 16 + 16 * 24 * 9 + 24 * 24 * 9 + channels * 24
    )  # fmt: skip


def test_each_branch_stands_where_the_concatenation_says():
    module = Inception(3).eval()
    images = torch.randn(1, 3, 7, 7)
    with torch.no_grad():
        for first, branch in zip(
            (0, 16, 40, 64), (module.point, module.five, module.three, module.pooled), strict=True
        ):
            want = branch(images)
            assert torch.equal(module(images)[:, first : first + want.shape[1]], want)


@pytest.mark.parametrize(
    ("backbone", "modules"),
    [(tlkit_small.inception_small, 2), (tlkit_small.inception_small_deep, 6)],
)
def test_the_inception_nets_take_grey_digits_to_1408_numbers(backbone, modules):
    parts = network(backbone)
    assert parts.input.channels == 1
    assert sum(isinstance(one, Inception) for one in parts.features.modules()) == modules
    assert parts.neck(parts.features(torch.rand(2, 1, 28, 28))).shape == (2, 1408)


def test_the_small_vgg_has_11_convolutions_with_kaimings_variance():
    parts = network(tlkit_small.vgg_small)
    convolutions = [one for one in parts.features.modules() if isinstance(one, nn.Conv2d)]
    assert len(convolutions) == 11
    for one in convolutions[1:]:
        assert one.weight.std().item() == pytest.approx(
            (2 / (one.out_channels * 9)) ** 0.5, rel=0.03
        )
    linear = [one for one in parts.classifier if isinstance(one, nn.Linear)]
    assert [one.in_features for one in linear] == [2048, 4096, 4096]
    assert linear[1].weight.std().item() == pytest.approx(0.01, rel=0.01)


def test_the_small_vggs_pooling_does_nothing_to_images_of_32_px():
    """The two cases of the pooling study are one function there: a 2 x 2 map is pooled to 2 x 2."""
    kept, none = (
        assembled(tlkit_small.vgg_small, attach="last", pool=pool) for pool in ("keep", "flatten")
    )
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    for one in (kept, none):
        one.training(False)
    assert torch.equal(kept.model(images), none.model(images))
    for one in (kept, none):
        one.model(images).square().mean().backward()
    for name, parameter in kept.model.named_parameters():
        assert torch.equal(parameter.grad, none.model.get_parameter(name).grad), name


def test_average_pooling_leaves_the_small_vgg_a_quarter_of_the_vector():
    widths = {
        pool: assembled(tlkit_small.vgg_small, pool=pool).model.head.layers.in_features
        for pool in ("keep", "avg", "flatten")
    }
    assert widths == {"keep": 2048, "avg": 512, "flatten": 2048}


@pytest.mark.parametrize(
    ("backbone", "layers", "width"),
    [(tlkit_small.resnet20, 20, 64), (tlkit_small.densenet40, 40, 132)],
)
def test_the_residual_and_dense_nets_have_the_layers_of_their_names(backbone, layers, width):
    parts = network(backbone)
    weighted = [
        name
        for part in (parts.features, parts.classifier)
        for name, one in part.named_modules()
        if isinstance(one, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(weighted) == layers
    vector = parts.neck.eval()(parts.features.eval()(torch.randn(1, 3, 32, 32)))
    assert vector.shape == (1, width)


def test_a_state_of_ones_own_loads_into_the_network_and_default_means_random(tmp_path):
    random, other = network(tlkit_small.resnet20), network(tlkit_small.resnet20)
    parts = {"features": random.features, "neck": random.neck, "classifier": random.classifier}
    state = nn.Sequential(OrderedDict(parts)).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    weights = obtain(tlkit_small.resnet20.weights(), str(tmp_path / "mine.pth"))
    loaded = tlkit_small.resnet20.build(weights)
    key = "layer1.0.conv1.weight"
    assert torch.equal(loaded.features.state_dict()[key], random.features.state_dict()[key])
    assert not torch.equal(loaded.features.state_dict()[key], other.features.state_dict()[key])


def test_weights_that_nobody_published_cannot_be_fetched():
    with pytest.raises(WeightsError, match="no published weights"):
        tlkit_small.vgg_small.weights()[0].source.fetch()


@pytest.mark.parametrize("name", ["inception_small", "resnet20"])
def test_a_net_is_trained_from_scratch_saved_and_predicts_the_same(name, colours, tmp_path):
    result = tlkit.fit(
        colours, backbone=name, out=tmp_path / "run", epochs=1, batch=8, seed=3,
        optimizer="sgd", momentum=0.5, schedule="constant", lr=0.01, backbone_lr=0.01,
    )  # fmt: skip
    card = result.card
    assert (card.weights.name, card.plan["freeze"]) == ("none", "none")
    head = tlkit.load(result.head)
    assert head.card.input.channels == (1 if name == "inception_small" else 3)
    again = tlkit.fit(
        colours, backbone=name, out=tmp_path / "again", epochs=1, batch=8, seed=3,
        optimizer="sgd", momentum=0.5, schedule="constant", lr=0.01, backbone_lr=0.01,
    )  # fmt: skip
    one, other = (
        [row.probabilities for row in tlkit.load(path).predict(colours, tta="five")]
        for path in (result.head, again.head)
    )
    assert np.array_equal(one, other)
    assert head.evaluate(colours).images == 24
