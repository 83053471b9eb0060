"""A plugin that was just written installs, keeps the contract, and can be trained, offline."""

import os
import subprocess
import sys

import pytest

from tlkit.errors import OptionError, RunFolderError
from tlkit.scaffold import new_plugin


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The package, and a folder into which pip has installed it."""
    folder = tmp_path_factory.mktemp("scaffold")
    made = new_plugin("tlkit-new.net", folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--target", str(folder / "site"), str(made.folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, folder / "site"


@pytest.fixture
def python(written):
    """A program in a process that finds what was installed."""

    def run(*words):
        paths = os.pathsep.join([str(written[1]), *sys.path])
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        )  # fmt: skip

    return run


def test_it_is_listed_at_once_by_its_own_names(written, python):
    made, _ = written
    assert (made.distribution, made.package, made.backbone) == (
        "tlkit-new.net", "tlkit_new_net", "new_net",
    )  # fmt: skip
    ran = python("tlkit", "backbones", "new_net")
    assert ran.returncode == 0, ran.stderr
    assert "new_net" in ran.stdout


def test_its_tests_pass_and_are_the_laws(written, python):
    from tlkit.testing import CHECKS

    ran = python("pytest", "-q", "-p", "no:cacheprovider", written[0].folder / "tests")
    assert ran.returncode == 0, ran.stdout
    assert f"{len(CHECKS)} passed" in ran.stdout


def test_it_can_be_trained_and_asked(python, colours, tmp_path):
    fit = ("fit", colours, "--backbone", "new_net", "--freeze", "none", "--epochs", "2")
    ran = python("tlkit", *fit, "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    ran = python("tlkit", "predict", colours, "--head", tmp_path / "run", "--format", "csv")
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 1 + 24


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "letters"), ("1net", "letters"), ("net-", "letters"), ("../net", "letters"),
        ("my net", "letters"), ("x" * 99, "letters"), ("nét", "letters"), ("-o", "letters"),
        ("class", "Python"), ("tlkit-class", "Python"),
        ("vgg16", "is installed"), ("tlkit-VGG16", "is installed"), ("json", "a module 'json'"),
    ],
)  # fmt: skip
def test_a_name_that_something_would_trip_over_is_refused(name, why, tmp_path):
    with pytest.raises(OptionError) as caught:
        new_plugin(name, tmp_path / "new")
    assert why in caught.value.expected
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_over(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "work.py").write_text("mine")
    with pytest.raises(RunFolderError):
        new_plugin("my-net", place)
    assert [one.name for one in place.iterdir()] == ["work.py"]


def test_the_command_says_what_to_do_next(tmp_path):
    from click.testing import CliRunner

    from tlkit.cli import main

    ran = CliRunner().invoke(main, ["plugin", "new", "my-net"])
    assert ran.exit_code == 0, ran.output
    assert "pip install --no-build-isolation -e ." in ran.stdout
    assert (tmp_path / "my-net" / "my_net" / "__init__.py").is_file()
