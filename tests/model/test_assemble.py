"""Assembling, cutting, freezing: laws over every way to attach, pool and freeze."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tlkit.backbone import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from tlkit.errors import OptionError, UnknownName
from tlkit.model.assemble import Normalise, Pool, assemble, cut
from tlkit.model.build import Plan, build, over
from tlkit.model.heads import make_head
from tlkit.testing import TINY
from tlkit.train.run import _stored_bytes
from tlkit.weights import obtain

PLAN = {
    "weights": "default", "attach": "replace", "head": "linear", "hidden": 6, "dropout": 0.5,
    "pool": "keep", "freeze": "features", "seed": 0,
}  # fmt: skip
IMAGES = torch.randint(
    0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def built(**changes):
    return build(TINY, Plan(**{**PLAN, **changes}), classes=3)


@pytest.mark.parametrize("freeze", ["features", "backbone", "none", "to:stage1", "to:stage2"])
@pytest.mark.parametrize("attach", ["replace", "last", "append"])
def test_frozen_then_trained_part_is_the_whole_model(attach, freeze):
    one = built(attach=attach, freeze=freeze).cut
    with torch.no_grad():
        assert torch.equal(one.trained(one.frozen(IMAGES)), one.model(IMAGES))


@pytest.mark.parametrize("freeze", ["features", "backbone", "none", "to:stage1", "to:stage2"])
@pytest.mark.parametrize("attach", ["replace", "last", "append"])
def test_trained_and_frozen_tensors_are_all_tensors_and_share_none(attach, freeze):
    one = built(attach=attach, freeze=freeze).cut
    trained, frozen = set(one.trained_tensors()), set(one.frozen_tensors())
    assert trained | frozen == set(one.model.state_dict())
    assert not trained & frozen
    assert any(name.startswith("head.") for name in trained)


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("features", {"features.stage1", "features.stage2"}),
        ("to:stage1", {"features.stage1"}),
        ("to:stage2", {"features.stage1", "features.stage2"}),
        ("none", set()),
    ],
)
def test_freezing_stops_at_the_stage_that_was_named(freeze, frozen):
    one = built(freeze=freeze).cut
    still = {
        ".".join(name.split(".")[:2])
        for name, parameter in one.model.named_parameters()
        if not parameter.requires_grad
    }
    assert still == frozen


def test_freeze_backbone_trains_the_head_alone_whatever_is_attached():
    for attach in ("replace", "last", "append"):
        one = built(attach=attach, freeze="backbone").cut
        assert one.head_only
        assert all(name.startswith("head.") for name in one.trained_tensors())


def test_freeze_features_trains_the_classifier_that_is_kept():
    names = built(attach="append", freeze="features").cut.trained_tensors()
    assert any(name.startswith("body.") for name in names)


def test_in_training_mode_frozen_modules_stay_in_evaluation_mode():
    one = built(freeze="to:stage1", head="mlp").cut
    one.training(True)
    stages = one.model.stages
    assert not any(module.training for module in stages["stage1"][0].modules())
    assert all(module.training for module in stages["stage2"][0].modules())
    assert one.model.head.training
    one.training(False)
    assert not any(module.training for module in one.model.modules())


def test_features_that_are_no_sequential_of_stages_are_never_cut_but_still_frozen():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            return self.inner(images)

    network = TINY.build(obtain(TINY.weights(), "default"))
    object.__setattr__(network, "features", Wrapped(network.features))
    model = assemble(
        network, lambda d: make_head("linear", d, 3, 1, 0), attach="replace", pool="keep"
    )
    one = cut(model, "to:stage1")
    assert not one.has_bank
    one.training(True)
    assert not model.stages["stage1"][0].training
    assert all("stage1" not in name for name in one.trained_tensors())
    assert cut(model, "features").head_only


@pytest.mark.parametrize(("attach", "width"), [("replace", 16), ("last", 16), ("append", 5)])
def test_the_head_gets_the_width_that_its_place_has(attach, width):
    head = built(attach=attach).cut.model.head
    assert head.layers.in_features == width


@pytest.mark.parametrize(
    ("how", "width"), [("avg", 16), ("max", 16), ("avgmax", 32), ("flatten", 16 * 8 * 8)]
)
def test_pooling_decides_the_width(how, width):
    assert built(pool=how).cut.model.head.layers.in_features == width


def test_pooling_sees_maps_and_tokens_alike():
    maps = torch.randn(2, 7, 3, 4)
    tokens = maps.flatten(2).mT
    for how in ("avg", "max", "avgmax"):
        assert torch.allclose(Pool(how)(maps), Pool(how)(tokens))
    assert torch.allclose(Pool("avg")(maps), maps.mean(dim=(2, 3)))


def test_a_pooling_that_does_not_fit_the_kept_classifier_is_refused_by_name():
    with pytest.raises(OptionError, match="--pool avgmax does not fit"):
        built(pool="avgmax", attach="append")


def test_append_without_a_classifier_says_so():
    network = TINY.build(obtain(TINY.weights(), "default"))
    object.__setattr__(network, "classifier", None)
    for attach in ("append", "last"):
        with pytest.raises(OptionError, match="never had a trained one"):
            assemble(network, lambda d: nn.Linear(d, 2), attach=attach, pool="keep")


def test_an_unknown_part_to_freeze_lists_the_stages():
    with pytest.raises(UnknownName, match="to:stage1, to:stage2"):
        built(freeze="to:stage3")
    with pytest.raises(UnknownName, match="features, backbone, none, to:STAGE"):
        built(freeze="feature")


def test_the_same_seed_builds_the_same_model_and_another_does_not():
    def tensors(seed, weights):
        return built(seed=seed, weights=weights).cut.model.state_dict()

    for weights in ("default", "none"):
        first, again, other = tensors(0, weights), tensors(0, weights), tensors(1, weights)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    built()
    assert torch.equal(torch.rand(3), wanted)


def test_normalisation_is_that_of_the_weights():
    model = built().cut.model
    spec = model.spec
    plain = IMAGES.float() / 255
    for channel in range(3):
        wanted = (plain[:, channel] - spec.mean[channel]) / spec.std[channel]
        assert torch.allclose(model.normalise(IMAGES)[:, channel], wanted)


@pytest.mark.parametrize("mean", [IMAGENET_MEAN, (0.0, 0.5, 1.0)])
def test_the_inverse_of_the_normalisation_gives_every_pixel_back(mean):
    normalise = Normalise(InputSpec(crop_px=16, resize_px=16, mean=mean, std=IMAGENET_STD))
    images = torch.arange(768).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    assert torch.equal(normalise.inverse(normalise(images)), images)
    assert normalise.inverse(torch.full((1, 3, 2, 2), 99.0)).unique().tolist() == [255]


def test_what_was_placed_elsewhere_gets_another_head_and_is_measured_there():
    """On meta, which has no numbers and refuses those that come from the processor."""
    one = built().cut
    one.model.to("meta")
    plan = Plan(**{**PLAN, "pool": "avgmax"})
    assert over(one, plan, 3).model.head.get_submodule("layers").in_features == 2 * 16
    assert _stored_bytes(one) == 16 * 4


class NormLinear(nn.Sequential):
    """A Sequential that is not made from its layers, as some libraries have."""

    def __init__(self, width, classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, classes)


def with_classifier(classifier, **changes):
    return replace(TINY.build(obtain(TINY.weights(), "default")), classifier=classifier, **changes)


def test_attach_last_keeps_what_stands_before_the_last_layer():
    classifier = NormLinear(16, 5)
    network = with_classifier(classifier)
    model = assemble(network, lambda width: nn.Linear(width, 3), attach="last", pool="keep")
    assert list(model.body.children()) == [classifier.norm]
    assert next(iter(model.body.state_dict())) == "norm.weight"


def test_attach_last_does_not_cut_a_sequential_that_does_something_of_its_own():
    class Scaled(NormLinear):
        def forward(self, vectors):
            return super().forward(2 * vectors)

    network = with_classifier(Scaled(16, 5))
    with pytest.raises(OptionError, match="ends in a linear layer"):
        assemble(network, lambda width: nn.Linear(width, 3), attach="last", pool="keep")


def test_a_missing_classifier_is_refused_for_the_reason_that_the_plugin_gives():
    for reason, text in (("", "never had a trained one"), ("it votes by token", "votes by token")):
        network = with_classifier(None, why_no_classifier=reason)
        with pytest.raises(OptionError, match=text):
            assemble(network, lambda width: nn.Linear(width, 3), attach="append", pool="keep")
