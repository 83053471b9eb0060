"""Cores: how many of the machine's processors this process is meant to use.

TLKIT_CORES says it where several processes share a machine; those that torchrun has started share
it evenly; else all are meant.
"""

from __future__ import annotations

import os

from tlkit.errors import OptionError
from tlkit.ranks import here

VARIABLE = "TLKIT_CORES"


def limit() -> int | None:
    """What TLKIT_CORES says, or torchrun; None where neither does.

    Raises `OptionError` for what is no number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        beside = here().local_size
        return max(1, every() // beside) if beside > 1 else None
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise OptionError(
        "the number of cores cannot be used",
        found=f"{VARIABLE}={text}",
        expected="a whole number, 1 or more",
        do="correct or unset it",
    )


def cores() -> int:
    """At least 1."""
    return limit() or every()


def every() -> int:
    """The machine's."""
    return os.cpu_count() or 1


def share(count: int) -> None:
    """Let this process, and those that it starts, use so many."""
    os.environ[VARIABLE] = str(count)
