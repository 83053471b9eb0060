"""`tlkit backbones`: what can be built on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.errors import OptionError, TlkitError

if TYPE_CHECKING:
    from tlkit.backbone import Family
    from tlkit.plugins import Found


@click.command("backbones")
@click.argument("name", required=False)
@click.option(
    "--find", "part", metavar="TEXT", help="Also look into the families, for names with TEXT."
)
def command(name: str | None, part: str | None) -> None:
    """List the backbones, or show one: its weights, input, stages, parameters and licence.

    \b
    tlkit backbones
    tlkit backbones vgg16_bn
    tlkit backbones timm/convnext_tiny
    tlkit backbones --find convnext
    """
    if name is not None and part is not None:
        raise OptionError(
            "an option would be ignored",
            found=f"--find {part} and the name {name}",
            expected="one of them: --find searches the list",
            do="leave one out",
        )
    if name is not None:
        _one(name)
    else:
        _all(part)


def _all(part: str | None) -> None:
    from tlkit.backbone import Family
    from tlkit.cli import show
    from tlkit.plugins import Broken, find, load

    found = find()
    rows = [
        [
            f"{one.name}/NAME" if one.is_family else one.name,
            one.module,
            f"{one.distribution} {one.version}",
        ]
        for one in found
        if part is None or part in one.name
    ]
    if part is not None:
        for one in found:
            family = load(one) if one.is_family else None
            if isinstance(family, Broken):
                click.echo(f"{one.name}: {show.one_line(family.reason)}", err=True)
            if isinstance(family, Family):
                rows += [
                    [f"{one.name}/{name}", one.module, f"{one.distribution} {one.version}"]
                    for name in _names(family, one)
                    if part in name
                ]
    show.table(["backbone", "package", "distribution"], rows)


def _names(family: Family, found: Found) -> list[str]:
    """The family's names; none, and why, where its code fails: the others are still listed."""
    from tlkit.cli import show
    from tlkit.plugins import names_in

    try:
        return names_in(family, found)
    except TlkitError as error:
        click.echo(f"{found.name}: {show.one_line(error.found)}", err=True)
        return []


def _one(name: str) -> None:
    from tlkit.cli import show
    from tlkit.model.describe import describe
    from tlkit.plugins import choose

    chosen = choose(name)
    about = describe(chosen.backbone)
    click.echo(f"{name}: {chosen.backbone.about}")
    click.echo(
        f"from {chosen.found.distribution} {chosen.found.version}, package {chosen.found.module}"
    )
    click.echo(
        f"{about.parameters:,} parameters, {about.features:,} of them in the features; "
        f"vector of {about.width} numbers; {about.classifier}"
    )
    show.table(
        ["weights", "on disk", "input", "resize", "mean", "std", "classes", "licence"],
        [
            [
                one.name + (" (default)" if i == 0 else ""),
                "yes" if one.source.on_disk() else "no",
                f"{one.input.size_in_words} px",
                f"{one.input.resize_in_words} {one.input.scaling_in_words}",
                " ".join(f"{v:.3g}" for v in one.input.mean),
                " ".join(f"{v:.3g}" for v in one.input.std),
                "-" if one.classes is None else str(one.classes),
                one.licence,
            ]
            for i, one in enumerate(about.sets)
        ],
    )
    click.echo("none (random) and a file (.safetensors, .pth) can always be had")
    show.table(
        ["stage, for --freeze to:STAGE", "parameters"],
        [[stage, f"{count:,}"] for stage, count in about.stages.items()],
        right=[1],
    )
