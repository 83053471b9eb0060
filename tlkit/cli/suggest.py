"""`tlkit suggest`: which photos to label next."""

from __future__ import annotations

import sys

import click

from tlkit.cli.flags import flags_for
from tlkit.options import SuggestOptions

MOST = 20
"""Suggestions that are listed on the terminal."""


@click.command("suggest")
@click.argument("head", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("-n", "count", metavar="N", type=int, default=50, show_default=True,
    help="How many photos to suggest (whole number from 1).")  # fmt: skip
@click.option("--labelled", metavar="DIR",
    help="The photos that have labels already: a folder of class folders, or of parts.  "
    "[default: the folder that HEAD was fitted on]")  # fmt: skip
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
)
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for the list, the links and the page.  "
    "[default: runs/FOLDER-suggest, numbered]",
)
@flags_for(SuggestOptions, into="options", without=["count"])
def command(
    head: str,
    paths: tuple[str, ...],
    count: int,
    labelled: str | None,
    weights: str,
    out: str | None,
    options: SuggestOptions,
) -> None:
    """Suggest which photos in PATHS to label next, for the head file or run HEAD to learn from.

    Of those that HEAD is least sure of, the ones that tell the most beside what is labelled. PATHS
    are files, folders (searched to every depth) and globs. Writes suggest.txt (a path a line),
    photos/ (links in that order), suggest.html (thumbnails) and suggest.json.

    \b
    tlkit suggest runs/cats_dogs-efficientnet_lite0 unlabelled/
    tlkit suggest head.safetensors unlabelled/ -n 20 --out next/
    """
    from dataclasses import replace

    from tlkit.ask.suggest import default_out, in_words, suggest_events
    from tlkit.cli import show
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    place = default_out(paths) if out is None else out
    asked = replace(options, count=count)
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        asking = suggest_events(head, paths, asked, labelled=labelled, weights=weights, out=place)
        result = finish(asking, each)
    show.table(
        ["", "looks like", "", "or", "", "photo"],
        [
            [
                str(number), one.label, f"{one.probability:.1%}", one.second,
                f"{one.second_probability:.1%}", str(one.path),
            ]
            for number, one in enumerate(result.suggestions[:MOST], start=1)
        ],
        right=[0, 2, 4],
    )  # fmt: skip
    if len(result.suggestions) > MOST:
        click.echo(f"and {len(result.suggestions) - MOST} more")
    click.echo(in_words(result))
    click.echo(f"list, links and page: {show.one_line(str(place))}")
    for bad in result.bad:
        show.unreadable(bad)
    if result.bad:
        click.echo(f"images that could not be read: {len(result.bad)}", err=True)
        sys.exit(1)
