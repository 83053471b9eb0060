"""`tlkit fit`: learn from a folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import FitOptions

if TYPE_CHECKING:
    from tlkit.train.events import Epoch


@click.command("fit")
@click.argument("folder", type=click.Path())
@click.option(
    "--out", metavar="DIR", help="The run folder.  [default: runs/FOLDER-BACKBONE, numbered]"
)
@click.option("--overwrite", is_flag=True, help="Replace a run folder that is not empty.")
@flags_for(FitOptions, into="options")
def command(folder: str, out: str | None, overwrite: bool, options: FitOptions) -> None:
    """Fit a head on the images in FOLDER.

    FOLDER holds a sub-folder of images for each class, or the folders train, val (or valid) and
    test of those. Without a val folder a share of each class is held out; a test folder is only
    looked at when all is done.

    \b
    tlkit fit cats_dogs/
    tlkit fit cats_dogs/ --backbone vgg16_bn --freeze features --head mlp
    tlkit fit cats_dogs/ --backbone timm/convnext_tiny --freeze none --epochs 5
    """
    from tlkit.cli import show
    from tlkit.fitting import fit_events
    from tlkit.steps import Tick, finish
    from tlkit.train.events import Event, Note

    with show.meter() as tell:
        before: Epoch | None = None

        def each(event: Event) -> None:
            nonlocal before
            if isinstance(event, Tick):
                tell(event)
            elif isinstance(event, Note):
                click.echo(show.one_line(event.text), err=True)
            else:
                _epoch(event, heading=before is None or event.number < before.number)
                before = event

        result = finish(fit_events(folder, options, out=out, overwrite=overwrite), each)
    named = {"validation": result.validation}
    if result.test is not None:
        named["test"] = result.test
    show.scores(named)
    click.echo(
        f"kept epoch {result.best.number} of {result.history[-1].number}, by validation "
        f"{'balanced accuracy' if options.monitor == 'balanced' else options.monitor}"
    )
    size_kib = result.head.stat().st_size / 1024
    click.echo(
        f"head: {show.one_line(str(result.head))} ({size_kib:,.0f} KiB), in {result.wall_s:.1f} s"
    )
    if result.bad:
        click.echo(f"{len(result.bad)} images could not be read", err=True)
        sys.exit(1)


def _epoch(one: Epoch, *, heading: bool) -> None:
    """A line of the table that grows while training."""
    if heading:
        click.echo("epoch      rate  train loss  val loss  accuracy  balanced    seconds")
    click.echo(
        f"{one.number:5d} {one.rate:9.2g} {one.train_loss:11.4f} {one.val_loss:9.4f} "
        f"{one.val_accuracy:9.1%} {one.val_balanced_accuracy:9.1%} {one.wall_s:10.2f}"
    )
