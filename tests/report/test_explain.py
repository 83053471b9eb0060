"""Explanations: the map adds up to the score, and lies where the class is."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tlkit
from tlkit.classifier import load
from tlkit.cli import main
from tlkit.data.images import BadImage, read
from tlkit.data.transforms import plain
from tlkit.errors import OptionError, UnknownName
from tlkit.model.assemble import assemble
from tlkit.model.heads import make_head
from tlkit.plugins import choose
from tlkit.report import explain as module
from tlkit.report.explain import PX, explain, picture_names
from tlkit.weights import obtain

WAYS = {
    "linear on an average": {},
    "a hidden layer": {"head": "mlp", "epochs": 30},
    "flattened": {"pool": "flatten"},
    "the last of its classifier": {"attach": "append"},
    "every layer trained": {"freeze": "none", "strategy": "probe+finetune", "epochs": 2},
}


@pytest.fixture(scope="module", params=WAYS, ids=lambda one: one.replace(" ", "-"))
def head(request, colours, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "run"
    return load(tlkit.fit(colours, backbone="tiny", out=out, **WAYS[request.param]).head).head


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Left red, right blue, with some noise."""
    noise = np.random.default_rng(0).integers(0, 60, (96, 96, 3))
    noise[:, :48, 0] += 180
    noise[:, 48:, 2] += 180
    path = tmp_path_factory.mktemp("halves") / "halves.png"
    Image.fromarray(noise.astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("target", "left"), [("red", True), ("blue", False)])
def test_a_class_is_seen_where_its_colour_is(head, halves, target, left):
    (one,) = explain(head, [halves], target=target)
    middle = one.map.shape[1] // 2
    sides = one.map[:, :middle].mean(), one.map[:, middle:].mean()
    assert (sides[0] > sides[1]) == left
    assert one.map.min() >= 0
    assert one.map.max() == pytest.approx(1, abs=1e-6)
    assert one.target == target


def test_the_prediction_beside_it_is_the_plain_one(head, colours):
    paths = sorted(colours.rglob("*.png"))[::6]
    wanted = load(head.path).predict(paths)
    for one, other in zip(explain(head, paths), wanted, strict=True):
        assert np.allclose(one.prediction.probabilities, other.probabilities, atol=1e-5)
        assert one.target == other.label


def test_an_exact_map_has_the_score_as_its_mean(colours, tmp_path):
    head = load(tlkit.fit(colours, backbone="tiny", out=tmp_path / "run").head).head
    see = module._averaged(head.model)
    path = next(iter(sorted(colours.rglob("*.png"))))
    view = torch.from_numpy(plain(head.model.spec, read(path)).copy()).permute(2, 0, 1)[None]
    for target in range(3):
        logits, shown, cells = see(view, target)
        assert shown.shape == cells
        bias = float(head.model.head.layers.bias.detach()[target])
        assert shown.mean() + bias == pytest.approx(float(logits[target]), abs=1e-4)


def test_a_transformer_is_explained_by_the_tokens_that_its_class_token_looks_at(colours, tmp_path):
    result = tlkit.fit(
        colours, backbone="timm/vit_tiny_patch16_224", weights="none", freeze="features",
        out=tmp_path / "run",
    )  # fmt: skip
    head = load(result.head).head
    (one,) = explain(head, [next(iter(colours.rglob("*.png")))])
    assert one.map.shape == (224, 224)
    # One number for each of 14 x 14 tokens, smoothed.
    assert len(np.unique(one.map.round(3))) > 20


def test_the_picture_is_the_view_of_the_network_made_larger_with_colour_on_it(head, halves):
    (one,) = explain(head, [halves], target="red")
    overlay = one.overlay()
    assert overlay.shape == one.square.shape
    assert len(overlay) >= PX
    assert overlay.dtype == np.uint8
    changed = np.abs(overlay.astype(int) - one.square).mean(axis=2)
    middle = len(overlay) // 2
    assert changed[:, :middle].mean() != pytest.approx(changed[:, middle:].mean(), rel=0.05)


def test_what_cannot_be_read_is_named_in_its_place(head, halves, tmp_path):
    (tmp_path / "a.png").write_text("none")
    found = list(explain(head, [tmp_path / "a.png", halves]))
    assert [isinstance(one, BadImage) for one in found] == [True, False]


def test_a_class_that_the_head_does_not_know_is_refused(head, halves):
    with pytest.raises(UnknownName, match="green"):
        list(explain(head, [halves], target="greeen"))


def test_a_network_that_needs_the_library_says_so(colours, halves, tmp_path, monkeypatch):
    out = tmp_path / "run"
    head = load(tlkit.fit(colours, backbone="tiny", head="mlp", epochs=1, out=out).head).head
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(OptionError) as caught:
        list(explain(head, [halves]))
    assert "tlkit[explain]" in caught.value.do
    plain_one = load(tlkit.fit(colours, backbone="tiny", out=tmp_path / "plain").head).head
    assert len(list(explain(plain_one, [halves]))) == 1


def test_pictures_of_one_name_are_numbered(tmp_path):
    one, other, third = (tmp_path / name for name in ("a/x.png", "b/X.jpg", "b/y.jpg"))
    assert picture_names([one, third]) == ["x.png", "y.png"]
    assert picture_names([one, other]) == ["00001-x.png", "00002-X.png"]


def assembled(name):
    backbone = choose(name).backbone
    torch.manual_seed(0)
    network = backbone.build(obtain(backbone.weights(), "none"))
    model = assemble(
        network, lambda width: make_head("linear", width, 3, 0, 0.0), attach="replace", pool="keep"
    )
    model.head.layers.weight.data.normal_()
    return model.eval()


@pytest.mark.parametrize("name", ["timm/crossvit_9_240", "timm/coat_lite_tiny"])
def test_a_map_of_one_pixel_is_never_shown(name):
    model = assembled(name)
    assert module._averaged(model) is None
    image = torch.randint(0, 256, (1, 3, model.spec.crop_px, model.spec.crop_px), dtype=torch.uint8)
    see = module._by_gradient(model, "the head")
    _, shown, (height, width) = see(image, 0)
    assert height == width
    assert height * width >= module.FEWEST
    assert len(np.unique(shown.round(3))) > 3


def test_maps_with_their_channels_last_are_told_by_their_sides():
    last = torch.arange(2 * 2 * 5.0).reshape(1, 2, 2, 5)
    assert torch.equal(module._as_map(last), last.permute(0, 3, 1, 2))
    first = last.permute(0, 3, 1, 2)
    assert torch.equal(module._as_map(first), first)


def test_the_size_of_the_map_and_how_it_was_made_are_told(colours, tmp_path):
    head = load(tlkit.fit(colours, backbone="tiny", out=tmp_path / "run").head).head
    (one,) = explain(head, [next(iter(colours.rglob("*.png")))])
    assert one.cells == one.map.shape == (8, 8)
    assert one.exact
    photo = next(iter(colours.rglob("*.png")))
    result = CliRunner().invoke(main, ["explain", str(photo), "--head", str(head.path)])
    assert "map: 8 x 8 cells, exact (CAM)" in result.stdout
