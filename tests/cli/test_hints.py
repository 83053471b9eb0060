"""Hints: no error advises an option that the command lacks."""

import re
from pathlib import Path

import click
import pytest

import tlkit
from tlkit.cli import main
from tlkit.cli.hints import OPTION, fit_to, guess_option, options_of
from tlkit.data.images import REPAIR
from tlkit.errors import TlkitError

PACKAGE = Path(tlkit.__file__).parent
ADVICE = sorted(
    {
        text
        for path in PACKAGE.rglob("*.py")
        for text in re.findall(r'do=f?"([^"{}]*--[^"{}]*)"', path.read_text())
    }
)


def advised(do, command, expected=""):
    error = TlkitError("about", found="found", expected=expected, do=do)
    fit_to(error, command, main.commands)
    return error.do


def test_there_is_advice_to_look_at():
    assert len(ADVICE) > 20


@pytest.mark.parametrize("command", main.commands)
def test_advice_of_every_room_names_no_option_that_a_command_lacks_without_saying_whose(command):
    own = options_of(main.commands[command])
    foreign = set().union(*map(options_of, main.commands.values())) - own
    for text in ADVICE:
        lines = advised(text, command).splitlines()
        explained = {OPTION.search(one)[0] for one in lines if "is an option of" in one}
        named = {
            option
            for line in lines
            for option in OPTION.findall(re.split(r"\btlkit [a-z]", line)[0])
        }
        assert named & foreign <= explained, text


def test_advice_that_fits_stays_as_it_is():
    assert advised(REPAIR, "fit") == REPAIR
    text = "fit one: tlkit fit FOLDER --folds 5 --out RUN"
    assert advised(text, "check") == text
    assert advised("pip install --upgrade pillow", "predict") == "pip install --upgrade pillow"


def test_an_alternative_that_the_command_lacks_is_left_out():
    assert "--on-bad" not in options_of(main.commands["predict"])
    assert advised(REPAIR, "predict") == "repair or remove them"
    assert advised("use --attach last or --device cpu", "predict") == "use --device cpu"


def test_advice_that_is_all_there_is_says_whose_option_it_is():
    first, second = advised("use --attach last", "predict").splitlines()
    assert first == "use --attach last"
    assert second.startswith("--attach is an option of ")
    assert "tlkit fit" in second
    assert "--attach" in advised("correct it", "predict", expected="--attach last")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["fit", "d", "--learning-rate", "1"], "--lr"),
        (["fit", "d", "--batch_size", "1"], "--batch"),
        (["predict", "d", "--checkpoint", "x"], "--weights"),
        (["fit", "d", "--epoch", "1"], "--epochs"),
    ],
)
def test_an_option_of_another_tool_leads_to_that_of_tlkit(run, words, meant):
    result = run(*words)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_an_option_like_no_other_gets_no_guess():
    error = click.NoSuchOption("--xyzzy", ctx=click.Context(main.commands["fit"]))
    assert guess_option(error).format_message() == error.format_message()


def test_two_options_are_not_alike_by_their_dashes(run):
    result = run("sort", "run", "photos", "--out", "d")
    assert result.exit_code == 2
    assert "--tta" not in result.stderr
