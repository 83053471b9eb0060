"""`tlkit report`: a page about a run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta
from tlkit.options import ReportOptions


@click.command("report", cls=WithTta)
@click.argument("run", required=False, type=click.Path())
@click.argument("folder", required=False, type=click.Path())
@click.option("--out", metavar="DIR", help="Write it there.  [default: RUN/report, anew]")
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
)
@click.option(
    "--tta", multiple=True, metavar="POLICY", help="Hold these test-time views against the plain "
    "one, with what each costs; may be given several times.",
)  # fmt: skip
@flags_for(ReportOptions, into="options", without=["tta"])
def command(
    run: str | None,
    folder: str | None,
    out: str | None,
    weights: str,
    tta: tuple[str, ...],
    options: ReportOptions,
) -> None:
    """Write a page about RUN, the newest run where none is named: scores with their intervals,
    what is taken for what, photos worth a look, calibration, curves, findings in the data.

    It is judged on FOLDER, which holds class folders; without it on the test part of the folder
    that was learnt from, else by what the fit has written down of images that its heads had not
    learnt from. The folder RUN/report gets report.html, which needs no network, report.json and the
    figures as PNG.

    \b
    tlkit report
    tlkit report runs/cats_dogs-efficientnet_lite0 --tta mirror --tta ten
    tlkit report runs/cats_dogs-efficientnet_lite0 others/ --out judged-on-others
    """
    from tlkit import runs

    options = replace(options, tta=",".join(tta))
    place = runs.newest() if run is None else Path(run)
    if tell(place, folder, options, out=out, weights=weights):
        sys.exit(1)


def tell(
    run: Path, folder: str | None = None, options: ReportOptions | None = None, **more: Any
) -> int:
    """Write the report and say where it is; how many images could not be read."""
    from tlkit.cli import show
    from tlkit.reporting import report_events
    from tlkit.steps import finish

    show.decisions()
    with show.meter() as meter:
        done = finish(report_events(run, folder, options, **more), meter)
    for one in done.broken:
        click.echo(show.one_line(f"a part failed: {one}"), err=True)
    if done.unreadable:
        click.echo(f"images that could not be read: {done.unreadable}", err=True)
    accuracy, size_mb = done.scores.accuracy, done.page.stat().st_size / 1e6
    click.echo(
        f"{show.percent(accuracy)} of {done.scores.images} images; "
        f"{show.one_line(str(done.page))} ({size_mb:.1f} MB)"
    )
    return done.unreadable
