"""`tlkit check`: what is wrong with a folder of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import CheckOptions

if TYPE_CHECKING:
    from tlkit.data.audit import Audit

MOST = 20
"""Findings of a kind that are listed on the terminal."""


@click.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--fix", is_flag=True, help="Move files of what was found into FOLDER/.quarantine; see above."
)
@click.option("--undo", is_flag=True, help="Put back what --fix has moved, and do nothing else.")
@click.option("--json", "json_file", metavar="FILE", help="Write all of it as JSON; - prints it.")
@click.option("--html", metavar="FILE", help="Write a page with thumbnails.")
@flags_for(CheckOptions, into="options")
def command(
    folder: Path,
    fix: bool,
    undo: bool,
    json_file: str | None,
    html: str | None,
    options: CheckOptions,
) -> None:
    """Look at every image of FOLDER, and tell what a fit would stumble over.

    Unreadable files; images that are there twice, in a class, in two classes (one label is wrong),
    or in two parts (the score is of what was learnt by heart); also re-encoded or scaled ones.
    Blank, dark, tiny and narrow images, uneven classes, what lies there unused. --labels adds the
    images that are likely in the wrong class.

    --fix takes away unreadable and blank files, all but one of a duplicate, every copy of an image
    in two classes, and of one in two parts all but that in test (in val, where none is in test). It
    deletes nothing.

    Exit status 1: something was found with which a score is not to be believed.

    \b
    tlkit check photos
    tlkit check photos --html found.html --only leak,duplicate --fix
    tlkit fit photos --folds 5 --out run && tlkit check photos --labels run
    """
    from tlkit import checking
    from tlkit.cli import show
    from tlkit.files import write_text
    from tlkit.steps import finish

    if undo:
        back = checking.undo(folder)
        click.echo(f"put back {len(back)} files into {show.one_line(str(folder))}")
        return
    with show.meter() as meter:
        found = finish(checking.check_events(folder, options), meter)
    if json_file == "-":
        click.echo(checking.as_json(found).encode("utf-8", "surrogateescape"), nl=False)
    else:
        _tell(found)
        if json_file is not None:
            write_text(Path(json_file), checking.as_json(found))
    if html is not None:
        from tlkit.report.audit_page import page

        write_text(Path(html), page(found))
    if fix:
        _fix(found)
    elif found.serious:
        sys.exit(1)


def _fix(found: Audit) -> None:
    """Move the files; status 1 where some of them stay."""
    from tlkit import checking
    from tlkit.cli import show
    from tlkit.data.journal import Left
    from tlkit.data.quarantine import NAME

    done = checking.fix(found)
    left = [one for one in done if isinstance(one, Left)]
    place = show.one_line(str(found.folder / NAME))
    click.echo(f"moved {len(done) - len(left)} files into {place}", err=True)
    for one in left[:MOST]:
        click.echo(f"stays: {show.one_line(one.file)}: {show.one_line(one.why)}", err=True)
    click.echo("tlkit check FOLDER --undo puts them back", err=True)
    if left:
        click.echo(f"{len(left)} files stay where they are; check the folder again", err=True)
        sys.exit(1)


def _tell(found: Audit) -> None:
    """Tables on standard output."""
    from tlkit.cli import show
    from tlkit.data.audit import KINDS

    by_kind = {kind: [one for one in found.findings if one.kind == kind] for kind in KINDS}
    rows = [
        [kind, str(len(those)), "yes" if KINDS[kind].serious else "", KINDS[kind].about]
        for kind, those in by_kind.items()
        if those
    ]
    click.echo(f"{found.images} images of {len(found.classes)} classes")
    if not rows:
        click.echo("nothing was found")
        return
    show.table(["found", "times", "serious", "what it means"], rows, right=[1])
    for kind, those in by_kind.items():
        for one in those[:MOST]:
            click.echo(f"{kind}: {show.one_line('  '.join((*one.files, one.about)))}")
        if len(those) > MOST:
            click.echo(f"{kind}: and {len(those) - MOST} more, which --json and --html show")
    if not found.compared:
        click.echo("images that only look the same were not searched for")
