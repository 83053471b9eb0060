"""`tlkit predict`: name what is on images."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.flags import flags_for, value_or_flag
from tlkit.options import PredictOptions, ScoreOptions, SpreadOptions, declared

if TYPE_CHECKING:
    from tlkit.classifier import Classifier
    from tlkit.cli.show import Meter
    from tlkit.data.images import BadImage
    from tlkit.predict.layout import Layout
    from tlkit.predict.run import Prediction
    from tlkit.scale.pool import Written
    from tlkit.steps import Tick

FORMATS = ("table", "csv", "jsonl", "parquet")


class WithTta(click.Command):
    """A command whose --tta may stand alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Where --tta has no value, it means mirror."""
        if "--tta" in args:
            from tlkit.predict.tta import POLICIES

            args = value_or_flag(args, "--tta", "mirror", POLICIES)
        return super().parse_args(ctx, args)


def heads_to_ask(command: Any) -> Any:
    """Add --head and --weights, which say who is asked."""
    command = click.option(
        "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
    )(command)
    return click.option(
        "--head",
        "heads",
        metavar="FILE",
        multiple=True,
        help="A head file or run folder; given several times, or for the run folder of a "
        "cross-validation, all heads together.  [default: the newest run]",
    )(command)


def asked(
    heads: tuple[str, ...], weights: str, options: PredictOptions, tell: Meter
) -> tuple[Classifier, PredictOptions]:
    """The heads that are meant, and the options with weights that were learnt, which are said."""
    from tlkit.classifier import load
    from tlkit.cli import show
    from tlkit.predict.ensemble import settle
    from tlkit.steps import finish

    show.decisions()
    classifier = load(list(heads) or None, weights=weights)
    settled = finish(settle(classifier.heads, options), tell)
    if settled != options:
        click.echo(f"learnt weights: --head-weights {settled.head_weights}", err=True)
    return classifier, settled


@click.command("predict", cls=WithTta)
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@heads_to_ask
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Classes to show for each image.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to write the results.  [default: table; with --out, what its ending says, else csv]",
)
@click.option(
    "--out",
    metavar="FILE",
    help="Write there instead of to the terminal; with --ray a folder, or a URI of one.",
)
@flags_for(ScoreOptions, into="options")
def command(
    paths: tuple[str, ...],
    heads: tuple[str, ...],
    weights: str,
    top: int,
    form: str | None,
    out: str | None,
    options: ScoreOptions,
) -> None:
    """Predict the class of the images in PATHS: files, folders (searched to every depth), globs.

    With --ray also Parquet manifests with a column path, and URIs such as s3://bucket/photos. What
    was stopped goes on when the same command is given again.

    An unreadable file is reported with its reason, the others are predicted, and the exit status
    is 1.

    \b
    tlkit predict photos/ --tta
    tlkit predict a.jpg b.jpg --top 5
    tlkit predict photos/ --tta vgg150
    tlkit predict photos/ --head runs/a --head runs/b
    tlkit predict photos/ --reject-below precision:0.99
    tlkit predict photos/ --format csv --out labels.csv
    tlkit predict photos/ --ray auto --out labels/
    """
    from tlkit.cli import show
    from tlkit.data.folder import expand, find_images
    from tlkit.data.images import BadImage
    from tlkit.predict.ensemble import predict
    from tlkit.predict.layout import layout_for
    from tlkit.steps import Tick

    if options.ray:
        _spread(paths, heads, weights, top, form, out, options)
        return
    options.refuse([one.name for one in declared(SpreadOptions)], "--ray auto, or an address")
    form = _form(form, out)
    show.decisions()
    found = find_images(expand(paths))
    bad = 0
    with show.meter() as tell:
        classifier, settled = asked(heads, weights, options, tell)
        layout = layout_for(settled, top, len(classifier.classes))

        def results() -> Iterator[Prediction | BadImage]:
            nonlocal bad
            for done, one in enumerate(predict(classifier.heads, found, settled), start=1):
                tell(Tick(what="predicting", done=done, total=len(found)))
                if isinstance(one, BadImage):
                    bad += 1
                    show.unreadable(one)
                yield one

        _write(results(), form=form, out=None if out is None else Path(out), layout=layout)
    if bad:
        click.echo(f"{bad} of {len(found)} images could not be read", err=True)
        sys.exit(1)


def _spread(
    paths: tuple[str, ...],
    heads: tuple[str, ...],
    weights: str,
    top: int,
    form: str | None,
    out: str | None,
    options: ScoreOptions,
) -> None:
    """Predict on a cluster."""
    from tlkit.cli import show
    from tlkit.errors import OptionError
    from tlkit.scale.scoring import Asked, score_events

    if form not in (None, "parquet") or out is None:
        raise OptionError(
            "with --ray the results are Parquet parts in a folder",
            found="no --out" if out is None else f"--format {form}",
            expected="--out DIR, and no --format",
            do="add --out DIR" if out is None else "leave --format out",
        )
    show.decisions()
    asked = Asked(paths=paths, out=out, head=list(heads) or None, weights=weights, top=top)
    spread(score_events(asked, options))


def spread(steps: Generator[Tick, None, Written]) -> None:
    """Run a job of parts, and say what it has left."""
    from tlkit.cli import show
    from tlkit.steps import finish

    try:
        with show.meter() as tell:
            left = finish(steps, tell)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command goes on from here", err=True)
        sys.exit(130)
    for path, reason in left.unreadable:
        click.echo(f"unreadable: {show.one_line(path)}: {show.one_line(reason)}", err=True)
    before = f", {left.found} of them there before" if left.found else ""
    click.echo(
        f"{left.images} images in {left.parts} parts{before}: {show.one_line(left.out)}", err=True
    )
    if left.bad:
        click.echo(f"{left.bad} of {left.images} images could not be read", err=True)
        sys.exit(1)


def _form(form: str | None, out: str | None) -> str:
    """The format to write. Raises `OptionError` for one that does not go with --out."""
    from tlkit.errors import OptionError

    ending = "" if out is None else Path(out).suffix.lower().removeprefix(".")
    chosen = form or (ending if ending in FORMATS[1:] else "table" if out is None else "csv")
    if (chosen == "table") != (out is None) and chosen in ("table", "parquet"):
        raise OptionError(
            f"--format {chosen} does not go with that",
            found="no --out" if out is None else f"--out {out}",
            expected="--out FILE.parquet" if out is None else "csv, jsonl or parquet in a file",
            do="add it" if out is None else "choose one of these, or leave --format out",
        )
    if chosen == "parquet" and find_spec("pyarrow") is None:
        raise OptionError(
            "--format parquet needs a package that is not installed",
            found="no pyarrow",
            expected="the extra tlkit[parquet]",
            do="pip install 'tlkit[parquet]', or use --format csv",
        )
    return chosen


def _write(
    results: Iterator[Prediction | BadImage], *, form: str, out: Path | None, layout: Layout
) -> None:
    from tlkit.cli import show
    from tlkit.files import csv_line
    from tlkit.predict.layout import NUMBERS

    if form == "table" and out is None:
        rows = [layout.row(one) for one in results]
        show.table(
            layout.columns[:-1],
            [
                [*(cell if isinstance(cell, str) else f"{cell:.4f}" for cell in row[:-1])]
                for row in rows
                if not row[-1]
            ],
            right=[i for i, name in enumerate(layout.columns) if name.startswith(NUMBERS)],
        )
    elif form == "parquet" and out is not None:
        _parquet([layout.row(one) for one in results], out, layout)
    else:
        with _lines(out) as write:
            if form == "jsonl":
                for one in results:
                    write(json.dumps(layout.record(one)) + "\n")
            else:
                write(csv_line(layout.columns))
                for one in results:
                    write(csv_line(layout.row(one)))


@contextlib.contextmanager
def _lines(out: Path | None) -> Iterator[Any]:
    """A function that writes text: to standard output, or to a file that appears when whole."""
    from tlkit.cli import streams
    from tlkit.errors import printable
    from tlkit.files import new_file

    def write(text: str) -> None:
        # Names can hold what a terminal obeys; a program that reads them wants them as they are.
        terminal = sys.stdout.isatty()
        click.echo(
            printable(text) if terminal else text.encode("utf-8", "surrogateescape"), nl=False
        )
        streams.check_output()

    if out is None:
        yield write
    else:
        with new_file(out) as file:
            yield lambda text: file.write(text.encode("utf-8", "surrogateescape"))


def _parquet(rows: list[list[Any]], out: Path, layout: Layout) -> None:
    from pyarrow import parquet

    from tlkit.files import new_file

    with new_file(out) as file:
        parquet.write_table(layout.table(rows), file)
