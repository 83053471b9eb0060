from __future__ import annotations

import pytest
import tlkit_inception
import torch
from torchvision.models import googlenet, inception_v3

from tlkit.backbone import IMAGENET_MEAN, IMAGENET_STD
from tlkit.weights import obtain

BOTH = [(tlkit_inception.googlenet, googlenet), (tlkit_inception.inception_v3, inception_v3)]


def normalised(pixels, mean, std):
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("backbone", "library"), BOTH, ids=["googlenet", "inception_v3"])
def test_published_file_gives_torchvisions_answer_to_the_same_pixels(
    backbone, library, torch_home, offline, logits, settle
):
    torch.manual_seed(0)
    # As torchvision builds it for its weights: with auxiliary classifiers, and renormalising.
    reference = settle(
        library(weights=None, aux_logits=True, transform_input=True, init_weights=False),
        side=backbone.weights()[0].input.crop_px,
    )
    path = backbone.weights()[0].source.path()
    path.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), path)

    weights = obtain(backbone.weights(), "default")
    pixels = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        expected = reference(normalised(pixels, IMAGENET_MEAN, IMAGENET_STD))
    ours = normalised(pixels, weights.input.mean, weights.input.std)
    found = logits(backbone.build(weights), ours)
    # Of the largest: processors round the sums of convolutions differently.
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(("backbone", "library"), BOTH, ids=["googlenet", "inception_v3"])
def test_file_without_auxiliary_tensors_loads_as_well(backbone, library, tmp_path):
    path = tmp_path / "mine.pth"
    reference = library(weights=None, aux_logits=False, init_weights=False)
    torch.save(reference.state_dict(), path)
    network = backbone.build(obtain(backbone.weights(), str(path)))
    assert torch.equal(network.classifier[1].weight, reference.fc.weight)


@pytest.mark.parametrize("backbone", [one for one, _ in BOTH], ids=lambda one: one.name)
def test_images_are_normalised_to_a_half(backbone):
    spec = backbone.weights()[0].input
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)
    assert spec.crop_px == (299 if backbone.name == "inception_v3" else 224)
