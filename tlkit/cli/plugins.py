"""`tlkit plugins`: which distributions bring what, and whether it keeps the contract."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlkit.plugins import Found


@click.command("plugins")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--check", is_flag=True, help="Hold each against the contract, which takes a while.")
def command(names: tuple[str, ...], check: bool) -> None:
    """Show every distribution that brings backbones, heads, test-time policies, augmentation
    presets or parts of reports, its version, and whether they load.

    NAME is a distribution or what it brings, with --check also FAMILY/NAME. The plugins are
    imported in another process; a broken one is listed with its reason and stops nothing else.
    With --check each is tried out in a process of its own; exit status 1 says that one breaks the
    contract.
    TLKIT_PLUGINS limits what is looked at: distributions or packages, with commas between.

    \b
    tlkit plugins
    tlkit plugins --check my-package timm/resnet18
    """
    from tlkit.errors import unknown
    from tlkit.plugins import OPTIONS, find

    installed = find(tuple(OPTIONS))
    for name in names:
        if not _named(installed, name):
            known = {n: None for one in installed for n in (one.distribution, one.name)}
            raise unknown(known, name, "plugin")
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
    from tlkit.vetting import reasons_not_to_load

    not_loading = dict(zip(map(id, wanted), reasons_not_to_load(wanted), strict=True))
    members: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for one in wanted:
        members[one.distribution, one.version, one.module].append(one)
    rows = []
    for (distribution, version, module), found in sorted(members.items()):
        broken = [(one.name, not_loading[id(one)]) for one in found if not_loading[id(one)]]
        reasons = dict.fromkeys(f"{name}: {reason}" for name, reason in broken)
        named: dict[str, list[str]] = defaultdict(list)
        for one in found:
            named[one.option].append(f"{one.name}/NAME" if one.is_family else one.name)
        listed = [f"{option} {', '.join(names)}" for option, names in named.items()]
        state = "loads" if not broken else "broken: " + "; ".join(reasons)
        rows.append([distribution, version, module, "; ".join(listed), state])
    show.table(["distribution", "version", "package", "brings", "state"], rows)


def _check(installed: Sequence[Found], names: Sequence[str]) -> None:
    from tlkit.cli import show
    from tlkit.vetting import vet

    members = [name for name in names if "/" in name]
    whole = [name for name in names if "/" not in name]
    wanted = [one for name in whole for one in _named(installed, name)] if names else installed
    each = [(one, one.qualified) for one in wanted if not one.is_family]
    each += [(_named(installed, name)[0], name) for name in members]
    broken = 0
    for found, name in each:
        vetted = vet(name, found.group)
        broken += bool(vetted.fault)
        state = f"breaks {vetted.law}: {vetted.fault}" if vetted.fault else "keeps the contract"
        said = f"; prints when imported: {vetted.printed}" if vetted.printed else ""
        whose = f"{found.distribution} {found.version}"
        click.echo(show.one_line(f"{whose}  {found.option} {name}  {state}{said}"))
    for one in wanted:
        if one.is_family:
            click.echo(f"{one.qualified} is a family: check a member, {one.name}/NAME")
    if broken:
        sys.exit(1)
