"""Accuracy on photos never used for any choice, and that the installed weights see aright."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.models import ResNet18_Weights

import tlkit
from tlkit.data.sample import write_sample
from tlkit.data.transforms import plain
from tlkit.model.build import Plan, build
from tlkit.plugins import choose
from tlkit.steps import finish

DATA = Path(__file__).parents[2] / "shared" / "data"
PLAN = Plan(
    weights="default", attach="append", head="linear", hidden=1, dropout=0.0, pool="keep",
    freeze="backbone", seed=0,
)  # fmt: skip


@pytest.mark.skipif(not DATA.is_dir(), reason="the photo sets do not lie beside the project")
def test_ants_and_bees_with_default_options(tmp_path):
    result = tlkit.fit(DATA / "hymenoptera" / "train", out=tmp_path / "run")
    assert tlkit.load(result.head).evaluate(DATA / "hymenoptera" / "test").accuracy >= 0.945


@pytest.mark.parametrize(("photo", "wanted"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
def test_the_default_backbone_names_real_photos_as_imagenet_does(photo, wanted):
    """Pixels, mean, std, channel order and weights are right: its own classifier knows them."""
    model = build(choose("efficientnet_lite0").backbone, PLAN, 2).cut.model
    pixels = plain(model.spec, load_sample_image(photo))
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = model.body(model.neck(model.features(model.normalise(images))))
    assert ResNet18_Weights.DEFAULT.meta["categories"][logits.argmax()] == wanted


def test_digits_with_default_options(tmp_path):
    """On a tenth of the digits. Chance would be 0.1."""
    finish(write_sample("digits", tmp_path / "digits"))
    for path in (tmp_path / "digits").rglob("*[1-9].png"):
        path.unlink()
    result = tlkit.fit(tmp_path / "digits", out=tmp_path / "run")
    assert result.test.accuracy > 0.75
