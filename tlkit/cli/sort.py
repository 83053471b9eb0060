"""`tlkit sort`: photos into class folders, and back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta
from tlkit.options import SortOptions

if TYPE_CHECKING:
    from tlkit.data.journal import Left
    from tlkit.sorting import Sorted

MOST = 20
"""Photos that stay, and are named on the terminal."""


@click.command("sort", cls=WithTta)
@click.argument("head", required=False)
@click.argument("photos", required=False, type=click.Path())
@click.option(
    "--into",
    metavar="DIR",
    help="A new folder for the class folders; with --undo, the folder that photos are moved back "
    "to, which is known where you have moved them from it on this machine.",
)
@click.option("--undo", metavar="DIR", help="Take back all that was sorted into DIR.")
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
)
@flags_for(SortOptions, into="options")
def command(
    head: str | None,
    photos: str | None,
    into: str | None,
    undo: str | None,
    weights: str,
    options: SortOptions,
) -> None:
    """Put the photos in PHOTOS into class folders, by HEAD: a head file or a run folder.

    Photos that no class is likely enough for, or that are too unlike what was learnt from, go into
    _unsure/. Sub-folders are kept below the class folders. Nothing is overwritten, and a command
    that was stopped, at any moment, goes on when it is given again. Unreadable photos stay where
    they are.

    Exit status 1: some photos stay, and are named.

    \b
    tlkit sort runs/cats_dogs-efficientnet_lite0 photos/ --into sorted/
    tlkit sort RUN photos/ --into sorted/ --by move --reject-below 0.9
    tlkit sort --undo sorted/
    tlkit sort --undo sorted/ --into photos/
    """
    from tlkit.cli import show
    from tlkit.errors import OptionError
    from tlkit.sorting import sort_events
    from tlkit.steps import finish

    if undo is not None:
        if head or weights or options.changed():
            raise OptionError(
                "an option would be ignored",
                found=f"--undo {undo}, and what to sort",
                expected="--undo DIR, with --into FOLDER or without, and nothing else",
                do="leave the rest out",
            )
        _undo(undo, into)
        return
    if head is None or photos is None or into is None:
        raise OptionError(
            "it is not said what is to be sorted",
            found=", ".join(
                f"no {name}"
                for name, one in (("HEAD", head), ("PHOTOS", photos), ("--into", into))
                if one is None
            ),
            expected="tlkit sort HEAD PHOTOS --into DIR, or tlkit sort --undo DIR",
            do="name a head, the folder of photos, and a new folder",
        )
    show.decisions()
    with _stoppable(), show.meter() as meter:
        result = finish(sort_events(head, photos, options, into=into, weights=weights), meter)
    _tell(result)
    for one in result.unreadable[:MOST]:
        show.unreadable(one)
    _name(result.left)
    if stay := len(result.unreadable) + len(result.left):
        click.echo(f"{stay} photos stay where they are; sorted.json names them", err=True)
        sys.exit(1)


def _undo(out: str, into: str | None) -> None:
    from tlkit.cli import show
    from tlkit.sorting import unsort_events
    from tlkit.steps import finish

    with _stoppable(), show.meter() as meter:
        left = finish(unsort_events(out, into), meter)
    _name(left)
    if left:
        click.echo(f"{len(left)} photos could not be taken back", err=True)
        sys.exit(1)
    click.echo("all photos are as they were before")


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            "\nstopped; the same command goes on from here, tlkit sort --undo takes it back",
            err=True,
        )
        sys.exit(130)


def _name(left: Sequence[Left]) -> None:
    from tlkit.cli import show

    for one in left[:MOST]:
        click.echo(f"stays: {show.one_line(one.file)}: {show.one_line(one.why)}", err=True)


def _tell(result: Sorted) -> None:
    """The table, and what it means."""
    from tlkit.cli import show
    from tlkit.errors import shell_word

    show.table(
        ["class", "photos", "mean probability", "likely wrong", "folder"],
        [
            [
                one.name,
                str(one.photos),
                "-" if one.probability is None else f"{one.probability:.3f}",
                "-" if one.wrong is None else f"{one.wrong:.1f}",
                f"{one.folder}/",
            ]
            for one in result.piles
        ],
        right=[1, 2, 3],
    )
    low, high = result.wrong_95
    done = {"link": "linked", "copy": "copied", "move": "moved"}[result.by]
    click.echo(
        f"{done} {result.count} photos into {show.one_line(str(result.out))}, "
        f"{show.percent(result.unsure)} of them unsure "
        f"(less likely than {result.likely:.4g}, or less familiar than {result.familiar:g})"
    )
    click.echo(
        f"likely in the wrong folder: {result.wrong:.1f} (95 %: {low:.1f} to {high:.1f}), if the "
        "probabilities are right: of photos like those that the head was judged by"
    )
    click.echo(f"tlkit sort --undo {shell_word(str(result.out))} takes it back", err=True)
