"""`tlkit features`: what a frozen part makes of every image of a folder."""

from __future__ import annotations

import click

from tlkit.cli.flags import flags_for
from tlkit.options import FeatureOptions


@click.command("features")
@click.argument("folder", type=click.Path())
@click.option("--out", metavar="DIR", required=True, help="The folder of the parts, or its URI.")
@flags_for(FeatureOptions, into="options")
def command(folder: str, out: str, options: FeatureOptions) -> None:
    """Write the features of the images in FOLDER, which is one that `tlkit fit` takes.

    Parquet parts with the path of each image, the name of its class and its numbers: those that a
    fit with the same options reads. What was stopped goes on when the same command is given again.
    An unreadable file is reported with its reason, and the exit status is 1. Needs the extra
    tlkit[parquet], with --ray tlkit[ray].

    \b
    tlkit features cats_dogs/ --out features/
    tlkit features cats_dogs/ --out features/ --backbone resnet50 --ray auto
    """
    from tlkit.cli import show
    from tlkit.cli.predict import spread
    from tlkit.scale.features import features_events

    show.decisions()
    spread(features_events(folder, out, options))
