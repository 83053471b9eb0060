"""Failure: how a command ends that could not do what it was asked to do, in text and status.

In: what was raised. Out: a message on standard error, and an exit status.
An error that tlkit raises on purpose, or that the machine is to blame for, has a text that says
what to do. Any other is a fault of the program: one line, and a file with the traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import tempfile
import traceback

import click

from tlkit import __version__
from tlkit.cli import show
from tlkit.cli.streams import OutputLost
from tlkit.errors import DiskError, TlkitError, briefly, machine_error, printable

ERROR = 2
FAULT = 70
"""An error that tlkit does not expect: EX_SOFTWARE of sysexits.h."""
INTERRUPTED = 130
"""Stopped by Ctrl-C: 128 and the number of SIGINT, as shells have it."""
READER_GONE = 141
"""Stopped because whoever read the output has gone: 128 and the number of SIGPIPE."""


def ended(error: Exception, *, with_traceback: bool = False) -> int:
    """Say what was raised, and return the exit status; a traceback is shown, or goes to a file."""
    if isinstance(error, OutputLost):
        return output_lost(error.fault) or READER_GONE
    known = error if isinstance(error, TlkitError) else machine_error(error)
    if with_traceback:
        click.echo(_traceback(error), err=True)
    if known is not None:
        show.error(str(known))
        return ERROR
    about = f"a fault of tlkit, not of yours: {printable(briefly(error))}"
    show.error(about if with_traceback else f"{about}; {_written_down(error)}")
    return FAULT


def output_lost(fault: OSError, *, finished: bool = False) -> int:
    """Say why standard output takes nothing; return the status, 0 where its reader has gone.

    `finished`: the command has done its work, and only what it printed is lost.
    """
    if fault.errno == errno.EPIPE:
        return 0
    known = DiskError(
        "standard output cannot be written",
        found=fault.strerror or str(fault),
        expected="an open output with room",
        do="print to another place; "
        + ("all else is done" if finished else "what is there of the results is not whole"),
    )
    show.error(str(known))
    return ERROR


def _written_down(error: Exception) -> str:
    """Write the traceback to a file, or show it where that fails; return what to do with it."""
    text = _traceback(error)
    with contextlib.suppress(OSError):
        number, path = tempfile.mkstemp(prefix="tlkit-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return f"please report it with {printable(path)}, which has the traceback"
    click.echo(text, err=True)
    return "please report it with the traceback above"


def _traceback(error: Exception) -> str:
    """Format the traceback and the versions; no arguments of the command: a token is secret."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    versions = f"tlkit {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return "".join([*lines, f"\n{versions}\n"])
