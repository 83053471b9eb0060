from __future__ import annotations

import re

import pytest
import tlkit_densenet
import torch
from torchvision.models import densenet121

from tlkit.weights import obtain


@pytest.fixture(scope="module")
def reference(settle):
    torch.manual_seed(0)
    return settle(densenet121(weights=None))


@pytest.fixture
def publish(torch_home, offline):
    """Puts a state where torch.hub keeps the published file."""
    path = tlkit_densenet.densenet121.weights()[0].source.path()
    path.parent.mkdir(parents=True)

    def write(state):
        torch.save(state, path)
        return obtain(tlkit_densenet.densenet121.weights(), "default")

    return write


def aged(state):
    """The state under the key names of the published files."""
    old = r"(denselayer\d+\.(?:norm|conv))([12])"
    return {re.sub(old, r"\1.\2", key): value for key, value in state.items()}


def test_published_file_with_old_names_gives_torchvisions_answer(reference, publish, logits):
    state = aged(reference.state_dict())
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(images)
    network = tlkit_densenet.densenet121.build(publish(state))
    assert torch.equal(logits(network, images), expected)


def test_published_file_older_than_batchnorms_counter_loads(reference, publish):
    state = aged(reference.state_dict())
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    network = tlkit_densenet.densenet121.build(publish(without))
    counters = [v for k, v in network.features.named_buffers() if k.endswith("tracked")]
    assert counters
    assert not any(counters)


def test_file_with_todays_names_loads_as_well(reference, publish):
    network = tlkit_densenet.densenet121.build(publish(reference.state_dict()))
    ours = network.features.block4[0].denselayer16.norm2.weight
    assert torch.equal(ours, reference.features.denseblock4.denselayer16.norm2.weight)
