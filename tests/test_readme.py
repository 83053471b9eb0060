"""Every snippet of the README runs, in order, offline, and prints what the README shows."""

import math
import re
import shlex
import shutil
import sys

import pytest
from pages import DOCS, FENCE, MARKS, Reader, commands, snippets

from tlkit import plugins
from tlkit.cli import main
from tlkit.errors import OptionWithoutEffectWarning
from tlkit.testing import check_row, make_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = DOCS.parent / "README.md"
TEXT = README.read_text()
FENCES = snippets(README)
TO_RUN = [
    fence for fence in FENCES if fence.language in ("sh", "python") and fence.mark != "not run"
]
ANIMALS = ("cats", "dogs")
GROUPS = (
    plugins.BACKBONES, plugins.HEADS, plugins.POLICIES, plugins.AUGMENTATIONS, plugins.REPORTS,
)  # fmt: skip


def write_photos(folder):
    """Write the folders and files that the README takes for granted."""
    for part, per_class, seed in (("train", 10, 1), ("test", 3, 2)):
        make_folder(folder / "cats_dogs" / part, ANIMALS, per_class, seed=seed)
    make_folder(folder / "photos", ANIMALS, 6, seed=3)
    make_folder(folder / "others", ANIMALS, 4, seed=4)
    make_folder(folder / "cifar10", ("plane", "ship", "truck"), 10, seed=5, size=(32, 32))
    make_folder(folder / "scans", ("ill", "well"), 10, seed=6)
    for path in sorted((folder / "scans").rglob("*.png")):
        path.rename(path.with_name(f"patient{int(path.stem) // 2}_{path.name}"))
    shutil.copy(folder / "photos" / "cats" / "000.png", folder / "cat.jpg")


def write_heads(reader):
    """Fit the heads that the README takes for granted."""
    for run, seed in (("a", "0"), ("b", "1")):
        status, printed = reader.tlkit(
            ["fit", "cats_dogs", "--out", f"runs/{run}"], ["--backbone", "tiny", "--seed", seed]
        )
        assert status == 0, printed
    shutil.copy("runs/a/head.safetensors", "head.safetensors")


@pytest.mark.usefixtures("_one_thread")
def test_the_readme_can_be_followed(tmp_path, monkeypatch):
    reader = Reader.at(tmp_path, monkeypatch)
    write_photos(tmp_path)
    write_heads(reader)
    sample = "tlkit sample digits digits/"
    assert f"`{sample}`" in TEXT
    assert reader.command(sample, [])[0] == 0
    # Of the search, which tries heads without dropout.
    with pytest.warns(OptionWithoutEffectWarning, match="--dropout"):
        assert reader.follow(README) == len(TO_RUN)
    for words in ("efficientnet_lite0", "digits/test/7", "'head': "):
        assert words in reader.transcript
    check_row(reader.names["ends"])
    check_search(reader.names["search"])


def check_search(search):
    """Assert that every fit of the README's search has ended with a score."""
    splits = search.n_splits_
    scores = [search.cv_results_[f"split{split}_test_score"] for split in range(splits)]
    assert splits * len(search.cv_results_["params"]) == 12
    assert all(math.isfinite(score) for of_split in scores for score in of_split)
    assert search.best_params_ in search.cv_results_["params"]


def test_every_fence_and_mark_is_one_that_is_understood():
    opened = re.findall(r"^```(.*)$", TEXT, re.MULTILINE)[::2]
    assert len([language for language in opened if language]) == len(FENCES)
    marks = re.findall(r"^<!-- ([a-z ]+): .*-->$", TEXT, re.MULTILINE)
    assert set(marks) <= set(MARKS)
    assert len(marks) == sum(bool(fence.mark) for fence in FENCES)


def test_few_snippets_are_not_run_and_each_says_why():
    to_run = [fence for fence in FENCES if fence.language in ("sh", "python")]
    skipped = [fence for fence in to_run if fence.mark == "not run"]
    assert all(len(fence.words) > 20 for fence in FENCES if fence.mark == "not run")
    assert len(skipped) <= len(to_run) / 5


def test_no_command_hides_in_a_fence_that_nothing_runs():
    outside = FENCE.sub("", TEXT)
    drawn = re.findall(r"^```\n(.*?)^```$", outside, re.MULTILINE | re.DOTALL)
    assert len(drawn) == 1
    assert not re.search(r"^(\$ )?(tlkit|pip|make|python|curl) ", drawn[0], re.MULTILINE)


@pytest.mark.parametrize(
    "fence",
    [fence for fence in FENCES if fence.language == "toml"],
    ids=lambda fence: str(fence.line),
)
def test_the_entry_points_shown_are_of_groups_that_tlkit_reads(fence):
    groups = tomllib.loads(fence.text)["project"]["entry-points"]
    assert groups
    assert set(groups) <= set(GROUPS)


def lines():
    """Every command line of tlkit in the README."""
    for fence in FENCES:
        for line in commands(fence.text) if fence.language == "sh" else []:
            if line.startswith("tlkit "):
                words = shlex.split(line, comments=True)
                yield pytest.param(words[1:], id=line)


@pytest.mark.parametrize("words", list(lines()))
def test_a_command_line_of_the_readme_is_one_that_there_is(words):
    command = main.commands[words[0]]
    context = command.make_context(words[0], words[1:])
    for word in words[1:]:
        below = getattr(command, "commands", {})
        if word in below:
            below[word].make_context(word, words[words.index(word) + 1 :])
    assert context.command is command
