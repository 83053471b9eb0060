"""The terminal: arguments in, text out, an exit status.

Each command is a file beside this one. Importing them is cheap: what computes is imported inside
the commands, so `tlkit --help` loads no torch and no plugin.

Exit status: 0 done, which includes --on-bad skip where it was asked for; 1 done, but some images
could not be read; 2 an error that says what to do;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import click

from tlkit import __version__
from tlkit.cli import (
    backbones,
    cache,
    check,
    compare,
    curve,
    evaluate,
    explain,
    export,
    features,
    fit,
    inspect,
    lr_find,
    plugin,
    plugins,
    predict,
    report,
    sample,
    search,
    serve,
    show,
    similar,
    sort,
    suggest,
    summary,
)
from tlkit.errors import OptionError, TlkitError
from tlkit.ranks import here


def run() -> None:
    """The console script: `main`, and an end without delay.

    Python would take torch apart, object by object, which lasts a second.
    """
    status: object = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    if not isinstance(status, int):
        sys.exit(None if status is None else str(status))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it has gone
            status = status or 1
    atexit._run_exitfuncs()
    os._exit(status)


class Commands(click.Group):
    """The group, which turns errors into text and a status, in this one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a `TlkitError` is printed without a traceback and ends with status 2."""
        try:
            return super().main(*args, **kwargs)
        except TlkitError as error:
            show.error(str(error))
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C: say so, and that nothing was left half-written."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped; nothing was left half-written", err=True)
            sys.exit(130)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="tlkit")
@click.pass_context
def main(ctx: click.Context) -> None:
    """From a folder of photos to a classifier you can trust, on any backbone.

    \b
    tlkit sample digits digits/        a folder to try
    tlkit fit digits/                  learn
    tlkit predict photos/ --tta        use it
    """
    if here().several and ctx.invoked_subcommand != fit.command.name:
        raise OptionError(
            f"tlkit {ctx.invoked_subcommand} does not share its work out",
            found="several processes, started by torchrun",
            expected="one; `tlkit fit` is what several can do together",
            do="start it without torchrun",
        )


for _command in (
    check.command,
    fit.command,
    predict.command,
    sort.command,
    evaluate.command,
    compare.command,
    report.command,
    explain.command,
    suggest.command,
    similar.command,
    export.command,
    features.command,
    serve.command,
    inspect.command,
    curve.command,
    search.command,
    lr_find.command,
    backbones.command,
    summary.command,
    plugins.command,
    plugin.command,
    cache.command,
    sample.command,
):
    main.add_command(_command)
