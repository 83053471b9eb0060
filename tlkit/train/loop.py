"""Loop: gradient steps on what is trained, fed from a bank or from images.

In: a cut model, a `Feed` of batches, a judge. Out: an `Epoch` for every pass, `Tick`s within it;
the caller keeps the best and may stop between any two.
Each step's random numbers (order, dropout) are a function of the seed and the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.batches import batches, even_parts
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage, Pixels, refuse
from tlkit.data.transforms import Augmentation, plain
from tlkit.errors import TlkitError
from tlkit.model.assemble import Cut
from tlkit.model.device import Engine, drawn
from tlkit.options import FitOptions
from tlkit.train.bank import Bank, none_readable
from tlkit.train.events import Epoch, Tick
from tlkit.train.judge import Judge, loss_of
from tlkit.train.schedule import factor


class Feed(Protocol):
    """Where the loop's batches come from."""

    @property
    def images(self) -> int:
        """Images in an epoch."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def module(self) -> nn.Module:
        """What the inputs are given to."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels (B,) of one pass in that epoch's order."""


@dataclass(frozen=True, kw_only=True)
class BankFeed:
    """Rows of a bank; epochs take its views in turn."""

    module: nn.Module
    bank: Bank
    batch: int
    seed: int

    @property
    def images(self) -> int:
        return len(self.bank.labels)

    @property
    def steps(self) -> int:
        return len(even_parts(self.images, self.batch))

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        view = (number - 1) % self.bank.views
        order = torch.from_numpy(shuffled(len(self.bank.labels), self.seed, number))
        for part in order.split(even_parts(len(order), self.batch)):
            yield self.bank.values[part, view], self.bank.labels[part]


@dataclass(frozen=True, kw_only=True)
class ImageFeed:
    """Images read anew in every epoch, augmented differently in each."""

    module: nn.Module
    catalog: Catalog
    augmentation: Augmentation
    at_least_px: int
    batch: int
    seed: int
    workers: int

    @property
    def images(self) -> int:
        return len(self.catalog)

    @property
    def steps(self) -> int:
        return len(even_parts(self.images, self.batch))

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = shuffled(len(self.catalog), self.seed, number)
        paths = self.catalog.paths

        def look(image: Pixels, position: int) -> Pixels:
            return self.augmentation.look(image, int(order[position]), number - 1)

        sizes = even_parts(len(order), self.batch)
        for part in batches(
            [paths[i] for i in order],
            look,
            sizes=sizes,
            at_least_px=self.at_least_px,
            workers=self.workers,
        ):
            # All were read before the first epoch; a file that vanished since ends the fit.
            refuse(
                list(part.bad.values()), do="put them back: they were readable when the fit began"
            )
            labels = torch.from_numpy(self.catalog.labels[order[part.index]])
            yield part.images[:, 0], labels


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch: a permutation that is a function of the seed and the epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def readable(
    catalog: Catalog, *, workers: int
) -> Generator[Tick, None, tuple[Catalog, tuple[BadImage, ...]]]:
    """Decode every image once before hours are spent on them: those that can be read, and the bad.

    Raises `FolderError` where none can be read.
    """
    good: list[NDArray[np.int64]] = []
    bad: list[BadImage] = []
    done = 0
    nothing = np.zeros((1, 1, 3), np.uint8)
    for part in batches(
        catalog.paths,
        lambda image, position: nothing,
        sizes=even_parts(len(catalog), 256),
        at_least_px=1,
        workers=workers,
    ):
        good.append(part.index)
        bad.extend(part.bad.values())
        done += len(part.index) + len(part.bad)
        yield Tick(what="checking images", done=done, total=len(catalog))
    kept = np.concatenate(good)
    if not len(kept):
        raise none_readable(catalog, bad)
    return catalog.take(kept), tuple(bad)


def bank_logits(cut: Cut, engine: Engine, bank: Bank, *, batch: int = 256) -> Tensor:
    """(N, C) logits of the trained part on a bank's first views."""
    cut.training(False)
    with torch.inference_mode():
        return torch.cat(
            [engine.run(cut.trained, one).cpu() for one in bank.values[:, 0].split(batch)]
        )


def image_logits(cut: Cut, engine: Engine, catalog: Catalog, *, batch: int, workers: int) -> Tensor:
    """(N, C) logits of the whole model on the plain views of a catalog's images."""
    spec = cut.model.spec
    cut.training(False)
    logits = []
    for part in batches(
        catalog.paths,
        lambda image, position: plain(spec, image),
        sizes=even_parts(len(catalog), batch),
        at_least_px=spec.resize_px,
        workers=workers,
    ):
        refuse(list(part.bad.values()), do="put them back: they were readable when the fit began")
        with torch.inference_mode():
            logits.append(engine.run(cut.model, part.images[:, 0]).cpu())
    return torch.cat(logits)


def optimizer_for(cut: Cut, options: FitOptions, name: str) -> torch.optim.Optimizer:
    """Adamw or sgd with a rate each for head and backbone; biases and norms are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in cut.model.named_parameters():
        if parameter.requires_grad:
            rate = options.lr if parameter_name.startswith("head.") else options.backbone_lr
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    rows = [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(rows, lr=options.lr, momentum=0.9)
    return torch.optim.AdamW(rows, lr=options.lr)


def epochs(
    cut: Cut,
    engine: Engine,
    feed: Feed,
    judge: Judge,
    options: FitOptions,
    *,
    optimizer: torch.optim.Optimizer,
    class_weights: Tensor | None,
) -> Iterator[Tick | Epoch]:
    """Train; after each `Epoch` the model holds its tensors. Raises where the loss diverges."""
    steps = options.epochs * feed.steps
    step = 0
    for number in range(1, options.epochs + 1):
        started = time.perf_counter()
        cut.training(True)
        total, seen = 0.0, 0
        for inputs, labels in feed.epoch(number):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor(step, steps)
            with drawn(options.seed, "step", step), torch.enable_grad():
                optimizer.zero_grad()
                logits = engine.run(feed.module, inputs)
                loss = loss_of(
                    logits, labels.to(engine.device), class_weights, options.label_smoothing
                )
                loss.backward()
                optimizer.step()
            total += float(loss.detach()) * len(labels)
            seen += len(labels)
            step += 1
            if not math.isfinite(total):
                raise _diverged(number, step, options)
            yield Tick(what=f"epoch {number}/{options.epochs}", done=seen, total=feed.images)
        val = judge()
        yield Epoch(
            number=number,
            rate=options.lr * factor(step - 1, steps),
            train_loss=total / seen,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            val_balanced_accuracy=val.balanced_accuracy,
            wall_s=time.perf_counter() - started,
        )


def _diverged(epoch: int, step: int, options: FitOptions) -> TlkitError:
    return TlkitError(
        "training diverged",
        found=f"a loss that is not a finite number, in epoch {epoch}, step {step}",
        expected="a finite loss",
        do=f"lower the rates (--lr {options.lr:g}, --backbone-lr {options.backbone_lr:g}), "
        "or use --precision fp32",
    )
