"""Card: what a head file says of itself, in JSON, and whether that can be what tlkit wrote.

In: text from a file that anyone may have made. Out: a `Card` whose every field has its declared
type, or a `HeadFileError`. That the fields are true of the tensors is for artifact.py to find out.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tlkit.backbone import InputSpec
from tlkit.errors import HeadFileError, TlkitError, briefly

FORMAT = 2
"""Of the card. Up to 1 the input says neither crop mode nor version of the preprocessing."""
OF_FORMAT_1 = {
    "crop_mode": "center", "crop_width_px": 0, "resize_width_px": 0, "preprocessing": 1,
}  # fmt: skip
"""What the input of a head of tlkit 0.1.0 means without saying it."""
LARGEST = 16 << 20
"""Characters."""
DEEPEST = 32
"""Levels of lists and objects, one in another."""
LEAST_TEMPERATURE = 1e-3
LARGEST_INTEGER = (1 << 63) - 1
QUANTILES = 101
"""Of a calibration's similarities."""


@dataclass(frozen=True, kw_only=True)
class WeightsCard:
    """The weights that the backbone had before the fit."""

    name: str
    licence: str
    classes: int | None
    frozen_sha256: str
    """Digest of every tensor of the model that is not in the file."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How sure the head may be, learnt from images that it did not learn from (calibration.py)."""

    images: int
    """The images that tell so."""
    temperature: float
    """What logits are divided by before the softmax."""
    thresholds: tuple[tuple[float, float], ...]
    """(probability, share that is right of the images at least that sure), both growing."""
    similarities: tuple[float, ...]
    """Quantiles from 0 to 1 of how near the images are to what was learnt from, growing
    (model/familiar.py); empty where a head does not know that."""


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
    calibration: Calibration
    versions: Mapping[str, str]
    tensors_sha256: str

    def to_json(self) -> str:
        # ASCII: a class name may hold bytes that are no text, which only an escape can carry.
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


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


def sha256_of(content: str | bytes) -> str:
    """What tells a card, the counts of a checkpoint, or a file's bytes from any other."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def parsed(path: Path, text: str, stated: str) -> Card:
    """The card in a text with that digest; `path` is the file's, for errors.

    Raises `HeadFileError`: too long, altered, of a newer format, not a card.
    """
    if len(text) > LARGEST:
        raise refused(
            path, f"a card of {len(text)} characters", f"at most {LARGEST}", "do not trust it"
        )
    try:
        raw = json.loads(text)
        if raw["format"] > FORMAT:
            raise refused(
                path, f"format {raw['format']}", f"at most {FORMAT}, what this tlkit knows",
                "pip install --upgrade tlkit",
            )  # fmt: skip
        if sha256_of(text) != stated:
            raise refused(
                path, "a card that differs from the one that was saved", "the digest beside it",
                "copy it again from where it was whole: it was altered",
            )  # fmt: skip
        card: Card = _as(Card, raw, "card", DEEPEST)
        for one in card.classes:  # folders' names, which may hold bytes that are no text
            one.encode("utf-8", "surrogateescape")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _nonsense(path, briefly(error)) from error
    except HeadFileError:
        raise
    except TlkitError as error:  # an input specification that does not hold together
        raise _nonsense(path, f"{error.about}: {error.found[:200]}") from error
    if why := _off(card):
        raise _nonsense(path, why)
    return card


def _off(card: Card) -> str:
    """What no fit would have written; empty where there is nothing."""
    if not card.classes or len(set(card.classes)) < len(card.classes):
        return "no classes, or two of one name"
    if card.precision not in ("fp32", "bf16"):
        return f"the precision {card.precision}"
    if not LEAST_TEMPERATURE <= card.calibration.temperature <= 1 / LEAST_TEMPERATURE:
        return f"the temperature {card.calibration.temperature}"
    if why := _off_thresholds(card.calibration.thresholds):
        return why
    if min([*card.images.values(), card.calibration.images, card.weights.classes or 0]) < 0:
        return "fewer than 0 images or classes"
    similarities = card.calibration.similarities
    numbers = [*similarities, *(one for pair in card.calibration.thresholds for one in pair)]
    if not all(-math.inf < one < math.inf for one in numbers):
        return "a calibration with numbers that are not finite"
    if list(similarities) != sorted(similarities) or len(similarities) not in (0, QUANTILES):
        return "quantiles that do not grow, or are not all there"
    return ""


def _off_thresholds(thresholds: tuple[tuple[float, float], ...]) -> str:
    """Say what is wrong with thresholds; empty where nothing is."""
    flat = [number for pair in thresholds for number in pair]
    if not all(0 <= number <= 1 for number in flat):
        return "thresholds that are no probabilities"
    grow = all(a < c and b < d for (a, b), (c, d) in pairwise(thresholds))
    return "" if grow else "thresholds that do not grow"


def refused(path: Path, found: str, expected: str, do: str) -> HeadFileError:
    """The error for a head file."""
    return HeadFileError(
        f"the head file {path} cannot be used", found=found, expected=expected, do=do
    )


def _nonsense(path: Path, why: str) -> HeadFileError:
    return refused(
        path, f"a card that cannot be read ({why})", "the card of a head file",
        "copy it again from where it was whole",
    )  # fmt: skip


# By hand: libraries that do this refuse text with lone surrogates, which file names can carry.
def _as(kind: Any, value: Any, where: str, levels: int) -> Any:
    """What JSON gave, as a field's type has it. Raises `TypeError`, which says `where`."""
    if levels < 0:
        raise TypeError(f"more than {DEEPEST} levels")
    origin, inner = get_origin(kind), get_args(kind)
    if kind in (Card, WeightsCard, Calibration, InputSpec) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if kind is InputSpec and set(value) == set(hints) - set(OF_FORMAT_1):
            value = {**value, **OF_FORMAT_1}
        if set(value) != set(hints):
            raise TypeError(f"{where}: not the fields {', '.join(hints)}")
        return kind(
            **{name: _as(one, value[name], name, levels - 1) for name, one in hints.items()}
        )
    if origin is tuple and isinstance(value, list):
        return _as_tuple(inner, value, where, levels)
    if (origin is Mapping or kind is Any) and isinstance(value, dict):
        item = inner[1] if inner else Any
        return {name: _as(item, one, where, levels - 1) for name, one in value.items()}
    if kind is Any and isinstance(value, list):
        return [_as(Any, one, where, levels - 1) for one in value]
    if not _is_usable(kind, value):
        raise TypeError(f"{where}: {str(value)[:20]}, which is no number of 64 bits")
    allowed = inner if origin is UnionType else {float: (float, int)}.get(kind, (kind,))
    if kind is not Any and type(value) not in allowed:
        raise TypeError(f"{where}: a {type(value).__name__}")
    return value


def _as_tuple(kinds: tuple[Any, ...], value: list[Any], where: str, levels: int) -> tuple[Any, ...]:
    """Convert a list to a tuple of so many values, or of any number of one kind."""
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        raise TypeError(f"{where}: {len(value)} values in the place of {len(kinds)}")
    return tuple(_as(kinds[0], item, where, levels - 1) for item in value)


def _is_usable(kind: Any, value: Any) -> bool:
    """Tell whether a value is no number that arithmetic fails on."""
    if isinstance(value, int):
        return abs(value) <= LARGEST_INTEGER
    return kind is not float or not isinstance(value, float) or math.isfinite(value)
