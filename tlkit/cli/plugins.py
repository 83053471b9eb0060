"""`tlkit plugins`: which distributions bring backbones or parts of reports, and if they load."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlkit.plugins import Found


@click.command("plugins")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--check", is_flag=True, help="Hold each backbone against the contract, which takes a while."
)
def command(names: tuple[str, ...], check: bool) -> None:
    """Show every distribution that brings a backbone or a part of a report, its version, and
    whether it loads.

    NAME is a distribution or a backbone, with --check also FAMILY/NAME. This imports the plugins; a
    broken one is listed with its reason and stops nothing else. With --check each backbone is built
    and tried out in a process of its own; exit status 1 says that one breaks the contract.
    TLKIT_PLUGINS limits what is looked at: distributions or packages, with commas between.

    \b
    tlkit plugins
    tlkit plugins --check my-package timm/resnet18
    """
    from tlkit.errors import unknown
    from tlkit.plugins import BACKBONES, FAMILIES, REPORTS, find

    installed = find([BACKBONES, FAMILIES, REPORTS])
    for name in names:
        if not _named(installed, name):
            known = {n: None for one in installed for n in (one.distribution, one.name)}
            raise unknown(known, name, "plugin or backbone")
    if check:
        _check(installed, names)
    else:
        wanted = [one for name in names for one in _named(installed, name)] if names else installed
        _list(wanted)


def _named(installed: Sequence[Found], name: str) -> list[Found]:
    """What a name means: all of a distribution, a backbone, or the family of a member."""
    family = name.partition("/")[0]
    return [
        one
        for one in installed
        if name in (one.distribution, one.name, one.qualified)
        or (one.is_family and "/" in name and family in (one.name, one.qualified))
    ]


def _list(wanted: Sequence[Found]) -> None:
    from collections import defaultdict

    from tlkit.cli import show
    from tlkit.plugins import REPORTS, Broken, load, load_as
    from tlkit.report.part import Part

    members: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for one in wanted:
        members[one.distribution, one.version, one.module].append(one)
    rows = []
    for (distribution, version, module), found in sorted(members.items()):
        loaded = [load_as(one, Part) if one.group == REPORTS else load(one) for one in found]
        broken = [one for one in loaded if isinstance(one, Broken)]
        reasons = dict.fromkeys(f"{one.found.name}: {one.reason}" for one in broken)
        listed = [_shown(one) for one in found]
        state = "loads" if not broken else "broken: " + "; ".join(reasons)
        rows.append([distribution, version, module, ", ".join(listed), state])
    show.table(["distribution", "version", "package", "brings", "state"], rows)


def _shown(found: Found) -> str:
    from tlkit.plugins import REPORTS

    if found.group == REPORTS:
        return f"{found.name} (a part of reports)"
    return f"{found.name}/NAME" if found.is_family else found.name


def _check(installed: Sequence[Found], names: Sequence[str]) -> None:
    from tlkit.cli import show
    from tlkit.plugins import REPORTS
    from tlkit.vetting import vet

    members = [name for name in names if "/" in name]
    whole = [name for name in names if "/" not in name]
    wanted = [one for name in whole for one in _named(installed, name)] if names else installed
    parts = [one for one in wanted if one.group == REPORTS]
    each = [(one, one.qualified) for one in wanted if not one.is_family and one not in parts]
    each += [(_named(installed, name)[0], name) for name in members]
    broken = 0
    for found, name in each:
        vetted = vet(name)
        broken += bool(vetted.fault)
        state = f"breaks {vetted.law}: {vetted.fault}" if vetted.fault else "keeps the contract"
        said = f"; prints when imported: {vetted.printed}" if vetted.printed else ""
        click.echo(show.one_line(f"{found.distribution} {found.version}  {name}  {state}{said}"))
    for one in wanted:
        if one.is_family:
            click.echo(f"{one.qualified} is a family: check a member, {one.name}/NAME")
    for one in parts:
        click.echo(f"{one.qualified} is a part of reports: `tlkit report` tells whether it works")
    if broken:
        sys.exit(1)
