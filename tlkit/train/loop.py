"""Loop: gradient steps on what is trained.

In: a cut model, a `Feed` of batches, a judge. Out: an `Epoch` for every pass, `Tick`s within it;
the caller keeps the best and may stop between any two. What a `Training` is made of can be written
down between two steps, and another process goes on from there (checkpoint.py).
Each step's random numbers (dropout, blends) are a function of the seed and the step alone.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlkit.errors import TrainingError, listing
from tlkit.model.assemble import Cut
from tlkit.model.device import Compute, drawn
from tlkit.options import FitOptions
from tlkit.ranks import here
from tlkit.train.checkpoint import Standing
from tlkit.train.events import Epoch, Note, Tick
from tlkit.train.feeds import Ahead, Feed
from tlkit.train.judge import Judge, loss_of
from tlkit.train.mix import mix_for
from tlkit.train.schedule import Pace
from tlkit.train.together import learning


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is minimised."""

    of: Callable[[Tensor, Tensor], Tensor]
    """Inputs, labels (B,) -> the mean over the batch, a scalar."""
    mass: Callable[[Tensor], float]
    """Labels (B,) -> what their mean counts beside that of another batch."""
    apart: Callable[[], AbstractContextManager[Any]] = nullcontext
    """A block after which more of the same step comes: gradients of processes need not meet yet."""


def epochs(
    cut: Cut,
    feed: Feed,
    judge: Judge,
    options: FitOptions,
    *,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    watch: Watch | None = None,
) -> Generator[Tick | Epoch | Note, None, None]:
    """Train; after each `Epoch` the model holds what was judged. Raises where the loss diverges.

    Ends early where the schedule or --patience says so. With `watch`, begins where that says.
    """
    now = Training(cut, options, optimizer, steps_per_epoch=-(-feed.steps // options.accumulate))
    if watch is not None:
        watch.begin(now)
    with Ahead(feed) as ahead:
        while now.epoch <= options.epochs:
            started = time.perf_counter()
            held = _not_yet(cut, now.epoch, options.unfreeze_every)
            with cut.holding(held, statistics=options.batchnorm == "keep"):
                batches = ahead.epoch(now.epoch, now.batches)
                while parts := list(islice(batches, options.accumulate)):
                    yield from now.step(parts, loss)
                    if not math.isfinite(now.total):
                        images = feed.paths(now.epoch, range(now.batches - len(parts), now.batches))
                        raise now.diverged(images)
                    what = f"epoch {now.epoch}/{options.epochs}"
                    tick = Tick(what=what, done=now.seen, total=feed.images)
                    if watch is None:
                        yield tick
                    else:
                        yield from watch.over(now, tick)
            if now.epoch < options.epochs:
                ahead.begin(now.epoch + 1)
            with now.averaged():
                val = judge()
                yield Epoch(
                    number=now.epoch,
                    rate=options.lr * now.pace.factor(now.steps - 1),
                    train_loss=now.total / now.seen,
                    val_loss=val.loss,
                    val_accuracy=val.accuracy,
                    val_balanced_accuracy=val.balanced_accuracy,
                    wall_s=time.perf_counter() - started,
                )
            number, end = now.epoch, now.pace.judged(val)
            now.next_epoch()
            if end:
                now.epoch = options.epochs + 1
                yield Note(text=f"stopped after epoch {number}: {end}")
                return


class Watch(Protocol):
    """Who keeps a training that may be interrupted."""

    def begin(self, training: Training) -> None:
        """Put it where it is to begin."""

    def over(self, training: Training, tick: Tick) -> Iterator[Tick]:
        """Yield the tick of a step; keep what is to be kept, before or when it is closed."""


class Training:
    """A training as it stands between two steps."""

    def __init__(
        self,
        cut: Cut,
        options: FitOptions,
        optimizer: torch.optim.Optimizer,
        *,
        steps_per_epoch: int,
    ) -> None:
        self.live = cut.trained_tensors()  # now: a stage that is held counts as frozen
        self.options = options
        self.optimizer = optimizer
        self.pace = Pace(options, steps_per_epoch=steps_per_epoch)
        self.average = Average(cut, options.ema) if options.ema else None
        self.steps = 0
        self.epoch = 1
        self.batches = 0
        """Of this epoch."""
        self.total = 0.0
        """Sum of the losses of the images of this epoch so far."""
        self.seen = 0
        """Images of this epoch so far."""
        self.pieces = 1
        """In which a batch goes through, for the memory holds no more."""
        # What one process drops of its images is not what another drops of its own.
        self.draws = () if here().first else (here().rank,)

    def step(self, parts: list[tuple[Tensor, Tensor]], loss: Loss) -> Iterator[Note]:
        """One step on the gradients of all parts."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.pace.factor(self.steps)
        while True:
            with drawn(self.options.seed, "step", self.steps, *self.draws), torch.enable_grad():
                try:
                    total, images = gradients(loss, in_pieces(parts, self.pieces), self.optimizer)
                    break
                except torch.OutOfMemoryError as error:
                    if here().several:  # the others are in the middle of the same step
                        raise too_large(self.options.batch) from error
                    if self.pieces >= max(len(labels) for _, labels in parts):
                        raise too_small() from error
            self.pieces *= 2
            torch.cuda.empty_cache()
            yield Note(
                text=f"a batch is too large for the memory: from here on each goes through in "
                f"{self.pieces} pieces, whose gradients make one step"
            )
        apply_gradients(self.optimizer, self.options.clip)
        if self.average is not None:
            self.average.update()
        self.total += total
        self.seen += images
        self.batches += len(parts)
        self.steps += 1

    def diverged(self, images: Sequence[Path]) -> TrainingError:
        """The error for a loss that is no longer a number since the step on these images."""
        rate = self.options.lr * self.pace.factor(self.steps - 1)
        return diverged(
            self.options,
            f"in epoch {self.epoch}, step {self.steps}, at the rate {rate:.2g}, on the batch of\n"
            + listing([str(one) for one in images], most=8),
        )

    def next_epoch(self) -> None:
        """All batches of this one are done, and it was judged."""
        self.epoch += 1
        self.batches, self.total, self.seen = 0, 0.0, 0

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averaged tensors in the block, where there is an average."""
        if self.average is None:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def standing(self) -> Standing:
        """All that the options and the folder do not say."""
        tensors: dict[str, Tensor] = {f"model.{name}": one for name, one in self.live.items()}
        if self.average is not None:
            tensors |= {f"average.{i}": one for i, one in enumerate(self.average.kept)}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{i}.{name}": one
                for name, one in state.items()
                if isinstance(one, Tensor)
            }
        counts = {name: getattr(self, name) for name in COUNTS}
        averaged = 0 if self.average is None else self.average.steps
        return Standing(
            counts={**counts, "pace": self.pace.counts(), "averaged": averaged}, tensors=tensors
        )

    def stand(self, standing: Standing) -> None:
        """Go on from there."""
        tensors, counts = standing.tensors, standing.counts
        for name in COUNTS:
            setattr(self, name, counts[name])
        self.pace.put(counts["pace"])
        with torch.no_grad():
            for name, one in under(tensors, "model.").items():
                self.live[name].copy_(one)
        if self.average is not None:
            self.average.steps = counts["averaged"]
            for i, kept in enumerate(self.average.kept):
                kept.copy_(tensors[f"average.{i}"])
        state: dict[int, dict[str, Tensor]] = {}
        learning = [one for group in self.optimizer.param_groups for one in group["params"]]
        for name, one in under(tensors, "optimizer.").items():
            number, _, what = name.partition(".")
            beside = learning[int(number)]
            if one.shape == beside.shape:
                # Fused steps go through memory: the layout has to be the parameter's.
                one = torch.empty_like(beside).copy_(one)
            state.setdefault(int(number), {})[what] = one
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


COUNTS = ("steps", "epoch", "batches", "total", "seen", "pieces")
"""The numbers of a `Training`."""


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without it."""
    return {name[len(prefix) :]: one for name, one in tensors.items() if name.startswith(prefix)}


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
    """The mean loss of the module on a batch, blended with --mixup and --cutmix.

    Where there are several processes, a batch is each one's share, and gradients meet.
    """
    mix = mix_for(options, classes)
    shared = learning(module)

    def mean(inputs: Tensor, labels: Tensor) -> Tensor:
        inputs, targets = compute.send(inputs), compute.send(labels)
        if mix is not None:
            inputs, targets = mix(inputs, targets)
        return loss_of(
            compute.run(shared.module, inputs), targets, class_weights, options.label_smoothing
        )

    def mass(labels: Tensor) -> float:
        # torch divides by the classes' weights, except where the targets are shares.
        if class_weights is None or mix is not None:
            return float(len(labels))
        return float(class_weights[labels.to(class_weights.device)].sum())

    return Loss(of=mean, mass=mass, apart=shared.apart)


def take_step(
    loss: Loss,
    parts: list[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    clip: float,
) -> float:
    """One step on the gradients of all parts; the sum of their images' losses."""
    total, _ = gradients(loss, parts, optimizer)
    apply_gradients(optimizer, clip)
    return total


def gradients(
    loss: Loss, parts: list[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer
) -> tuple[float, int]:
    """Those of the mean loss over all parts, in the parameters.

    Returns the sum of the images' losses and their number, of all processes.
    """
    ranks = here()
    masses = [loss.mass(labels) for _, labels in parts]
    whole, images = ranks.sums(sum(masses), sum(len(labels) for _, labels in parts))
    total = 0.0
    optimizer.zero_grad()
    for number, ((inputs, labels), mass) in enumerate(zip(parts, masses, strict=True), start=1):
        with loss.apart() if number < len(parts) else nullcontext():
            share = loss.of(inputs, labels) * (mass / whole)
            # The gradients of processes meet as their mean, and here their sum is wanted.
            (share * ranks.size).backward()
        total += float(share.detach()) * images
    return ranks.sums(total)[0], int(images)


def apply_gradients(optimizer: torch.optim.Optimizer, clip: float) -> None:
    """The step itself."""
    if clip:
        trained = [one for group in optimizer.param_groups for one in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, clip)
    optimizer.step()


def in_pieces(parts: list[tuple[Tensor, Tensor]], pieces: int) -> list[tuple[Tensor, Tensor]]:
    """Each part in so many of nearly one size, or as many as it has images."""
    return [
        both
        for inputs, labels in parts
        for both in zip(
            inputs.tensor_split(min(pieces, len(labels))),
            labels.tensor_split(min(pieces, len(labels))),
            strict=True,
        )
    ]


def _not_yet(cut: Cut, epoch: int, every: int) -> list[nn.Module | nn.Parameter]:
    """The parts of the open stages that do not learn yet in this epoch, counted from 1.

    Gradual unfreezing: Howard and Ruder 2018, arXiv 1801.06146.
    """
    stages = list(cut.open_stages().values())
    learning = len(stages) if not every else (epoch - 1) // every
    return [part for members in stages[: max(0, len(stages) - learning)] for part in members]


def diverged(options: FitOptions, where: str) -> TrainingError:
    """The error for a loss that is no longer a number."""
    return TrainingError(
        "training diverged",
        found=f"a loss that is not a finite number, {where}",
        expected="a finite loss",
        do=f"lower the rates (--lr {options.lr:g}, --backbone-lr {options.backbone_lr:g}), "
        "limit the gradients (--clip 1), or use --precision fp32",
    )


def too_large(batch: int) -> TrainingError:
    """The error for a memory that does not hold a process's share of a batch."""
    return TrainingError(
        "the memory is too small for this batch",
        found=f"no room for {-(-batch // here().size)} of the {batch} images of a step",
        expected=f"room for a share of each step, in each of {here().size} processes",
        do=f"use --batch {max(here().size, batch // 2)} --accumulate 2, which learns alike",
    )


def too_small() -> TrainingError:
    """The error for a memory that does not hold one image's training."""
    return TrainingError(
        "the memory is too small to train this network",
        found="no room for a step on one image",
        expected="room for at least that",
        do="freeze more (--freeze features), take a smaller --backbone, or --device cpu",
    )
