"""`tlkit inspect`: what a head file is, before anything of it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tlkit.artifact import Inspected


@click.command("inspect")
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--json", "json_out", metavar="FILE", help="Write the whole card there.")
@click.option("--tensors", is_flag=True, help="Also list the tensors.")
def command(path: str, json_out: str | None, tensors: bool) -> None:
    """Show what a head FILE, or the heads of a run folder, say of themselves, and that it is whole.

    Nothing in the file is run or followed, no plugin is imported, and the backbone need not be
    installed. That a file is whole says that it was not damaged, not who made it.

    \b
    tlkit inspect runs/cats_dogs-efficientnet_lite0
    tlkit inspect from-the-internet.safetensors --tensors
    """
    from tlkit import artifact, runs
    from tlkit.cli import show
    from tlkit.files import write_text

    files = runs.heads_in(Path(path))
    found = [artifact.inspect(one) for one in files]
    for file, one in zip(files, found, strict=True):
        click.echo(f"{show.one_line(str(file))}: {one.size:,} bytes, whole")
        show.table(["", ""], _rows(one))
        if tensors:
            show.table(
                ["tensor", "type", "shape"],
                [[name, t.dtype, " x ".join(map(str, t.shape))] for name, t in one.tensors.items()],
            )
    if json_out is not None:
        cards = [one.card.to_json() for one in found]
        write_text(Path(json_out), cards[0] if len(cards) == 1 else f"[{','.join(cards)}]")


def _rows(one: Inspected) -> list[list[str]]:
    import math

    from tlkit.options import FitOptions, declared

    card, spec = one.card, one.card.input
    usual = {each.name: each.default for each in declared(FitOptions)}
    set_by_fit = [
        f"{name} {value}"
        for name, value in card.options.items()
        if name in usual and value != usual[name]
    ]
    numbers = sum(math.prod(entry.shape) for entry in one.tensors.values())
    colours = {1: "grey", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    plan = {"pool": "?", "attach": "?", "head": "?", "freeze": "?", **card.plan}
    return [
        ["backbone", f"{card.backbone}, of {card.distribution} {card.distribution_version}"],
        ["weights", f"{card.weights.name}, licence: {card.weights.licence or 'none'}"],
        [
            "input",
            f"{spec.size_in_words} of {spec.resize_in_words}, {colours}, {spec.scaling_in_words}",
        ],
        ["head", f"{plan['head']}, {plan['attach']}, pool {plan['pool']}"],
        ["frozen", f"{plan['freeze']}; in {card.precision}"],
        ["trained", f"{numbers:,} numbers in {len(one.tensors)} tensors"],
        [f"{len(card.classes)} classes", ", ".join(card.classes)],
        ["images", ", ".join(f"{name} {count}" for name, count in card.images.items())],
        ["validation", _scores(card.metrics)],
        [
            "calibration",
            f"temperature {card.calibration.temperature:.4g}, "
            f"of {card.calibration.images} images that were not learnt from",
        ],
        ["fitted", card.created],
        ["with", ", ".join(f"{name} {one}" for name, one in card.versions.items())],
        ["options", ", ".join(set_by_fit)],
    ]


def _scores(metrics: Any) -> str:
    """Accuracy and loss, where the card has them; it may hold anything."""
    scores = metrics.get("validation")
    known = scores if isinstance(scores, dict) else {}
    told = [(name, known.get(name)) for name in ("accuracy", "loss")]
    return ", ".join(f"{name} {one:.4g}" for name, one in told if isinstance(one, float))
