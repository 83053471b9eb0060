"""A disk that is full, or refuses: one error, and what was there before stays."""

import os
import sys

import pytest
from processes import run_python

import tlkit
from tlkit.testing import make_folder

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
