"""`tlkit compare`: which of several heads is better."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta
from tlkit.options import CompareOptions

if TYPE_CHECKING:
    from tlkit.ask.compare import Comparison


@click.command("compare", cls=WithTta)
@click.argument("heads", metavar="RUN RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="DIR",
    help="A new folder for all of it.  [default: runs/RUN-compare, numbered]",
)
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
)
@flags_for(CompareOptions, into="options")
def command(heads: tuple[str, ...], out: str | None, weights: str, options: CompareOptions) -> None:
    """Hold run folders or head files against each other, on the same images.

    Which is right more often, by how much, and whether that could be chance: McNemar's exact test
    of each two, corrected for their number (Holm), and 95 % intervals of the differences, paired.
    What each costs, in turns on this machine. The page in --out shows the photos that
    they disagree on. The heads of a cross-validation count as one.

    \b
    tlkit compare runs/a runs/b
    tlkit compare runs/a runs/b runs/c --on cats_dogs/test --tta
    """
    from tlkit.ask.compare import compare_events, default_out
    from tlkit.cli import show
    from tlkit.steps import finish
    from tlkit.train.events import Event, Note, Tick

    show.decisions()
    place = default_out(heads) if out is None else out
    with show.meter() as tell:

        def each(event: Event) -> None:
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)

        result = finish(compare_events(heads, options, out=place, weights=weights), each)
    _tell(result)
    click.echo(f"numbers, picture and photos: {show.one_line(str(place))}")
    for one in result.bad:
        show.unreadable(one)
    if result.bad:
        click.echo(f"{len(result.bad)} images could not be read", err=True)
        sys.exit(1)


def _tell(result: Comparison) -> None:
    """Tables on standard output, and the sentence of each pair."""
    from tlkit.cli import show

    show.table(
        [
            "",
            "accuracy",
            "95 % interval",
            "loss",
            "images/s",
            "slowest to fastest turn",
            "head file",
            "parameters",
            "weights",
        ],
        [
            [
                one.name,
                show.percent(one.scores.accuracy),
                f"{show.percent(one.scores.accuracy_low)} to "
                f"{show.percent(one.scores.accuracy_high)}",
                f"{one.scores.loss:.4f}",
                f"{one.images_per_s:.1f}",
                f"{one.slowest:.1f} to {one.fastest:.1f}",
                f"{one.head_bytes / 1024:.0f} KiB",
                f"{one.parameters / 1e6:.1f} M",
                f"{one.weights_bytes / (1 << 20):.1f} MiB",
            ]
            for one in result.contestants
        ],
        right=range(1, 9),
    )
    show.table(
        [
            "pair",
            "right alone",
            "points",
            "95 % interval",
            "loss less",
            "95 % interval",
            "p",
            "p (Holm)",
        ],
        [
            [
                " - ".join(one.names),
                " : ".join(map(str, one.alone)),
                f"{100 * one.accuracy:+.2f}",
                " to ".join(f"{100 * end:.2f}" for end in one.accuracy_95),
                f"{one.loss:+.4f}",
                " to ".join(f"{end:.4f}" for end in one.loss_95),
                f"{one.p:.2g}",
                f"{one.p_holm:.2g}",
            ]
            for one in result.pairs
        ],
        right=range(1, 8),
    )
    for pair in result.pairs:
        click.echo(show.one_line(str(pair)))
