"""`tlkit summary`: how large a network is, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.options import SummaryOptions

if TYPE_CHECKING:
    from tlkit.model.summary import Summary


@click.command("summary")
@click.argument("backbone")
@click.option("--json", "json_out", metavar="FILE", help="Write all numbers there too.")
@flags_for(SummaryOptions, into="options", without=("backbone",))
def command(backbone: str, json_out: str | None, options: SummaryOptions) -> None:
    """Show the layers of BACKBONE: shapes, parameters, multiply-adds, memory.

    Without --classes it is the backbone with its own classifier; with it, what fit would build for
    so many classes, and what of that it would train. Nothing is downloaded, no weights are read.

    \b
    tlkit summary vgg16
    tlkit summary vgg16 --classes 2 --head mlp --depth 2
    tlkit summary timm/convnext_tiny --px 288 --batch 32 --json size.json
    """
    from tlkit import runs
    from tlkit.cli import show
    from tlkit.files import write_text
    from tlkit.sizing import size

    result = size(replace(options, backbone=backbone))
    show.table(
        ["layer", "kind", "output", "parameters", "multiply-adds", ""],
        [
            [
                "  " * (one.depth - 1) + one.name.rpartition(".")[2],
                one.kind,
                "" if one.output is None else _shape(one.output),
                f"{one.parameters:,}" if one.parameters else "",
                f"{one.multiply_adds:,}" if one.multiply_adds else "",
                one.state,
            ]
            for one in result.rows
        ],
        right=[3, 4],
    )
    _totals(result)
    if json_out is not None:
        write_text(Path(json_out), runs.as_json({"backbone": backbone, **result.plain()}))


def _shape(sizes: tuple[int, ...]) -> str:
    """(1, 64, 56, 56) -> 1 x 64 x 56 x 56"""
    return " x ".join(map(str, sizes))


def _totals(one: Summary) -> None:
    from tlkit.cli import show

    def megabytes(count: int) -> str:
        return f"{count / 1e6:,.2f} MB"

    show.table(
        ["in all", ""],
        [
            ["parameters", f"{one.parameters:,}"],
            ["  trainable", f"{one.trainable:,}"],
            ["  frozen", f"{one.frozen:,}"],
            ["multiply-adds, one image", f"{one.multiply_adds:,}"],
            [f"input {_shape(one.input)}", megabytes(one.input_bytes)],
            ["activations, forward", megabytes(one.forward_bytes)],
            ["  their gradients, backward", megabytes(one.backward_bytes)],
            ["parameters", megabytes(one.parameter_bytes)],
            ["estimated total", megabytes(one.total_bytes)],
        ],
        right=[1],
    )
