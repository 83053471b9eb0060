"""Plugins by strangers: really installed, one that works and one that is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed the example plugin and the broken one."""
    folder = tmp_path_factory.mktemp("third")
    for source in (ROOT / "examples" / "plugin", ROOT / "tests" / "broken_plugin"):
        copy = folder / "source" / source.name
        shutil.copytree(source, copy)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
             "--no-build-isolation", "--target", str(folder / "site"), str(copy)],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder / "site"


@pytest.fixture
def tlkit(site):
    """The command line in a process that finds what was installed there."""

    def run(*words, **environment):
        paths = os.pathsep.join([str(site), *sys.path])
        return subprocess.run(
            [sys.executable, "-m", "tlkit", *map(str, words)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", **environment},
        )  # fmt: skip

    return run


def test_both_are_listed_and_the_broken_one_says_why(tlkit):
    ran = tlkit("plugins")
    assert ran.returncode == 0, ran.stderr
    (works,) = [line for line in ran.stdout.splitlines() if "tlkit-lenet" in line]
    (broken,) = [line for line in ran.stdout.splitlines() if "tlkit-broken" in line]
    assert "loads" in works
    assert "broken" in broken
    assert "ImportError" in ran.stdout


def test_listing_imports_neither(tlkit):
    ran = tlkit("backbones")
    assert ran.returncode == 0
    assert "lenet_rgb" in ran.stdout
    assert "broken_net" in ran.stdout


def test_it_fits_and_predicts_and_the_card_names_its_distribution(tlkit, colours, tmp_path):
    ran = tlkit("fit", colours, "--backbone", "lenet_rgb", "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    ran = tlkit("predict", colours, "--head", tmp_path / "run", "--format", "csv")
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 1 + 24
    ran = tlkit("predict", colours, "--head", tmp_path / "run", TLKIT_PLUGINS="tlkit")
    assert ran.returncode == 2
    assert "pip install tlkit-lenet" in ran.stderr


def test_the_broken_one_is_named_when_it_is_chosen_and_stops_nothing_else(tlkit, colours, tmp_path):
    ran = tlkit("fit", colours, "--backbone", "broken_net", "--out", tmp_path / "run")
    assert ran.returncode == 2
    assert "tlkit-broken" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "run").exists()


def test_python_finds_it_too(site, colours):
    code = (
        "import tlkit\n"
        "names = [one.name for one in tlkit.backbones()]\n"
        "assert 'lenet_rgb' in names and 'broken_net' in names\n"
        f"result = tlkit.fit({str(colours)!r}, backbone='tlkit-lenet:lenet_rgb')\n"
        "assert result.card.distribution == 'tlkit-lenet', result.card\n"
        "assert tlkit.load(result.head).evaluate("
        f"{str(colours)!r}).images == 24\n"
    )
    paths = os.pathsep.join([str(site), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_its_own_tests_pass(site):
    paths = os.pathsep.join([str(site), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(ROOT / "examples" / "plugin" / "tests")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout


def test_checking_tells_which_keep_the_contract(tlkit):
    ran = tlkit("plugins", "--check", "tlkit-lenet", "broken_net")
    assert ran.returncode == 1, ran.stderr
    works, broken = ran.stdout.splitlines()
    assert "lenet_rgb  keeps the contract" in works
    assert "tlkit-broken" in broken
    assert "ImportError" in broken
    assert tlkit("plugins", "--check", "lenet_rgb").returncode == 0
    unknown = tlkit("plugins", "lenet-rgb")
    assert unknown.returncode == 2
    assert "lenet_rgb" in unknown.stderr
    assert tlkit("plugins", "tlkit-lenet").stdout.count("loads") == 1
