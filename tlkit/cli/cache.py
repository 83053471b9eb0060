"""`tlkit cache`: what is kept from fit to fit, and how to be rid of it."""

from __future__ import annotations

import click

from tlkit.errors import OptionError


@click.command("cache")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--clear", is_flag=True, help="Delete these entries; without a NAME, all of them.")
def command(names: tuple[str, ...], clear: bool) -> None:
    """List what frozen parts have made of images, or show what one entry was made of.

    The next fit finds it and does not compute it again. Any of it may be deleted at any time; what
    was used longest ago goes by itself when all together exceed TLKIT_CACHE_GB (10) gigabytes.
    TLKIT_CACHE names the folder.

    \b
    tlkit cache
    tlkit cache --clear
    """
    from datetime import datetime

    from rich.filesize import decimal

    from tlkit import cache
    from tlkit.cli import show

    if clear:
        gone, used = cache.clear(names)
        size = sum(one.size for one in gone)
        click.echo(f"deleted {len(gone)} entries, {decimal(size)}")
        for one in used:
            click.echo(f"left, for a process is using it: {one.name}")
        return
    chosen = [cache.entry(name) for name in names]
    if len(chosen) > 1:
        raise OptionError(
            "one entry can be shown at a time",
            found=f"{len(names)} names",
            expected="one, or several with --clear",
            do="name one",
        )
    if chosen:
        show.table(["made of", ""], [[key, text] for key, text in chosen[0].about.items()])
        return
    there = cache.entries()
    total = sum(one.size for one in there)
    rows = [
        [
            one.name,
            one.about.get("what", ""),
            decimal(one.size),
            f"{datetime.fromtimestamp(one.used):%Y-%m-%d %H:%M}",
        ]
        for one in there
    ]
    if rows:
        show.table(["entry", "what", "size", "last used"], rows, right=[2])
    click.echo(
        f"{decimal(total)} of {decimal(cache.limit())} in {show.one_line(str(cache.root()))}"
    )
