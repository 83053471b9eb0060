"""`tlkit evaluate`: judge a head on a folder with known classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta, asked, heads_to_ask
from tlkit.options import PredictOptions

if TYPE_CHECKING:
    from tlkit.artifact import Head
    from tlkit.cli.show import Meter
    from tlkit.data.folder import Catalog
    from tlkit.data.images import BadImage
    from tlkit.metrics import Evaluation


@click.command("evaluate", cls=WithTta)
@click.argument("folders", metavar="FOLDER", nargs=-1, required=True, type=click.Path())
@heads_to_ask
@click.option("--json", "json_out", metavar="FILE", help="Write all scores there too.")
@flags_for(PredictOptions, into="options")
def command(
    folders: tuple[str, ...],
    heads: tuple[str, ...],
    weights: str,
    json_out: str | None,
    options: PredictOptions,
) -> None:
    """Judge a head on FOLDER: accuracy and where it is wrong.

    FOLDER holds class folders, matched to the head's classes by name; of a folder with train, val
    and test parts, test is taken. With --tta the plain view and the policy stand side by side, each
    with what it costs. Of several heads each stands beside all of them together.

    \b
    tlkit evaluate cats_dogs/test
    tlkit evaluate cats_dogs/test --tta ten --json scores.json
    tlkit evaluate cats_dogs/test --head runs/a --head runs/b --learn-weights cats_dogs/val
    """
    from tlkit import runs
    from tlkit.cli import show
    from tlkit.data.folder import scan_for_judging
    from tlkit.errors import few
    from tlkit.files import refuse_unwritable, write_text

    if json_out is not None:
        refuse_unwritable(Path(json_out))
    catalog = scan_for_judging(_only(folders))
    with show.meter() as tell:
        classifier, options = asked(heads, weights, options, tell)
        columns, bad = _columns(classifier.heads, catalog, options, tell)
    named = {name: one.scores for name, one in columns.items()}
    show.scores(named, _costs(list(columns.values())))
    last = [*named.values()][-1]
    show.table(
        ["class", "images", "precision", "recall", "f1"],
        [
            [
                one.name,
                str(one.images),
                f"{one.precision:.3f}",
                f"{one.recall:.3f}" if one.images else "-",
                f"{one.f1:.3f}" if one.images else "-",
            ]
            for one in last.classes
        ],
        right=range(1, 5),
    )
    _confusions(last)
    if last.absent:
        absent = show.one_line(few(last.absent))
        click.echo(f"no image is of {absent}: the scores say nothing of it", err=True)
    if json_out is not None:
        plain = {name: {**one.scores.plain(), **one.cost} for name, one in columns.items()}
        write_text(Path(json_out), runs.as_json(plain))
    for one in bad:
        show.unreadable(one)
    if bad:
        click.echo(f"{len(bad)} of {len(catalog)} images could not be read", err=True)
        sys.exit(1)


def _only(folders: Sequence[str]) -> Path:
    """Return the folder. Raises `FolderError` for a head beside it, and `OptionError` for more."""
    from tlkit.data.own import check_images
    from tlkit.errors import OptionError

    paths = [Path(folder) for folder in folders]
    check_images(paths, "evaluate")
    if len(paths) > 1:
        raise OptionError(
            "one folder is evaluated at a time",
            found=" ".join(folders),
            expected="FOLDER",
            do="evaluate each by itself, or put the class folders into one folder",
        )
    return paths[0]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the scores, and what the pass behind it cost."""

    scores: Evaluation
    cost: Mapping[str, float] = field(default_factory=dict)
    """views, seconds_per_image; empty where several columns came from one pass."""


def _columns(
    heads: Sequence[Head], catalog: Catalog, options: PredictOptions, tell: Meter
) -> tuple[dict[str, Column], tuple[BadImage, ...]]:
    """The plain view, of each head and of all together, and then the policy."""
    from tlkit.predict.tta import views_of
    from tlkit.report.evaluation import judge, warm
    from tlkit.runs import short_names
    from tlkit.steps import finish

    known = catalog.relabel(heads[0].classes)
    standard = PredictOptions()
    plain = replace(
        options, tta="none", scales=standard.scales, grid=standard.grid, mirror=standard.mirror
    )
    several = len(heads) > 1
    looks = {"plain": plain} if options.tta == "none" else {"plain": plain, options.tta: options}
    columns: dict[str, Column] = {}
    bad: tuple[BadImage, ...] = ()
    for name, look in looks.items():
        warm(heads, known, look)
        judged, bad = finish(judge(heads, known, look, what=f"evaluating, {name}"), tell)
        if several and name == "plain":
            titles = ("together", f"together, {options.tta}")
            names = short_names([head.path for head in heads], taken=titles)
            columns |= {
                one: Column(scores=scores) for one, scores in zip(names, judged.alone, strict=True)
            }
        views = len(views_of(look, heads[0].model.spec))
        cost = {"views": views, "seconds_per_image": judged.wall_s / len(known)}
        title = name if not several else "together" if name == "plain" else f"together, {name}"
        columns[title] = Column(scores=judged.together, cost=cost)
    return columns, bad


def _costs(columns: Sequence[Column]) -> list[list[str]]:
    """Rows of the table: views and wall time."""
    return [
        ["views per image", *(f"{one.cost['views']}" if one.cost else "" for one in columns)],
        [
            "seconds per image",
            *(f"{one.cost['seconds_per_image']:.3g}" if one.cost else "" for one in columns),
        ],
    ]


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
