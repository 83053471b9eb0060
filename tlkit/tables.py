"""Tables: what can be chosen, as Markdown, made from the code itself.

The README's generated parts are these; `make lint` fails when they no longer agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlkit.backbone import Backbone, Family
from tlkit.data.audit import KINDS
from tlkit.data.transforms import PRESETS
from tlkit.model.engine import ENGINES
from tlkit.model.heads import HEADS
from tlkit.options import Checked, declared
from tlkit.plugins import find, load
from tlkit.predict.tta import POLICIES
from tlkit.report.parts import PARTS
from tlkit.rows import Rows
from tlkit.train.schedule import SCHEDULES


def backbones(distribution: str = "tlkit") -> str:
    """The backbones and families that a distribution brings."""
    rows = []
    for one in find():
        record = load(one)
        if one.distribution == distribution and isinstance(record, Backbone | Family):
            name = f"{one.name}/NAME" if one.is_family else one.name
            rows.append((f"`{name}`", f"`{one.module}`", record.about))
    return markdown(("backbone", "plugin", "what it is"), rows)


TABLES: Mapping[str, Rows[Any]] = {one.group: one for one in (HEADS, POLICIES, PRESETS, PARTS)}
"""Those that packages may add to, by the group of their entry points."""


def heads() -> str:
    """`model.heads.HEADS`"""
    uses = {
        name: ", ".join(f"`--{use}`" for use in sorted(kind.uses))
        for name, kind in HEADS.own.items()
    }
    rows = [(f"`{name}`", kind.about, uses[name]) for name, kind in HEADS.own.items()]
    return markdown(("head", "layers", "options"), rows)


def policies() -> str:
    """`predict.tta.POLICIES`"""
    return markdown(
        ("policy", "views"), [(f"`{name}`", policy.about) for name, policy in POLICIES.own.items()]
    )


def engines() -> str:
    """`model.engine.ENGINES`"""
    return markdown(
        ("engine", "what it is"), [(f"`{name}`", one.about) for name, one in ENGINES.items()]
    )


def kinds() -> str:
    """`data.audit.KINDS`"""
    moves = {"none": "", "all": "all its files", "but the first": "all but one"}
    return markdown(
        ("finding", "what it means", "serious", "`--fix` moves"),
        [
            (f"`{name}`", one.about, "yes" if one.serious else "", moves[one.moves])
            for name, one in KINDS.items()
        ],
    )


def parts() -> str:
    """`report.parts.PARTS`"""
    return markdown(
        ("part", "on the page", "its keys in report.json"),
        [
            (
                f"`{name}`",
                one.title,
                "; ".join(f"`{key}`: {about}" for key, about in one.keys.items()),
            )
            for name, one in PARTS.own.items()
        ],
    )


def presets() -> str:
    """`data.transforms.PRESETS`"""
    return markdown(
        ("preset", "what it does"), [(f"`{name}`", one.about) for name, one in PRESETS.own.items()]
    )


def schedules() -> str:
    """`train.schedule.SCHEDULES`"""
    rows = []
    for name, one in SCHEDULES.items():
        uses = ", ".join(f"`--{use.replace('_', '-')}`" for use in sorted(one.uses))
        rows.append((f"`{name}`", one.about, f"{one.warmup:g}", uses))
    return markdown(("schedule", "the rates after the warm-up", "warm-up", "options"), rows)


def options(record: type[Checked], *, but: type[Checked] = Checked) -> str:
    """The options of a record, without those that `but` has too."""
    rows = []
    elsewhere = {one.name for one in declared(but)}
    for one in declared(record):
        if one.name in elsewhere:
            continue
        flag = f"{one.flag}` / `--no-{one.flag[2:]}" if one.type is bool else one.flag
        default = "" if one.default == "" else f"`{one.default}`"
        rows.append((f"`{flag}`", default, one.allowed, one.limits.help))
    return markdown(("option", "default", "allowed", "meaning"), rows)


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in one) + " |" for one in lines
    )
