"""Options: what can be chosen, declared once.

Each record's fields carry their help and their limits. The command line's flags (cli/flags.py), the
limits for callers from Python, the record in a head file's card and the tables in the README are
all derived from these fields. Defaults are values; where the best value depends on the data, the
default is the word `auto`, and a named function decides and says so (train/recipe.py).
Not here: what the options do.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from tlkit import values
from tlkit.errors import OptionError, OptionWithoutEffect, listing, unknown

Options = TypeVar("Options", bound="Checked")

ATTACH = ("replace", "last", "append")
POOL = ("keep", "avg", "max", "avgmax", "flatten")
OPTIMIZERS = ("auto", "lbfgs", "adamw", "adam", "sgd")
STRATEGIES = ("auto", "probe", "finetune", "probe+finetune")
MONITORS = ("loss", "accuracy", "balanced")
DEVICES_HELP = "auto, cpu, cuda, cuda:N or mps"
# The tables stand where they are used; importing them for a help text would load torch.
# tests/house/test_laws.py holds the two together.
HEADS_HELP = "linear, mlp, vgg, bn-mlp"
AUGMENT_HELP = "auto, none, mirror, light, standard, strong, upright, vgg, aerial or FILE"
SCHEDULES_HELP = "cosine, constant, one-cycle, step, plateau"
ENGINES_HELP = "auto, eager, openvino or inductor"
TTA_HELP = "none, mirror, five, ten, multi, vgg150, dense, dense+crops"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a field may be, besides its type."""

    help: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    takes: tuple[str, ...] = ()
    """What stands for a text in Python: names in `values.TEXTS`."""


def option(default: Any, help: str, **limits: Any) -> Any:
    """A field of an options record: its default, its help, its limits (see `Limits`)."""
    return field(default=default, metadata={"limits": Limits(help=help, **limits)})


def _as_in(record: type[Any], name: str) -> Any:
    """A field like that of another record."""
    (found,) = (one for one in dataclasses.fields(record) if one.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One option as declared: for flags and for tables."""

    name: str
    type: type
    default: Any
    limits: Limits

    @property
    def flag(self) -> str:
        """--weight-decay; for a switch, --overwrite."""
        return "--" + self.name.replace("_", "-")

    @property
    def wanted(self) -> str:
        """Which types Python may give, and what is allowed of them, in words."""
        if self.type is not str:
            return "True or False" if self.type is bool else self.allowed
        kinds = ", ".join(["text", *(values.IN_WORDS[name] for name in self.limits.takes)])
        return kinds if self.allowed == "text" else f"{kinds}: {self.allowed}"

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        limits = self.limits
        if limits.choices:
            return ", ".join(limits.choices)
        if self.type is bool:
            return "yes, no"
        if limits.metavar:
            return limits.metavar
        kind = {int: "whole number", float: "number", str: "text"}[self.type]
        if limits.above is not None:
            kind += f" above {limits.above:g}"
        if limits.min is not None:
            kind += f" from {limits.min:g}"
        if limits.max is not None:
            kind += f" to {limits.max:g}"
        return kind


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A record whose fields keep their declared types and limits, whoever makes it."""

    def __post_init__(self) -> None:
        faults = []
        for one in declared(type(self)):
            given = getattr(self, one.name)
            try:
                value = values.converted(given, one.type, one.limits.takes)
            except values.Misfit:
                faults.append((f"{one.flag} {given!r}", f"{one.flag}: {one.wanted}"))
                continue
            # The record is frozen for everybody else.
            object.__setattr__(self, one.name, value)
            if fault := _fault(one, value):
                faults.append(fault)
        if faults:
            raise OptionError(
                "an option has a value that it cannot have"
                if len(faults) == 1
                else f"{len(faults)} options have values that they cannot have",
                found=listing([found for found, _ in faults]),
                expected=listing([expected for _, expected in faults]),
                do="correct the value; `tlkit COMMAND --help` lists what each option takes",
            )

    @classmethod
    def of(cls: type[Options], given: Mapping[str, Any]) -> Options:
        """The record with these values; an unknown name is an error that lists the known ones."""
        names = [one.name for one in declared(cls)]
        for name in given:
            if name not in names:
                raise unknown(names, name, "option")
        return cls(**given)

    def narrowed(self, record: type[Options]) -> Options:
        """Another record, with the options that both have as they are here."""
        own = {one.name for one in declared(type(self))}
        return record(
            **{one.name: getattr(self, one.name) for one in declared(record) if one.name in own}
        )

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            one.name: getattr(self, one.name)
            for one in declared(type(self))
            if getattr(self, one.name) != one.default
        }

    def refuse(self, names: Sequence[str], because: str) -> None:
        """Raise `OptionWithoutEffect` if one of these was set although it would be ignored."""
        idle = [name for name in names if name in self.changed()]
        if idle:
            error = OptionWithoutEffect(
                "an option would be ignored",
                found=", ".join(_as_typed(one, getattr(self, one)) for one in idle),
                expected=because,
                do="leave it out, or change what makes it idle",
            )
            error.names = tuple(idle)
            raise error


def _as_typed(name: str, value: Any) -> str:
    """--no-mirror, --grid 3"""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"


def declared(record: type[Checked]) -> Iterator[Declared]:
    """The options of a record, in order."""
    types = get_type_hints(record)
    for one in dataclasses.fields(record):
        yield Declared(
            name=one.name, type=types[one.name], default=one.default, limits=one.metadata["limits"]
        )


def signature(
    own: Sequence[inspect.Parameter], *records: type[Checked], returns: Any
) -> inspect.Signature:
    """What `help` and completion show of a function that takes options as keywords.

    `own` are its other parameters; a name among them is left out of the records.
    """
    names = {one.name for one in own}
    options = [
        inspect.Parameter(
            one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type
        )
        for record in records
        for one in declared(record)
        if one.name not in names
    ]
    return inspect.Signature([*own, *options], return_annotation=returns)


def own_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function without its `**options`."""
    return [
        one
        for one in inspect.signature(function).parameters.values()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    ]


def _fault(one: Declared, value: Any) -> tuple[str, str] | None:
    """(found, expected) where a value of the declared type is not allowed, else None."""
    limits = one.limits
    if limits.choices and value not in limits.choices:
        guess = unknown(limits.choices, str(value), one.name).do
        return f"{one.flag} {value!r}", f"{one.flag}: one of {one.allowed} ({guess})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{one.flag} {value!r}", f"{one.flag}: {one.allowed}"
    low = limits.min is not None and value < limits.min
    not_above = limits.above is not None and value <= limits.above
    high = limits.max is not None and value > limits.max
    if low or not_above or high:
        return f"{one.flag} {value!r}", f"{one.flag}: {one.allowed}"
    return None


@dataclass(frozen=True, kw_only=True)
class ShapeOptions(Checked):
    """What the network is made of, and what of it is trained."""

    backbone: str = option(
        "efficientnet_lite0",
        "The network to build on; `tlkit backbones` lists them, and in a fit `auto` finds one "
        "(`tlkit search`).",
        metavar="NAME",
    )
    weights: str = option(
        "default",
        "Its weights: default, the name of a set, none (random), or a file.",
        metavar="default, SET, none or FILE",
    )
    attach: str = option(
        "replace",
        "The head in place of the classifier, of its last layer, or behind its outputs.",
        choices=ATTACH,
    )
    head: str = option("linear", "The kind of head.", metavar=HEADS_HELP)
    hidden: int = option(500, "Width of the hidden layer of a head that has one.", min=1, max=65536)
    dropout: float = option(0.3, "Dropout of a head that has one.", min=0.0, max=0.95)
    pool: str = option(
        "keep",
        "How the feature map becomes a vector: keep is the backbone's way, avg and max pool over "
        "all places, flatten does not pool.",
        choices=POOL,
    )
    strategy: str = option(
        "auto",
        "probe: train the head alone; finetune: all that --freeze leaves; probe+finetune: first "
        "the one, then the other. auto: what --freeze says; where that is auto too, the head on "
        "pretrained weights, everything on random ones.",
        choices=STRATEGIES,
    )
    freeze: str = option(
        "auto",
        "What stays as it was loaded; auto is features, backbone for --strategy probe, and nothing "
        "for finetune, probe+finetune and random weights.",
        metavar="auto, features, backbone, none or to:STAGE",
    )


@dataclass(frozen=True, kw_only=True)
class FitOptions(ShapeOptions):
    """How a head is attached and trained."""

    augment: str = option(
        "auto",
        "Augmentation: a preset, or an albumentations pipeline in a YAML or JSON file.",
        metavar=AUGMENT_HELP,
    )
    jitter: str = option(
        "auto",
        "For --augment vgg: the shorter side is drawn from here before the crop; auto is 8/7 to "
        "16/7 of the network's input, the VGG paper's 256 to 512 at 224 px.",
        metavar="auto or MIN,MAX",
        takes=("numbers",),
    )
    mixup: float = option(
        0.0, "Blend pairs of images, with weights from Beta(X, X); 0 does not.", min=0.0, max=10.0
    )
    cutmix: float = option(
        0.0,
        "Paste a box of one image into another, sized by Beta(X, X); 0 does not.",
        min=0.0,
        max=10.0,
    )
    views: int = option(
        2,
        "Augmented views of each training image kept for the frozen part; epochs use them in turn.",
        min=1,
        max=1000,
    )
    epochs: int = option(
        20,
        "Passes over the training images; for lbfgs, penalties tried from strong to weak.",
        min=1,
    )
    batch: int = option(
        0,
        "Images in one pass of what is trained. 0: 32; where features are stored of more than 2048 "
        "images, a 64th of these, at most 1024.",
        min=0,
    )
    accumulate: int = option(
        1,
        "Batches whose gradients make one step: as a batch that many times larger, except to a "
        "BatchNorm that learns.",
        min=1,
    )
    optimizer: str = option(
        "auto",
        "lbfgs solves a linear head on frozen features; auto takes it there, else adamw.",
        choices=OPTIMIZERS,
    )
    momentum: float = option(0.9, "Momentum of sgd.", min=0.0, max=0.999)
    lr: float = option(
        0.0,
        "Peak rate of the head. 0: 0.001, and 0.0001 when it has been trained by a probe.",
        min=0.0,
    )
    backbone_lr: float = option(
        0.0,
        "Peak rate of unfrozen parts of the backbone, a kept classifier among them. 0: a tenth of "
        "the head's, and the same from random weights.",
        min=0.0,
    )
    stage_decay: float = option(
        1.0,
        "Factor on the rate from each unfrozen stage to the one before it: early stages change "
        "less.",
        above=0.0,
        max=1.0,
    )
    batchnorm: str = option(
        "auto",
        "Statistics of the backbone's unfrozen BatchNorms: keep those that were loaded, or learn "
        "them from the batches; auto keeps pretrained ones.",
        choices=("auto", "keep", "learn"),
    )
    unfreeze_every: int = option(
        0,
        "Epochs after which one more unfrozen stage begins to learn, the last one first; 0: all "
        "from the start.",
        min=0,
    )
    weight_decay: float = option(
        0.01, "Weight decay of adamw; L2 penalty of adam and sgd.", min=0.0
    )
    schedule: str = option(
        "cosine", "How the rates go on after the warm-up.", metavar=SCHEDULES_HELP
    )
    warmup: str = option(
        "auto",
        "Share of all steps in which the rates rise; auto is 0.05, 0.3 for one-cycle, 0 for "
        "constant.",
        metavar="auto or a number from 0 to 0.9",
        takes=("number",),
    )
    step_epochs: int = option(10, "For step: epochs between two cuts of the rates.", min=1)
    gamma: float = option(0.1, "For step and plateau: the factor of a cut.", above=0.0, max=0.99)
    plateau_epochs: int = option(
        3, "For plateau: epochs without a better --monitor before a cut.", min=1
    )
    cuts: int = option(
        3, "For plateau: cuts before the end; the plateau after the last one ends the run.", min=0
    )
    monitor: str = option(
        "loss",
        "The validation score that says which epoch is better: the one that is kept, and what "
        "plateau and --patience wait for.",
        choices=MONITORS,
    )
    patience: int = option(
        0, "Stop after this many epochs without a better --monitor; 0: never early.", min=0
    )
    clip: float = option(
        0.0,
        "Largest norm of all gradients together; larger ones are scaled down. 0: none.",
        min=0.0,
    )
    ema: float = option(
        0.0,
        "Judge and keep a moving average of the trained weights with this decay; 0: the weights.",
        min=0.0,
        max=0.99999,
    )
    label_smoothing: float = option(
        0.0, "Share of the target spread over all classes.", min=0.0, max=0.9
    )
    balance: str = option(
        "none",
        "Weigh the loss so that every class counts alike.",
        choices=("none", "classes"),
    )
    val_fraction: float = option(
        0.2, "Share of each class held out where the folder has no val.", above=0.0, max=0.9
    )
    folds: int = option(
        0,
        "Cross-validate: so many heads, each judged by the part of the images that it did not "
        "learn from; 0: one head.",
        min=0,
        metavar="0, or whole number from 2",
    )
    group_by: str = option(
        "",
        "Images that belong together (a patient, a burst) are never learnt from and judged by at "
        "once: a regular expression whose first group, or whole match, names the group in an "
        "image's path below its class folder.",
        metavar="PATTERN",
        takes=("pattern",),
    )
    refit: bool = option(
        True,
        "Let a solved head learn from all images in the end: of up to 512 none is held out, else "
        "it is solved once more on training and validation images together; a val folder of your "
        "own is never learnt from.",
    )
    seed: int = option(0, "Decides the split, the augmentation and every random start.", min=0)
    device: str = option("auto", "Where to compute.", metavar=DEVICES_HELP, takes=("device",))
    precision: str = option(
        "auto",
        "Arithmetic of the network; auto is bf16 where a GPU or the processor has units for it, "
        "else fp32.",
        choices=("auto", "fp32", "bf16"),
    )
    engine: str = option(
        "auto",
        "What runs a frozen part; auto weighs the time of compiling against the number of images.",
        metavar=ENGINES_HELP,
    )
    bank: str = option(
        "disk",
        "Keep what the frozen part makes of each image for the next fit (`tlkit cache`), or not.",
        choices=("disk", "none"),
    )
    cache: str = option(
        "ram",
        "Where decoded images are kept from epoch to epoch, when training through the pixels.",
        choices=("ram", "disk", "none"),
    )
    cache_gb: float = option(
        1.0, "Gigabytes of decoded images that are kept; the others are read anew.", above=0.0
    )
    layout: str = option(
        "auto",
        "Order of the numbers of a feature map in memory; auto is channels-last. Which is faster "
        "depends on the processor; it changes results by rounding only.",
        choices=("auto", "channels-last", "contiguous"),
    )
    workers: int = option(0, "Threads that read images; 0: as many as keep the cores busy.", min=0)
    on_bad: str = option(
        "error",
        "What an unreadable image does: end the fit, or be left out and listed.",
        choices=("error", "skip"),
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Checked):
    """How images are looked at when predicting and evaluating."""

    tta: str = option(
        "none", "Test-time views to average over.", metavar=TTA_HELP, takes=("switch",)
    )
    scales: str = option(
        "auto",
        "For multi, vgg150, dense and dense+crops: the shorter sides; auto is 8/7, 12/7 and 16/7 "
        "of the network's input, the VGG paper's 256, 384 and 512 at 224 px.",
        metavar="auto or PX,PX,...",
        takes=("numbers",),
    )
    grid: int = option(5, "For multi and dense+crops: crops per row and per column.", min=1, max=25)
    mirror: bool = option(True, "For multi, dense and dense+crops: each view mirrored too.")
    combine: str = option(
        "mean",
        "For several heads: the mean of their probabilities, or the softmax of their summed "
        "logits.",
        choices=("mean", "logits"),
    )
    head_weights: str = option(
        "equal",
        "For several heads: what each one counts, in the order of the heads; each head of a run "
        "with folds is one.",
        metavar="equal or X,X,...",
        takes=("numbers",),
    )
    learn_weights: str = option(
        "",
        "For several heads: a folder of labelled images, neither learnt from nor tested on; the "
        "weights with the lowest mean log loss on it are taken.",
        metavar="FOLDER",
    )
    reject_below: str = option(
        "",
        'Answer "unsure" where the likeliest class is less likely than P; with precision:P, than '
        "what makes a share P of the answers right, as on images of the fit not learnt from.",
        metavar="P or precision:P",
        takes=("number",),
    )
    reject_unlike: float = option(
        0.0,
        'Answer "unsure" where the image is less like those learnt from than this share of the '
        "validation images were; heads on frozen features know. 0: never.",
        min=0.0,
        max=1.0,
    )
    batch: int = option(32, "Images in one step of the network.", min=1)
    device: str = option("auto", "Where to compute.", metavar=DEVICES_HELP, takes=("device",))
    precision: str = option(
        "auto",
        "Arithmetic of the network; auto is fp32, in which every command and engine gives the same "
        "probabilities within 0.001. bf16 is faster where a GPU or the processor has units for it, "
        "and changes them by some hundredths; as-fitted is what the head was trained with.",
        choices=("auto", "as-fitted", "fp32", "bf16"),
    )
    engine: str = option(
        "auto",
        "What runs the network; auto weighs the time of compiling against the number of images.",
        metavar=ENGINES_HELP,
    )
    workers: int = option(0, "Threads that read images; 0: as many as keep the cores busy.", min=0)


@dataclass(frozen=True, kw_only=True)
class SortOptions(Checked):
    """How photos are put into class folders, and which are too unsure for that."""

    by: str = option(
        "link",
        "What is put there: a symbolic link to each photo, a copy, or the photo itself.",
        choices=("link", "copy", "move"),
    )
    reject_below: str = option(
        "auto",
        "Into _unsure/ where the likeliest class is less likely than P; with precision:P, than "
        "what makes a share P of the answers right, as on images of the fit not learnt from. auto: "
        "precision:0.99, or as near to it as the head comes; 0.9 for several heads. 0: never.",
        metavar="auto, P or precision:P",
        takes=("number",),
    )
    reject_unlike: str = option(
        "auto",
        "Into _unsure/ where the photo is less like those learnt from than this share of the "
        "validation images were; heads on frozen features know. auto: 0.005 for those. 0: never.",
        metavar="auto or P",
        takes=("number",),
    )
    tta: str = _as_in(PredictOptions, "tta")
    scales: str = _as_in(PredictOptions, "scales")
    grid: int = _as_in(PredictOptions, "grid")
    mirror: bool = _as_in(PredictOptions, "mirror")
    combine: str = _as_in(PredictOptions, "combine")
    head_weights: str = _as_in(PredictOptions, "head_weights")
    learn_weights: str = _as_in(PredictOptions, "learn_weights")
    batch: int = _as_in(PredictOptions, "batch")
    device: str = _as_in(PredictOptions, "device")
    precision: str = _as_in(PredictOptions, "precision")
    engine: str = _as_in(PredictOptions, "engine")
    workers: int = _as_in(PredictOptions, "workers")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Checked):
    """On which images heads are compared, and how these are looked at."""

    on: str = option(
        "",
        "A folder of images with known classes that no head has learnt from.  [default: the test "
        "part of the folder that all were fitted on]",
        metavar="FOLDER",
    )
    tta: str = _as_in(PredictOptions, "tta")
    scales: str = _as_in(PredictOptions, "scales")
    grid: int = _as_in(PredictOptions, "grid")
    mirror: bool = _as_in(PredictOptions, "mirror")
    combine: str = _as_in(PredictOptions, "combine")
    seed: int = option(0, "Decides what the bootstrap draws.", min=0)
    batch: int = _as_in(PredictOptions, "batch")
    device: str = _as_in(PredictOptions, "device")
    precision: str = _as_in(PredictOptions, "precision")
    engine: str = _as_in(PredictOptions, "engine")
    workers: int = _as_in(PredictOptions, "workers")


@dataclass(frozen=True, kw_only=True)
class SpreadOptions(Checked):
    """How the images of a long list are shared out."""

    ray: str = option(
        "",
        "Spread the work over a Ray cluster: auto is that of RAY_ADDRESS, or this machine where it "
        "is not set; --out is then a folder of Parquet parts.",
        metavar="auto or ADDRESS",
    )
    shard: int = option(1000, "With --ray: images of one part, which is done as a whole.", min=1)
    cpus: int = option(
        0, "With --ray: CPUs of each process, which holds the model once; 0: all of a node.", min=0
    )


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(SpreadOptions, PredictOptions):
    """How a long list of images is looked at and shared out."""


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(SpreadOptions):
    """Which features of a folder are written: those that a fit with the same options reads."""

    backbone: str = _as_in(ShapeOptions, "backbone")
    weights: str = _as_in(ShapeOptions, "weights")
    attach: str = _as_in(ShapeOptions, "attach")
    pool: str = _as_in(ShapeOptions, "pool")
    freeze: str = _as_in(ShapeOptions, "freeze")
    device: str = _as_in(FitOptions, "device")
    precision: str = _as_in(FitOptions, "precision")
    engine: str = _as_in(FitOptions, "engine")
    layout: str = _as_in(FitOptions, "layout")
    workers: int = _as_in(FitOptions, "workers")


@dataclass(frozen=True, kw_only=True)
class SuggestOptions(Checked):
    """How many photos `tlkit suggest` names, and how it looks at them."""

    count: int = option(50, "How many photos to suggest.", min=1)
    device: str = _as_in(FitOptions, "device")
    engine: str = _as_in(FitOptions, "engine")
    workers: int = _as_in(FitOptions, "workers")


@dataclass(frozen=True, kw_only=True)
class SimilarOptions(Checked):
    """How many neighbours `tlkit similar` finds, and by which features.

    With the vectors of a head the head says what the network is.
    """

    count: int = option(10, "How many neighbours of each image to find.", min=1)
    backbone: str = _as_in(ShapeOptions, "backbone")
    weights: str = _as_in(ShapeOptions, "weights")
    attach: str = _as_in(ShapeOptions, "attach")
    pool: str = _as_in(ShapeOptions, "pool")
    freeze: str = _as_in(ShapeOptions, "freeze")
    device: str = _as_in(FitOptions, "device")
    precision: str = _as_in(FitOptions, "precision")
    engine: str = _as_in(FitOptions, "engine")
    layout: str = _as_in(FitOptions, "layout")
    workers: int = _as_in(FitOptions, "workers")


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Checked):
    """Where `tlkit serve` listens, and how much it takes on."""

    host: str = option(
        "127.0.0.1",
        "The address to listen on; one that other machines reach wants a token.",
        metavar="ADDRESS",
    )
    port: int = option(8000, "The port; 0: one that is free.", min=0, max=65535)
    most_images: int = option(32, "Images of one request.", min=1, max=1000)
    most_mb: float = option(32.0, "Megabytes of one request.", above=0.0)
    most_waiting: int = option(
        256, "Requests that are read or answered at once; others shall come again (429).", min=1
    )
    most_waiting_mb: float = option(512.0, "Megabytes of all these together.", above=0.0)
    timeout: float = option(60.0, "Seconds after which a request is given up.", above=0.0)
    gather_ms: float = option(
        5.0,
        "Milliseconds for which an image waits for others, to go through the network together.",
        min=0.0,
        max=1000.0,
    )


@dataclass(frozen=True, kw_only=True)
class SummaryOptions(ShapeOptions):
    """What `tlkit summary` counts on, and how much of it is listed."""

    classes: int = option(
        0,
        "Show what fit would build for so many classes; 0: the backbone with its own classifier.",
        min=0,
    )
    px: int = option(
        0, "Side of the input in pixels; 0: what the weights expect.", min=0, max=16384
    )
    batch: int = option(1, "Images in the pass whose sizes are shown.", min=1)
    depth: int = option(3, "How many levels of modules inside modules are listed.", min=1)


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Checked):
    """What `tlkit check` looks for in a folder."""

    only: str = option(
        "",
        "Kinds of findings with commas between, such as leak,duplicate; all if not given.",
        metavar="KIND,...",
        takes=("names",),
    )
    near: bool = option(True, "Also search for images that only look the same.")
    labels: str = option(
        "",
        "A run of `tlkit fit --folds` on this folder: finds images that are likely in the wrong "
        "class.",
        metavar="RUN",
    )
    workers: int = option(0, "Threads that read images; 0: as many as keep the cores busy.", min=0)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Checked):
    """What a report looks at."""

    tta: str = option(
        "",
        "Test-time views to hold against the plain one, as `tlkit evaluate` takes them: several "
        "times, or with commas between. Each is one more pass over the images.",
        metavar=TTA_HELP,
        takes=("names",),
    )
    maps: bool = option(True, "Class activation maps beside the worst and least certain photos.")
    check: bool = option(
        True, "Look for what is wrong with the folder of the fit, as `tlkit check` does."
    )
    near: bool = option(True, "Among that, also images that only look the same.")
    photos: str = option(
        "",
        "Where the folder of the fit is now, if it was moved or renamed.",
        metavar="FOLDER",
    )
    batch: int = option(32, "Images in one step of the network.", min=1)
    device: str = option("auto", "Where to compute.", metavar=DEVICES_HELP, takes=("device",))
    workers: int = option(0, "Threads that read images; 0: as many as keep the cores busy.", min=0)


@dataclass(frozen=True, kw_only=True)
class SweepOptions(Checked):
    """The rates that `tlkit lr-find` goes through."""

    min_lr: float = option(1e-7, "Rate of the head in the first step.", above=0.0)
    max_lr: float = option(10.0, "Rate of the head in the last step.", above=0.0)
    steps: int = option(100, "Steps from the first rate to the last.", min=10)


@dataclass(frozen=True, kw_only=True)
class CurveOptions(Checked):
    """What `tlkit curve` draws, and the heads that it asks."""

    fractions: str = option(
        "auto",
        "Shares of what a draw may learn from, four fifths of the photos; auto is six, from a "
        "tenth to all.",
        metavar="auto or X,X,...",
        takes=("numbers",),
    )
    draws: int = option(
        5, "Times that photos to learn from are drawn; each solves a head per fraction.", min=2
    )
    most: int = option(
        0,
        "Photos that are looked at, drawn from every class; what more of them give is foretold. 0: "
        "20 000 by the number of classes, at most 8000, at least 10 of each class.",
        min=0,
    )
    penalties: int = option(
        8, "Penalties that a head which is solved tries; a fit tries 20.", min=1
    )
    group_by: str = _as_in(FitOptions, "group_by")
    backbone: str = _as_in(ShapeOptions, "backbone")
    weights: str = _as_in(ShapeOptions, "weights")
    attach: str = _as_in(ShapeOptions, "attach")
    head: str = _as_in(ShapeOptions, "head")
    hidden: int = _as_in(ShapeOptions, "hidden")
    dropout: float = _as_in(ShapeOptions, "dropout")
    pool: str = _as_in(ShapeOptions, "pool")
    freeze: str = _as_in(ShapeOptions, "freeze")
    balance: str = _as_in(FitOptions, "balance")
    seed: int = option(0, "Decides what is drawn, and every random start.", min=0)
    device: str = _as_in(FitOptions, "device")
    precision: str = _as_in(FitOptions, "precision")
    engine: str = _as_in(FitOptions, "engine")
    bank: str = _as_in(FitOptions, "bank")
    layout: str = _as_in(FitOptions, "layout")
    workers: int = _as_in(FitOptions, "workers")
    on_bad: str = _as_in(FitOptions, "on_bad")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Checked):
    """Among which backbones `tlkit search` looks, and for how long."""

    backbone: str = option(
        "",
        "These backbones, with commas between; NAME=FILE or NAME=SET says the weights, NAME=none "
        "makes it a control with random ones.",
        metavar="NAME[=WEIGHTS],...",
        takes=("names",),
    )
    installed: bool = option(
        False,
        "Every installed backbone whose weights are on this disk, also beside those that are "
        "named; so it is where none is.",
    )
    download: bool = option(False, "Also take weights that would have to be downloaded.")
    time: str = option(
        "5m", "Time that it may take.", metavar="such as 90s, 5m or 1h", takes=("time",)
    )
    val_fraction: float = option(
        0.2,
        "Share of each class's training images that no choice sees: they judge what is found.",
        above=0.0,
        max=0.9,
    )
    group_by: str = _as_in(FitOptions, "group_by")
    seed: int = option(0, "Decides the shares, the folds and every random start.", min=0)
    device: str = _as_in(FitOptions, "device")
    precision: str = _as_in(FitOptions, "precision")
    engine: str = _as_in(FitOptions, "engine")
    bank: str = _as_in(FitOptions, "bank")
    cache_gb: float = option(
        1.0,
        "Gigabytes of decoded images that are kept for the next backbone; the others are read "
        "anew.",
        above=0.0,
    )
    layout: str = _as_in(FitOptions, "layout")
    workers: int = _as_in(FitOptions, "workers")
    on_bad: str = option(
        "error",
        "What an unreadable image does: end the search, or be left out and listed.",
        choices=("error", "skip"),
    )
