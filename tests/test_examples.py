"""The examples: every command in them works, on a small folder and with a small network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tlkit.cli import main
from tlkit.testing import make_folder

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.sh"))
TABLE = (Path(__file__).parents[1] / "examples" / "README.md").read_text()


@pytest.fixture
def photos(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        make_folder(tmp_path / "photos" / part, per_class=count)
    return tmp_path / "photos"


def commands_of(script: Path, photos: Path, *more: str) -> list[list[str]]:
    """The arguments of every call of tlkit that the script makes."""
    folder = photos.parent / "bin"
    folder.mkdir(exist_ok=True)
    stub = folder / "tlkit"
    stub.write_text('#!/bin/sh\nfor one in "$@"; do printf \'%s\\n\' "$one"; done\necho ---\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ["sh", str(script), str(photos), *more],
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [one.split("\n") for one in done.stdout.removesuffix("\n---\n").split("\n---\n")]


@pytest.mark.skipif(shutil.which("sh") is None, reason="the examples are shell scripts")
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda one: one.stem)
def test_every_command_of_an_example_works(script, photos):
    more = ["--backbone", "tiny", "--epochs", "1"]
    if script.stem != "cats_and_dogs":
        more += ["--weights", "none", "--batch", "8"]
    commands = commands_of(script, photos, *more)
    assert commands
    for command in commands:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, f"{' '.join(command)}\n{done.output}"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda one: one.stem)
def test_every_example_stands_in_the_readme(script):
    assert f"[{script.name}]({script.name})" in TABLE


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
