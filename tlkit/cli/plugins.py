"""`tlkit plugins`: which distributions bring backbones, and whether they load."""

from __future__ import annotations

import click


@click.command("plugins")
def command() -> None:
    """Show every distribution that brings a backbone, its version, and whether it loads.

    This imports every plugin. A broken one is listed with its reason and stops nothing else.
    TLKIT_PLUGINS limits what is looked at: distributions or packages, with commas between.
    """
    from collections import defaultdict

    from tlkit.cli import show
    from tlkit.plugins import Broken, Found, find, load

    members: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for one in find():
        members[one.distribution, one.version, one.module].append(one)
    rows = []
    for (distribution, version, module), found in sorted(members.items()):
        broken = [one for one in map(load, found) if isinstance(one, Broken)]
        reasons = dict.fromkeys(f"{one.found.name}: {one.reason}" for one in broken)
        names = [f"{one.name}/NAME" if one.is_family else one.name for one in found]
        state = "loads" if not broken else "broken: " + "; ".join(reasons)
        rows.append([distribution, version, module, ", ".join(names), state])
    show.table(["distribution", "version", "package", "backbones", "state"], rows)
