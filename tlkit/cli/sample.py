"""`tlkit sample`: an image folder to try things on."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sample")
@click.argument("name")
@click.argument("folder", type=click.Path())
def command(name: str, folder: str) -> None:
    """Write the sample NAME as an image folder to FOLDER.

    digits is made on the spot, offline, from scikit-learn's handwritten digits. flowers102, pets,
    stl10, cifar10, mnist and eurosat are downloaded by torchvision.
    """
    from tlkit.cli import show
    from tlkit.data.sample import write_sample
    from tlkit.steps import Tick, finish

    with show.meter() as tell:
        count = finish(
            write_sample(name, Path(folder)),
            lambda at: tell(Tick(what=f"writing {name}", done=at[0], total=at[1])),
        )
    click.echo(f"{count} images in {show.one_line(str(folder))}")
