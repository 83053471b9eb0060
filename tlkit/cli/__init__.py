"""The terminal: arguments in, text out, an exit status.

Each command is a file beside this one. Importing them is cheap: what computes is imported inside
the commands, so `tlkit --help` loads no torch and no plugin.

Exit status: 0 done, which includes --on-bad skip where it was asked for; 1 done, but some images
could not be read; 2 an error that says what to do; 70 a fault of the program, whose traceback is in
the file that is named; 130 stopped by Ctrl-C; 141 stopped, for whoever read the output has gone.
"""

from __future__ import annotations

import atexit
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
    failure,
    features,
    fit,
    hints,
    inspect,
    lr_find,
    plugin,
    plugins,
    predict,
    report,
    sample,
    search,
    serve,
    similar,
    sort,
    streams,
    suggest,
    summary,
)
from tlkit.cli.ending import watch_exit
from tlkit.cli.flags import refuse_empty
from tlkit.errors import OptionError, TlkitError
from tlkit.plugins import plugin_that_ended
from tlkit.ranks import here


def run() -> None:
    """The console script: `main`, and an end without delay.

    Python would take torch apart, object by object, which lasts a second.
    """
    streams.in_utf8()
    streams.guard()
    leave = watch_exit()
    status: object = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    if not isinstance(status, int):
        sys.exit(None if status is None else str(status))
    atexit._run_exitfuncs()
    streams.flush()
    fault = streams.fault()
    if fault is not None and status in (0, 1):
        status = failure.output_lost(fault, finished=True) or status
        streams.flush()
    leave(status)


class Commands(click.Group):
    """The group, which turns errors into text and a status, in this one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words of the command line, of whatever command; refuse an empty one."""
        refuse_empty(args)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a `TlkitError` is printed without a traceback and ends with status 2."""
        try:
            return super().main(*args, **kwargs)
        except TlkitError as error:
            sys.exit(failure.ended(error))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is raised becomes a text and a status.

        Ctrl-C: say so, and that nothing was left half-written.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped; nothing was left half-written", err=True)
            sys.exit(failure.INTERRUPTED)
        except click.NoSuchOption as error:
            raise hints.guess_option(error) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click says these itself
        except Exception as error:
            if isinstance(error, TlkitError):
                hints.fit_to(error, ctx.invoked_subcommand or "", self.commands)
            sys.exit(failure.ended(error, with_traceback=ctx.params.get("traceback", False)))
        except BaseException as error:  # a plugin's `sys.exit(0)` must not look like success
            ended = plugin_that_ended(error)
            if ended is None:
                raise
            sys.exit(failure.ended(ended))


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="tlkit")
@click.option(
    "--traceback",
    is_flag=True,
    envvar="TLKIT_TRACEBACK",
    help="Show where in the program an error was raised.",
)
@click.pass_context
def main(ctx: click.Context, traceback: bool) -> None:
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
