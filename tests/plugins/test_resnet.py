from __future__ import annotations

from dataclasses import replace

import pytest
import tlkit_resnet
import torch
from torchvision.models import resnet18

from tlkit.errors import WeightsError
from tlkit.weights import obtain


@pytest.fixture(scope="module")
def reference(settle):
    torch.manual_seed(0)
    return settle(resnet18(weights=None))


@pytest.fixture
def cached(torch_home, reference):
    """A state file where torch.hub keeps the default weights of resnet18."""
    path = tlkit_resnet.resnet18.weights()[0].source.path()
    path.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), path)
    return path


def test_parts_together_equal_torchvision(reference, cached, offline, logits):
    weights = obtain(tlkit_resnet.resnet18.weights(), "default")
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(images)
    assert torch.equal(logits(tlkit_resnet.resnet18.build(weights), images), expected)
    assert weights.classes == 1000


def test_weights_are_on_the_disk_exactly_when_their_file_is(torch_home, cached):
    source = tlkit_resnet.resnet18.weights()[0].source
    assert source.on_disk()
    cached.unlink()
    assert not source.on_disk()


def test_file_of_the_users_loads_as_the_published_one_does(reference, tmp_path, logits):
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": reference.state_dict()}, path)
    network = tlkit_resnet.resnet18.build(obtain(tlkit_resnet.resnet18.weights(), str(path)))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = reference(images)
    assert torch.equal(logits(network, images), expected)


def test_file_that_is_cut_off_is_named(cached):
    cached.write_bytes(cached.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=cached.name):
        obtain(tlkit_resnet.resnet18.weights(), "default")


def test_weights_neither_here_nor_reachable_are_one_error(torch_home, offline):
    with pytest.raises(WeightsError) as caught:
        obtain(tlkit_resnet.resnet18.weights(), "default")
    assert "download.pytorch.org" in caught.value.found
    assert str(torch_home) in caught.value.do


def test_weights_of_another_depth_are_refused(reference):
    none = obtain(tlkit_resnet.resnet34.weights(), "none")
    weights = replace(none, name="file", state=reference.state_dict())
    with pytest.raises(WeightsError, match=r"layer1\.2\.conv1\.weight"):
        tlkit_resnet.resnet34.build(weights)


def test_default_is_the_set_that_torchvision_recommends():
    assert [one.name for one in tlkit_resnet.resnet50.weights()] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]
