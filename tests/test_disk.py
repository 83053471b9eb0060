"""A disk that is full, or refuses: one error, and what was there before stays."""

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import run_python
from torch import nn

import tlkit
from tlkit.artifact import read_card
from tlkit.backbone import InputSpec
from tlkit.data.images import read
from tlkit.data.transforms import PRESETS, held_look
from tlkit.errors import DiskError, NotEnoughMemory, TlkitError
from tlkit.export import export
from tlkit.export import formats as exporters
from tlkit.model import engine, heads
from tlkit.model.build import plugin_failed
from tlkit.model.device import compute_on
from tlkit.options import PredictOptions
from tlkit.predict.tta import POLICIES, held_views
from tlkit.runs import read_told
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.weights import not_here, read_state

# The system refuses to make a file longer than this, as a full disk does, at any byte.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = ["tlkit", *sys.argv[2:]]
from tlkit.cli import run
run()
"""


def limited(size, *words, where):
    return run_python(LIMITED, size, *words, where=where)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("disk")
    make_folder(place / "photos")
    tlkit.fit(place / "photos", backbone="tiny", epochs=2, out=place / "before")
    return place


def everything(folder):
    return {one.relative_to(folder): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
@pytest.mark.parametrize("size", [0, 10, 100, 500, 2_000, 10_000])
def test_a_fit_that_finds_no_room_leaves_the_run_before_it(place, tiny_plugin, monkeypatch, size):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))
    before = everything(place / "before")
    words = ["fit", "photos", "--backbone", "tiny", "--epochs", 2, "--out", "before", "--overwrite"]
    ran = limited(size, *words, where=place)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "cannot be written" in ran.stderr
    assert "free some space" in ran.stderr
    assert everything(place / "before") == before
    assert [one.name for one in place.iterdir() if one.name.endswith(".tmp")] == []
    assert tlkit.load(place / "before").classes == ("blue", "green", "red")


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
@pytest.mark.parametrize(
    "words",
    [
        ["predict", "photos", "--head", "before", "--out", "out.csv"],
        ["predict", "photos", "--head", "before", "--out", "out.parquet"],
        ["inspect", "before", "--json", "card.json"],
        ["check", "photos", "--json", "found.json"],
        ["check", "photos", "--html", "found.html"],
        ["sample", "digits", "digits"],
        ["summary", "tiny", "--json", "size.json"],
    ],
    ids=lambda words: " ".join(words[:1] + words[-2:]),
)
def test_what_cannot_be_written_is_one_error_and_no_half_file(
    place, tiny_plugin, monkeypatch, words
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))
    there = set(place.iterdir())
    ran = limited(20, *words, where=place)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "cannot be written" in ran.stderr
    assert set(place.iterdir()) == there


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_may_not_be_written_is_said_before_the_work(place, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(tlkit.TlkitError, match="cannot be written"):
        tlkit.fit(place / "photos", backbone="tiny", out=closed / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
@pytest.mark.parametrize("form", ["onnx", "openvino", "torch"])
def test_an_export_that_finds_no_room_does_not_blame_the_network(
    place, tiny_plugin, monkeypatch, form
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))
    words = ["export", "before", "--to", form, "--images", "photos", "--out", "exported"]
    ran = limited(2_000, *words, where=place)
    assert ran.returncode == 2, ran.stderr
    assert "free some space" in ran.stderr
    assert "cannot take this network" not in ran.stderr
    assert not (place / "exported").exists()


SPEC = InputSpec(crop_px=32, resize_px=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(params=["full", "memory"])
def fails(request):
    """A function that raises what a machine lacks, and the class of the error that says it."""
    raised, expected = {
        "full": (OSError(errno.ENOSPC, "No space left on device", "some/file"), DiskError),
        "memory": (MemoryError("30 GB"), NotEnoughMemory),
    }[request.param]

    def fail(*values, **named):
        raise raised

    fail.expected = expected
    return fail


def test_a_head_a_policy_and_a_preset_are_not_blamed_for_the_machine(fails):
    head = heads.HeadKind(about="a head", make=fails)
    with pytest.raises(fails.expected):
        heads._hold(head, "strange", 4, 2)
    with pytest.raises(fails.expected):
        held_views(replace(POLICIES["none"], views=fails), "strange", SPEC, PredictOptions())
    with pytest.raises(fails.expected):
        held_look(replace(PRESETS["none"], make=fails), "strange", SPEC, 0, "0")
    with pytest.raises(fails.expected):
        held_look(replace(PRESETS["none"], make=lambda *_: fails), "strange", SPEC, 0, "0")(0, 0, 0)


def test_a_plugin_and_a_server_of_weights_are_not_blamed_for_the_machine(fails):
    with pytest.raises(OSError if fails.expected is DiskError else MemoryError) as caught:
        fails()
    assert isinstance(plugin_failed(TINY, caught.value), fails.expected)
    assert isinstance(not_here("https://there", "here", caught.value), fails.expected)


def test_a_server_that_refuses_is_no_file_that_may_not_be_read():
    refused = PermissionError(errno.EACCES, "Permission denied")
    assert not isinstance(not_here("https://there", "here", refused), DiskError)


def test_a_file_is_not_called_broken_for_the_machine(fails, monkeypatch, tmp_path, place):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(fails.expected):
        read_state(weights)
    if fails.expected is DiskError:
        monkeypatch.setattr(Path, "open", fails)
        monkeypatch.setattr(Path, "read_bytes", fails)
        with pytest.raises(DiskError):
            read_card(place / "before" / "head.safetensors")
        with pytest.raises(DiskError):
            read_told(place / "before" / "validation.csv")


def test_a_photo_is_not_unreadable_where_no_more_files_can_be_opened(monkeypatch, place):
    def fail(path, *mode):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    image = next((place / "photos").rglob("*.png"))
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DiskError, match="ulimit -n"):
        read(image)


@pytest.mark.parametrize("asked", [True, False])
def test_an_engine_is_not_blamed_for_the_machine(fails, monkeypatch, asked):
    compute = compute_on("cpu", "fp32")
    work = engine.Work(images=1, multiply_adds=1)
    module = nn.Flatten().eval()
    monkeypatch.setitem(engine.ENGINES, "openvino", replace(engine.ENGINES["openvino"], make=fails))
    choice = engine.Choice(name="openvino", asked=asked, reason="")
    if asked:
        with pytest.raises(fails.expected):
            engine.start(choice, module, compute, torch.zeros(2, 3, 4, 4), work)
    else:
        runner = engine.start(choice, module, compute, torch.zeros(2, 3, 4, 4), work)
        assert runner.name == "eager"
        assert "cannot run this network" not in runner.fallback


def test_an_exporter_is_not_blamed_for_the_machine(fails, monkeypatch, place, tmp_path):
    monkeypatch.setitem(
        exporters.FORMATS, "torch", replace(exporters.FORMATS["torch"], write=fails)
    )
    head = tlkit.load(place / "before").head
    with pytest.raises(fails.expected) as caught:
        finish(export(head, to="torch", images=[place / "photos"], out=tmp_path / "out"))
    assert isinstance(caught.value, TlkitError)
