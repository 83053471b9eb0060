"""Cores: how many of the machine's processors this process is meant to use.

TLKIT_CORES says it where several processes share a machine; those that torchrun has started share
it evenly; else all are meant.
Also here: the processors are used by threads, which a forked process does not inherit.
"""

from __future__ import annotations

import os

from tlkit.errors import OptionError, TlkitError
from tlkit.ranks import here

VARIABLE = "TLKIT_CORES"


_computing_process: int | None = None
"""The process in which torch's threads were started."""


def check_not_forked() -> None:
    """Note that this process computes with torch.

    torch's threads do not survive a fork, but its record of them does: a forked process waits for
    them for ever. Raises `TlkitError` in a process that was forked from one that had computed.
    """
    global _computing_process
    process = os.getpid()
    if _computing_process is None:
        _computing_process = process
    if _computing_process != process:
        raise TlkitError(
            "a forked process cannot compute with torch",
            found=f"process {process}, forked from {_computing_process} after that one had loaded "
            "or used a head",
            expected="a process that was started anew, or forked before",
            do="use multiprocessing.get_context('spawn') or 'forkserver'; with a server that loads "
            "the program before it forks (gunicorn --preload), load the head in each worker",
        )


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
