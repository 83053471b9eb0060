"""Artifact: what is kept of a fit, and whether it can be trusted.

One safetensors file: the tensors that were trained, and a JSON card in its metadata. Nothing in it
can run, no path in it is followed, and every check comes before the network is built: the file is
whole, the card and the tensors are the ones that were written, the format is known, the backbone is
installed, and its frozen tensors are bitwise those that the head was trained on.
Next door: model/build.py (the network of a plan), predict/ (using it).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tlkit.backbone import Backbone, WeightFile, Weights
from tlkit.card import LARGEST, Card, parsed, refused, sha256_of
from tlkit.data import signatures
from tlkit.errors import (
    NAME,
    AnswerError,
    HeadFileError,
    OptionError,
    UnknownName,
    address,
    briefly,
    install_command,
    listing,
    raise_machine_error,
)
from tlkit.files import write_bytes
from tlkit.options import FitOptions
from tlkit.plugins import choose, find
from tlkit.settings import with_own_settings
from tlkit.weights import digest, digest_of_bytes, unread

if TYPE_CHECKING:
    from torch import Tensor

    from tlkit.model.assemble import Assembled, Cut
    from tlkit.model.build import Plan

CARD, CARD_DIGEST = "tlkit.card", "tlkit.card.sha256"

TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
}  # fmt: skip
"""What torch calls the types of safetensors."""

MOST_OF_HEADER = LARGEST + (1 << 20)
"""Bytes: the card and what is said of the tensors."""

PIECE = 1 << 20
"""Bytes of a file in memory at once, where it is only looked at."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor in a file, as the file's header tells of it."""

    dtype: str
    """As torch writes it: torch.float32."""
    shape: tuple[int, ...]
    begin: int
    end: int
    """Where its bytes are in the file."""


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What can be said of a head file without its backbone."""

    card: Card
    tensors: Mapping[str, Entry]
    size: int
    """Bytes of the file."""


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


def tensors_of(cut: Cut) -> dict[str, Tensor]:
    """What a head file holds: trained parameters and the buffers beside them, on the CPU."""
    return {
        name: one.detach().cpu().contiguous().clone() for name, one in cut.trained_tensors().items()
    }


def save(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write a head file, whole or not at all."""
    write_bytes(path, to_bytes(tensors, card))


def to_bytes(tensors: Mapping[str, Tensor], card: Card) -> bytes:
    """What a head file holds.

    Raises `AnswerError` for tensors that are not finite: no such head is saved.
    """
    from safetensors.torch import save as written

    if broken := _not_finite(tensors):
        raise AnswerError(
            "the head is not saved: it could answer nothing",
            found=f"NaN or infinite numbers in {listing(broken, most=8)}",
            expected="finite numbers",
            do="fit it with lower rates (--lr, --backbone-lr), --clip 1, or --precision fp32",
        )
    text = card.to_json()
    made: bytes = written(dict(tensors), {CARD: text, CARD_DIGEST: sha256_of(text)})
    return made


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold a NaN or an infinity."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def read_card(path: Path) -> Card:
    """The card of a head file, checked against its digest; reads no tensor, needs no torch.

    Raises `HeadFileError`: no such file, cut off, not a head, a newer format, altered.
    """
    return _opened(path)[0]


def inspect(path: Path) -> Inspected:
    """What a head file says of itself, and that it is whole. Needs no torch, and little memory.

    Raises `HeadFileError` as `read_card` does, and for tensors that are not those of the card.
    """
    card, entries = _opened(path)

    def pieces(file: BinaryIO, one: Entry) -> Iterator[bytes]:
        file.seek(one.begin)
        for begin in range(one.begin, one.end, PIECE):
            yield file.read(min(PIECE, one.end - begin))

    with _whole(path), path.open("rb") as file:
        found = digest_of_bytes(
            (name, one.dtype, one.shape, pieces(file, one)) for name, one in sorted(entries.items())
        )
        size = os.fstat(file.fileno()).st_size
    if found != card.tensors_sha256:
        raise _other_tensors(path)
    return Inspected(card=card, tensors=entries, size=size)


@with_own_settings
def load(path: Path, *, weights: str = "") -> Head:
    """A head on its backbone. `weights` is the file for a head that was fitted on a weight file.

    Raises `HeadFileError` for a file that is not what it says, and whatever loading the backbone
    raises. The network is asked only for pretrained weights that the head needs and the disk lacks.
    """
    from safetensors.torch import load as from_bytes

    from tlkit.model.build import build

    card, entries = _opened(path)
    plan = _plan(path, card)
    backbone = _backbone(path, card)
    start = _start(path, card, backbone, weights)
    try:
        built = build(backbone, plan, len(card.classes), weights=start, empty_head=True)
    except OptionError as error:
        raise refused(
            path, f"a plan that {card.backbone} cannot follow: {error.about}; {error.found}",
            "the plan of a fit", "install the versions that it was made with (`tlkit inspect`)",
        ) from error  # fmt: skip
    # As it was fitted: the plugin may say more of its weights by now than tlkit 0.1.0 could hear.
    built.cut.model.spec = card.input
    _make_room(path, built.cut, card, entries)
    _must_fit(path, built.cut, entries)
    _must_have_memory(path)
    with _whole(path):
        tensors = from_bytes(path.read_bytes())
    if digest(tensors.items()) != card.tensors_sha256:
        raise _other_tensors(path)
    if broken := _not_finite(tensors):
        raise refused(
            path, f"numbers that are none (NaN or infinite) in {listing(broken, most=8)}",
            "a head that can tell anything", "fit it again",
        )  # fmt: skip
    if any(one.is_meta for one in built.cut.model.head.state_dict().values()):
        built.cut.model.head.to_empty(device="cpu")
    built.cut.put(tensors)
    if digest(built.cut.frozen_tensors().items()) != card.weights.frozen_sha256:
        raise refused(
            path,
            f"other frozen tensors in {card.backbone}, weights '{built.weights.name}'",
            "bitwise those that the head was trained on",
            _install(card.distribution, card.distribution_version)
            + ("; or name the very weight file" if card.weights.name == "file" else ""),
        )
    return Head(card=card, model=built.cut.model, path=path, cut=built.cut)


@with_own_settings
def load_all(paths: Sequence[Path], *, weights: str = "") -> tuple[Head, ...]:
    """Heads from at least one file; `weights` serves those that were fitted on a weight file."""
    takers = [needs_file(read_card(path)) for path in paths]
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


def _opened(path: Path) -> tuple[Card, dict[str, Entry]]:
    """The card, and what the header says of the tensors, which are not read."""
    from safetensors import safe_open

    if address(path):
        raise HeadFileError(
            f"the head file {address(path)} cannot be used",
            found="an address on a network", expected="a file on this machine",
            do="fetch it first, and name the file",
        )  # fmt: skip
    if not path.is_file():
        raise refused(
            path, "no file at that path", "a head file written by `tlkit fit`", "correct the path"
        )
    with _whole(path):
        with path.open("rb") as file:
            start = file.read(signatures.BYTES)
        _check_signature(path, start)
        length = int.from_bytes(start[:8], "little")
        if length > MOST_OF_HEADER:
            raise refused(
                path, f"a header of {length} bytes", f"at most {MOST_OF_HEADER}", "do not trust it"
            )
        # The library holds the header against itself and against the size of the file.
        with safe_open(path, framework="numpy") as whole:
            metadata = whole.metadata() or {}
        with path.open("rb") as file:
            file.seek(8)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = {
            name: Entry(
                dtype=f"torch.{TORCH.get(one['dtype'], one['dtype'])}",
                shape=tuple(one["shape"]),
                begin=8 + length + one["data_offsets"][0],
                end=8 + length + one["data_offsets"][1],
            )
            for name, one in header.items()
        }
    if CARD not in metadata:
        raise refused(
            path, "a safetensors file without a tlkit card", "a head file written by `tlkit fit`",
            "for weights of a backbone use --weights FILE",
        )  # fmt: skip
    return parsed(path, metadata[CARD], metadata.get(CARD_DIGEST, "")), entries


def _check_signature(path: Path, start: bytes) -> None:
    """Raise `HeadFileError` for a file that does not begin as safetensors do: a size, then JSON."""
    length = int.from_bytes(start[:8], "little")
    kind = signatures.kind_of(start)
    # The size of a header may look like the first letters of another kind: only a huge one is none.
    if start[8:9] == b"{" and (length <= MOST_OF_HEADER or not kind):
        return
    raise refused(
        path, f"not a head file: it is {kind}" if kind else "not a head file",
        "a head file written by `tlkit fit`: head.safetensors in a run folder",
        "name the run folder, or the head file in it",
    )  # fmt: skip


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what readers raise over a broken file into a `HeadFileError`."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise_machine_error(error)
        raise refused(
            path, briefly(error), "a whole safetensors file",
            "copy it again from where it was whole: it is cut off, altered, or no head file",
        ) from error  # fmt: skip


def _other_tensors(path: Path) -> HeadFileError:
    return refused(
        path, "tensors that differ from those that were saved", "the digest in the card",
        "copy it again from where it was whole: it was altered",
    )  # fmt: skip


def needs_file(card: Card) -> bool:
    """Whether the frozen tensors are those of a weight file of the user's."""
    return card.weights.name == "file" and card.plan.get("freeze") != "none"


def _plan(path: Path, card: Card) -> Plan:
    """The card's plan, within the limits of the options that made it."""
    try:
        FitOptions.of(card.plan)
        from tlkit.model.build import Plan

        # What the plan's word for the weights meant, which is never a path here.
        plan = replace(Plan(**card.plan), weights=card.weights.name)
        _must_have_head(path, card, plan.head)
        return plan
    except (OptionError, TypeError) as error:
        found = error.found if isinstance(error, OptionError) else str(error)
        raise refused(
            path, f"a plan that no fit makes: {found}", "the plan of a fit",
            "do not trust it: it was put together by hand",
        ) from error  # fmt: skip


def _must_have_head(path: Path, card: Card, name: str) -> None:
    """Refuse a file whose head is of a package that is not installed, or in another version.

    Its tensors say nothing of what is done with them: that is code of the package.
    """
    from tlkit.model.heads import HEADS

    distribution, separator, _ = name.partition(":")
    if not separator:
        return
    if not NAME.fullmatch(distribution):
        raise refused(
            path, f"a head of a package that cannot be: {distribution}", "the name of a package",
            "do not trust it: it was put together by hand",
        )  # fmt: skip
    found = HEADS.found(name)
    version = card.versions.get(distribution)
    if found is None or found.version != version:
        there = "not installed" if found is None else f"installed in version {found.version}"
        raise refused(
            path,
            f"the head {name} is {there}",
            f"{distribution} {version}",
            f"{_install(distribution, version or '')}; let TLKIT_PLUGINS name it if that is set",
        )


def _backbone(path: Path, card: Card) -> Backbone:
    """The backbone that the card names, from the distribution that it names."""
    qualified = f"{card.distribution}:{card.backbone}"
    try:
        return choose(qualified).backbone
    except UnknownName as error:
        others = [one.qualified for one in find() if one.name == card.backbone.partition("/")[0]]
        raise refused(
            path,
            f"the backbone {card.backbone} of the distribution {card.distribution} is not installed"
            + (f"; others of that name: {', '.join(others)}" if others else ""),
            f"{card.distribution} {card.distribution_version}",
            _install(card.distribution, card.distribution_version),
        ) from error


def _install(distribution: str, version: str) -> str:
    """Say how to get the package that a head file names, which is only the file's word."""
    command = install_command(distribution, version)
    if not command:
        return "do not trust it: no package can have that name and version"
    return f"{command}, if you trust that package: it is the head file that names it"


def _start(path: Path, card: Card, backbone: Backbone, weights: str) -> Weights | None:
    """The weights to start from, where they are not simply the plan's.

    What is said of them is the plugin's word; the card's must be the same.
    """
    name, all_in_file = card.weights.name, card.plan.get("freeze") == "none"
    if weights and not needs_file(card):
        raise OptionError(
            "an option would be ignored",
            found=f"--weights {weights}",
            expected=f"a head that was fitted on a weight file; this one has '{name}'"
            + (", all of it in the head file" if all_in_file else ""),
            do="leave --weights out",
        )
    from tlkit.model.build import weight_sets

    sets = weight_sets(backbone)
    known = [one.name for one in sets]
    install = _install(card.distribution, card.distribution_version)
    if name not in ("none", "file", *known):
        raise refused(
            path, f"weights called '{name}'",
            f"one of those that {card.backbone} has: {', '.join(known)}", install,
        )  # fmt: skip
    start = replace(unread(sets, "none" if name == "file" else name), name=name)
    if card.input not in (start.input, start.input.as_of_0_1_0()):
        raise refused(
            path, f"the weights '{name}' now expect {start.input}",
            f"{card.input}, as when the head was trained", install,
        )  # fmt: skip
    if all_in_file:
        # Nothing is downloaded to be overwritten.
        return start
    if name != "file":
        return None
    if not weights:
        raise refused(
            path,
            "a head that was fitted on a weight file of your own",
            "that file: it is not part of the head, and no path in a head file is followed",
            "name it: --weights FILE",
        )
    return replace(start, state=WeightFile(Path(weights)).fetch())


def _make_room(path: Path, cut: Cut, card: Card, entries: Mapping[str, Entry]) -> None:
    """For the prototypes of what the head has learnt from, where it has any."""
    import torch

    from tlkit.model.familiar import MOST_EACH, TENSOR, Familiar

    one = entries.get(TENSOR)
    width = len(cut.model.head.get_submodule("scale").get_buffer("shift"))
    most = MOST_EACH * len(card.classes)
    sound = one is None or (
        len(one.shape) == 2 and one.shape[1] == width and 0 < one.shape[0] <= most
    )
    if not sound or (one is not None) != bool(card.calibration.similarities):
        raise refused(
            path, f"{TENSOR} of shape {None if one is None else one.shape}",
            f"(M, {width}), M from 1 to {most}, with what the card says of them", "do not trust it",
        )  # fmt: skip
    if one is not None:
        cut.model.familiar = Familiar(torch.zeros(one.shape, dtype=torch.float16))


def _must_have_memory(path: Path) -> None:
    """Raise `HeadFileError` for a file that is larger than the memory: it may be mostly holes."""
    size = path.stat().st_size
    # Once as bytes, once as tensors.
    most = _memory() // 2
    if size > most:
        raise refused(
            path, f"{size:,} bytes", f"at most {most:,}, half of this machine's memory",
            "do not trust it, or use it on a larger machine",
        )  # fmt: skip


def _memory() -> int:
    """Return the bytes of memory that this machine has; a large number where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def _must_fit(path: Path, cut: Cut, entries: Mapping[str, Entry]) -> None:
    """Names, shapes and types of the file's tensors must be those of the model."""
    wanted = {
        name: (str(one.dtype), tuple(one.shape)) for name, one in cut.trained_tensors().items()
    }
    faults = [f"missing: {name}" for name in wanted if name not in entries]
    faults += [f"unknown: {name}" for name in entries if name not in wanted]
    for name, one in entries.items():
        if name in wanted and wanted[name] != (one.dtype, one.shape):
            dtype, shape = wanted[name]
            faults.append(f"{name}: {one.dtype} {one.shape}, not {dtype} {shape}")
    if faults:
        raise refused(
            path, listing(faults, most=8), "the tensors that the card's plan trains",
            "the plugin has changed, or the file was put together by hand",
        )  # fmt: skip
