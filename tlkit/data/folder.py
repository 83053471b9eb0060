"""Folder: which files there are, and which class each one shows.

In: a folder of class folders, or of train, val and test folders of those. Out: `Catalog`s.
Next door: split.py (what is learnt from), images.py (reading pixels).
Classes are the names of the sub-folders in plain string order, as in torchvision's ImageFolder;
their order is kept in the head file, and everything later matches them by name.
Hidden and empty folders are no classes; what is left out is listed, never dropped in silence.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import FolderError, listing, unknown

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".avif", ".heic", ".heif", ".jp2"}
)
TRAIN = ("train", "training", "train_set", "training_set")
VAL = ("val", "valid", "validation", "dev", "val_set", "validation_set")
TEST = ("test", "testing", "test_set")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The image files of one folder and their classes, N images of C classes."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    """Paths below `root`, sorted."""
    labels: NDArray[np.int64]
    """(N,), indices into `classes`."""
    left_out: tuple[str, ...] = ()
    """What lies in the folder and is not used, in words."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def paths(self) -> list[Path]:
        """N paths to open, made anew by each call."""
        return [self.root / one for one in self.files]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def take(self, index: NDArray[np.int64]) -> Catalog:
        """The catalog of the images at these positions."""
        return Catalog(
            root=self.root,
            classes=self.classes,
            files=tuple(self.files[i] for i in index),
            labels=self.labels[index],
            left_out=self.left_out,
        )

    def relabel(self, classes: Sequence[str]) -> Catalog:
        """The same images with labels that index `classes`, matched by name.

        Raises `FolderError` for class folders that are not among them, all in one.
        """
        strangers = [one for one in self.classes if one not in classes]
        if strangers:
            raise FolderError(
                f"{self.root} has class folders that are not known",
                found=listing(
                    [f"{self.root / one}: {unknown(classes, one, 'class').do}" for one in strangers]
                ),
                expected=f"folders named as the classes learnt: {', '.join(classes)}",
                do="rename or remove these folders",
            )
        places = np.array([list(classes).index(one) for one in self.classes], dtype=np.int64)
        return Catalog(
            root=self.root,
            classes=tuple(classes),
            files=self.files,
            labels=places[self.labels],
            left_out=self.left_out,
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The folders found in a data folder: its own parts, or the whole as `train`."""

    train: Catalog
    val: Catalog | None
    test: Catalog | None

    @property
    def named(self) -> dict[str, Catalog]:
        """Those that there are: train, val, test."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: one for name, one in every.items() if one is not None}


def scan(folder: Path) -> Catalog:
    """The catalog of a folder of class folders. Raises `FolderError` if it is none."""
    _must_be_folder(folder)
    classes: list[str] = []
    files: list[str] = []
    labels: list[int] = []
    left_out: list[str] = []
    loose = 0
    for entry in _entries(folder):
        if entry.name.startswith("."):
            left_out.append(f"hidden: {entry.name}")
            continue
        if not _is_folder(entry):
            loose += is_image_name(entry.name)
            left_out.append(f"not in a class folder: {entry.name}")
            continue
        below = _images_below(Path(entry.path), left_out)
        # As text, not as paths: those compare differently on Windows, and so would the split.
        inside = sorted(one.relative_to(folder).as_posix() for one in below)
        if not inside:
            left_out.append(f"no images: {entry.name}/")
            continue
        labels.extend([len(classes)] * len(inside))
        files.extend(inside)
        classes.append(entry.name)
    if not files:
        raise FolderError(
            f"{folder} is not an image folder",
            found=f"{loose} images beside each other and no class folders" if loose else "no image",
            expected="one sub-folder per class with images in it, such as cats/1.jpg and dogs/1.jpg"
            f" (endings {' '.join(sorted(ENDINGS))})",
            do="sort the images into class folders"
            if loose
            else "check the path; `tlkit sample digits DIR` writes a folder to try",
        )
    return Catalog(
        root=folder,
        classes=tuple(classes),
        files=tuple(files),
        labels=np.array(labels, dtype=np.int64),
        left_out=tuple(left_out),
    )


def scan_parts(folder: Path) -> Parts:
    """The parts of a data folder.

    It has parts if it holds a `train` folder with folders in it. A folder called train with nothing
    but images is a class like any other (of a data set of vehicles, say).
    """
    _must_be_folder(folder)
    train = _part(folder, TRAIN)
    if train is None:
        _refuse_lone_parts(folder)
        return Parts(train=scan(folder), val=None, test=None)
    learn = scan(train)
    val, test = _part(folder, VAL), _part(folder, TEST)
    used = {part.name for part in (train, val, test) if part is not None}
    beside = tuple(f"beside train: {one.name}" for one in _entries(folder) if one.name not in used)
    return Parts(
        train=replace(learn, left_out=learn.left_out + beside),
        val=None if val is None else scan(val).relabel(learn.classes),
        test=None if test is None else scan(test).relabel(learn.classes),
    )


def scan_for_judging(folder: Path) -> Catalog:
    """The images of a folder to evaluate on: its test part, else its val part, else the whole.

    Raises `FolderError` for a folder with a train part and neither.
    """
    _must_be_folder(folder)
    for names in (TEST, VAL):
        part = _part(folder, names)
        if part is not None:
            return scan(part)
    train = _part(folder, TRAIN)
    if train is None:
        return scan(folder)
    raise FolderError(
        f"{folder} has nothing to evaluate on",
        found=f"the folder {train.name}, and neither test nor val",
        expected="images that were not learnt from",
        do=f"add a test folder, or name the images: tlkit evaluate {train}",
    )


def scan_for_choosing(folder: Path) -> Catalog:
    """The images of a folder to choose by: its val part, else the whole; never a test part.

    Raises `FolderError` for a folder with parts and no val among them.
    """
    _must_be_folder(folder)
    part = _part(folder, VAL)
    if part is not None:
        return scan(part)
    others = [one for names in (TRAIN, TEST) if (one := _part(folder, names)) is not None]
    if not others:
        return scan(folder)
    raise FolderError(
        f"{folder} has nothing to choose by",
        found=f"{' and '.join(one.name for one in others)}, and no val",
        expected="labelled images that are neither learnt from nor tested on",
        do="add a val folder, or name the folder with the images",
    )


def expand(paths: Sequence[str]) -> list[Path]:
    """Paths as given; one that is not there and has wildcards is searched for."""
    result: list[Path] = []
    for one in paths:
        matches = [] if os.path.exists(one) else sorted(glob.glob(one, recursive=True))
        result.extend(Path(match) for match in matches or [one])
    return result


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files that paths and folders mean, folders searched to every depth, in order.

    A file that is named is taken whatever its ending. Raises `FolderError` for a path that is not
    there and for a folder without images; all faults in one error.
    """
    found: dict[Path, None] = {}
    faults = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(_images_below(path, []))
            if not inside:
                faults.append(f"{path}: a folder without images")
            found.update(dict.fromkeys(inside))
        elif os.path.exists(path):
            found[path] = None
        else:
            faults.append(f"{path}: no such file or folder")
    if faults:
        raise FolderError(
            "there is nothing to look at",
            found=listing(faults),
            expected=f"image files, or folders of them ({' '.join(sorted(ENDINGS))})",
            do="correct the paths",
        )
    return list(found)


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def _images_below(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """Image files at any depth; hidden ones and other endings are noted in `left_out`."""
    pending = [folder]
    seen: set[tuple[int, int]] = set()
    while pending:
        here = pending.pop()
        status = here.stat()
        # Links to folders are followed; one that leads back to where it came from is not.
        if (status.st_dev, status.st_ino) in seen:
            left_out.append(f"a link back: {here}")
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(here):
            path = Path(entry.path)
            if entry.name.startswith("."):
                left_out.append(f"hidden: {path}")
            elif _is_folder(entry):
                pending.append(path)
            elif is_image_name(entry.name):
                yield path
            else:
                left_out.append(f"not an image's ending: {path}")


def _part(folder: Path, names: Sequence[str]) -> Path | None:
    """The sub-folder with one of these names that holds class folders, or None."""
    for entry in _entries(folder):
        if _is_folder(entry) and entry.name.lower() in names:
            inside = _entries(Path(entry.path))
            if any(_is_folder(one) and not one.name.startswith(".") for one in inside):
                return Path(entry.path)
    return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name."""
    try:
        return sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be listed",
            found=f"{type(error).__name__}: {error.strerror or error}",
            expected="a folder that may be read",
            do="give the permission to read it, or move it away",
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _must_be_folder(folder: Path) -> None:
    if os.path.isdir(folder):
        return
    raise FolderError(
        f"{folder} is not a folder",
        found="a file" if os.path.exists(folder) else "nothing at that path",
        expected="a folder with one sub-folder per class",
        do="check the path; `tlkit sample digits DIR` writes a folder to try",
    )


def _refuse_lone_parts(folder: Path) -> None:
    """Raise `FolderError` for a val or test part without a train part: they are no classes."""
    parts = [part for names in (VAL, TEST) if (part := _part(folder, names)) is not None]
    if parts:
        raise FolderError(
            f"{folder} has nothing to learn from",
            found=f"{' and '.join(part.name for part in parts)} with class folders, and no train",
            expected=f"a folder called {' or '.join(TRAIN)} beside",
            do="rename the folder to learn from, or name it: tlkit fit FOLDER/NAME",
        )
