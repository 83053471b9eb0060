"""`tlkit search`: which backbone, pooling and head for these photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlkit.ask.candidates import NotTried
    from tlkit.ask.search import Found, Tried


@click.command("search")
@click.argument("folder", type=click.Path())
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for search.json and search.png.  [default: runs/FOLDER-search, numbered]",
)
@flags_for(SearchOptions, into="options")
def command(folder: str, out: str | None, options: SearchOptions) -> None:
    """Find the backbone, pooling and head for the photos in FOLDER, frozen features of which a
    head learns from.

    All are tried on a share of the training photos, the better half on more, and the last on all.
    The recommendation is judged by training photos that took part in no choice. A val or test part
    of FOLDER is not looked at.

    \b
    tlkit search cats_dogs/
    tlkit search cats_dogs/ --backbone efficientnet_lite0,resnet18=r18.pth,resnet20 --time 2m
    tlkit fit cats_dogs/ --backbone auto       the same, and then the fit
    """
    from tlkit.ask.search import default_out, search_events
    from tlkit.cli import show
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    place = default_out(folder) if out is None else out
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        found = finish(search_events(folder, options, out=place), each)
    _table(found)
    _left(found.not_tried)
    judged = found.judged
    click.echo(f"recommended: {show.one_line(found.best.label)}: {show.one_line(found.reason)}")
    click.echo(
        f"on {judged.images} photos that took part in no choice: "
        f"{show.percent(judged.accuracy)} (95 % interval {show.percent(judged.accuracy_low)} to "
        f"{show.percent(judged.accuracy_high)})"
    )
    click.echo(f"table and picture: {show.one_line(str(place))}, in {found.wall_s:.0f} s")
    click.echo(f"go on with: {show.one_line(found.command)}")
    for image in found.bad:
        show.unreadable(image)
    show.skipped(found.bad)


def _table(found: Found) -> None:
    """One row for each that was scored."""
    from tlkit.cli import show

    click.echo(
        "accuracy: cross-validated, and its standard deviation over the folds; rows of equal "
        "accuracy are in the order of their loss; * no other is as accurate and faster"
    )
    show.table(
        ["", "backbone", "photos", "accuracy", "95 % interval", "loss", "images/s",
         "weights", "head", "pool, head", ""],
        [_row(one, best=one is found.best) for one in found.tried],
        right=[2, 3, 5, 6, 7, 8],
    )  # fmt: skip


def _row(one: Tried, *, best: bool) -> list[str]:
    from tlkit.cli import show

    score = one.score
    told = "recommended" if best else "" if one.in_full else one.outcome
    return [
        "*" if one.front else "",
        one.label + (" (control)" if one.control else ""),
        str(score.photos),
        f"{100 * score.accuracy:.1f} ± {100 * score.fold_std:.1f} %",
        f"{show.percent(score.accuracy_low)} to {show.percent(score.accuracy_high)}",
        f"{score.loss:.4f}",
        f"{one.images_per_second:.0f}",
        f"{one.weights_bytes / 2**20:.1f} MiB",
        f"{score.head_bytes / 2**10:.0f} KiB",
        f"{score.pool}, {score.head}",
        told,
    ]


def _left(left: Sequence[NotTried]) -> None:
    """Why others have no row, those with one reason together."""
    from tlkit.cli import show
    from tlkit.errors import few

    for why in dict.fromkeys(one.why for one in left):
        names = [one.name for one in left if one.why == why]
        click.echo(f"not tried: {show.one_line(few(names))}: {show.one_line(why)}")
