"""Flags: an options record as a command's flags.

In: a record declared in options.py. Out: a click decorator that gives the command one argument, the
record. Values are checked by the record itself, so the command line and Python say the same.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlkit.errors import OptionError
from tlkit.options import Checked, Declared, declared

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic for type checkers; older versions of click know no [Any]

Command = TypeVar("Command", bound=Callable[..., Any])


def flags_for(
    record: type[Checked], into: str, *, without: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Add a flag for each option of `record`; the command gets the record as `into`.

    Options in `without` get no flag and keep their defaults: the command has an argument instead.
    """
    options = [one for one in declared(record) if one.name not in without]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_record(**values: Any) -> Any:
            own = {one.name: values.pop(one.name) for one in options}
            return command(**values, **{into: record(**own)})

        decorated: Any = with_record
        for one in reversed(options):
            decorated = _flag(one)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _flag(one: Declared) -> Callable[[Any], Any]:
    if one.type is bool:
        return click.option(
            f"{one.flag}/--no-{one.flag[2:]}", one.name, default=one.default, help=one.limits.help,
            show_default=True,
        )  # fmt: skip
    return click.option(
        one.flag, one.name, default=one.default, help=_help(one),
        show_default=one.default != "", type=_Value(one), metavar=_metavar(one),
    )  # fmt: skip


def _metavar(one: Declared) -> str:
    if one.limits.choices:
        return "|".join(one.limits.choices)
    return {int: "N", float: "X", str: one.name.upper()}[one.type]


def _help(one: Declared) -> str:
    extra = "" if one.limits.choices else f" ({one.allowed})"
    return f"{one.limits.help}{extra}"


class _Value(ParamType):
    """Text to the declared type; what is not of that type gets tlkit's own error."""

    def __init__(self, one: Declared) -> None:
        self.one = one
        self.name = one.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.one.type(value)
        except ValueError as error:
            raise OptionError(
                "an option has a value that it cannot have",
                found=f"{self.one.flag} {value}",
                expected=self.one.allowed,
                do="correct the value",
            ) from error


def refuse_empty(words: Sequence[str]) -> None:
    """Raise `OptionError` for an empty word of a command line, also behind a flag's `=`.

    It mostly comes from a variable of the shell that is not set, and as a path it would mean the
    current folder.
    """
    for position, word in enumerate(words):
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        if not value.strip():
            before = words[position - 1 : position] if position else []
            raise OptionError(
                "an argument is empty",
                found=shlex.join([*before, word]),
                expected="a value: an empty path would be the current folder, which is called .",
                do="leave it out, or give it a value; a variable of the shell may not be set",
            )


def value_or_flag(
    arguments: Sequence[str], flag: str, meant: str, values: Container[str]
) -> list[str]:
    """Give `flag` the value `meant` where it stands alone: at the end, or before a path or a flag.

    So `predict --tta photos/` and `predict photos/ --tta ten` both mean what they say, and a
    mistyped value is still told from a path: it is not there.
    """
    from pathlib import Path

    result: list[str] = []
    for place, one in enumerate(arguments):
        following = arguments[place + 1 : place + 2]
        alone = (
            not following
            or following[0].startswith("-")
            or (
                following[0] not in values
                and (Path(following[0]).exists() or "/" in following[0] or "*" in following[0])
            )
        )
        result.append(f"{flag}={meant}" if one == flag and alone else one)
        if one == "--":
            return [*result, *arguments[place + 1 :]]
    return result
