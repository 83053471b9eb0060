"""Loop: gradient steps on what is trained.

In: a cut model, a `Feed` of batches, a judge. Out: an `Epoch` for every pass, `Tick`s within it;
the caller keeps the best and may stop between any two.
Each step's random numbers (dropout, blends) are a function of the seed and the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from tlkit.errors import TlkitError
from tlkit.model.assemble import Cut
from tlkit.model.device import Compute, drawn
from tlkit.options import FitOptions
from tlkit.train.events import Epoch, Note, Tick
from tlkit.train.feeds import Ahead, Feed
from tlkit.train.judge import Judge, loss_of
from tlkit.train.mix import mix_for
from tlkit.train.schedule import Pace


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is minimised."""

    of: Callable[[Tensor, Tensor], Tensor]
    """Inputs, labels (B,) -> the mean over the batch, a scalar."""
    mass: Callable[[Tensor], float]
    """Labels (B,) -> what their mean counts beside that of another batch."""


def epochs(
    cut: Cut,
    feed: Feed,
    judge: Judge,
    options: FitOptions,
    *,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
) -> Iterator[Tick | Epoch | Note]:
    """Train; after each `Epoch` the model holds what was judged. Raises where the loss diverges.

    Ends early where the schedule or --patience says so.
    """
    pace = Pace(options, steps_per_epoch=-(-feed.steps // options.accumulate))
    average = Average(cut, options.ema) if options.ema else None
    step = 0
    with Ahead(feed) as ahead:
        for number in range(1, options.epochs + 1):
            started = time.perf_counter()
            total, seen = 0.0, 0
            held = _not_yet(cut, number, options.unfreeze_every)
            with cut.holding(held, statistics=options.batchnorm == "keep"):
                batches = ahead.epoch(number)
                while parts := list(islice(batches, options.accumulate)):
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak"] * pace.factor(step)
                    with drawn(options.seed, "step", step), torch.enable_grad():
                        total += take_step(loss, parts, optimizer, options.clip)
                    if average is not None:
                        average.update()
                    seen += sum(len(labels) for _, labels in parts)
                    step += 1
                    if not math.isfinite(total):
                        raise diverged(number, step, options)
                    yield Tick(
                        what=f"epoch {number}/{options.epochs}", done=seen, total=feed.images
                    )
            if number < options.epochs:
                ahead.begin(number + 1)
            if average is not None:
                average.swap()
            val = judge()
            yield Epoch(
                number=number,
                rate=options.lr * pace.factor(step - 1),
                train_loss=total / seen,
                val_loss=val.loss,
                val_accuracy=val.accuracy,
                val_balanced_accuracy=val.balanced_accuracy,
                wall_s=time.perf_counter() - started,
            )
            if average is not None:
                average.swap()
            if end := pace.judged(val):
                yield Note(text=f"stopped after epoch {number}: {end}")
                return


class Average:
    """A moving average of the trained tensors (Polyak and Juditsky 1992).

    At first it is short, min(decay, (1 + t) / (10 + t)) after t steps: the start is soon forgotten.
    """

    def __init__(self, cut: Cut, decay: float) -> None:
        self.live = list(cut.trained_tensors().values())
        self.kept = [one.detach().clone() for one in self.live]
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the tensors after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for kept, live in zip(self.kept, self.live, strict=True):
            if kept.is_floating_point():
                kept.lerp_(live, 1 - decay)
            else:
                kept.copy_(live)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average into the model and keep what was there, or the other way round."""
        for kept, live in zip(self.kept, self.live, strict=True):
            other = live.detach().clone()
            live.copy_(kept)
            kept.copy_(other)


def loss_for(
    compute: Compute,
    module: nn.Module,
    options: FitOptions,
    *,
    class_weights: Tensor | None,
    classes: int,
) -> Loss:
    """The mean loss of the module on a batch, blended with --mixup and --cutmix."""
    mix = mix_for(options, classes)

    def mean(inputs: Tensor, labels: Tensor) -> Tensor:
        inputs, targets = compute.send(inputs), compute.send(labels)
        if mix is not None:
            inputs, targets = mix(inputs, targets)
        return loss_of(compute.run(module, inputs), targets, class_weights, options.label_smoothing)

    def mass(labels: Tensor) -> float:
        # torch divides by the classes' weights, except where the targets are shares.
        if class_weights is None or mix is not None:
            return float(len(labels))
        return float(class_weights[labels.to(class_weights.device)].sum())

    return Loss(of=mean, mass=mass)


def take_step(
    loss: Loss,
    parts: list[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    clip: float,
) -> float:
    """One step on the gradients of all parts; the sum of their images' losses."""
    masses = [loss.mass(labels) for _, labels in parts]
    images = sum(len(labels) for _, labels in parts)
    total = 0.0
    optimizer.zero_grad()
    for (inputs, labels), mass in zip(parts, masses, strict=True):
        share = loss.of(inputs, labels) * (mass / sum(masses))
        share.backward()
        total += float(share.detach()) * images
    if clip:
        trained = [one for group in optimizer.param_groups for one in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, clip)
    optimizer.step()
    return total


def _not_yet(cut: Cut, epoch: int, every: int) -> list[nn.Module | nn.Parameter]:
    """The parts of the open stages that do not learn yet in this epoch, counted from 1.

    Gradual unfreezing: Howard and Ruder 2018, arXiv 1801.06146.
    """
    stages = list(cut.open_stages().values())
    learning = len(stages) if not every else (epoch - 1) // every
    return [part for members in stages[: max(0, len(stages) - learning)] for part in members]


def diverged(epoch: int, step: int, options: FitOptions) -> TlkitError:
    """The error for a loss that is no longer a number."""
    return TlkitError(
        "training diverged",
        found=f"a loss that is not a finite number, in epoch {epoch}, step {step}",
        expected="a finite loss",
        do=f"lower the rates (--lr {options.lr:g}, --backbone-lr {options.backbone_lr:g}), "
        "limit the gradients (--clip 1), or use --precision fp32",
    )
