"""`tlkit plugin`: for those who write backbones."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("plugin")
def command() -> None:
    """For those who write a backbone of their own (`tlkit plugins` shows those installed)."""


@command.command("new")
@click.argument("name")
@click.option("--out", metavar="DIR", help="Where to write the package.  [default: ./NAME]")
def new(name: str, out: str | None) -> None:
    """Write a plugin package called NAME: a small network to replace, its entry point, its tests.

    It installs, keeps the contract and can be trained as it is; no network is needed, where the
    extra tlkit[plugin] (hatchling and pytest) is installed.

    \b
    tlkit plugin new my-net
    """
    from tlkit.cli import show
    from tlkit.scaffold import new_plugin

    made = new_plugin(name, None if out is None else Path(out))
    folder = show.one_line(str(made.folder))
    click.echo(f"{folder}: a package with one backbone, {made.backbone}\n")
    click.echo(f"  cd {folder}")
    click.echo("  pip install --no-build-isolation -e .")
    click.echo(f"  tlkit plugins --check {made.backbone}")
    click.echo("  python -m pytest")
    click.echo(f"  tlkit fit PHOTOS --backbone {made.backbone} --freeze none\n")
    click.echo(f"Put your network into `build` in {folder}/{made.package}/__init__.py.")
