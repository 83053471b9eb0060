"""`tlkit evaluate`: judge a head on a folder with known classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta
from tlkit.options import PredictOptions

if TYPE_CHECKING:
    from tlkit.data.images import BadImage
    from tlkit.metrics import Evaluation


@click.command("evaluate", cls=WithTta)
@click.argument("folder", type=click.Path())
@click.option(
    "--head", metavar="FILE", help="A head file or run folder.  [default: the newest run]"
)
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of a head fitted on one."
)
@click.option("--json", "json_out", metavar="FILE", help="Write all scores there too.")
@flags_for(PredictOptions, into="options")
def command(
    folder: str, head: str | None, weights: str, json_out: str | None, options: PredictOptions
) -> None:
    """Judge a head on FOLDER: accuracy and where it is wrong.

    FOLDER holds class folders, matched to the head's classes by name; of a folder with train, val
    and test parts, test is taken. With --tta the plain view and the policy stand side by side.

    \b
    tlkit evaluate cats_dogs/test
    tlkit evaluate cats_dogs/test --tta ten --json scores.json
    """
    from dataclasses import replace

    from tlkit import runs
    from tlkit.classifier import load
    from tlkit.cli import show
    from tlkit.data.folder import scan_for_judging
    from tlkit.files import write_text
    from tlkit.report.evaluation import evaluate
    from tlkit.steps import finish

    catalog = scan_for_judging(Path(folder))
    classifier = load(head, weights=weights)
    standard = PredictOptions()
    plain = replace(
        options, tta="none", scales=standard.scales, grid=standard.grid, mirror=standard.mirror
    )
    looks = {"plain": plain} if options.tta == "none" else {"plain": plain, options.tta: options}
    named: dict[str, Evaluation] = {}
    bad: tuple[BadImage, ...] = ()
    with show.meter() as tell:
        for name, look in looks.items():
            steps = evaluate(classifier.head, catalog, look, what=f"evaluating, {name}")
            named[name], bad = finish(steps, tell)
    show.scores(named)
    last = named[options.tta if options.tta != "none" else "plain"]
    show.table(
        ["class", "images", "precision", "recall", "f1"],
        [
            [
                one.name,
                str(one.images),
                f"{one.precision:.3f}",
                f"{one.recall:.3f}",
                f"{one.f1:.3f}",
            ]
            for one in last.classes
        ],
        right=range(1, 5),
    )
    _confusions(last)
    if json_out is not None:
        write_text(Path(json_out), runs.as_json({name: one.plain() for name, one in named.items()}))
    for one in bad:
        click.echo(
            f"unreadable: {show.one_line(str(one.path))}: {show.one_line(one.reason)}", err=True
        )
    if bad:
        click.echo(f"{len(bad)} of {len(catalog)} images could not be read", err=True)
        sys.exit(1)


def _confusions(scores: Evaluation) -> None:
    """The confusion matrix where it fits, else the pairs most often confused."""
    from tlkit.cli import show

    names = [one.name for one in scores.classes]
    if len(names) <= 12:
        show.table(
            ["is \\ called", *names],
            [[name, *map(str, row)] for name, row in zip(names, scores.confusion, strict=True)],
            right=range(1, len(names) + 1),
        )
        return
    pairs = sorted(
        (-int(count), names[i], names[j])
        for i, row in enumerate(scores.confusion.tolist())
        for j, count in enumerate(row)
        if i != j and count
    )
    show.table(["images", "is", "called"], [[str(-n), a, b] for n, a, b in pairs[:15]], right=[0])
