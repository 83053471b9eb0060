"""Hints: what an error advises, held against the options of the command that it is shown by.

Errors are raised in rooms that many commands share, and may name an option that this one lacks.
Such advice is left out where there is other advice, and explained where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import click

from tlkit.errors import TlkitError, few, nearest

OPTION = re.compile(r"--[a-z][a-z0-9-]*")
OTHER_COMMAND = re.compile(r"\btlkit [a-z]")
"""From here on the options are those of the command that is named."""
BETWEEN = re.compile(r"(,? or |; )")


def options_of(command: click.Command) -> set[str]:
    """Return the long options of a command, and of those below it."""
    names = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return names.union({"--help"}, *map(options_of, below))


def fit_to(error: TlkitError, command: str, commands: Mapping[str, click.Command]) -> None:
    """Leave out of an error what `command` has no option for, or say whose option it is."""
    known = {name: options_of(one) for name, one in commands.items()}
    foreign = set().union(*known.values()) - known.get(command, set())
    error.do = "\n".join(_without(line, foreign) for line in error.do.splitlines())
    left = sorted({*_named(error.expected, foreign), *_named(error.do, foreign)})
    for option in left:
        owners = [f"tlkit {name}" for name, options in known.items() if option in options]
        error.do += f"\n{option} is an option of {few(owners, 3)}"


def _without(line: str, foreign: set[str]) -> str:
    """Drop the alternatives of a line that name a foreign option; the line, where all do."""
    parts = BETWEEN.split(line)
    kept = [
        (parts[number - 1] if number else "", part)
        for number, part in enumerate(parts)
        if number % 2 == 0 and not any(_named(part, foreign))
    ]
    if not kept or len(kept) == (len(parts) + 1) // 2:
        return line
    text = kept[0][1] + "".join(between + part for between, part in kept[1:])
    return f"use {text}" if text.startswith("--") else text


def _named(text: str, foreign: set[str]) -> Iterator[str]:
    """Yield the foreign options in a text, up to where it names a command."""
    before = OTHER_COMMAND.split(text, maxsplit=1)[0]
    yield from (option for option in OPTION.findall(before) if option in foreign)


def guess_option(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return the error with the option that was likely meant, if any.

    Not by click's own guesses: it counts the dashes, in which all options are alike.
    """
    if error.ctx is None:
        return error
    known = [one[2:].replace("-", "_") for one in sorted(options_of(error.ctx.command))]
    meant = nearest(error.option_name.lstrip("-").replace("-", "_"), known)
    if meant is None:
        return click.NoSuchOption(error.option_name, ctx=error.ctx)
    # Not as its `possibilities`, of which click takes only those that are spelt alike.
    message = f"{error.message} Did you mean '--{meant.replace('_', '-')}'?"
    return click.NoSuchOption(error.option_name, message, ctx=error.ctx)
