"""The verb `summary`: the published network, and the one that fit would build."""

import pytest

import tlkit
from tlkit.errors import OptionError, TlkitError, UnknownName, WeightsError
from tlkit.model.build import build
from tlkit.options import FitOptions
from tlkit.testing import TINY
from tlkit.train.recipe import plan_of, settle


def test_vgg16_has_the_parameters_of_the_paper():
    # 138 million (Simonyan and Zisserman 2014, table 2), to the last one as torchvision counts.
    whole = tlkit.summary("vgg16")
    assert whole.parameters == whole.trainable == 138_357_544
    # 15.5 G multiply-adds at 224 px: torchvision's own tables say 15.47.
    assert 15.47e9 < whole.multiply_adds < 15.48e9
    assert whole.parameter_bytes == 4 * 138_357_544


def test_resnet18_and_a_transformer_have_the_multiply_adds_that_are_published():
    # torchvision: 1.81 G. timm: 1.26 G for ViT-Ti/16, attention's products among them.
    assert 1.81e9 < tlkit.summary("resnet18").multiply_adds < 1.83e9
    assert 1.2e9 < tlkit.summary("timm/vit_tiny_patch16_224").multiply_adds < 1.3e9


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"head": "mlp", "hidden": 9, "dropout": 0.1},
        {"attach": "append", "freeze": "backbone"},
        {"attach": "append"},
        {"attach": "last", "pool": "max", "freeze": "to:stage1"},
        {"weights": "none"},
        {"strategy": "finetune"},
    ],
    ids=str,
)
def test_with_classes_it_is_what_fit_would_build(way):
    counted = tlkit.summary("tiny", classes=3, **way)
    options = settle(FitOptions(backbone="tiny", **way), TINY.weights())
    model = build(TINY, plan_of(options), 3).cut.model
    assert counted.parameters == sum(one.numel() for one in model.parameters())
    assert counted.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.rows[-1].output == (1, 3)


def test_nothing_is_downloaded_or_read(monkeypatch):
    monkeypatch.setattr(type(TINY.weights()[0].source), "fetch", lambda self: 1 / 0)
    assert tlkit.summary("tiny", classes=2, freeze="none").frozen == 0


def test_another_size_where_the_network_takes_it():
    small, large = tlkit.summary("tiny"), tlkit.summary("tiny", px=64, batch=2)
    assert large.input == (2, 3, 64, 64)
    assert large.parameters == small.parameters
    assert large.multiply_adds > 3 * small.multiply_adds
    with pytest.raises(OptionError, match="28 is its own"):
        tlkit.summary("inception_small", px=8)
    with pytest.raises(OptionError, match="224 is its own"):
        tlkit.summary("timm/vit_tiny_patch16_224", px=250, classes=2)


def test_weights_without_a_classifier_show_none():
    names = [one.name for one in tlkit.summary("vgg11_bn", depth=1).rows]
    assert names == ["features", "neck", "classifier"]
    whole = tlkit.summary("vgg16", weights="IMAGENET1K_FEATURES", depth=1)
    assert [one.name for one in whole.rows] == ["features", "neck"]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"head": "mlp"}, OptionError, "--classes N"),
        ({"freeze": "none"}, OptionError, "--classes N"),
        ({"classes": 3, "hidden": 9}, OptionError, "linear has none"),
        ({"classes": 3, "head": "linaer"}, UnknownName, "linear"),
        ({"classes": 3, "freeze": "to:x"}, UnknownName, "to:stage1"),
        ({"classes": 3, "strategy": "probe", "freeze": "none"}, OptionError, "contradict"),
        ({"classes": 3, "strategy": "finetune", "freeze": "features"}, OptionError, "nothing to"),
        ({"weights": "missing.pth"}, WeightsError, "missing.pth"),
        ({"weights": "sedded"}, UnknownName, "seeded"),
        ({"depht": 2}, UnknownName, "depth"),
        ({"depth": 0}, OptionError, "from 1"),
    ],
    ids=str,
)
def test_what_cannot_be_or_would_be_ignored_is_refused(options, kind, text):
    with pytest.raises(kind, match=text):
        tlkit.summary("tiny", **options)


def test_an_unknown_backbone_is_guessed():
    with pytest.raises(TlkitError, match="vgg16"):
        tlkit.summary("vgg_16")
