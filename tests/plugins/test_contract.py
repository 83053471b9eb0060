"""Every backbone that comes with tlkit keeps the contract."""

from __future__ import annotations

import socket
from collections import OrderedDict
from dataclasses import replace

import pytest
import tlkit_densenet
import tlkit_inception
import tlkit_lite
import tlkit_resnet
import tlkit_small
import tlkit_timm
import tlkit_vgg
import torch
from torch import nn

from tlkit.backbone import Backbone
from tlkit.errors import PluginError, UnknownName
from tlkit.testing import CHECKS, TINY, check_backbone, checks_for
from tlkit.weights import obtain

PLUGINS = (tlkit_vgg, tlkit_resnet, tlkit_densenet, tlkit_inception, tlkit_lite, tlkit_small)
EVERY = [one for plugin in PLUGINS for one in vars(plugin).values() if isinstance(one, Backbone)]

TIMM_NAMES = ("resnet18", "vit_tiny_patch16_224", "convnext_atto")
TIMM_SHAPES = (
    *TIMM_NAMES,
    "efficientnet_lite0",
    "vit_base_patch16_224.dino",  # published without classifier
    "deit_tiny_distilled_patch16_224",  # two classifiers
    "swin_tiny_patch4_window7_224",  # maps with the channels last
    "crossvit_9_240",  # two scales
    "coat_lite_tiny",  # parameters shared between blocks
    "resnetv2_50",  # a convolution as classifier
    "efficientvim_m1_dist",  # both of these
    "botnet50ts_256",  # never published
)
KNOWN = set(tlkit_timm.timm.names())


@checks_for(
    tlkit_lite.efficientnet_lite0,
    tlkit_vgg.vgg11_bn,
    tlkit_resnet.resnet18,
    tlkit_densenet.densenet121,
    tlkit_inception.googlenet,
    tlkit_inception.inception_v3,
    tlkit_small.inception_small,
    tlkit_small.resnet20,
    *(tlkit_timm.timm.backbone(name) for name in TIMM_NAMES),
    TINY,
)
def test_representatives_keep_every_law(check):
    check()


@pytest.mark.parametrize(
    "backbone",
    # An older timm has not all of them.
    [*EVERY, *(tlkit_timm.timm.backbone(name) for name in TIMM_SHAPES if name in KNOWN)],
    ids=lambda one: one.name,
)
def test_every_variant_is_put_together_soundly(backbone):
    def build(weights):
        # Shapes without numbers: VGG19 in a millisecond.
        with torch.device("meta"):
            return backbone.build(weights)

    on_meta = replace(backbone, build=build)
    for law in (
        "weight_sets_are_sound",
        "neck_holds_no_parameters",
        "stages_hold_every_parameter_once",
        "sequential_features_are_the_stages",
    ):
        CHECKS[law](on_meta)


def test_backbones_are_named_as_their_attributes():
    for plugin in PLUGINS:
        for name, one in vars(plugin).items():
            if isinstance(one, Backbone):
                assert one.name == name


def test_variants_are_all_there():
    assert {one.name for one in EVERY} == {
        *(f"vgg{n}{norm}" for n in (11, 13, 16, 19) for norm in ("", "_bn")),
        *(f"resnet{n}" for n in (18, 34, 50, 101, 152)),
        *(f"densenet{n}" for n in (121, 161, 169, 201)),
        *("googlenet", "inception_v3"),
        *(f"efficientnet_lite{n}" for n in (0, 1, 2)),
        *("inception_small", "inception_small_deep", "vgg_small", "resnet20", "densenet40"),
    }


# --- a law that nothing can break says nothing: each is broken here, by a change of TINY ---


class Apply(nn.Module):
    """A function as a module; it may look at `training`."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def changed(change):
    """TINY, its built network changed."""

    def build(weights):
        network = TINY.build(weights)
        return replace(network, **change(network))

    return replace(TINY, build=build)


def with_sets(**changes):
    sets = tuple(replace(one, **changes) for one in TINY.weights())
    return replace(TINY, weights=lambda: sets)


def with_neck(function):
    return changed(lambda network: {"neck": nn.Sequential(network.neck, Apply(function))})


def in_a_closure(network):
    inner = network.features
    outer = Apply(lambda _, x: inner(x))
    outer.register_parameter("first", inner.stage1[0].weight)
    return {"features": outer, "stages": {"all": (outer.first,)}}


def own_generator(network):
    nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(next(COUNT)))
    return {}


COUNT = iter(range(1000))


def asking(weights):
    with socket.create_connection(("weights.example", 443)):
        return TINY.build(weights)


def counts_its_steps(network):
    def count(self, x):
        if torch.is_grad_enabled():
            self.steps += 1
        return x

    last = Apply(count)
    last.register_buffer("steps", torch.zeros(1))
    stages = {**{name: part for name, (part,) in network.stages.items()}, "count": last}
    features = nn.Sequential(OrderedDict(stages))
    return {"features": features, "stages": {name: (part,) for name, part in stages.items()}}


def draws_a_buffer(network):
    network.features.stage2[1].running_mean.fill_(float(next(COUNT)))
    return {}


def clips_what_it_flattens(network):
    """The noise that the neck is judged by has no number this large."""
    network.features.stage2.append(Apply(lambda _, x: 1000 * x))
    return {"neck": Apply(lambda _, x: x.flatten(1).clamp(max=100))}


def without_its_norm(weights):
    """A classifier of BatchNorm and a linear layer, of which the linear layer alone is given."""
    network = TINY.build(obtain(TINY.weights(), "none"))
    whole = nn.Sequential(
        OrderedDict(
            features=network.features,
            neck=network.neck,
            classifier=nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(16), last=nn.Linear(16, 5))),
        )
    )
    weights.load_into(whole)
    return replace(network, classifier=whole.classifier.last)


def whole_network(change):
    """TINY, whose parts are changed after its weights are loaded."""

    def build(weights):
        return change(TINY.build(weights))

    return replace(TINY, build=build)


BREAKS = {
    "weight_sets_are_sound": replace(TINY, weights=lambda: ()),
    "build_gives_a_network": changed(
        lambda network: {"input": replace(network.input, resize_px=99)}
    ),
    "features_give_a_map_or_tokens": changed(
        lambda network: {"features": nn.Sequential(network.features, nn.Flatten())}
    ),
    "neck_gives_vectors": changed(lambda network: {"neck": network.neck[0]}),
    "neck_holds_no_parameters": changed(
        lambda network: {"neck": nn.Sequential(network.neck, nn.Linear(16, 16))}
    ),
    "classifier_keeps_its_word": with_sets(classes=7),
    "parts_are_the_whole_network": replace(TINY, build=without_its_norm),
    "stages_hold_every_parameter_once": changed(
        lambda network: {
            "stages": {"stage1": (network.features,), "stage2": (network.features[1],)}
        }
    ),
    "sequential_features_are_the_stages": changed(
        lambda network: {"stages": dict(reversed(network.stages.items()))}
    ),
    "eval_is_deterministic": with_neck(lambda _, x: nn.functional.dropout(x, 0.5, training=True)),
    "images_do_not_see_each_other": with_neck(lambda _, x: x - x.mean(dim=0, keepdim=True)),
    "width_is_the_same_at_another_size": changed(lambda _: {"neck": nn.Flatten()}),
    "train_mode_gives_the_same_shapes": with_neck(lambda self, x: x[:, :5] if self.training else x),
    "copies_stand_alone": changed(in_a_closure),
    "seed_decides_random_weights": changed(own_generator),
    "loading_is_strict": replace(
        TINY, build=lambda weights: TINY.build(replace(weights, state=None))
    ),
    "weights_on_the_disk_load": with_sets(classes=None),
    "weight_sets_say_what_they_are": with_sets(licence=" "),
    "record_is_pickled": replace(TINY, build=lambda weights: TINY.build(weights)),
    "building_asks_nobody": replace(TINY, build=asking),
    "frozen_stays_frozen": changed(counts_its_steps),
    "heads_are_saved_and_loaded": changed(draws_a_buffer),
    "dense_equals_plain": changed(clips_what_it_flattens),
}


@pytest.mark.parametrize("law", BREAKS)
def test_law_notices_the_backbone_that_breaks_it(law):
    with pytest.raises(PluginError, match="'tiny'"):
        CHECKS[law](BREAKS[law])


def test_law_notices_an_import_that_is_not_cheap(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("# stands for the real one, which takes seconds")
    (tmp_path / "heavy_plugin.py").write_text("import torch\ndef build(weights): ...\n")
    (tmp_path / "sick_plugin.py").write_text("def build(weights): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_plugin
    import sick_plugin

    (tmp_path / "sick_plugin.py").write_text("raise ImportError('libnothing is not there')\n")
    for module, reason in ((heavy_plugin, "torch"), (sick_plugin, "libnothing")):
        with pytest.raises(PluginError) as caught:
            CHECKS["import_is_cheap"](replace(TINY, build=module.build))
        assert reason in caught.value.found


def test_tensors_that_no_part_holds_are_named():
    with pytest.raises(PluginError, match="lack tensors") as caught:
        CHECKS["parts_are_the_whole_network"](replace(TINY, build=without_its_norm))
    lost = caught.value.found.splitlines()
    assert "classifier.norm.weight" in lost
    assert "classifier.norm.running_var" in lost
    assert not [name for name in lost if name.startswith("features") or ".last" in name]
    # What changes no answer is not missed.
    assert "classifier.norm.num_batches_tracked" not in lost


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda network: replace(
                network, neck=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
            ),
            "--attach append puts together does not answer",
        ),
        (
            lambda network: replace(
                network, classifier=nn.Sequential(nn.ReLU(), network.classifier, nn.ReLU())
            ),
            "--attach append puts together does not answer",
        ),
        (lambda network: replace(network, classifier=None), "lack the classifier"),
    ],
    ids=["another pooling", "another activation", "no classifier"],
)
def test_parts_that_do_not_answer_as_the_network_does_are_refused(change, text):
    with pytest.raises(PluginError, match=text):
        CHECKS["parts_are_the_whole_network"](whole_network(change))


def test_a_classifier_may_be_missing_for_a_reason():
    reason = "it adds votes of single tokens"
    backbone = whole_network(lambda one: replace(one, classifier=None, why_no_classifier=reason))
    CHECKS["parts_are_the_whole_network"](backbone)


def test_part_that_fails_is_named():
    with pytest.raises(PluginError, match="`classifier` fails"):
        CHECKS["classifier_keeps_its_word"](changed(lambda _: {"neck": nn.Flatten()}))


def test_every_law_is_broken_once():
    assert {*BREAKS, "import_is_cheap"} == set(CHECKS)


def test_checking_a_backbone_holds_it_against_every_law():
    check_backbone(TINY)
    with pytest.raises(PluginError):
        check_backbone(BREAKS["weights_on_the_disk_load"])


def test_a_law_that_is_known_to_be_broken_is_expected_to_fail_until_it_does_not():
    mark = checks_for(TINY, expected={"record_is_pickled": "its build is a lambda"})
    marked = {one.id: one.marks for one in mark.args[1] if one.marks}
    assert list(marked) == ["tiny-record_is_pickled"]
    (expected,) = marked["tiny-record_is_pickled"]
    assert (expected.name, expected.kwargs["strict"]) == ("xfail", True)
    assert expected.kwargs["reason"] == "its build is a lambda"
    with pytest.raises(UnknownName, match="record_is_pickld"):
        checks_for(TINY, expected={"record_is_pickld": "mistyped"})
