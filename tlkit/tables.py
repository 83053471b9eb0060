"""Tables: what can be chosen, as Markdown, made from the code itself.

The generated parts of the README and of docs/ are these; `make lint` fails when they no longer
agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from tlkit import errors
from tlkit.backbone import Backbone, Family
from tlkit.data.audit import KINDS
from tlkit.data.sample import SAMPLES
from tlkit.data.transforms import PRESETS
from tlkit.export.formats import FORMATS
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


def samples() -> str:
    """`data.sample.SAMPLES`"""
    return markdown(
        ("sample", "what it shows", "licence"),
        [(f"`{name}`", one.about, one.licence) for name, one in SAMPLES.items()],
    )


def formats() -> str:
    """`export.formats.FORMATS`"""
    return markdown(
        ("format", "what it is", "install", "`--int8`"),
        [
            (f"`{name}`", one.about, f"`{one.extra}`", "yes" if one.quantise else "")
            for name, one in FORMATS.items()
        ],
    )


def faults() -> str:
    """Every error of `errors`, with the one that it is a kind of."""
    kinds = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.TlkitError)
    ]
    return markdown(
        ("error", "is a", "what it says"),
        [
            (f"`{one.__name__}`", ", ".join(f"`{base.__name__}`" for base in one.__bases__), first)
            for one in kinds
            for first in [_sentence(one)]
        ],
    )


def laws(checks: Mapping[str, Callable[..., object]]) -> str:
    """`testing.CHECKS`"""
    return markdown(
        ("law", "what it asks"),
        [(f"`{name}`", _sentence(check)) for name, check in checks.items()],
    )


def _sentence(documented: object) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


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


def commands(command: click.Command, name: str) -> str:
    """What a command says of itself, then each of its sub-commands, as sections."""
    context = click.Context(command, info_name=name, **command.context_settings)
    return "\n\n".join(_sections(command, context))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"## {context.command_path}"
    yield f"    {usage}"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.removeprefix("\b\n")  # click's sign for lines that stay as they are
        yield kept if kept == paragraph else "\n".join(f"    {one}" for one in kept.splitlines())
    rows = [
        (_flags(one, context), (one.get_help_record(context) or ("", ""))[1])
        for one in command.get_params(context)
        if isinstance(one, click.Option)
    ]
    yield markdown(("option", "meaning"), rows)
    below: dict[str, Any] = getattr(command, "commands", {})
    for name, one in below.items():
        yield from _sections(one, click.Context(one, info_name=name, parent=context))


def _flags(option: click.Option, context: click.Context) -> str:
    """`--out` DIR, `--mirror` / `--no-mirror`"""
    flags = " / ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return flags
    return f"{flags} {option.make_metavar(context).strip('[]').replace('|', ', ')}"


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in one) + " |" for one in lines
    )
