"""Sample: image folders to try tlkit on, written from public data sets.

In: the name of a sample, a folder that is not there yet. Out: an image folder, as folder.py reads
it, with the parts that its authors gave it. Who calls: `tlkit sample`.
`digits` comes with scikit-learn and needs no network; the others are downloaded by torchvision,
which checks their digests before anything is unpacked.
Not here: sharing out what has no parts (split.py).
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tlkit.errors import FolderError, briefly, pick
from tlkit.files import new_folder
from tlkit.weights import Offline, offline

Writing = Generator[tuple[int, int], None, int]
"""Yields images done and images in all; returns the number written."""

PATIENCE_S = 60.0
"""Longest silence of a server. torchvision sets no limit, and would wait for ever."""

# A disk that refuses is no fault of the download: files.py tells of it.
DISK_REFUSES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A data set that can be written as an image folder."""

    about: str
    """What it shows, how many images, how much is downloaded."""
    licence: str
    write: Callable[[Path], Writing]
    """Fills an empty folder."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a data set: the file that its authors published, or its pixels."""

    source: Path | Image.Image
    label: int


Pictures = Callable[[Any], Iterator[Picture]]
"""How the images are taken out of one of torchvision's data sets."""


def write_sample(name: str, folder: Path) -> Writing:
    """Write a sample as `folder`, which appears only when it is complete.

    Raises `UnknownName`, `RunFolderError` where something is in the way (before any download),
    `FolderError` for a download that fails, and `DiskError`.
    """
    sample = pick(SAMPLES, name, "sample")
    with new_folder(folder) as staged:
        return (yield from sample.write(staged))


def digits(folder: Path) -> Writing:
    """Write scikit-learn's 8x8 digits at 64x64, a fixed quarter of each class for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    total = len(data.target)
    held_out = np.zeros(total, dtype=np.bool_)
    for label in range(10):
        members = np.flatnonzero(data.target == label)
        order = np.random.default_rng([0, label]).permutation(len(members))
        held_out[members[order[: round(len(members) / 4)]]] = True
    for index in range(total):
        grey = np.rint(data.images[index] * (255 / 16)).astype(np.uint8)
        # Not nearest: a network made for photos would see the edges of 64 squares, not the stroke.
        large = np.asarray(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_CUBIC), np.uint8)
        inside = folder / ("test" if held_out[index] else "train") / str(data.target[index])
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(large).save(inside / f"{index:04d}.png")
        yield index + 1, total
    return total


def published(
    kind: str, pictures: Pictures, parts: Mapping[str, Mapping[str, object]]
) -> Callable[[Path], Writing]:
    """How torchvision's data set `kind` is written: for each part, the arguments that select it.

    A part called "" is the whole of a data set whose authors made no parts.
    """

    def write(folder: Path) -> Writing:
        # On the target's own disk, where room is needed anyway: a system's temporary folder is
        # often small, and a cache would keep gigabytes of what is read once.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as downloads:
            found = {part: _fetch(kind, downloads, which) for part, which in parts.items()}
            total = sum(len(data) for data in found.values())
            done = 0
            for part, data in found.items():
                for _ in _write_part(folder / part, data, pictures):
                    done += 1
                    yield done, total
        return total

    return write


def _fetch(kind: str, root: str, which: Mapping[str, object]) -> Any:
    """A data set of torchvision's, downloaded below `root` unless an earlier part has been."""
    from torchvision import datasets

    try:
        if offline():
            raise Offline
        with _patience():
            return getattr(datasets, kind)(root, download=True, **which)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        # URLError and timeouts are OSErrors; a wrong digest is a RuntimeError.
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            raise
        raise FolderError(
            f"the data set {kind} could not be downloaded",
            found=briefly(error),
            expected="an answer from its authors' server, and files of the known digest",
            do="try again later, or write the one that works offline: tlkit sample digits DIR",
        ) from error


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let a connection fail that has been silent for `PATIENCE_S`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _write_part(folder: Path, data: Any, pictures: Pictures) -> Iterator[None]:
    """Write the images of a data set into class folders, yielding after each."""
    # torchvision before 0.22 numbers the flowers and does not name them.
    names = folder_names(getattr(data, "classes", [f"flower {i}" for i in range(1, 103)]))
    for index, picture in enumerate(pictures(data)):
        inside = folder / names[picture.label]
        inside.mkdir(parents=True, exist_ok=True)
        if isinstance(picture.source, Path):
            # As it is: decoding a JPEG and encoding it anew would lose a little of the photo.
            shutil.copyfile(picture.source, inside / picture.source.name)
        else:
            picture.source.save(inside / f"{index:05d}.png")
        yield


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class: its words joined by `_`, without what a disk may refuse.

    Where two would fall together, on a disk that ignores letter case, all get their number.
    """
    # A run of other characters becomes one `_`; a hyphen stays where it stands alone.
    words = [re.sub(r"\W*[^\w-]\W*", "_", one.replace("'", "")).strip("_-") for one in classes]
    if all(words) and len({one.casefold() for one in words}) == len(words):
        return words
    return [f"{number:03d}_{one}".rstrip("_") for number, one in enumerate(words)]


# torchvision has no public way to the files of a data set: its own indexing decodes them.


def _flowers(data: Any) -> Iterator[Picture]:
    yield from _files(data._image_files, data._labels)


def _pets(data: Any) -> Iterator[Picture]:
    yield from _files(data._images, data._labels)


def _satellite(data: Any) -> Iterator[Picture]:
    yield from _files(*zip(*data.samples, strict=True))


def _files(paths: Sequence[str | Path], labels: Sequence[int]) -> Iterator[Picture]:
    for path, label in zip(paths, labels, strict=True):
        yield Picture(source=Path(path), label=label)


def _arrays(data: Any) -> Iterator[Picture]:
    for index in range(len(data)):
        image, label = data[index]
        yield Picture(source=image, label=label)


_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAIN = {"train": {"train": True}, "test": {"train": False}}

SAMPLES: Mapping[str, Sample] = {
    "digits": Sample(
        about="handwritten digits, 10 classes, 1797 images of 64x64 (offline)",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        write=digits,
    ),
    "flowers102": Sample(
        about="flowers of Britain, 102 classes, 8189 photos, 10 per class to learn from (345 MB)",
        licence="none stated; the photos belong to their photographers",
        write=published(
            "Flowers102",
            _flowers,
            {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}},
        ),
    ),
    "pets": Sample(
        about="breeds of cats and dogs, 37 classes, 7349 photos (810 MB)",
        licence="CC BY-SA 4.0; the photos belong to their photographers",
        write=published(
            "OxfordIIITPet", _pets, {"train": {"split": "trainval"}, "test": {"split": "test"}}
        ),
    ),
    "stl10": Sample(
        about="animals and vehicles, 10 classes, 13000 photos of 96x96 (2.6 GB)",
        licence="none stated; from ImageNet, for research",
        write=published("STL10", _arrays, _SPLIT),
    ),
    "cifar10": Sample(
        about="animals and vehicles, 10 classes, 60000 photos of 32x32 (170 MB)",
        licence="none stated",
        write=published("CIFAR10", _arrays, _TRAIN),
    ),
    "mnist": Sample(
        about="handwritten digits, 10 classes, 70000 images of 28x28 (12 MB)",
        licence="CC BY-SA 3.0",
        write=published("MNIST", _arrays, _TRAIN),
    ),
    "eurosat": Sample(
        about="land use seen from Sentinel-2, 10 classes, 27000 images of 64x64, no parts (94 MB)",
        licence="MIT; contains Copernicus Sentinel data",
        write=published("EuroSAT", _satellite, {"": {}}),
    ),
}
