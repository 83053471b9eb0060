"""`tlkit fit`: learn from a folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from tlkit import ranks
from tlkit.cli.flags import flags_for
from tlkit.options import FitOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.cli.show import Meter
    from tlkit.fitting import FitResult
    from tlkit.folds import FoldsResult, Spread
    from tlkit.train.events import Epoch, Event, FoldScore


class InProcesses(click.Command):
    """A command that --devices gives once more, to processes of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are, without --devices."""
        ctx.meta[ARGUMENTS] = [
            one
            for before, one in zip(["", *args], args, strict=False)
            if "--devices" not in (before, one) and not one.startswith("--devices=")
        ]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Do it here, or have it done and end as the processes do."""
        devices = ctx.params.pop("devices")
        if devices and (status := _in_processes(ctx.meta[ARGUMENTS], devices)) is not None:
            sys.exit(status)
        return super().invoke(ctx)


ARGUMENTS = "tlkit.cli.fit.arguments"


@click.command("fit", cls=InProcesses)
@click.argument("folder", type=click.Path())
@click.option(
    "--out", metavar="DIR", help="The run folder.  [default: runs/FOLDER-BACKBONE, numbered]"
)
@click.option("--overwrite", is_flag=True, help="Replace a run folder that is not empty.")
@click.option("--resume", is_flag=True, help="Go on with this fit where it was interrupted.")
@click.option(
    "--track",
    metavar="NAME[:WHERE]",
    default="",
    help="Tell tensorboard or mlflow how it goes.  [default: nobody]",
)
@click.option(
    "--devices",
    metavar="N",
    default="",
    help="Fit in N processes on this machine; all: one for each GPU.  [default: in this one]",
)
@click.option("--report", is_flag=True, help="Then write what `tlkit report` does.")
@flags_for(FitOptions, into="options")
def command(
    folder: str,
    out: str | None,
    overwrite: bool,
    resume: bool,
    track: str,
    report: bool,
    options: FitOptions,
) -> None:
    """Fit a head on the images in FOLDER.

    FOLDER holds a sub-folder of images for each class, or the folders train, val (or valid) and
    test of those. Without a val folder a share of each class is held out; a test folder is only
    looked at when all is done.

    \b
    tlkit fit cats_dogs/
    tlkit fit cats_dogs/ --backbone vgg16_bn --freeze features --head mlp
    tlkit fit cats_dogs/ --backbone timm/convnext_tiny --freeze none --epochs 5
    tlkit fit cats_dogs/ --folds 10
    """
    from tlkit.cli import show
    from tlkit.errors import FitEnded
    from tlkit.fitting import fit_events
    from tlkit.folds import FoldsResult
    from tlkit.steps import finish

    with show.meter() as tell, _stopping() as check:
        told = _Told(tell, check, folds=bool(options.folds))
        events = fit_events(
            folder, options, out=out, overwrite=overwrite, resume=resume, track=track
        )
        try:
            with _beside_others():
                result = finish(events, told)
        except FitEnded as error:
            # As good as ended now: a command that is given until it succeeds must end some day.
            if ranks.here().first:
                click.echo(str(error), err=True)
                if report and error.run is not None:
                    _report(error.run, options)
            return
        except KeyboardInterrupt:
            click.echo("the same command with --resume goes on from here", err=True)
            raise
    if not ranks.here().first:
        return
    if isinstance(result, FoldsResult):
        _folds(result)
    else:
        _one(result, options)
    _end(result, options, report=report)


class _Told:
    """Shows what comes in; of several processes the first does."""

    def __init__(self, tell: Meter, check: Callable[[], None], *, folds: bool) -> None:
        self._tell, self._check, self._folds = tell, check, folds
        self._before: Epoch | None = None

    def __call__(self, event: Event | FoldScore) -> None:
        from tlkit.cli import show
        from tlkit.steps import Tick
        from tlkit.train.events import FoldScore, Note

        self._check()
        if not ranks.here().first:
            return
        if isinstance(event, Tick):
            self._tell(event)
        elif isinstance(event, Note):
            click.echo(show.one_line(event.text), err=True)
        elif isinstance(event, FoldScore):
            _fold(event)
        elif not self._folds:
            before, self._before = self._before, event
            _epoch(event, heading=before is None or event.number < before.number)


def _in_processes(arguments: Sequence[str], devices: str) -> int | None:
    """The status of `tlkit fit ARGUMENTS` in as many processes; None where that is this one."""
    from tlkit.errors import OptionError
    from tlkit.launch import launch, processes

    if ranks.here().several:
        raise OptionError(
            "an option would be ignored",
            found="--devices, in processes that torchrun has started",
            expected="one of both",
            do="leave --devices out; torchrun says how many there are",
        )
    count = processes(devices)
    if count == 1:
        return None
    return launch(["fit", *arguments], count, tell=lambda text: click.echo(text, err=True))


@contextlib.contextmanager
def _beside_others() -> Iterator[None]:
    """Where another process of the job has gone, end; who started them says what became of it."""
    try:
        yield
    except RuntimeError as error:
        if not ranks.lost(error):
            raise
        sys.exit(ranks.LOST)


def _stopping() -> AbstractContextManager[Callable[[], None]]:
    """Ctrl-C: the first process stops after its step, and the others wait to be stopped by that."""
    from tlkit.cli.interrupt import after_this_step, not_here

    if not ranks.here().first:
        return not_here()
    return after_this_step("stopping after this step; once more stops at once")


def _end(result: FitResult | FoldsResult, options: FitOptions, *, report: bool) -> None:
    """What comes when the run folder is there."""
    from tlkit.cli import show

    show.skipped(result.bad)
    if report:
        _report(result.run, options)  # last: where it fails, all of the fit has been told


def _report(run: Path, options: FitOptions) -> None:
    """What `tlkit report` does."""
    from tlkit.artifact import needs_file, read_card
    from tlkit.cli.report import tell
    from tlkit.runs import heads_in

    card = read_card(heads_in(run)[0])
    tell(run, weights=options.weights if needs_file(card) else "")


def _one(result: FitResult, options: FitOptions) -> None:
    """What became of a fit."""
    from tlkit.cli import show

    crossed = result.card.options["crossed"]
    judged = {"cross-validation" if crossed else "validation": result.validation}
    named = {name: one for name, one in {**judged, "test": result.test}.items() if one is not None}
    if named:
        show.scores(named)
    by = _why_kept(result, options.monitor, part=next(iter(judged)))
    click.echo(
        f"kept epoch {result.best.number} of {result.history[-1].number}, {by}"
        if result.best.number
        else f"kept the probe: no epoch of fine-tuning was better, {by}"
    )
    size_kib = result.head.stat().st_size / 1024
    click.echo(
        f"head: {show.one_line(str(result.head))} ({size_kib:,.0f} KiB), in {result.wall_s:.1f} s"
    )


def _why_kept(result: FitResult, monitor: str, *, part: str) -> str:
    """Say which figure of the table decided which epoch is kept."""
    from tlkit.train.cross import USUAL
    from tlkit.train.judge import Verdict, best_in_words

    best = result.best
    if result.validation is None:
        return f"whose penalty is the nearest to the usual {USUAL:g}"
    score = Verdict(
        loss=best.val_loss,
        accuracy=best.val_accuracy,
        balanced_accuracy=best.val_balanced_accuracy,
    )
    return f"by {best_in_words(score, monitor, part=part, prior=best.prior)}"


def _folds(result: FoldsResult) -> None:
    """The last lines of the table of folds, and what all heads reached together."""
    from tlkit.cli import show

    over = result.spread
    for name in ("mean", "std"):
        loss, accuracy, balanced = (
            getattr(over[score], name) for score in ("loss", "accuracy", "balanced_accuracy")
        )
        click.echo(f"{name:>4} {'':8} {loss:9.4f} {accuracy:9.1%} {balanced:9.1%}")
    named = {"out of fold": result.out_of_fold}
    if result.test is not None:
        named["test, mean of the heads"] = result.test
    show.scores(named)
    click.echo(f"accuracy of a fold: {_plus_minus(over['accuracy'])}")
    if result.test_spread is not None:
        click.echo(f"accuracy of a head on test: {_plus_minus(result.test_spread['accuracy'])}")
    size_kib = sum(one.stat().st_size for one in result.heads) / 1024
    click.echo(
        f"heads: {show.one_line(str(result.heads[0]))} and {len(result.heads) - 1} more "
        f"({size_kib:,.0f} KiB), in {result.wall_s:.1f} s"
    )


def _plus_minus(one: Spread) -> str:
    return (
        f"{100 * one.mean:.1f} ± {100 * one.std:.1f} % ({100 * one.min:.1f} to {100 * one.max:.1f})"
    )


def _fold(one: FoldScore) -> None:
    """A line of the table that grows with each fold."""
    if one.number == 1:
        click.echo("fold   images  val loss  accuracy  balanced  epoch      rate")
    click.echo(
        f"{one.number:4d} {one.images:8d} {one.loss:9.4f} {one.accuracy:9.1%} "
        f"{one.balanced_accuracy:9.1%} {one.kept.number:6d} {one.kept.rate:9.2g}"
    )


def _epoch(one: Epoch, *, heading: bool) -> None:
    """A line of the table that grows while training."""
    # Where few images choose a penalty, a prior on it is added to the loss, and their sum decides.
    prior = f"  {'+ prior':>7}" if one.prior is not None else ""
    if heading:
        click.echo(f"epoch      rate  train loss  val loss{prior}  accuracy  balanced    seconds")
    loss = f"{one.val_loss:9.4f}" + (f"{one.selection_loss:9.4f}" if prior else "")
    judged = f"{loss} {one.val_accuracy:9.1%} {one.val_balanced_accuracy:9.1%}"
    if one.val_accuracy != one.val_accuracy:  # there was no image to judge by
        judged = f"{'-':>9} {'-':>9} {'-':>9}"
    click.echo(
        f"{one.number:5d} {one.rate:9.2g} {one.train_loss:11.4f} {judged} {one.wall_s:10.2f}"
    )
