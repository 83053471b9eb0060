"""Export: a head on its backbone as a file for another runtime, in a folder with all it needs.

In: a head, a format, real images. Out: a folder that appears only when what is in it has answered
for these images as tlkit does.

model.*              uint8 (B, channels, height, width), RGB -> probabilities (B, C); normalised and
                     calibrated inside
preprocessing.json   what comes before: the plain view of an image, step by step
preprocess.py        the same as a function, with Pillow and numpy alone; it reads the file above
classes.txt          C lines, in the order of the probabilities
card.json            what the head file says of itself
README.md            a model card

Next door: formats.py (the table of runtimes), model_card.py, preprocess.py.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit import runs
from tlkit.artifact import Head
from tlkit.backbone import InputSpec
from tlkit.data.batches import even_parts, plain_views
from tlkit.data.folder import Catalog, find_images, scan_for_judging, scan_parts
from tlkit.data.images import BadImage, Detail, Pixels, content, decode, refuse
from tlkit.data.names import Names
from tlkit.errors import (
    ExportError,
    FolderError,
    OptionError,
    TlkitError,
    pick,
    raise_machine_error,
)
from tlkit.export.formats import FORMATS, Format, Run
from tlkit.export.model_card import model_card
from tlkit.export.preprocess import ROUNDING, preprocess
from tlkit.files import check_room, new_folder, write_text
from tlkit.model.device import compute_for_answers
from tlkit.model.engine import PROMISE
from tlkit.model.finite import check_finite
from tlkit.options import PredictOptions
from tlkit.predict.run import standing
from tlkit.settings import with_own_settings
from tlkit.steps import Tick

COMPARED = 200
"""Images, at most, where no labels are to be judged by."""

CALIBRATED = 300
"""Images, at most, that int8 takes the ranges of its numbers from."""

SIZES = (1, 7)
"""Images at once, in turn: the number of them must be free."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported, and how it compares with tlkit on the same images."""

    folder: Path
    format: str
    int8: bool
    size: int
    """Bytes of the network's files."""
    images: int
    """Compared."""
    largest_change: float
    """Of a probability."""
    agreement: float
    """Share of the images with the same likeliest class."""
    accuracy: float | None
    """Of what was exported, where the images' classes are known."""
    accuracy_of_head: float | None
    """Of tlkit on the same images."""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "format": self.format,
            "int8": self.int8,
            "bytes": self.size,
            "images_compared": self.images,
            "largest_change_of_a_probability": self.largest_change,
            "same_class": self.agreement,
            "accuracy": self.accuracy,
            "accuracy_of_the_head": self.accuracy_of_head,
        }


class Answering(nn.Module):
    """(B, channels, px, px) uint8 -> probabilities (B, C)."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.model = head.model
        self.temperature = head.card.calibration.temperature

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return (logits / self.temperature).softmax(dim=1)


@with_own_settings
def export(
    head: Head,
    *,
    to: str = "onnx",
    int8: bool = False,
    images: Sequence[Path] = (),
    out: Path | None = None,
) -> Generator[Tick, None, Exported]:
    """Write the folder, run what is in it, and compare. Yields ticks, returns the comparison.

    `images` are files, folders of them, or one folder of class folders, with which the accuracy is
    measured too; left out, they are those of the fit, if its folder is still there.
    Raises `ExportError` where the runtime cannot take the network or answers otherwise, and
    `OptionError`, `FolderError`, `ImageError`, `RunFolderError`, `DiskError`.
    """
    form = pick(FORMATS, to, "format")
    _refuse_lacking(form, to, int8)
    seen = _images(head, images)
    compute = compute_for_answers("cpu", fitted=head.card.precision)
    compute.place(head.model.eval())
    place = _place(head, to, int8) if out is None else out
    with new_folder(place) as staged:
        yield Tick(what=f"writing {to}", done=0, total=1)
        network = Answering(head).eval()
        spec = head.model.spec
        example = torch.randint(0, 256, (2, spec.channels, *spec.size), dtype=torch.uint8)
        with _said(f"{to} cannot take this network", staged), torch.no_grad():
            form.write(network, example, staged)
            if int8 and form.quantise is not None:
                calibrate = _pixels(head, seen.calibrate)
                form.quantise(staged, calibrate)
            run = form.open(staged)
        yield Tick(what=f"writing {to}", done=1, total=1)
        ours, theirs = yield from _answers(head, seen.compared.paths, run, staged)
        size = sum(one.stat().st_size for one in staged.iterdir())
        result = _compared(ours, theirs, seen)
        result = replace(result, folder=place, format=to, int8=int8, size=size)
        if not int8 and result.largest_change > PROMISE:
            raise ExportError(
                f"{to} answers otherwise than tlkit",
                found=f"a probability that differs by {result.largest_change:.2g}",
                expected=f"at most {PROMISE:g} on {result.images} images",
                do="use another format, and tell the authors of tlkit which backbone it was",
            )
        _write_beside(staged, head, form, result)
    return result


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Images to compare on."""

    compared: Catalog
    known: bool
    """Whether its labels are the classes of the images, as the head numbers them."""
    calibrate: tuple[Path, ...]
    """For int8: images that nothing is judged by, where there are any."""


def _images(head: Head, given: Sequence[Path]) -> _Seen:
    """The images that were named, or those of the fit."""
    if not given:
        folder = _folder_of_fit(head)
        if folder is None:
            raise OptionError(
                "an export is compared with tlkit on real images, and there are none",
                found=_missing_photos(head),
                expected="photos of the kind that it is for",
                do="name some: --images FOLDER",
            )
        given = [folder]
    if len(given) == 1 and given[0].is_dir():
        with contextlib.suppress(FolderError):
            return _labelled(head, given[0])
    paths = find_images(given)
    some = _spread(len(paths), COMPARED)
    catalog = Catalog(
        root=Path(), classes=head.classes, files=Names.of(str(paths[i].absolute()) for i in some),
        labels=np.zeros(len(some), np.int64),
    )  # fmt: skip
    return _Seen(compared=catalog, known=False, calibrate=_few(paths))


def _labelled(head: Head, folder: Path) -> _Seen:
    """The part to judge by of a folder with classes. Raises `FolderError` for any other one."""
    judged = scan_for_judging(folder).relabel(head.classes)
    learnt = scan_parts(folder).train
    return _Seen(compared=judged, known=True, calibrate=_few(learnt.paths))


def _few(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(paths[i] for i in _spread(len(paths), CALIBRATED))


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many positions, evenly over all: folders are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _missing_photos(head: Head) -> str:
    """Say why the photos of the fit are not at hand."""
    folder = runs.folder_of(head.path)
    if folder is None:
        return f"no folder of the fit beside {head.path}"
    return f"{folder}, where the fit found its photos, is no longer there"


def _folder_of_fit(head: Head) -> Path | None:
    """The photos that the head was fitted on, if its run folder says so and they are there."""
    folder = runs.folder_of(head.path)
    return folder if folder is not None and folder.is_dir() else None


def _place(head: Head, to: str, int8: bool) -> Path:
    run = head.path.parent if head.path.name == runs.HEAD else head.path.with_suffix("")
    return run.with_name(f"{run.name}-{to}{'-int8' if int8 else ''}")


def _answers(
    head: Head, paths: Sequence[Path], run: Run, folder: Path
) -> Generator[Tick, None, tuple[Floats, Floats]]:
    """(N, C) of tlkit, and of what was exported, on the same files: each is read once.

    What was exported sees what the function makes of a file that goes with it.
    """
    settings, files = preprocessing(head.model.spec), dict[int, bytes]()

    def pixels(position: int, at_least_px: Detail) -> Pixels:
        data = content(paths[position]).data
        files[position] = data
        return decode(data, at_least_px=at_least_px)

    def ask() -> None:
        stacked = np.stack(waiting)
        with _said("what was exported does not run", folder):
            theirs.append(np.asarray(run(stacked), np.float64))
        images = paths[len(ours) - len(waiting) : len(ours)]
        check_finite(theirs[-1], of="what was exported", do="use another format", images=images)
        waiting.clear()

    ours: list[Floats] = []
    theirs: list[Floats] = []
    waiting: list[Pixels] = []
    asked = PredictOptions(engine="eager", device="cpu")
    answers = standing([head], asked, len(paths)).over(paths, pixels)
    with contextlib.closing(answers):
        for number, one in enumerate(answers):
            if isinstance(one, BadImage):
                refuse([one], do="name images that can be read")
                continue
            ours.append(one[0].probabilities)
            waiting.append(preprocess(io.BytesIO(files.pop(number)), settings))
            if len(waiting) == SIZES[len(theirs) % len(SIZES)]:
                ask()
            yield Tick(what="asking both", done=number + 1, total=len(paths))
    if waiting:
        ask()
    return np.stack(ours), np.concatenate(theirs)


def _pixels(head: Head, paths: Sequence[Path]) -> Generator[NDArray[np.uint8], None, None]:
    """The plain views of images, (B, channels, height, width)."""
    sizes = even_parts(len(paths), max(SIZES))
    do = "name images that can be read"
    for views in plain_views(head.model.spec, paths, sizes=sizes, do=do):
        yield views.contiguous().numpy()


def preprocessing(spec: InputSpec) -> dict[str, Any]:
    """Return what `preprocessing.json` says: the steps in words, and the numbers of each."""
    high, wide = spec.resize_size
    first = spec.preprocessing == 1
    scaled = {
        "center": f"the shorter side to {high} px",
        "pad": f"the shorter side to {high} px",
        "squash": f"to {high} x {wide} px (height x width), whatever its shape is",
        "border": f"the longer side to {high} px",
    }[spec.crop_mode]
    if high != wide and spec.crop_mode != "squash":
        covers = "fits into" if spec.crop_mode == "border" else "covers"
        scaled = f"until it just {covers} {high} x {wide} px (height x width)"
    fill = [round(255 * mean) if spec.crop_mode == "border" else 0 for mean in spec.mean]
    times = "2 times" if first else "4 times"
    return {
        "reference": "preprocess.py",
        "steps": [
            "decode the first frame; a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long "
            f"as its shorter side keeps {times} {max(high, wide)} px"
            + ("" if first else ", and the divisor divides both sides"),
            "divide samples of 16 bits by 257 and round to the nearest; floats are [0, 1], or "
            "[0, 255] where one exceeds 1",
            "lay transparency on white, look up palettes, convert to RGB (8 bits)",
            "turn it upright by its EXIF orientation, 1 to 8",
            f"scale it, {scaled}; {spec.interpolation}, antialiased where it shrinks; rows before "
            "columns, each rounded to 8 bits",
            "the other side is "
            + ("rounded to the nearest" if first or high != wide else "rounded down")
            + "; halves are rounded to the even number",
            f"crop {spec.size[0]} x {spec.size[1]} px (height x width) from the middle; the corner "
            + ("is rounded down" if first else "is rounded to the nearest, halves to the even"),
            f"fill what lacks with {fill}, half of it before the image, rounded down",
            "take it as it is" if spec.channels == 3 else "take its luma (BT.601)",
        ],
        "colours": "RGB" if spec.channels == 3 else "grey",
        "channels": spec.channels,
        "crop_mode": spec.crop_mode,
        "resize_size": list(spec.resize_size),
        "crop_size": list(spec.size),
        "interpolation": spec.interpolation,
        "rounding": ROUNDING[1 if first else 0],
        "fill": fill,
    }


def _compared(ours: Floats, theirs: Floats, seen: _Seen) -> Exported:
    labels = seen.compared.labels
    called = ours.argmax(axis=1), theirs.argmax(axis=1)
    return Exported(
        folder=Path(),
        format="",
        int8=False,
        size=0,
        images=len(ours),
        largest_change=float(np.abs(ours - theirs).max()),
        agreement=float((called[0] == called[1]).mean()),
        accuracy_of_head=float((called[0] == labels).mean()) if seen.known else None,
        accuracy=float((called[1] == labels).mean()) if seen.known else None,
    )


@contextlib.contextmanager
def _said(about: str, folder: Path) -> Generator[None, None, None]:
    """Turn what another runtime raises into an `ExportError`.

    Raises `DiskError` and `NotEnoughMemory` where `folder` or the machine is to blame: some
    runtimes only say that a file could not be opened.
    """
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:  # each has its own
        raise_machine_error(error)
        check_room(folder)
        text = str(error).strip().splitlines() or [""]
        raise ExportError(
            about,
            found=f"{type(error).__name__}: {text[0][:300]}",
            expected="a network of operations that it has",
            do="use another format (tlkit export --to)",
        ) from error


def _refuse_lacking(form: Format, name: str, int8: bool) -> None:
    """Raise `OptionError` for packages that are not installed, and for int8 where there is none."""
    if int8 and form.quantise is None:
        others = [one for one, row in FORMATS.items() if row.quantise is not None]
        raise OptionError(
            f"there is no int8 for --to {name}",
            found="--int8", expected=f"--to {' or '.join(others)}", do="choose one of these",
        )  # fmt: skip
    if lacking := form.lacking(int8):
        raise OptionError(
            f"--to {name}{' --int8' if int8 else ''} needs packages that are not installed",
            found=f"no {', '.join(lacking)}",
            expected=f"the extra {form.extra}",
            do=f"pip install '{form.extra}'",
        )


def _line(name: str) -> str:
    """Return a class's name as a line of text; as JSON, in quotes, where it is none as it is."""
    is_text = name.encode(errors="ignore").decode() == name
    is_line = name.splitlines() == [name] and not name.startswith('"')
    return name if is_text and is_line else json.dumps(name)


def _write_beside(staged: Path, head: Head, form: Format, result: Exported) -> None:
    spec = head.model.spec
    settings = preprocessing(spec)
    settings |= {
        "input": f"images: uint8 (B, {spec.channels}, {spec.size[0]}, {spec.size[1]})",
        "output": f"probabilities: float32 (B, {len(head.classes)})",
        "inside_the_network": "the scaling to numbers, the normalisation, the temperature",
    }
    write_text(staged / "preprocessing.json", runs.as_json(settings))
    source = resources.files("tlkit.export") / "preprocess.py"
    write_text(staged / "preprocess.py", source.read_text(encoding="utf-8"))
    write_text(staged / "classes.txt", "".join(f"{_line(name)}\n" for name in head.classes))
    write_text(staged / "card.json", head.card.to_json() + "\n")
    write_text(staged / "comparison.json", runs.as_json(result.plain()))
    write_text(staged / "README.md", model_card(head.card, form, result.plain(), settings["steps"]))
