"""Own: folders that tlkit has written, whose pictures are plots, maps and links, and no photos.

In: the names of the files in a folder. Out: what kind of folder it is, if it is one of tlkit's.
Such a folder is left out where a folder around it is searched. A run folder, or any other that
holds nothing but tlkit's pictures, is refused where it is named as images itself; one into which
tlkit has put photos (sorted, suggested) may be named.
"""

from __future__ import annotations

import os
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import FolderError, listing


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of folder, known by files that are all in it."""

    about: str
    files: tuple[str, ...]
    is_run: bool = False
    has_photos: bool = False


KINDS = (
    Kind(about="a run folder", files=("head.safetensors", "options.json"), is_run=True),
    Kind(about="a run folder", files=("folds.csv", "options.json"), is_run=True),
    Kind(about="a report", files=("report.html", "report.json")),
    Kind(about="a sweep of learning rates", files=("lr-find.csv", "lr-find.png")),
    Kind(about="a learning curve", files=("curve.json", "curve.png")),
    Kind(about="a comparison", files=("compare.json", "compare.png")),
    Kind(about="a search", files=("search.json", "search.png")),
    Kind(about="similar photos", files=("similar.html", "similar.json")),
    Kind(about="explanations", files=("explained.json",)),
    Kind(about="an export", files=("card.json", "preprocessing.json")),
    Kind(about="suggestions", files=("suggest.json", "suggest.txt"), has_photos=True),
    Kind(about="sorted photos", files=("sorted.json",), has_photos=True),
    Kind(about="sorted photos", files=("undo.jsonl",), has_photos=True),  # of a sort that goes on
)

HEAD_ENDING = ".safetensors"


def kind_of(files: Sequence[str]) -> Kind | None:
    """Return the kind of a folder by the names of its files, which are sorted; None for any other.

    `files` may be many: they are not looked through.
    """

    def there(name: str) -> bool:
        position = bisect_left(files, name)
        return position < len(files) and files[position] == name

    return next((kind for kind in KINDS if all(map(there, kind.files))), None)


def kind_at(folder: str | Path) -> Kind | None:
    """Return the kind of the folder at a path; None for any other, and for what is no folder."""
    return next(
        (
            kind
            for kind in KINDS
            if all(os.path.isfile(os.path.join(folder, name)) for name in kind.files)
        ),
        None,
    )


def check_images(paths: Sequence[Path], command: str = "predict") -> None:
    """Raise `FolderError` for heads, and for pictures of tlkit's own, that are named as images.

    The error has the line of `command` that was likely meant.
    """
    kinds: dict[str, Kind | None] = {}
    faults: dict[Path, str] = {}
    heads = []
    for path in paths:
        if path.suffix.lower() == HEAD_ENDING and path.is_file():
            faults[path] = "a head file, or other tensors"
            heads.append(path)
            continue
        folder = str(path) if path.is_dir() else str(path.parent)
        if folder not in kinds:
            kinds[folder] = kind_at(folder)
        kind = kinds[folder]
        if kind is None or kind.has_photos:
            continue
        faults[path] = kind.about if path.is_dir() else f"a file of {kind.about}"
        if kind.is_run and path.is_dir():
            heads.append(path)
    if faults:
        raise FolderError(
            "what tlkit itself has written is no image",
            found=listing([f"{path}: {fault}" for path, fault in faults.items()]),
            expected="image files, and folders of them",
            do=_meant(command, [path for path in paths if path not in faults], heads),
        )


def check_image_folder(folder: Path) -> None:
    """Raise `FolderError` for a run folder, or other pictures of tlkit's, as a data folder."""
    kind = kind_at(folder)
    if kind is None or kind.has_photos:
        return
    raise FolderError(
        f"{folder} is not an image folder",
        found=f"{kind.about}, which tlkit has written",
        expected="a folder with one sub-folder per class",
        do=_meant("evaluate", [], [folder]) if kind.is_run else "name the folder of the images",
    )


def _meant(command: str, images: Sequence[Path], heads: Sequence[Path]) -> str:
    """Write the command line with the heads where they belong."""
    if not heads:
        return "leave it out, and name your own images"
    words = [shlex.quote(str(path)) for path in images] or ["IMAGES"]
    named = [f"--head {shlex.quote(str(path))}" for path in heads]
    return f"name the head apart from the images: {' '.join(['tlkit', command, *words, *named])}"
