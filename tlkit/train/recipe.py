"""Recipe: what `auto` means for this model and these images, and which options would be idle.

In: the options, the cut, the number of images. Out: a `Recipe`, whose reasons are printed.
Pure. The measurements behind the choices stand in the README ("What auto chooses").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.nn.modules.batchnorm import _BatchNorm

from tlkit.data.batches import even_parts
from tlkit.data.transforms import PRESETS
from tlkit.errors import OptionError, listing, pick
from tlkit.model.assemble import Cut
from tlkit.model.build import Plan
from tlkit.model.heads import HEADS
from tlkit.options import FitOptions
from tlkit.ranks import here
from tlkit.train.schedule import SCHEDULES, warmup_share
from tlkit.weights import WeightSet, is_random

SOLVABLE_BYTES = 2 << 30
"""The largest bank that lbfgs takes: with its scaled copies it is in memory up to three times."""


STEPS = (
    "batch", "accumulate", "momentum", "lr", "weight_decay", "schedule", "warmup", "step_epochs",
    "gamma", "plateau_epochs", "cuts", "patience", "clip", "ema",
)  # fmt: skip
"""Options of training in steps, which a head that is solved has no use for."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The decisions, and why."""

    optimizer: str
    augment: str
    refit: bool
    """Whether the head is solved once more on all images when its penalty is chosen."""
    reasons: tuple[str, ...]


def refuse_unknown(options: FitOptions) -> None:
    """What can be told wrong before anything is read. Raises `UnknownName`, `OptionError`."""
    pick(HEADS, options.head, "head")
    warmup_share(options)
    if options.augment != "auto" and not Path(options.augment).suffix:
        pick(
            PRESETS, options.augment, "augmentation preset", also=", auto, or a .yaml or .json file"
        )


def settle(options: FitOptions, sets: Sequence[WeightSet]) -> FitOptions:
    """The options with `freeze` decided, which shapes the network.

    Raises `OptionError` where `strategy` and `freeze` contradict each other.
    """
    strategy, freeze = options.strategy, options.freeze
    if freeze == "auto":
        if strategy == "auto":
            freeze = "none" if is_random(sets, options.weights) else "features"
        else:
            freeze = "backbone" if strategy == "probe" else "none"
    allowed = {
        "probe": freeze in ("features", "backbone"),
        "finetune": freeze != "backbone",
        "probe+finetune": freeze != "backbone",
    }
    if not allowed.get(strategy, True):
        raise OptionError(
            "--strategy and --freeze contradict each other",
            found=f"--strategy {strategy} --freeze {freeze}",
            expected="the head alone to be trained"
            if strategy == "probe"
            else "something of the backbone to be trained",
            do="leave --freeze out: the strategy decides it",
        )
    # The head file names the package that brings its head, if one does.
    return replace(options, freeze=freeze, head=HEADS.full_name(options.head))


def for_steps(options: FitOptions, *, scratch: bool, stored: int) -> FitOptions:
    """The options with what training in steps needs decided: rates, batch size and `batchnorm`.

    A backbone from random weights learns as fast as its head; a pretrained one is to stay near
    where it is, and all the more with a head that fits it already: then large steps undo the probe.
    Of `stored` features a step takes more than of pixels: it costs little more, and an epoch of
    many images has steps enough.
    """
    batch = options.batch or max(32, min(stored // 64, 1024))
    lr = options.lr or (1e-4 if options.strategy == "probe+finetune" else 1e-3)
    backbone_lr = options.backbone_lr or (lr if scratch else lr / 10)
    batchnorm = options.batchnorm
    if batchnorm == "auto":
        batchnorm = "learn" if scratch else "keep"
    return replace(options, lr=lr, backbone_lr=backbone_lr, batch=batch, batchnorm=batchnorm)


def rates_in_words(options: FitOptions, cut: Cut) -> str:
    """rates: 0.001 for the head, 0.0001 for the backbone, whose BatchNorms keep their statistics"""
    text = f"rates: {options.lr:g} for the head"
    if not cut.head_only:
        text += f", {options.backbone_lr:g} for the backbone"
        if cut.open_norms():
            text += f", whose BatchNorms {options.batchnorm} their statistics"
    return text


def for_the_probe(options: FitOptions) -> FitOptions:
    """The options of probe+finetune's first part: the same head, everything else by default."""
    kept = (
        "backbone", "weights", "attach", "head", "hidden", "dropout", "pool", "label_smoothing",
        "balance", "monitor", "val_fraction", "seed", "device", "precision", "engine", "bank",
        "layout", "workers", "on_bad",
    )  # fmt: skip
    same = {name: getattr(options, name) for name in kept}
    return FitOptions(**same, strategy="probe", freeze="backbone", refit=False)


def plan_of(options: FitOptions) -> Plan:
    """The part of the settled options that shapes the network."""
    return Plan(
        weights=options.weights,
        attach=options.attach,
        head=options.head,
        hidden=options.hidden,
        dropout=options.dropout,
        pool=options.pool,
        freeze=options.freeze,
        seed=options.seed,
    )


def recipe_for(
    options: FitOptions, cut: Cut, *, images: int, bytes_each: int, own_val: bool
) -> Recipe:
    """Resolve `auto`. `bytes_each` is what the bank holds of one view of one image.

    `own_val` says that the folder has a val part of its own. Raises `OptionError` where lbfgs is
    asked for and cannot work.
    """
    reasons = []
    convex = cut.head_only and cut.has_bank and plan_of(options).kind.convex
    optimizer = options.optimizer
    if optimizer == "lbfgs" and not convex:
        raise OptionError(
            "--optimizer lbfgs solves a linear head on frozen features",
            found=f"--head {options.head}, with training from '{cut.at}' on",
            expected="--head linear, and nothing else to train",
            do="use --optimizer adamw, or --head linear --freeze backbone",
        )
    if optimizer == "auto":
        views = 1 if options.augment in ("auto", "none") else options.views
        fits = images * views * bytes_each <= SOLVABLE_BYTES
        optimizer = "lbfgs" if convex and fits else "adamw"
        why = (
            "the head is linear on frozen features, so its best is solved for"
            if optimizer == "lbfgs"
            else "the features are too many to solve at once"
            if convex
            else "the trained part is not linear"
        )
        reasons.append(f"optimizer {optimizer}: {why}")
    augment = options.augment
    if augment == "auto":
        # On frozen features, more views cost as many passes and moved no accuracy that we measured;
        # what is trained through the pixels needs them against overfitting.
        augment = "none" if optimizer == "lbfgs" else "mirror" if cut.has_bank else "standard"
        why = {
            "none": "one pass over each image is enough for a linear head",
            "mirror": "the bank keeps each image and its mirror",
            "standard": "every epoch sees new crops and colours",
        }[augment]
        reasons.append(f"augment {augment}: {why}")
    never = len(cut.open_stages()) - (options.epochs - 1) // max(1, options.unfreeze_every)
    if options.unfreeze_every and never > 0:
        names = listing(list(cut.open_stages())[:never])
        reasons.append(f"too few epochs for all stages to be unfrozen; never trained: {names}")
    refit = options.refit and optimizer == "lbfgs" and not own_val
    return Recipe(optimizer=optimizer, augment=augment, refit=refit, reasons=tuple(reasons))


def refuse_idle(options: FitOptions, cut: Cut, recipe: Recipe, *, distinct: int | None) -> None:
    """Raise `OptionError` for options that were set and would have no effect."""
    warmup_share(options)
    refuse_contradiction(options, cut)
    refuse_idle_in_head(options)
    for names, idle, because in _idle(options, cut, recipe):
        if idle:
            options.refuse(names, because)
    if cut.has_bank and distinct is not None and options.views > distinct:
        options.refuse(["views"], f"at most {distinct}: --augment {recipe.augment} has no more")


def refuse_idle_in_head(options: FitOptions) -> None:
    """Raise `OptionError` for a width or dropout of a head that has none."""
    uses = plan_of(options).kind.uses
    for name in ("hidden", "dropout"):
        if name not in uses:
            options.refuse([name], f"a head that has it; --head {options.head} has none")


def refuse_contradiction(options: FitOptions, cut: Cut) -> None:
    """Raise `OptionError` where the strategy is not what would be trained."""
    if options.strategy in ("finetune", "probe+finetune") and cut.head_only:
        raise OptionError(
            "there is nothing to fine-tune",
            found="a backbone that is frozen as a whole",
            expected="something of it to be trained",
            do="leave --freeze out, or use --freeze none or to:STAGE",
        )
    if options.strategy == "probe" and not cut.head_only:
        raise OptionError(
            "a probe trains the head alone",
            found=f"--freeze {options.freeze} --attach {options.attach}, which leaves the "
            "classifier to be trained too",
            expected="everything but the head to be frozen",
            do="leave --freeze out, or use --freeze backbone",
        )


def refuse_lone_images(options: FitOptions, cut: Cut, recipe: Recipe) -> None:
    """Raise `OptionError` for steps of one image through a BatchNorm that is trained."""
    with cut.holding((), statistics=options.batchnorm == "keep"):
        trained = any(isinstance(one, _BatchNorm) and one.training for one in cut.trained.modules())
    cut.training(False)
    if options.batch == 1 and recipe.optimizer != "lbfgs" and trained:
        raise OptionError(
            "BatchNorm cannot be trained on one image at a time",
            found="--batch 1, and a BatchNorm among what is trained",
            expected="at least 2 images in a step",
            do="use --batch 2 or more, or freeze what holds the BatchNorm",
        )


def refuse_idle_processes(options: FitOptions, recipe: Recipe, *, images: int) -> None:
    """Raise `OptionError` for steps of fewer images than there are processes to share them."""
    if recipe.optimizer == "lbfgs" or not here().several:
        return
    fewest = min(even_parts(images, options.batch))
    if fewest < here().size:
        raise OptionError(
            "there are more processes than images in a step",
            found=f"{here().size} processes, and steps of {fewest} images",
            expected="at least one image for each process in every step",
            do="use a larger --batch, or fewer processes",
        )


def _idle(
    options: FitOptions, cut: Cut, recipe: Recipe
) -> Iterator[tuple[Sequence[str], bool, str]]:
    yield ["views"], not cut.has_bank, "a frozen part to keep views of; here every epoch draws anew"
    yield (
        ["engine", "bank"],
        not cut.has_bank and options.strategy != "probe+finetune",
        "a frozen part to run once and keep (--freeze features)",
    )
    yield (
        ["cache", "cache_gb"],
        cut.has_bank,
        "training through the pixels; here features are stored (--bank)",
    )
    yield ["cache_gb"], options.cache == "none", "--cache ram or --cache disk"
    yield ["jitter"], recipe.augment != "vgg", "--augment vgg, whose sizes these are"
    yield (
        ["mixup", "cutmix"],
        cut.has_bank,
        "training through the pixels; here frozen features are stored (--freeze none)",
    )
    yield (
        STEPS,
        recipe.optimizer == "lbfgs",
        "adamw, adam or sgd: lbfgs has no steps and tries a range of penalties "
        "(--optimizer adamw)",
    )  # fmt: skip
    yield ["momentum"], recipe.optimizer != "sgd", "--optimizer sgd"
    yield (
        ["patience"],
        options.schedule == "plateau" and options.patience <= options.plateau_epochs,
        f"more epochs than the {options.plateau_epochs} of --plateau-epochs: it would end the run "
        "before the first cut",
    )
    yield (
        ["unfreeze_every"],
        options.unfreeze_every >= options.epochs,
        f"fewer than --epochs {options.epochs}: no stage would ever learn",
    )
    yield (
        ["batchnorm"],
        not cut.open_norms(),
        "a BatchNorm of the backbone that is trained; here there is none",
    )
    own = pick(SCHEDULES, options.schedule, "schedule").uses
    for name, users in (
        ("step_epochs", "step"), ("gamma", "step or plateau"),
        ("plateau_epochs", "plateau"), ("cuts", "plateau"),
    ):  # fmt: skip
        yield [name], name not in own, f"--schedule {users}"
    yield ["backbone_lr"], cut.head_only, "something of the backbone to train; only the head is"
    yield (
        ["stage_decay", "unfreeze_every"],
        not cut.open_stages(),
        "stages of the features that are trained (--freeze none or to:STAGE)",
    )
