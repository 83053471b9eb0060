"""Ending: a plugin that calls `os._exit` does not make a command look done.

`os._exit` ends a process at once: no exception, nothing to catch. While the console script runs, it
is replaced by a function that names its caller and never ends with 0.
Not here: `SystemExit` and its like (tlkit/plugins.py). Compiled code that ends the process is out
of reach of both, and so is a signal, whose status is not 0 anyway.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from tlkit.cli import show
from tlkit.errors import PluginError

STATUS = 2
"""As for other errors that say what to do."""


def watch_exit() -> Callable[[int], NoReturn]:
    """Replace `os._exit` for this process, not for its children; return the real one."""
    real, process = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:
            real(status)
        caller = sys._getframe(1)
        error = PluginError(
            "code outside of tlkit ended the process before the command was done",
            found=f"os._exit({status}) in {caller.f_globals.get('__name__', '?')}, line "
            f"{caller.f_lineno} of {caller.f_code.co_filename}",
            expected="code that returns, or raises an error",
            do="update or remove the package that it is part of (`tlkit plugins` lists them), or "
            "tell its author",
        )
        show.error(str(error))
        sys.stderr.flush()
        real(status or STATUS)

    os._exit = leave
    return real
