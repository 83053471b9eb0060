"""The README's Python runs, and its command lines are ones that there are."""

import re
import shlex
from pathlib import Path

import pytest
from pages import FENCE, commands

from tlkit.cli import main
from tlkit.data.sample import write_sample
from tlkit.errors import OptionWithoutEffectWarning
from tlkit.steps import finish

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_in_the_readme_runs(tmp_path, capsys):
    finish(write_sample("digits", tmp_path / "digits"))
    for path in (tmp_path / "digits").rglob("*[1-9].png"):
        path.unlink()
    snippets = [one["text"] for one in FENCE.finditer(README) if one["language"] == "python"]
    assert len(snippets) > 2
    # Of the search, which tries heads without dropout.
    with pytest.warns(OptionWithoutEffectWarning, match="--dropout"):
        exec(compile("\n".join(snippets), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "efficientnet_lite0" in printed
    assert "digits/test/7" in printed
    assert "'head': " in printed


def lines():
    """Every command line of tlkit in the README."""
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for line in commands(block):
            if line.removeprefix("$ ").startswith("tlkit "):
                words = shlex.split(line.removeprefix("$ "), comments=True)
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
