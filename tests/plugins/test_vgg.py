from __future__ import annotations

from dataclasses import replace

import pytest
import tlkit_vgg
import torch
from torchvision.models import vgg11_bn

from tlkit.weights import obtain


@pytest.fixture(scope="module")
def reference(settle):
    torch.manual_seed(0)
    return settle(vgg11_bn(weights=None))


@pytest.fixture
def weights(reference):
    """The default set as `obtain` gives it, without 500 MB on the disk."""
    none = obtain(tlkit_vgg.vgg11_bn.weights(), "none")
    return replace(none, name="IMAGENET1K_V1", classes=1000, state=reference.state_dict())


def test_parts_together_equal_torchvision(reference, weights, logits):
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(images)
    assert torch.equal(logits(tlkit_vgg.vgg11_bn.build(weights), images), expected)


def test_blocks_each_halve_the_image(weights):
    network = tlkit_vgg.vgg11_bn.build(weights)
    found = torch.randn(1, 3, 64, 64)
    sides = []
    for block in network.features.eval():
        found = block(found)
        sides.append(found.shape[-1])
    assert sides == [32, 16, 8, 4, 2]
    assert network.neck(found).shape == (1, 25088)


def test_set_that_never_had_a_classifier_gives_none(weights):
    features_only = replace(weights, name="IMAGENET1K_FEATURES", classes=None)
    assert tlkit_vgg.vgg11_bn.build(features_only).classifier is None


def test_random_network_and_file_keep_their_classifier(weights):
    as_file = replace(weights, name="file", classes=None)
    assert tlkit_vgg.vgg11_bn.build(as_file).classifier is not None
    with torch.device("meta"):
        random = tlkit_vgg.vgg11_bn.build(replace(weights, name="none", classes=None, state=None))
    assert random.classifier is not None


def test_two_sets_of_vgg16_expect_different_colours():
    sets = {one.name: one for one in tlkit_vgg.vgg16.weights()}
    assert list(sets) == ["IMAGENET1K_V1", "IMAGENET1K_FEATURES"]
    full, features = sets.values()
    assert full.input.std != features.input.std
    assert (full.classes, features.classes) == (1000, None)


def test_loaded_network_keeps_nothing_of_unset_memory(weights):
    network = tlkit_vgg.vgg11_bn.build(weights)
    held = {id(one) for one in network.features.buffers()}
    assert len(held) == 24
    assert all(bool(one.isfinite().all()) for one in network.features.buffers())
    assert network.features.block1[1].num_batches_tracked == 1
