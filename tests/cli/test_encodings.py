"""Encodings: names that a terminal or a locale has no letters for end up as escapes, never lost."""

import json
import os
import subprocess
import sys

import pytest

import tlkit
from tlkit.testing import make_folder

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only there is every name of bytes a file name"
)

# Many commands in a process: what is imported is so once.
PROGRAM = """
import json, sys
from tlkit.cli import main, streams
streams.in_utf8()
streams.guard()
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            sys.stderr.write(f"STATUS {end.code} of {words}\\n")
streams.flush()
"""

CLASSES = ("rött 猫 🐝", os.fsdecode(b"bl\xff\xfeu"), "esc\x1b[31m \u202e'\"&<b>")
FILES = (
    "Käfer 猫.png", "line\nbreak.png", "-dash.png", "semi;colon,comma.png", "tab\t.png",
    os.fsdecode(b"\xff\xfe.png"),
)  # fmt: skip

LOCALES = {
    "no locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "utf-8"),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "cp1252": ({"PYTHONIOENCODING": "cp1252"}, "cp1252"),
}

COMMANDS = [
    ["predict", "photos", "--head", "run"],
    ["evaluate", "photos", "--head", "run", "--json", "{out}/scores.json"],
    ["check", "photos", "--json", "{out}/check.json", "--html", "{out}/check.html"],
    ["explain", "photos", "--head", "run", "--out", "{out}/explained"],
    ["sort", "run", "photos", "--into", "{out}/sorted"],
    ["report", "run", "photos", "--out", "{out}/report"],
    ["fit", "photos", "--backbone", "tiny", "--epochs", "1", "--out", "{out}/run"],
    ["inspect", "{out}/run", "--json", "{out}/card.json"],
    ["fit", "--help"],
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("encodings")
    make_folder(place / "photos", classes=("red", "green", "blue"), per_class=8)
    for name, old in zip(CLASSES, ("red", "green", "blue"), strict=True):
        (place / "photos" / old).rename(place / "photos" / name)
    images = sorted((place / "photos" / CLASSES[0]).iterdir())
    for name, image in zip(FILES, images, strict=False):
        image.rename(image.with_name(name))
    tlkit.fit(place / "photos", backbone="tiny", epochs=1, out=place / "run")
    return place


@pytest.mark.parametrize("name", LOCALES)
def test_every_command_gets_through_with_any_name_in_any_encoding(
    place, tiny_plugin, name, tmp_path
):
    variables, encoding = LOCALES[name]
    commands = [[word.format(out=tmp_path) for word in words] for words in COMMANDS]
    path = os.pathsep.join([str(tiny_plugin), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env={**os.environ, **variables, "PYTHONPATH": path},
        cwd=place, capture_output=True, check=False,
    )  # fmt: skip
    said = ran.stderr.decode(encoding)  # strictly: an error where anything else was written
    shown = ran.stdout.decode(encoding)
    assert ran.returncode == 0, said
    # The status of `check` is 1 where it has found something.
    assert [line for line in said.splitlines() if "STATUS" in line and "check" not in line] == []
    assert "Traceback" not in said
    assert "fault of tlkit" not in said
    assert "\x1b" not in shown + said
    assert "\\udcff\\udcfeu" in shown
    _check_files(tmp_path)


def _check_files(folder):
    """Every file that is text is UTF-8, and every JSON names the classes as they are."""
    texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".html", ".md", ".svg")]
    assert len(texts) > 8
    for path in texts:
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".json":
            json.loads(text)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["classes"] == sorted(CLASSES)
