"""Show: tables, progress and numbers on the terminal.

Results go to standard output; progress and notes go to standard error, progress only on a terminal.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from tlkit.errors import printable
from tlkit.steps import Tick

if TYPE_CHECKING:
    from rich.console import Console

    from tlkit.data.images import BadImage
    from tlkit.metrics import Evaluation


class Meter(Protocol):
    """A progress bar that can be told where a pass stands."""

    def __call__(self, tick: Tick) -> None:
        """Move the bar; a new `what` starts a new one."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print rows under headers; columns in `right` are aligned right. A pipe gets whole lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, header in enumerate(headers):
        shown.add_column(
            Text(one_line(header)), justify="right" if i in right else "left", overflow="fold"
        )
    for row in rows:
        shown.add_row(*(Text(one_line(cell)) for cell in row))
    console().print(shown)


def console(stderr: bool = False) -> Console:
    """A rich console; wide when it is not a terminal, so that files and pipes get whole lines."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=10_000)


def one_line(text: str) -> str:
    """`text` with control characters and line breaks escaped: a name in a table or a note."""
    return printable(text).replace("\n", r"\n")


def unreadable(one: BadImage) -> None:
    """An image that could not be read, and why, on standard error."""
    click.echo(f"unreadable: {one_line(str(one.path))}: {one_line(one.reason)}", err=True)


def skipped(bad: Sequence[BadImage]) -> None:
    """Count on standard error the images that --on-bad skip left out, where there are any."""
    if bad:
        count = f"{len(bad)} image{'s' * (len(bad) > 1)}"
        click.echo(f"skipped, because they could not be read (--on-bad skip): {count}", err=True)


def decisions() -> None:
    """From here on, show on standard error what tlkit's rooms decide by themselves."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(one_line(record.getMessage()), err=True)

    log = logging.getLogger("tlkit")
    log.handlers = [Shown()]
    log.setLevel(logging.INFO)
    log.propagate = False


def error(text: str) -> None:
    """An error on standard error; in colour on a terminal that wants it."""
    from rich.text import Text

    shown = Text.assemble(("error:", "bold red"), " ", text)
    console(stderr=True).print(shown, soft_wrap=True)


@contextlib.contextmanager
def meter() -> Iterator[Meter]:
    """Progress bars with rate and time left, on a terminal; silence elsewhere."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda tick: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Images per second."""

        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.0f} images/s" if speed else "")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
    ) as progress:
        tasks: dict[str, Any] = {}

        def tell(tick: Tick) -> None:
            if tick.what not in tasks:
                for old in tasks.values():
                    progress.update(old, visible=False)
                tasks[tick.what] = progress.add_task(tick.what, total=tick.total)
            progress.update(tasks[tick.what], completed=tick.done)

        yield tell


def percent(value: float) -> str:
    """0.9876 -> 98.8 %"""
    return f"{100 * value:.1f} %"


def scores(named: dict[str, Evaluation], more: Sequence[Sequence[str]] = ()) -> None:
    """Evaluations side by side: one column each; `more` are rows for below."""
    rows = [
        ["images", *(str(one.images) for one in named.values())],
        ["accuracy", *(percent(one.accuracy) for one in named.values())],
        [
            "  95 % interval",
            *(
                f"{percent(one.accuracy_low)} to {percent(one.accuracy_high)}"
                for one in named.values()
            ),
        ],
    ]
    if any(one.top5 is not None for one in named.values()):
        rows.append(["top-5", *("" if e.top5 is None else percent(e.top5) for e in named.values())])
    rows.append(["balanced accuracy", *(percent(one.balanced_accuracy) for one in named.values())])
    rows += [
        ["loss (nats)", *(f"{one.loss:.4f}" for one in named.values())],
        ["calibration error", *(percent(one.calibration_error) for one in named.values())],
        ["Brier score", *(f"{one.brier:.4f}" for one in named.values())],
    ]
    for title, shares in (
        ("answered", [one.answered for one in named.values()]),
        ("accuracy of these", [one.answered_accuracy for one in named.values()]),
    ):
        if any(one.answered is not None for one in named.values()):
            rows.append([title, *("-" if one is None else percent(one) for one in shares)])
    table(["", *named], [*rows, *more], right=range(1, len(named) + 1))
