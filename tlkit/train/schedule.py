"""Schedule: the factor on every learning rate, and when to stop.

In: the options, how many steps there are, the score of each epoch. Out: a factor for each step.
A schedule's shape is a row in `SCHEDULES`, a function of the progress alone; `Pace` adds the
warm-up, and what plateaus of the validation score do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlkit.errors import OptionError, pick
from tlkit.options import FitOptions
from tlkit.train.judge import Verdict, standing

ONE_CYCLE_START = 1 / 25
"""Where one-cycle's rise begins, as a share of the peak (fastai's `div`)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A row of the table."""

    about: str
    after: Callable[[float, float, FitOptions], float]
    """(share of the steps after the warm-up that are done, epochs that are done, options) ->
    factor."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises, where the options leave it open."""
    uses: frozenset[str] = frozenset()
    """Options that only some schedules have, and this one."""


SCHEDULES: Mapping[str, Shape] = {
    "cosine": Shape(
        about="half a cosine down to zero (Loshchilov and Hutter 2017, arXiv 1608.03983)",
        after=lambda share, epoch, options: 0.5 * (1 + math.cos(math.pi * share)),
    ),
    "constant": Shape(
        about="the same rate throughout", after=lambda share, epoch, options: 1.0, warmup=0.0
    ),
    "one-cycle": Shape(
        about="up along a cosine from 1/25, then down to zero (Smith and Topin 2018, "
        "arXiv 1708.07120, without its cycle of the momentum)",
        after=lambda share, epoch, options: 0.5 * (1 + math.cos(math.pi * share)),
        warmup=0.3,
    ),
    "step": Shape(
        about="times --gamma after every --step-epochs",
        after=lambda share, epoch, options: options.gamma ** (int(epoch) // options.step_epochs),
        uses=frozenset({"step_epochs", "gamma"}),
    ),
    "plateau": Shape(
        about="times --gamma after --plateau-epochs without a better --monitor, at most --cuts "
        "times; the next plateau ends the run (Simonyan and Zisserman 2014, arXiv 1409.1556, 3.1)",
        after=lambda share, epoch, options: 1.0,
        uses=frozenset({"plateau_epochs", "cuts", "gamma"}),
    ),
}


class Pace:
    """The rates of one run as it goes on."""

    def __init__(self, options: FitOptions, *, steps_per_epoch: int) -> None:
        self.options = options
        self.shape = pick(SCHEDULES, options.schedule, "schedule")
        self.per_epoch = steps_per_epoch
        self.steps = options.epochs * steps_per_epoch
        self.rise = round(self.steps * warmup_share(options))
        self.cuts = 0
        self.epochs = 0
        self._best: tuple[float, ...] | None = None
        self._waited = 0
        self._since_cut = 0

    def factor(self, step: int) -> float:
        """What every rate is multiplied with in that step, counted from 0."""
        if step < self.rise:
            up = (step + 1) / self.rise
            if self.options.schedule == "one-cycle":
                up = ONE_CYCLE_START + (1 - ONE_CYCLE_START) * 0.5 * (1 - math.cos(math.pi * up))
            return up
        share = (step - self.rise) / max(1, self.steps - self.rise)
        shaped = self.shape.after(share, step / self.per_epoch, self.options)
        return float(shaped * self.options.gamma**self.cuts)

    def counts(self) -> dict[str, Any]:
        """What scores have made of it, as JSON has it."""
        return {
            "cuts": self.cuts, "epochs": self.epochs, "waited": self._waited,
            "since_cut": self._since_cut, "best": None if self._best is None else list(self._best),
        }  # fmt: skip

    def put(self, counts: Mapping[str, Any]) -> None:
        """Go on from what `counts` was."""
        self.cuts, self.epochs = counts["cuts"], counts["epochs"]
        self._waited, self._since_cut = counts["waited"], counts["since_cut"]
        self._best = None if counts["best"] is None else tuple(counts["best"])

    def judged(self, score: Verdict) -> str:
        """Take in an epoch's score. Empty, or why the run ends here.

        While the rates rise nothing stands still: neither cuts nor patience are counted yet.
        """
        self.epochs += 1
        now = standing(score, self.options.monitor)
        if self._best is None or now < self._best:
            self._best, self._waited, self._since_cut = now, 0, 0
            return ""
        if self.epochs * self.per_epoch <= self.rise:
            return ""
        self._waited += 1
        self._since_cut += 1
        if self.options.schedule == "plateau" and self._since_cut >= self.options.plateau_epochs:
            if self.cuts == self.options.cuts:
                return f"the validation score stands still after {self.cuts} cuts of the rate"
            self.cuts += 1
            self._since_cut = 0
        if self.options.patience and self._waited >= self.options.patience:
            return f"no better validation score in {self._waited} epochs"
        return ""


def warmup_share(options: FitOptions) -> float:
    """The number that --warmup means. Raises `OptionError`, and `UnknownName` for a schedule."""
    shape = pick(SCHEDULES, options.schedule, "schedule")
    if options.warmup == "auto":
        return shape.warmup
    try:
        share = float(options.warmup)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 0.9:
        raise OptionError(
            "the warm-up cannot be used",
            found=f"--warmup {options.warmup}",
            expected="auto, or a share of all steps from 0 to 0.9",
            do="correct the value; 0 is no warm-up",
        )
    return share
