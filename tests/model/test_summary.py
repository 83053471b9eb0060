"""Counting on empty networks: rows add up, and are what the built network has."""

import pytest
import tlkit_inception
import tlkit_lite
import tlkit_resnet
import tlkit_small
import tlkit_vgg
import torch
from torch import nn

from tlkit.backbone import InputSpec
from tlkit.model.summary import summarise

SPEC = InputSpec(crop_px=8, resize_px=8, mean=(0.5,), std=(0.5,), channels=1)


def on_meta(make):
    with torch.device("meta"):
        return make()


class Twice(nn.Module):
    """A layer used twice, a parameter of its own, and a product of no module."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64, bias=False)
        self.own = nn.Parameter(torch.zeros(64, 2))

    def forward(self, images):
        return self.layer(self.layer(images.flatten(1))) @ self.own


def test_columns_add_up_to_totals_at_every_depth():
    parts = {"twice": on_meta(Twice), "head": on_meta(lambda: nn.Sequential(nn.Linear(2, 3)))}
    for depth in (1, 2, 9):
        counted = summarise(parts, SPEC, depth=depth)
        assert counted.parameters == 64 * 64 + 64 * 2 + 2 * 3 + 3
        assert counted.multiply_adds == 2 * 64 * 64 + 64 * 2 + 2 * 3
        assert counted.parameters == sum(one.parameters for one in counted.rows)
    own = {one.name: (one.parameters, one.multiply_adds) for one in counted.rows}
    assert own["twice"] == (64 * 2, 64 * 2)
    assert own["twice.layer"] == (64 * 64, 2 * 64 * 64)


def test_multiply_adds_are_for_one_image_and_memory_is_for_all():
    parts = {"layer": on_meta(lambda: nn.Conv2d(1, 4, 3))}
    one, many = (summarise(parts, SPEC, batch=batch) for batch in (1, 5))
    assert one.multiply_adds == many.multiply_adds == 9 * 4 * 36
    assert (many.input_bytes, many.forward_bytes) == (5 * one.input_bytes, 5 * one.forward_bytes)
    assert one.forward_bytes == one.backward_bytes == 4 * 36 * 4
    assert many.rows[0].output == (5, 4, 6, 6)


def test_what_changes_nothing_or_works_in_place_takes_no_memory_of_its_own():
    plain = {"layer": on_meta(lambda: nn.Conv2d(1, 4, 3))}
    more = {**plain, "relu": nn.ReLU(inplace=True), "drop": nn.Dropout(), "flat": nn.Flatten()}
    assert summarise(more, SPEC).forward_bytes == summarise(plain, SPEC).forward_bytes
    copied = {**plain, "relu": nn.ReLU()}
    assert summarise(copied, SPEC).forward_bytes == 2 * summarise(plain, SPEC).forward_bytes


def test_frozen_parts_before_what_is_trained_keep_no_gradients():
    parts = {
        "first": on_meta(lambda: nn.Conv2d(1, 4, 3)),
        "flat": nn.Flatten(),
        "last": on_meta(lambda: nn.Linear(4 * 36, 2)),
    }
    parts["first"].requires_grad_(False)
    counted = summarise(parts, SPEC)
    assert counted.backward_bytes == 2 * 4
    assert (counted.frozen, counted.trainable) == (40, 4 * 36 * 2 + 2)
    assert [one.state for one in counted.rows] == ["frozen", "", "trainable"]


def test_counting_leaves_no_hooks_behind():
    layer = on_meta(lambda: nn.Conv2d(1, 4, 3))
    summarise({"layer": layer}, SPEC)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    "backbone",
    [
        tlkit_vgg.vgg11_bn,
        tlkit_resnet.resnet18,
        tlkit_inception.googlenet,
        tlkit_inception.inception_v3,
        tlkit_lite.efficientnet_lite0,
        tlkit_small.inception_small_deep,
        tlkit_small.densenet40,
    ],
    ids=lambda one: one.name,
)
def test_every_plugin_counts_as_torch_does(backbone):
    import tlkit

    own = tlkit.summary(backbone.name, depth=2)
    first = backbone.weights()[0]
    from tlkit.weights import unread

    network = on_meta(lambda: backbone.build(unread([first], "default")))
    parts = (network.features, network.neck, network.classifier)
    assert own.parameters == sum(p.numel() for part in parts for p in part.parameters())
    assert own.rows[-1].output == (1, first.classes or 10)
    assert own.input[1] == first.input.channels
