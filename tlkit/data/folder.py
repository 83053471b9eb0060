"""Folder: which files there are, and which class each one shows.

In: a folder of class folders or of shards, or of train, val and test folders of those. Out:
`Catalog`s.
Next door: split.py (what is learnt from), images.py (reading pixels).
Classes are the names of the sub-folders in plain string order, as in torchvision's ImageFolder;
their order is kept in the head file, and everything later matches them by name.
Hidden and empty folders are no classes; what is left out is listed, never dropped in silence.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.data import manifest
from tlkit.data.names import END, Names, Paths
from tlkit.data.own import check_image_folder, check_images, kind_of
from tlkit.data.shards import (
    CLASSES,
    COMPRESSED,
    Shard,
    State,
    compressed,
    find,
    gather,
    images_in,
    is_shard,
    know,
    state_of,
)
from tlkit.errors import FolderError, address, few, listing, shell_word, unknown

log = logging.getLogger("tlkit")

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".avif", ".heic", ".heif", ".jp2"}
)
LONGEST = max(map(len, ENDINGS))
TABLES = {
    ".csv": "a table (CSV)", ".tsv": "a table (TSV)", ".parquet": "a Parquet table",
    ".json": "a JSON file", ".jsonl": "a JSON file", ".txt": "a text file",
}  # fmt: skip
"""Files that list images or labels for other programs, and what they are."""
TRAIN = ("train", "training", "train_set", "training_set")
VAL = ("val", "valid", "validation", "dev", "val_set", "validation_set")
TEST = ("test", "testing", "test_set")

MOST_NAMED = 1000
"""Entries that are left out and named; more are counted."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The image files of one folder and their classes, N images of C classes."""

    root: Path
    classes: tuple[str, ...]
    files: Names
    """Paths below `root`, sorted within a class."""
    labels: NDArray[np.int64]
    """(N,), indices into `classes`."""
    left_out: tuple[str, ...] = ()
    """What lies in the folder and is not used, in words: the first `MOST_NAMED`."""
    more_left_out: int = 0
    """How much else there is of that."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def paths(self) -> Paths:
        """N paths to open."""
        return Paths(self.root, self.files)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def take(self, index: NDArray[np.int64]) -> Catalog:
        """The catalog of the images at these positions."""
        return replace(self, files=self.files.take(index), labels=self.labels[index])

    def relabel(self, classes: Sequence[str]) -> Catalog:
        """The same images with labels that index `classes`, matched by name.

        Raises `FolderError` for class folders that are not among them, all in one.
        """
        strangers = [one for one in self.classes if one not in classes]
        if pairs := [(one, other) for one in strangers for other in lookalikes(one, classes)]:
            raise FolderError(
                f"{self.root} has class folders that are spelt otherwise than the classes learnt",
                found=listing(
                    [
                        f"{one!a}, where the class learnt is {other!a}: {_apart(one, other)}"
                        for one, other in pairs
                    ]
                ),
                expected="the same name, character by character",
                do=listing([_renaming(self.root / one, other) for one, other in pairs]),
            )
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
        return replace(self, classes=tuple(classes), labels=places[self.labels])


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
    kept = manifest.load(folder)
    if kept is not None:
        return _kept(folder, kept)
    began_ns, notes = manifest.now_ns(), _Notes()
    with _listing(folder):
        notes.sources[str(folder)] = state_of(os.stat(folder))
    try:
        found = _scan_classes(folder, notes)
        shards: tuple[Shard, ...] = ()
    except FolderError:
        tars = _tars(folder)
        if not tars:
            raise
        notes = _Notes(sources=notes.sources)
        found, shards = _scan_shards(folder, tars, notes)
    told = {
        "classes": found.classes,
        "left_out": found.left_out,
        "more_left_out": found.more_left_out,
        "shards": [len(one.names) for one in shards],
    }
    arrays = {"labels": found.labels}
    if shards:
        arrays["places"] = np.concatenate([one.places for one in shards])
    if not shards or len(arrays["places"]) == len(found):
        whole = manifest.Manifest(files=found.files, arrays=arrays, told=told)
        manifest.save(folder, whole, notes.sources, began_ns)
    return found


def _kept(folder: Path, kept: manifest.Manifest) -> Catalog:
    """The catalog of what an earlier scan has found."""
    begin = 0
    for count in kept.told["shards"]:
        own = kept.files[begin : begin + count]
        tar = own[0].partition("/")[0] if count else ""
        skip = len(os.fsencode(tar)) + 1
        path = os.path.join(folder, tar)
        if count:
            know(
                Shard(
                    path,
                    state_of(os.stat(path)),
                    Names(own.data, own.begins + skip, own.ends),
                    kept.arrays["places"][begin : begin + count],
                )
            )
        begin += count
    return Catalog(
        root=folder,
        classes=tuple(kept.told["classes"]),
        files=kept.files,
        labels=kept.arrays["labels"],
        left_out=tuple(kept.told["left_out"]),
        more_left_out=kept.told["more_left_out"],
    )


def _scan_shards(folder: Path, tars: list[str], notes: _Notes) -> tuple[Catalog, tuple[Shard, ...]]:
    """The catalog of a folder of tar files."""
    for one in (*tars, CLASSES):
        with contextlib.suppress(FileNotFoundError):
            path = os.path.join(folder, one)
            notes.sources[path] = state_of(os.stat(path))
    found = gather(str(folder), tars)
    if not found.classes:
        raise FolderError(
            f"{folder} has no images to learn from",
            found=f"{len(tars)} tar files, {len(found.unlabelled)} images without a class in them",
            expected="KEY.jpg beside KEY.cls, or class folders such as cats/1.jpg, in each tar",
            do="write the tar files with labels",
        )
    for entry in _entries(folder):
        if entry.name not in (*tars, CLASSES):
            notes.add(f"not a shard: {entry.name}")
    for image in found.unlabelled:
        notes.add(f"no class: {image}")
    catalog = Catalog(
        root=folder,
        classes=found.classes,
        files=found.files,
        labels=found.labels,
        left_out=tuple(notes.named),
        more_left_out=notes.more,
    )
    return catalog, found.shards


def _tars(folder: Path) -> list[str]:
    """The shards in a folder, by name. Raises `FolderError` for a compressed one."""
    files = [one.name for one in _entries(folder) if not _is_folder(one)]
    for one in files:
        if one.lower().endswith(COMPRESSED) and not one.startswith("."):
            raise compressed(os.path.join(folder, one))
    return [one for one in files if is_shard(one) and not one.startswith(".")]


def _scan_classes(folder: Path, notes: _Notes) -> Catalog:
    """The catalog of a folder of class folders."""
    classes: list[str] = []
    counts: list[int] = []
    text = bytearray()
    loose = 0
    for entry in _entries(folder):
        if entry.name.startswith("."):
            notes.add(f"hidden: {entry.name}")
            continue
        if not _is_folder(entry):
            loose += is_image_name(entry.name)
            notes.add(f"not in a class folder: {entry.name}")
            continue
        below = _images_below(entry.path, notes, named=False)
        if not below:
            notes.add(f"no images: {entry.name}/")
            continue
        before = f"{entry.name}/"
        whole = before + f"{END}{before}".join(below) + END
        text += whole.encode("utf-8", "surrogateescape")
        counts.append(len(below))
        classes.append(entry.name)
    if not classes:
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
        files=Names.of_text(text),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        left_out=tuple(notes.named),
        more_left_out=notes.more,
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
    notes = _Notes(learn.left_out, learn.more_left_out)
    for one in _entries(folder):
        if one.name not in used:
            notes.add(f"beside train: {one.name}")
    return Parts(
        train=replace(learn, left_out=tuple(notes.named), more_left_out=notes.more),
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
        do=f"add a test folder, or name the images: tlkit evaluate {shell_word(str(train))}",
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
    """Paths as given; one that is not there and has wildcards is searched for.

    What lies below a folder that the same pattern matches is left to the folder.
    """
    result: list[Path] = []
    for one in paths:
        matches = [] if os.path.exists(one) else sorted(glob.glob(one, recursive=True))
        result.extend(_uppermost(matches) if matches else [Path(one)])
    return result


def _uppermost(matches: Sequence[str]) -> Iterator[Path]:
    """Yield the matches of a pattern that lie below no folder among them."""
    folders: set[Path] = set()
    for match in map(Path, matches):
        if folders.isdisjoint(match.parents):
            yield match
        if match.is_dir():
            folders.add(match)


def check_no_tables(paths: Sequence[Path]) -> None:
    """Raise `FolderError` for files that list images and are none."""
    tables = [path for path in paths if path.suffix.lower() in TABLES and path.is_file()]
    if tables:
        raise FolderError(
            f"{tables[0]} is no image",
            found=listing([f"{path}: {TABLES[path.suffix.lower()]}" for path in tables]),
            expected=f"image files, or folders of them ({' '.join(sorted(ENDINGS))})",
            do=f"name the images, or a folder of them; a list of paths, one on a line, is given "
            f"by\n  xargs -d '\\n' tlkit predict < {shell_word(str(tables[0]))}\n"
            "and a Parquet table with a column `path` is read by\n"
            f"  tlkit predict {shell_word(str(tables[0]))} --ray auto --out FOLDER",
        )


def find_images(paths: Sequence[Path]) -> Paths:
    """List the image files that paths and folders mean, folders searched to every depth, in order.

    A file that is named is taken whatever its ending, as often as it is named. Only folders that
    overlap are merged: an image of several of them is listed with the first, and a warning says how
    many there are. Pictures in folders that tlkit has written are left out, which is logged. Raises
    `FolderError` for a path that is not there, for a folder without images, for a head or a run
    folder and for no path at all; all faults in one error.
    """
    check_images(paths)
    check_no_tables(paths)
    found: list[Names] = []
    roots: list[str] = []
    faults = [] if paths else ["an empty list"]
    notes = _Notes()
    for path in paths:
        listed = len(found)
        if os.path.isdir(path):
            tars: list[str] = []
            inside = _images_below(str(path), notes, tars)
            packed = [Names.of(images_in(str(path / one))) for one in sorted(tars)]
            found += packed
            if not inside and not any(map(len, packed)):
                faults.append(f"{path}: a folder without images")
            # Folder by folder, whatever else their names begin with.
            inside.sort(key=lambda one: one.replace("/", END))
            found.append(Names.of(Paths(path, Names.of(inside)).texts()))
        elif os.path.isfile(path) and is_shard(path.name):
            found.append(Names.of(images_in(str(path))))
        elif os.path.exists(path) or _in_shard(path):
            found.append(Names.of([str(path)]))
        elif address(path):
            faults.append(f"{address(path)}: an address on a network")
        else:
            faults.append(f"{path}: no such file or folder")
        holds_many = os.path.isdir(path) or is_shard(path.name)
        roots += [str(path) if holds_many else ""] * (len(found) - listed)
    if faults:
        fetch = any(map(address, paths))
        raise FolderError(
            "there is nothing to look at",
            found=listing(faults),
            expected=f"image files, or folders of them ({' '.join(sorted(ENDINGS))})",
            do="fetch the images first, and name the files" if fetch else "correct the paths",
        )
    if notes.own:
        log.warning(
            "left out: %d pictures in folders that tlkit has written (%s)",
            sum(notes.own.values()), few(list(notes.own)),
        )  # fmt: skip
    if len(found) == 1:
        return Paths(Path(), found[0])
    return Paths(Path(), Names.of(merged(zip(found, roots, strict=True))))


def merged(lists: Iterable[tuple[Iterable[str], str]]) -> Iterator[str]:
    """Yield the names of all lists in order; of what several folders hold, only the first time.

    With each list comes the folder, tar file or URI below which its names lie, or "" for names that
    were given one by one. A warning says how many names were left out.
    """
    known: set[str] = set()
    again = 0
    for names, root in lists:
        if not root:
            yield from names
            continue
        # Two ways to one folder are one folder.
        real = root if "://" in root else os.path.realpath(root)
        before = "" if root == "." else os.path.join(root, "")
        for name in names:
            key = os.path.join(real, name[len(before) :]) if name.startswith(before) else name
            again += key in known
            if key not in known:
                known.add(key)
                yield name
    if again:
        log.warning(
            "%d image%s in more than one of the folders that were named: answered once",
            again, " is" if again == 1 else "s are",
        )  # fmt: skip


def lookalikes(name: str, others: Iterable[str]) -> list[str]:
    """List the other names that differ in letter case, end blanks, end dots or Unicode form."""
    look = spelling(name)
    return [other for other in others if other != name and spelling(other) == look]


def spelling(name: str) -> str:
    """Return what is the same for names that look alike, or are one on some file systems."""
    bare = unicodedata.normalize("NFC", name).strip().rstrip(". ").strip()
    return unicodedata.normalize("NFC", bare.casefold())


def _apart(name: str, other: str) -> str:
    """Say in what two names of one spelling differ."""
    forms = [unicodedata.normalize("NFC", one) for one in (name, other)]
    bare = [form.strip().rstrip(". ").strip() for form in forms]
    ways = {
        "letter case": bare[0] != bare[1],
        "blanks or dots at an end": any(len(b) != len(f) for b, f in zip(bare, forms, strict=True)),
        "Unicode form": forms != [name, other],
    }
    return "they differ in " + " and ".join(way for way, differs in ways.items() if differs)


def _renaming(path: Path, name: str) -> str:
    return f"mv -- {shell_word(str(path))} {shell_word(str(path.with_name(name)))}"


def _in_shard(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return find(path) is not None
    return False


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image."""
    return os.path.splitext(name)[1].lower() in ENDINGS


class _Notes:
    """What a scan notes beside the images: what is left out, in words, and counted where it is too
    much to be named.
    """

    def __init__(
        self,
        named: Sequence[str] = (),
        more: int = 0,
        sources: dict[str, State] | None = None,
    ) -> None:
        self.named = list(named)
        self.more = more
        self.sources = {} if sources is None else sources
        """What was listed, in the state before that."""
        self.own: dict[str, int] = {}
        """Folders that tlkit has written, and how many pictures are in each."""

    def add(self, text: str) -> None:
        if len(self.named) < MOST_NAMED:
            self.named.append(text)
        else:
            self.more += 1


def _images_below(
    folder: str, notes: _Notes, tars: list[str] | None = None, *, named: bool = True
) -> list[str]:
    """Image files at any depth, below `folder`, sorted; hidden ones and other endings are noted.

    `tars` takes the tar files. What tlkit has written is left out, and noted; the folder itself is
    looked through in any case where the user has `named` it.
    """
    found: list[str] = []
    pending = [""]
    seen: set[tuple[int, int]] = set()
    while pending:
        below = pending.pop()
        here = os.path.join(folder, below)
        with _listing(here):
            status = os.stat(here)
            # Links to folders are followed; one that leads back to where it came from is not.
            if (status.st_dev, status.st_ino) in seen:
                notes.add(f"a link back: {Path(here)}")
                continue
            seen.add((status.st_dev, status.st_ino))
            notes.sources[here] = state_of(status)
            files, folders = _names_in(here)
        kind = kind_of(files) if below or not named else None
        if kind is not None:
            _note_own(here, kind.about, notes)
            continue
        for one in folders:
            if one.startswith("."):
                notes.add(f"hidden: {Path(here, one)}")
            else:
                pending.append(f"{below}{one}/")
        if tars is not None:
            tars += [below + one for one in files if is_shard(one) and not one.startswith(".")]
        images = _only_images(here, files, notes)
        found += [below + one for one in images] if below else images
    if len(seen) > 1:
        # As text, not as paths: those compare differently on Windows, and so would the split.
        found.sort()
    return found


def _note_own(folder: str, about: str, notes: _Notes) -> None:
    """Note a folder that tlkit has written, with the number of pictures at every depth of it."""
    pictures = sum(is_image_name(one) for _, _, files in os.walk(folder) for one in files)
    notes.own[str(Path(folder))] = pictures
    notes.add(f"{about}, written by tlkit: {Path(folder)}")


def _names_in(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, each sorted. Raises `OSError`."""
    files: list[str] = []
    folders: list[str] = []
    is_file = files.append
    for entry in os.scandir(folder):
        try:  # not by `_is_folder`: a call for each name would take longer than the disk
            if entry.is_dir():
                folders.append(entry.name)
            else:
                is_file(entry.name)
        except OSError:
            is_file(entry.name)
    files.sort()
    folders.sort()
    return files, folders


def _only_images(folder: str, files: list[str], notes: _Notes) -> list[str]:
    """Those of these names that are images'; the others are noted."""
    hidden = bisect_left(files, "/") - bisect_left(files, ".")
    # Mostly all end alike, and counting that costs a tenth of a look at each.
    ending = files[0][files[0].rfind(".") :] if files else ""
    alike = (END.join(files) + END).count(ending + END) == len(files)
    tails = {ending} if alike else {one[-LONGEST:] for one in files}
    if not hidden and all(one[one.rfind(".") :].lower() in ENDINGS for one in tails):
        return files
    images = []
    for one in files:
        if one.startswith("."):
            notes.add(f"hidden: {Path(folder, one)}")
        elif is_image_name(one):
            images.append(one)
        else:
            notes.add(f"not an image's ending: {Path(folder, one)}")
    return images


def _part(folder: Path, names: Sequence[str]) -> Path | None:
    """The sub-folder with one of these names that holds class folders, or None."""
    for entry in _entries(folder):
        if _is_folder(entry) and entry.name.lower() in names:
            inside = _entries(Path(entry.path))
            if any(_is_folder(one) or is_shard(one.name) for one in inside if _shown(one)):
                return Path(entry.path)
    return None


def _shown(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name."""
    with _listing(folder):
        return sorted(os.scandir(folder), key=lambda one: one.name)


@contextlib.contextmanager
def _listing(folder: str | Path) -> Iterator[None]:
    """Turn what the operating system says about a folder into a `FolderError`."""
    try:
        yield
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
        check_image_folder(folder)
        return
    if address(folder):
        raise FolderError(
            f"{address(folder)} is not a folder",
            found="an address on a network",
            expected="a folder on this machine, with one sub-folder per class",
            do="fetch the images first, and name their folder",
        )
    ending = os.path.splitext(folder)[1].lower()
    if ending in TABLES and os.path.isfile(folder):
        raise FolderError(
            f"{folder} is not a folder of images",
            found=f"{TABLES[ending]}: tlkit takes labels from the names of folders alone",
            expected="a folder with one sub-folder per class",
            do="make a folder for each class, with its images or links to them; from a CSV file "
            "with the columns path,label:\n"
            '  tail -n +2 FILE | while IFS=, read -r path label; do mkdir -p "images/$label" && '
            'ln -s "$(realpath "$path")" "images/$label/"; done',
        )
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
