"""`tlkit explain`: where on images a class was seen."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import click


@click.command("explain")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--head", metavar="FILE", help="A head file or run folder.  [default: the newest]")
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of a head fitted on one."
)
@click.option(
    "--class",
    "target",
    metavar="NAME",
    default="",
    help="The class to look for.  [default: of each image the likeliest]",
)
@click.option(
    "--out", metavar="DIR", help="A new folder for the pictures.  [default: explained, numbered]"
)
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
def command(
    paths: tuple[str, ...],
    head: str | None,
    weights: str,
    target: str,
    out: str | None,
    device: str,
) -> None:
    """Show on the images in PATHS what made the head name a class: a picture of each, in DIR.

    Red is what speaks for the class. Where the head is linear on an average the map is exact (CAM);
    elsewhere it is Grad-CAM, which needs the extra tlkit[explain].

    \b
    tlkit explain photos/
    tlkit explain cat.jpg --class dog --out why
    """
    from tlkit.classifier import load
    from tlkit.cli import show
    from tlkit.data.folder import expand, find_images
    from tlkit.data.images import BadImage
    from tlkit.data.own import check_images
    from tlkit.files import new_folder, write_text
    from tlkit.report.explain import explain, picture_names, write_picture
    from tlkit.steps import Tick

    named = expand(paths)
    check_images(named, "explain")
    found = find_images(named)
    classifier = load(head, weights=weights)
    names = picture_names(found)
    place = _free() if out is None else Path(out)
    rows: list[list[str]] = []
    maps: dict[str, None] = {}
    bad = 0
    with show.meter() as tell, new_folder(place) as staged:
        explained = explain(classifier.head, found, target=target, device=device)
        for number, one in enumerate(explained):
            tell(Tick(what="explaining", done=number + 1, total=len(found)))
            if isinstance(one, BadImage):
                bad += 1
                show.unreadable(one)
                continue
            method = "exact (CAM)" if one.exact else "by Grad-CAM, which estimates"
            maps[f"map: {one.cells[0]} x {one.cells[1]} cells, {method}"] = None
            write_picture(one, staged / names[number])
            chance = dict(one.prediction.top(len(classifier.classes)))[one.target]
            rows.append([str(found[number]), one.target, f"{chance:.4f}", names[number]])
        write_text(staged / "explained.json", _as_json(rows))
    show.table(["path", "class", "probability", f"in {place}"], rows, right=[2])
    for line in maps:
        click.echo(line)
    if bad:
        click.echo(f"{bad} of {len(found)} images could not be read", err=True)
        sys.exit(1)


def _as_json(rows: Sequence[Sequence[str]]) -> str:
    """Say of each picture what it shows; by this file the folder is known as tlkit's own."""
    from tlkit.runs import as_json

    return as_json(
        [
            {"path": path, "class": name, "probability": float(chance), "picture": picture}
            for path, name, chance, picture in rows
        ]
    )


def _free() -> Path:
    """explained, with a number behind it from the second on."""
    names = ("explained" if n == 1 else f"explained-{n}" for n in itertools.count(1))
    return next(path for path in map(Path, names) if not path.exists())
