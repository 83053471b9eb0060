"""Range test: at which learning rates the loss falls, and from where on it rises.

In: what a fit would take its first steps with (`run.ready`). Out: `Tick`s, then a `RangeTest`.
Smith 2017 (arXiv 1506.01186, section 3.3), with rates that grow exponentially and a smoothed loss,
as in fastai's `lr_find`. Suggested is the rate of the steepest descent, as by Lightning's tuner and
by fastai's `steep`, and at most a tenth of the rate of the lowest loss, fastai's `minimum`.
fastai's `valley` (the middle of the longest fall) was tried: on frozen features, which a head can
learn by heart, the fall has a long flat end, and its middle differs tenfold from seed to seed.
The model that the test is made on is of no use afterwards.
Not here: what is written of it (tlkit/rates.py), the picture (report/plots.py).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
from torch import Tensor

from tlkit.data.images import BadImage
from tlkit.errors import OptionError, TlkitError
from tlkit.model.device import drawn
from tlkit.options import FitOptions, SweepOptions
from tlkit.train.events import Tick
from tlkit.train.feeds import Feed
from tlkit.train.loop import take_step
from tlkit.train.run import Ready

SMOOTHING = 0.98
"""Weight of what was before in the smoothed loss, as in fastai, from 1000 steps on."""
RISE = 4.0
"""The test ends where the smoothed loss is that many times its minimum, as in fastai; not in its
first tenth, where the average is of few batches."""
FALL = 0.01
"""The share by which the smoothed loss must have fallen for a rate to be suggested."""
SIGMAS = 6.0
"""Standard deviations of the smoothed loss by which it must have fallen too: of a hundred numbers
without a trend, the lowest is often 3 below their mean, and the first may be 2 above it."""
MARGIN = 10.0
"""By which the suggestion is below the rate of the lowest loss, at least."""


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """The losses of steps at growing rates, and what they suggest."""

    rates: tuple[float, ...]
    """Of the head, before each step."""
    losses: tuple[float, ...]
    """Of each step's images, before it was taken."""
    smoothed: tuple[float, ...]
    """Their exponential average, corrected for its start."""
    end: str
    """Why it ended, in words."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""
    backbone_ratio: float | None
    """The backbone's rate over the head's; None where the head alone is trained."""
    steepest: float | None
    """The rate at which the smoothed loss falls fastest; None where it does not fall."""
    lowest: float | None
    """The rate at which the smoothed loss is lowest; None where it does not fall."""
    suggestion: float | None
    """The rate to fit with: `steepest`, and at most a tenth of `lowest`. None where the test does
    not show one."""
    why_none: str
    """Why no rate is suggested, and what to do; empty where one is."""

    @property
    def flags(self) -> str:
        """The suggestion as options of fit; empty where there is none."""
        return "" if self.suggestion is None else self.flags_of(self.suggestion)

    def flags_of(self, rate: float) -> str:
        """--lr 0.0012 --backbone-lr 0.00012"""
        head = f"--lr {rate:.2g}"
        if self.backbone_ratio is None:
            return head
        return f"{head} --backbone-lr {rate * self.backbone_ratio:.2g}"


def refuse_idle_in_sweep(options: FitOptions, sweep: SweepOptions) -> None:
    """Raise `OptionError` for options of fit that a range test has no use for."""
    options.refuse(
        ["schedule", "warmup", "step_epochs", "gamma", "plateau_epochs", "cuts"],
        "no schedule: in a range test the rates grow from --min-lr to --max-lr",
    )
    options.refuse(
        ["epochs", "patience", "ema", "unfreeze_every", "refit", "folds"],
        "one run of steps without epochs, of a model that is thrown away (--steps)",
    )
    if options.strategy != "probe+finetune":
        options.refuse(["monitor"], "nothing to be kept: a range test has no validation")
    if sweep.min_lr >= sweep.max_lr:
        raise OptionError(
            "the rates cannot grow",
            found=f"--min-lr {sweep.min_lr:g} --max-lr {sweep.max_lr:g}",
            expected="a first rate that is below the last",
            do="lower --min-lr, or raise --max-lr",
        )


def range_test(ready: Ready, sweep: SweepOptions) -> Generator[Tick, None, RangeTest]:
    """Take a step at each rate until the loss rises. Every group's rate grows in proportion.

    Raises `TlkitError` where the loss is not finite from the start.
    """
    options = ready.options
    planned = rates_of(sweep)
    keep = smoothing(sweep.steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, seen, first = 0.0, 0, sweep.steps // 10
    end = f"all {sweep.steps} rates were tried"
    total = images_in(ready.feed, sweep.steps, options.accumulate)
    for step, parts in enumerate(islice(_endless(ready.feed, options.accumulate), sweep.steps)):
        for group in ready.optimizer.param_groups:
            group["lr"] = group["peak"] * planned[step] / options.lr
        images = sum(len(labels) for _, labels in parts)
        with (
            ready.cut.holding((), statistics=options.batchnorm == "keep"),
            drawn(options.seed, "step", step),
        ):
            loss = take_step(ready.loss, parts, ready.optimizer, options.clip) / images
        if not math.isfinite(loss):
            end = f"the loss was not a finite number at {planned[step]:.2g}"
            break
        losses.append(loss)
        average = keep * average + (1 - keep) * loss
        smoothed.append(average / (1 - keep ** (step + 1)))
        seen += images
        yield Tick(what="range test", done=min(seen, total), total=total)
        if step >= first and smoothed[-1] > RISE * min(smoothed[first:]):
            end = f"the smoothed loss rose to {RISE:g} times its minimum at {planned[step]:.2g}"
            break
    if not losses:
        raise TlkitError(
            "the range test cannot begin",
            found="a loss that is not a finite number in the first step",
            expected="a finite loss",
            do="use --precision fp32, or other --weights",
        )
    rates = planned[: len(losses)]
    reading = suggested(rates, losses, smoothed)
    return RangeTest(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        end=end,
        bad=ready.bad,
        backbone_ratio=None if ready.cut.head_only else options.backbone_lr / options.lr,
        steepest=reading.steepest,
        lowest=reading.lowest,
        suggestion=reading.suggestion,
        why_none=reading.why_none,
    )


def rates_of(sweep: SweepOptions) -> list[float]:
    """The rates of all steps, each the same factor above the one before it."""
    return [
        float(one) for one in np.geomspace(sweep.min_lr, sweep.max_lr, sweep.steps, dtype=float)
    ]


def smoothing(steps: int) -> float:
    """Weight of what was before: the average is of a twentieth of the steps, of two at least.

    fastai takes 0.98 for 100 steps as well. That is an average of 50 steps, which here are four
    powers of ten: the loss would have risen before its average had fallen.
    """
    return min(SMOOTHING, max(0.5, 1 - 20 / steps))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the losses of a range test say; the fields are those of `RangeTest`."""

    steepest: float | None = None
    lowest: float | None = None
    suggestion: float | None = None
    why_none: str = ""


def suggested(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> Reading:
    """Find the rate to suggest: where the smoothed loss falls fastest, against log(rate).

    The first tenth is not looked at: there the average is of few batches. Never a rate at an end of
    the test: what comes behind it, nobody has seen.
    """
    first, last = len(rates) // 10, len(rates) - 1
    lowest = first + int(np.argmin(smoothed[first:]))
    fall = smoothed[first] - smoothed[lowest]
    if fall <= max(FALL * smoothed[first], SIGMAS * _noise(losses, lowest)):
        return Reading(
            why_none="the loss did not fall. Use more --steps or a larger --batch, other rates "
            "(--min-lr, --max-lr), or look at the picture"
        )
    # Over a tenth of the rates: between neighbours, the slope would be the noise of one batch.
    near = max(1, len(rates) // 20)
    middles = range(first, lowest + 1)
    ends = [(max(first, one - near), min(lowest, one + near)) for one in middles]
    slopes = [(smoothed[b] - smoothed[a]) / math.log(rates[b] / rates[a]) for a, b in ends]
    steepest = first + int(np.argmin(slopes))
    reading = Reading(steepest=rates[steepest], lowest=rates[lowest])
    if steepest + near >= last:
        return replace(
            reading, why_none="the loss still fell fastest at the last rate: raise --max-lr"
        )
    suggestion = min(rates[steepest], rates[lowest] / MARGIN)
    if steepest - near <= first or suggestion <= rates[first]:
        return replace(reading, why_none="the loss fell fastest at the first rates: lower --min-lr")
    return replace(reading, suggestion=suggestion)


def _noise(losses: Sequence[float], lowest: int) -> float:
    """Return the standard deviation of the smoothed loss that differences between batches cause."""
    steps = len(losses)
    before_it_breaks = losses[: max(lowest + 1, steps // 2)]
    if len(before_it_breaks) < 2:
        return 0.0
    # Between neighbours the trend is small; the median does not see where the loss jumps.
    batch = float(np.median(np.abs(np.diff(before_it_breaks)))) / (0.6745 * math.sqrt(2))
    keep = smoothing(steps)
    return batch * math.sqrt((1 - keep) / (1 + keep))


def images_in(feed: Feed, steps: int, accumulate: int) -> int:
    """About how many images so many steps take."""
    return round(steps * feed.images / -(-feed.steps // accumulate))


def _endless(feed: Feed, accumulate: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The batches of each step, epoch after epoch."""
    for number in count(1):
        batches = feed.epoch(number)
        while parts := list(islice(batches, accumulate)):
            yield parts
