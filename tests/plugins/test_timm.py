from __future__ import annotations

import time
from pathlib import Path

import pytest
import timm
import tlkit_timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

import tlkit
from tlkit.errors import OptionError, PluginError, UnknownName, WeightsError
from tlkit.model.assemble import assemble
from tlkit.testing import CHECKS
from tlkit.weights import obtain

FAMILY = tlkit_timm.timm


@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    """huggingface_hub's cache, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def reference(settle):
    torch.manual_seed(0)
    return settle(timm.create_model("resnet18"))


def put(state, source):
    """Writes the state where the source's error says that it is looked for."""
    path = Path(source.where())
    path.parent.mkdir(parents=True)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def built(name, *, on="cpu"):
    backbone = FAMILY.backbone(name)
    torch.manual_seed(0)
    with torch.device(on):
        return backbone.build(obtain(backbone.weights(), "none"))


# --- names and weight sets ---


def test_every_listed_name_is_a_backbone_and_only_those():
    names = list(FAMILY.names())
    assert {"resnet18", "resnet18.a1_in1k"} <= set(names)
    assert FAMILY.backbone("resnet18.a1_in1k").name == "timm/resnet18.a1_in1k"
    with pytest.raises(UnknownName, match="did you mean 'resnet18'") as caught:
        FAMILY.backbone("resnett18")
    assert len(caught.value.expected) < 500


def test_tag_that_was_asked_for_is_the_default():
    tags = [one.name for one in FAMILY.backbone("resnet18.fb_ssl_yfcc100m_ft_in1k").weights()]
    assert tags[0] == "fb_ssl_yfcc100m_ft_in1k"
    default = [one.name for one in FAMILY.backbone("resnet18").weights()]
    assert default[0] == timm.get_pretrained_cfg("resnet18").tag
    assert sorted(tags) == sorted(default)


def test_every_published_tag_has_a_sound_input():
    specs = [tlkit_timm._input(name) for name in timm.list_pretrained()]
    assert {one.crop_mode for one in specs} >= {"center", "squash", "border"}


def test_sets_of_one_model_each_have_their_own_input_and_licence():
    sets = {one.name: one for one in FAMILY.backbone("vit_base_patch16_224").weights()}
    augreg, dino = sets["augreg_in21k"], sets["dino"]
    assert (augreg.classes, dino.classes) == (21843, None)
    assert augreg.input.mean != dino.input.mean
    assert dino.licence == "apache-2.0"


def test_model_without_published_weights_says_so():
    backbone = FAMILY.backbone("botnet50ts_256")
    (only,) = backbone.weights()
    assert (only.name, only.classes, only.source.on_disk()) == ("untrained", None, False)
    with pytest.raises(WeightsError, match="--weights none"):
        obtain(backbone.weights(), "default")


def test_images_that_are_no_squares_keep_their_shape(monkeypatch):
    from dataclasses import replace

    from tlkit_timm import _cfg

    # As timm's sapiens2 networks are, which older versions do not have.
    tall = replace(_cfg("resnet18"), input_size=(3, 1024, 768), crop_pct=0.9, crop_mode="squash")
    monkeypatch.setattr("tlkit_timm._cfg", lambda name: tall)
    for one in FAMILY.backbone("resnet18").weights():
        assert (one.input.size, one.input.resize_size) == ((1024, 768), (1137, 853))
        assert one.input.crop_mode == "squash"


# --- files, caches and the network ---


def test_file_in_the_hubs_cache_gives_timms_answer_without_a_network(
    hub_cache, torch_home, offline, reference, logits
):
    backbone = FAMILY.backbone("resnet18")
    source = backbone.weights()[0].source
    assert not source.on_disk()
    assert FAMILY.on_disk() == []
    path = put(reference.state_dict(), source)
    assert source.on_disk()
    assert FAMILY.on_disk() == [source.name]
    assert source.where() == str(path)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(images)
    network = backbone.build(obtain(backbone.weights(), "default"))
    assert torch.equal(logits(network, images), expected)


def test_file_in_torch_hubs_cache_serves_models_that_the_hub_lacks(torch_home, hub_cache, offline):
    backbone = FAMILY.backbone("legacy_seresnet18.in1k")
    source = backbone.weights()[0].source
    if timm.get_pretrained_cfg(source.name).hf_hub_id:
        pytest.skip("this timm has it on the hub")
    state = timm.create_model("legacy_seresnet18").state_dict()
    path = put(state, source)
    assert path.is_relative_to(torch_home / "hub" / "checkpoints")
    assert source.on_disk()
    found = obtain(backbone.weights(), "default").state
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_weights_neither_here_nor_reachable_are_one_error_within_seconds(hub_cache, offline):
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        obtain(FAMILY.backbone("resnet18.a1_in1k").weights(), "default")
    assert time.monotonic() - start < 5
    assert "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main" in caught.value.do
    assert str(hub_cache) in caught.value.do


def test_file_that_is_cut_off_is_named(hub_cache, offline, reference):
    backbone = FAMILY.backbone("resnet18")
    path = put(reference.state_dict(), backbone.weights()[0].source)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        obtain(backbone.weights(), "default")
    assert str(path) in caught.value.about


def test_listing_sets_needs_no_network(hub_cache, offline):
    sets = FAMILY.backbone("resnet18").weights()
    assert not any(one.source.on_disk() for one in sets)


# --- parts ---


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "convnext_atto",
        "tf_efficientnet_lite0",
        "mobilenetv3_small_050",
        "dla46_c",  # a convolution as classifier
        "levit_128s",  # two classifiers of one vector
        "swin_tiny_patch4_window7_224",
        "poolformerv2_s12",
    ],
)
def test_parts_together_equal_timm(name, logits):
    torch.manual_seed(0)
    reference = timm.create_model(name).eval()
    network = built(name)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        if network.classifier is None:
            expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
            found = network.neck(network.features.eval()(images))
        else:
            expected = reference(images)
            found = logits(network, images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_maps_have_their_channels_second():
    network = built("swin_tiny_patch4_window7_224", on="meta")
    found = network.features(torch.zeros(1, 3, 224, 224, device="meta"))
    assert found.shape == (1, 768, 7, 7)
    assert network.neck(found).shape == (1, 768)


@pytest.mark.parametrize(
    "name",
    [
        "efficientvit_m0",  # BatchNorm, dropout and a linear layer
        "shvit_s1",  # BatchNorm and a linear layer
        "levit_128s",  # two classifiers, each with a BatchNorm
        "crossvit_9_240",  # one for each of two scales
        "efficientvim_m1_dist",  # two for each scale, weighed
        "test_mambaout",  # never published
    ],
)
def test_classifier_is_all_that_timm_puts_behind_the_neck(name):
    if name not in FAMILY.names():
        pytest.skip("this timm does not have it")
    backbone = FAMILY.backbone(name)
    assert built(name, on="meta").classifier is not None
    CHECKS["parts_are_the_whole_network"](backbone)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("volo_d1_224", "votes of the single tokens"),
        ("deit_tiny_distilled_patch16_224", "read one token each"),
        ("pit_ti_distilled_224", "read one token each"),
        ("vit_base_patch16_224.dino", "never had a trained one"),
    ],
)
@pytest.mark.parametrize("attach", ["append", "last"])
def test_classifier_that_cannot_be_had_is_refused_for_its_own_reason(name, reason, attach):
    network = built(name, on="meta")
    assert network.classifier is None
    with pytest.raises(OptionError, match=reason) as caught:
        assemble(network, lambda width: nn.Linear(width, 2), attach=attach, pool="keep")
    assert "--attach replace" in caught.value.do


def test_network_with_one_of_two_classifiers_is_no_distilled_one():
    assert isinstance(built("pit_ti_224", on="meta").classifier, nn.Linear)


def test_the_vectors_of_several_scales_stand_one_behind_the_other():
    network = built("crossvit_9_240", on="meta")
    found = network.features(torch.zeros(2, 3, 240, 240, device="meta"))
    assert found.shape == (2, 384, 1, 1)
    assert network.neck(found).shape == (2, 384)
    assert network.classifier(network.neck(found)).shape == (2, 1000)


@pytest.mark.parametrize("name", ["levit_128s", "crossvit_9_240"])
def test_only_the_last_layer_of_joined_classifiers_cannot_be_replaced(name):
    network = built(name, on="meta")
    with pytest.raises(OptionError, match="ends in a linear layer") as caught:
        assemble(network, lambda width: nn.Linear(width, 2), attach="last", pool="keep")
    assert "--attach append" in caught.value.do


@pytest.mark.parametrize("classes", [0, 3])
def test_model_that_nobody_published_is_summed_up(classes):
    # It has no tag at all: TAG must not be made part of its name.
    whole = tlkit.summary("timm/test_mambaout", **({"classes": classes} if classes else {}))
    assert whole.rows[-1].output == (1, classes or 1000)


def test_stages_of_a_transformer_begin_with_its_embedding():
    stages = list(built("vit_tiny_patch16_224", on="meta").stages)
    assert stages[:3] == ["embed", "patch_embed", "blocks.0"]
    assert stages[-2:] == ["blocks.11", "norm"]


def test_classifier_is_taken_out_of_the_features():
    network = built("resnet18", on="meta")
    assert network.classifier.out_features == 1000
    inside = {id(one) for one in network.features.parameters()}
    assert not inside & {id(one) for one in network.classifier.parameters()}


def test_encoder_that_is_no_classifier_is_refused():
    with pytest.raises(PluginError, match="no image classifier"):
        built("mobilenetv5_300m_enc", on="meta")
