"""Offline: with weights on the disk, no command opens a socket to anywhere."""

import pytest
from processes import run_python

from tlkit.testing import make_folder

# An audit hook sees what every library does, threads and all; a process tells on itself.
GUARD = """
import sys

def guard(event, words):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("SOCKET", event, words, file=sys.stderr, flush=True)
        raise OSError("no sockets here")

sys.addaudithook(guard)
from tlkit.cli import run
run()
"""


def guarded(*words, where):
    return run_python(GUARD, *words, where=where)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("offline")
    make_folder(place / "photos" / "train")
    make_folder(place / "photos" / "test", seed=1, per_class=2)
    return place


def test_no_command_opens_a_socket(place):
    for words in (
        ["fit", "photos", "--out", "run", "--epochs", 3],
        ["fit", "photos", "--out", "folds", "--folds", 3, "--epochs", 3],
        ["predict", "photos/test", "--head", "run", "--tta"],
        ["evaluate", "photos/test", "--head", "run"],
        ["compare", "run", "folds", "--out", "compared"],
        ["inspect", "run"],
        ["check", "photos"],
        ["curve", "photos", "--draws", 2, "--penalties", 2, "--out", "curve"],
        ["lr-find", "photos", "--optimizer", "adamw", "--steps", 10, "--out", "rates"],
        ["backbones"],
        ["backbones", "timm/resnet18"],
        ["backbones", "--find", "resnet18"],
        ["summary", "resnet18"],
        ["plugins"],
        ["cache"],
        ["sample", "digits", "digits"],
    ):
        ran = guarded(*words, where=place)
        assert "SOCKET" not in ran.stderr, (words, ran.stderr)
        assert ran.returncode in (0, 1), (words, ran.stderr)


def test_the_guard_sees_what_does_ask(place):
    ran = guarded("fit", "photos", "--backbone", "vgg11", "--out", "vgg", where=place)
    assert "SOCKET" in ran.stderr
    assert "three ways" not in ran.stderr
    assert ran.returncode == 2
