"""`tlkit curve`: would more photos help?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import CurveOptions

if TYPE_CHECKING:
    from tlkit.ask.curve import Curve
    from tlkit.ask.law import Interval

MOST = 20
"""Classes that are listed on the terminal."""


@click.command("curve")
@click.argument("folder", type=click.Path())
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for curve.json and curve.png.  "
    "[default: runs/FOLDER-BACKBONE-curve, numbered]",
)
@flags_for(CurveOptions, into="options")
def command(folder: str, out: str | None, options: CurveOptions) -> None:
    """Tell whether more photos in FOLDER would help, and of which classes.

    Heads learn from growing numbers of its photos, several times, and each is judged by photos
    that it has not learnt from. Power laws through what they reach tell what twice and ten times
    the photos would give, with 95 % intervals. A test part of FOLDER is not looked at.

    \b
    tlkit curve photos
    tlkit curve photos --draws 20 --fractions 0.1,0.2,0.4,0.7,1
    """
    from tlkit.ask.curve import curve_events, default_out
    from tlkit.cli import show
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    place = default_out(folder, options) if out is None else out
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        result = finish(curve_events(folder, options, out=place), each)
    _tell(result)
    click.echo(f"all of it, and a picture: {show.one_line(str(place))}")
    for one in result.bad:
        show.unreadable(one)
    show.skipped(result.bad)


def _tell(result: Curve) -> None:
    """Tables on standard output, and the answer."""
    from tlkit.cli import show

    show.table(
        ["photos learnt from", "accuracy", "spread of draws", "loss (nats)"],
        [
            [
                f"{one.photos:.0f}",
                show.percent(one.accuracy),
                show.percent(one.spread),
                f"{one.loss:.4f}",
            ]
            for one in result.points
        ],
        right=range(4),
    )
    click.echo()
    show.table(
        ["photos", "times", "expected accuracy", "95 % interval"],
        [
            [
                str(one.photos),
                f"{one.times:g}",
                show.percent(one.accuracy.value),
                _ends(one.accuracy),
            ]
            for one in result.forecasts
        ],
        right=range(3),
    )
    click.echo()
    show.table(
        ["class", "photos", "recall now", "twice the photos", "gain", "95 % interval", "most need"],
        [
            [
                one.name,
                str(one.photos),
                show.percent(one.now.value),
                show.percent(one.twice.value),
                show.percent(one.gain.value),
                _ends(one.gain),
                f"{one.sure:.0%}",
            ]
            for one in result.classes[:MOST]
        ],
        right=range(1, 7),
    )
    if len(result.classes) > MOST:
        click.echo(f"and {len(result.classes) - MOST} classes that gain less, in curve.json")
    click.echo("most need: how sure it is that a class gains more than classes do on average")
    click.echo()
    click.echo(result.answer)


def _ends(one: Interval) -> str:
    from tlkit.cli import show

    return f"{show.percent(one.low)} to {show.percent(one.high)}"
