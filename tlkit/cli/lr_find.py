"""`tlkit lr-find`: which learning rates to fit with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import FitOptions, SweepOptions

if TYPE_CHECKING:
    from tlkit.train.range_test import RangeTest


@click.command("lr-find")
@click.argument("folder", type=click.Path())
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for the losses and their picture.  "
    "[default: runs/FOLDER-BACKBONE-lr-find, numbered]",
)
@flags_for(SweepOptions, into="sweep")
@flags_for(FitOptions, into="options")
def command(folder: str, out: str | None, sweep: SweepOptions, options: FitOptions) -> None:
    """Find a learning rate for a fit of FOLDER with the same options.

    One step per batch, at rates that grow from --min-lr to --max-lr, until the loss rises
    (the learning rate range test, Smith 2017, arXiv 1506.01186). --lr and --backbone-lr only say
    how the backbone's rate stands to the head's. The model is thrown away.

    \b
    tlkit lr-find cats_dogs/ --freeze none
    tlkit lr-find cats_dogs/ --backbone vgg16_bn --freeze features --head mlp
    tlkit lr-find digits/ --backbone resnet20 --optimizer sgd --lr 0.1 --backbone-lr 0.1
    """
    from tlkit.cli import show
    from tlkit.rates import default_out, find_lr_events
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    place = default_out(folder, options) if out is None else out
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        result = finish(find_lr_events(folder, options, sweep, out=place), each)
    click.echo(f"{len(result.rates)} steps; {result.end}")
    _suggestions(result)
    click.echo(f"losses and picture: {show.one_line(str(place))}")
    show.skipped(result.bad)


def _suggestions(result: RangeTest) -> None:
    """The rates with what they mean, and the one to take as options of fit."""
    from tlkit.cli import show

    if result.steepest is None or result.lowest is None or result.suggestion is None:
        click.echo(f"no rate is suggested: {result.why_none}")
        return
    limited = result.suggestion < result.steepest
    show.table(
        ["rate", "what it is", "in a fit"],
        [
            [
                f"{result.suggestion:.2g}",
                f"a tenth of {result.lowest:.2g}; where the loss falls fastest, at "
                f"{result.steepest:.2g}, is too near to it"
                if limited
                else "where the loss falls fastest",
                result.flags,
            ],
            [f"{result.lowest:.2g}", "where the loss is lowest: too high for a fit", ""],
        ],
        right=[0],
    )
    click.echo(f"suggested: {result.flags}")
