"""`tlkit export`: a head for another runtime."""

from __future__ import annotations

from pathlib import Path

import click

FORMATS_HELP = ("onnx", "openvino", "torch")


@click.command("export")
@click.argument("head", required=False, type=click.Path())
@click.option(
    "--to",
    type=click.Choice(FORMATS_HELP),
    default="onnx",
    show_default=True,
    help="The runtime: tlkit[onnx], tlkit[openvino], or torch.export.",
)
@click.option("--int8", is_flag=True, help="In whole numbers: smaller and faster, less exact.")
@click.option(
    "--images",
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="Photos to compare with tlkit on; a folder of class folders also gives the accuracy.  "
    "[default: those of the fit]",
)
@click.option("--out", metavar="DIR", help="A new folder.  [default: RUN-onnx and the like]")
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of a head fitted on one."
)
def command(
    head: str | None, to: str, int8: bool, images: tuple[str, ...], out: str | None, weights: str
) -> None:
    """Write HEAD (a head file or run folder; the newest run's) for another runtime.

    The folder holds the network from uint8 pixels to calibrated probabilities, the classes, what
    comes before the network, and a model card. It is there only when what was written has been run,
    and has answered as tlkit does.

    \b
    tlkit export runs/cats_dogs-efficientnet_lite0
    tlkit export --to openvino --int8
    """
    from tlkit.classifier import load
    from tlkit.cli import show
    from tlkit.export import export
    from tlkit.steps import finish

    classifier = load(head, weights=weights)
    with show.meter() as tell:
        result = finish(
            export(
                classifier.head,
                to=to,
                int8=int8,
                images=[Path(one) for one in images],
                out=None if out is None else Path(out),
            ),
            tell,
        )
    rows = [
        ["images compared", str(result.images)],
        ["largest change of a probability", f"{result.largest_change:.2g}"],
        ["the same class", show.percent(result.agreement)],
    ]
    if result.accuracy is not None and result.accuracy_of_head is not None:
        rows.append(["accuracy", show.percent(result.accuracy)])
        rows.append(["accuracy of the head", show.percent(result.accuracy_of_head)])
    show.table(["", ""], rows, right=[1])
    size = result.size / 2**20
    click.echo(f"{show.one_line(str(result.folder))}: {to}, {size:,.1f} MiB")
