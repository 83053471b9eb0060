"""`tlkit similar`: the photos of a folder that are most like an image."""

from __future__ import annotations

import sys

import click

from tlkit.cli.flags import flags_for
from tlkit.options import SimilarOptions


@click.command("similar")
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("-n", "count", metavar="N", type=int, default=10, show_default=True,
    help="How many neighbours of each image to find (whole number from 1).")  # fmt: skip
@click.option(
    "--head",
    metavar="FILE",
    help="A head file or run: compare by the vectors in front of this head, whatever of its "
    "network was trained.",
)
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for the page and the JSON.  [default: runs/FOLDER-similar, numbered]",
)
@flags_for(SimilarOptions, into="options", without=["count"])
def command(
    images: tuple[str, ...],
    folder: str,
    count: int,
    head: str | None,
    out: str | None,
    options: SimilarOptions,
) -> None:
    """Find the photos in FOLDER, searched to every depth, that are most like each of IMAGES.

    By the cosine of the features that `tlkit fit` with the same options reads, or of those of a
    head. Each similarity is held against those of random pairs of the folder. Writes similar.html
    (thumbnails) and similar.json.

    \b
    tlkit similar photo.jpg photos/
    tlkit similar a.jpg b.jpg photos/ -n 20 --backbone vgg16_bn --pool avg
    tlkit similar photo.jpg photos/ --head runs/cats_dogs-efficientnet_lite0
    """
    from dataclasses import replace
    from pathlib import Path

    from tlkit.ask.similar import default_out, in_words, similar_events
    from tlkit.cli import show
    from tlkit.data.own import check_images
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    check_images([Path(one) for one in (*images, folder)], "similar")
    place = default_out(folder) if out is None else out
    asked = replace(options, count=count)
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        result = finish(similar_events(images, folder, asked, head=head, out=place), each)
    for one in result.found:
        click.echo(f"like {show.one_line(str(one.image))}:")
        show.table(
            ["", "similarity", "of random pairs below", "95 %", "photo"],
            [
                [
                    str(number), f"{near.similarity:.4f}", f"{near.above:.2%}",
                    f"{near.above_low:.2%} to {near.above_high:.2%}", str(near.path),
                ]
                for number, near in enumerate(one.neighbours, start=1)
            ],
            right=[0, 1, 2],
        )  # fmt: skip
    click.echo(in_words(result))
    click.echo(f"page and numbers: {show.one_line(str(place))}")
    for bad in result.bad:
        show.unreadable(bad)
    if result.bad:
        click.echo(f"images that could not be read: {len(result.bad)}", err=True)
        sys.exit(1)
