"""Runs: the folder that a fit leaves behind, and finding the newest one.

head.safetensors   the trained tensors and their card (artifact.py)
history.csv        one row per epoch
validation.csv     every validation image as the head saw it before it learnt from any of them, and
                   where none was held out every image as a head saw it that did not learn from it;
                   not where that would be more than `MOST_TOLD` probabilities, or none
metrics.json       scores on these, and on the test images if there are any; how many images were
                   skipped; the largest confusions, where the matrix would be large
confusion.csv      all cells of such a matrix that are not empty
options.json       every option, what `auto` became, the folder; which fit it was, for --resume
curves.png         loss and accuracy
confusion.png      which class was taken for which, where any image was judged
report/            what `tlkit report` has written (reporting.py)

While it is being made: .NAME.checkpoint beside it, which --resume goes on from.

With --folds, in place of the one head and the curves (tlkit/folds.py):
fold-1/ ...        a head.safetensors for each fold
folds.csv          one row per fold
out-of-fold.csv    every image as the head sees it that did not learn from it
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tlkit.errors import (
    OptionError,
    RunFolderError,
    briefly,
    raise_machine_error,
    shell_word,
)
from tlkit.files import (
    as_list,
    as_path,
    csv_line,
    disk_errors,
    is_locked,
    remove_staged,
)

HEAD, OPTIONS = "head.safetensors", "options.json"
HISTORY, METRICS, VALIDATION = "history.csv", "metrics.json", "validation.csv"
CONFUSION = "confusion.csv"
FOLDS, OUT_OF_FOLD = "folds.csv", "out-of-fold.csv"
REPORT = "report"
REPORT_FILES = frozenset({"report.html", "report.json", "figure-*.png"})
"""All that a report holds."""
FILES = frozenset(
    {HEAD, HISTORY, METRICS, VALIDATION, OPTIONS, "curves.png", "confusion.png", CONFUSION}
    | {f"fold-[0-9]*/{HEAD}", FOLDS, OUT_OF_FOLD}
    | {f"{REPORT}/{one}" for one in REPORT_FILES}
)
"""All that a run folder holds: --overwrite replaces a folder with these files and no other."""

MOST_TOLD = 1 << 17
"""Probabilities in validation.csv: writing more of them would be felt at the end of a fit."""

RUNS = Path("runs")
LOCK = "lock"

NUMBERS = re.compile(r"\[\n\s*((?:-?[\d.][\d.eE+-]*,\n\s*)*-?[\d.][\d.eE+-]*)\n\s*\]")
"""A list of numbers as `json.dumps` indents it."""

Paths = str | bytes | os.PathLike[str] | Iterable[str | bytes | os.PathLike[str]]
"""One path or several, as users name heads and photos."""


def next_free(folder: Path, backbone: str) -> Path:
    """The first of `numbered` that is not there, and that no other process is making."""
    return next(
        path for path in numbered(folder, backbone) if not path.exists() and not _is_held(path)
    )


def numbered(folder: Path, backbone: str) -> Iterator[Path]:
    """runs/FOLDER-BACKBONE, with a number behind it from the second on, without an end."""
    base = f"{folder.resolve().name or 'images'}-{backbone}"
    safe = "".join(one if one.isalnum() or one in "-_." else "_" for one in base)[:100].lstrip(".")
    for number in itertools.count(1):
        yield RUNS / (safe if number == 1 else f"{safe}-{number}")


def fit_of(run: Path) -> str | None:
    """Which fit has left a run folder; None where that cannot be told."""
    try:
        fit = read_json(run / OPTIONS)["fit"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return fit if isinstance(fit, str) else None


def folder_of(head: Path) -> Path | None:
    """The folder that a head, or the heads of a run folder, were fitted on; None where the run
    folder does not tell.
    """
    run = head if head.is_dir() else head.parent
    if not (run / OPTIONS).exists() and run.name.startswith("fold-"):
        run = run.parent
    try:
        folder = read_json(run / OPTIONS)["folder"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return Path(folder) if isinstance(folder, str) else None


def checkpoint_of(run: Path) -> Path:
    """Where the checkpoints of a fit are, until its run folder is there."""
    return run.parent / f".{run.name}.checkpoint"


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """A run folder is made by one process at a time. Raises `RunFolderError`, `DiskError`."""
    folder = checkpoint_of(run)
    missing = [one for one in folder.parents if not one.exists()]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"{run} is being made by another fit",
            found="a fit that has not ended",
            expected="one at a time",
            do="wait for it, or name another folder with --out",
        ) from error
    try:
        remove_staged(run)  # what a fit that was killed has left
        yield
    finally:
        lock.release()
        # Where nothing was written down, nothing stays.
        if folder.is_dir() and {one.name for one in folder.iterdir()} <= {LOCK}:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # the first that is not empty, and those above it
                for one in missing:
                    one.rmdir()


def _is_held(run: Path) -> bool:
    """Whether a process is making it."""
    lock = checkpoint_of(run) / LOCK
    return lock.exists() and is_locked(lock)


def refuse_among_photos(run: Path, folder: Path) -> None:
    """Raise `RunFolderError` for a run folder in the photo folder, or around it.

    In it, the plots would be a class at the next fit; around it, --overwrite would take the photos.
    """
    one, other = run.resolve(), folder.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise RunFolderError(
            "the run folder and the photo folder are one inside the other",
            found=f"run folder {one}, photos {other}",
            expected="a run folder elsewhere",
            do=f"name one: --out {shell_word(str(other.parent / 'runs' / other.name))}",
        )


def newest() -> Path:
    """The folder of the newest run below `runs/`. Raises `RunFolderError`."""
    times: dict[Path, int] = {}
    for head in (*RUNS.glob(f"*/{HEAD}"), *RUNS.glob(f"*/fold-*/{HEAD}")):
        run = RUNS / head.relative_to(RUNS).parts[0]
        # A name that begins with a dot is a run that is being written, or was interrupted.
        if not run.name.startswith("."):
            times[run] = max(times.get(run, 0), head.stat().st_mtime_ns)
    if not times:
        raise RunFolderError(
            "there is no run yet",
            found=f"no {RUNS}/*/{HEAD} below {Path.cwd()}",
            expected="a fit",
            do="run `tlkit fit FOLDER` first, or name a head: --head FILE",
        )
    return max(times, key=lambda run: times[run])


def heads_in(path: Path) -> list[Path]:
    """The head files of a path, at least one: itself, its run's, or those of a run's folds.

    A cross-validation leaves one head in each of RUN/fold-*, which belong together. Whether the
    files are there and whole is for reading them to say.
    """
    if not path.is_dir():
        return [path]
    folds = [] if (path / HEAD).is_file() else [*path.glob(f"fold-*/{HEAD}")]
    # fold-10 comes behind fold-9.
    folds.sort(key=lambda one: (len(one.parent.name), one.parent.name))
    return folds or [path / HEAD]


def as_paths(paths: Paths, what: str = "image") -> list[Path]:
    """Return one path or several as `Path`s; `what` says in an `OptionError` what they name."""
    return [as_path(one, what) for one in as_list(paths, what)]


def head_files(head: Paths | None) -> list[Path]:
    """The files that heads and run folders mean; the newest run's where none is named.

    Raises `OptionError`, `RunFolderError`.
    """
    named = [newest()] if head is None else as_paths(head, "head")
    if not named:
        raise OptionError(
            "there is no head to load", found="an empty list", expected="at least one head",
            do="name one, or leave the list out for the newest run",
        )  # fmt: skip
    return [file for one in named for file in heads_in(one)]


def short_names(heads: Sequence[Path], *, taken: Collection[str] = ()) -> list[str]:
    """For each head file what to call it beside the others: its run folder, or its own name.

    Numbered where two would be alike, or like one of the names that are `taken`.
    """
    names = [one.parent.name if one.name == HEAD and one.parent.name else one.stem for one in heads]
    if len(set(names)) == len(names) and not set(names) & set(taken):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def fold_head(run: Path, number: int) -> Path:
    """The head of a fold, counted from 1."""
    return run / f"fold-{number}" / HEAD


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A header and rows, each on a line."""
    return "".join(map(csv_line, itertools.chain([header], rows)))


def as_json(data: Any) -> str:
    """Return JSON, indented, each list of numbers on one line, with a newline at the end.

    It is UTF-8 whatever names are in it: bytes of a name that are no text are escaped, as JSON has
    it, and `read_json` gives them back.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False)
    # A string holds no line break as such, so this finds lists alone.
    text = NUMBERS.sub(
        lambda found: "[" + ", ".join(one.strip() for one in found[1].split(",")) + "]", text
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def read_json(path: Path) -> Any:
    """What `as_json` has written, names of files that are no UTF-8 included.

    Raises `OSError`, `ValueError`, `RecursionError`.
    """
    return json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What heads made of N images that they had not learnt from, as a run folder has it."""

    files: tuple[str, ...]
    """Below the part of the folder that they lie in."""
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    """(N,)"""
    probabilities: NDArray[np.float64]
    """(N, C)"""


def as_told(told: Told) -> str:
    """One row per image: path, class, C probabilities."""
    header = ["path", "class", *(f"probability_{name}" for name in told.classes)]
    rows = zip(told.files, told.labels, told.probabilities.tolist(), strict=True)
    return as_csv(header, ([file, told.classes[label], *row] for file, label, row in rows))


def read_told(table: Path) -> Told:
    """From validation.csv, or out-of-fold.csv. Raises `RunFolderError`."""
    try:
        text = table.read_bytes().decode("utf-8", "surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        first = 3 if header[2:3] == ["fold"] else 2
        classes = tuple(one.removeprefix("probability_") for one in header[first:])
        told = Told(
            files=tuple(row[0] for row in rows),
            classes=classes,
            labels=np.array([classes.index(row[1]) for row in rows], dtype=np.int64),
            probabilities=np.array([row[first:] for row in rows], dtype=np.float64),
        )
        fault = _fault(told) if text.endswith("\n") else "a last line that does not end"
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise_machine_error(error)
        raise _not_told(table, briefly(error)) from error
    if fault:
        raise _not_told(table, fault)
    return told


def _fault(told: Told) -> str:
    """What a fit would not have written; empty where there is nothing."""
    if not told.files:
        return "no image"
    if told.probabilities.shape != (len(told.files), len(told.classes)):
        return "rows of different lengths"
    if len(set(told.files)) < len(told.files):
        return "an image twice"
    rows = told.probabilities
    # Of NaN, none is true.
    within = ((rows >= 0) & (rows <= 1 + 1e-6)).all()
    if not (within and (np.abs(rows.sum(axis=1) - 1) <= 1e-6).all()):
        return "rows that are no probabilities: each is 0 or more, and together they are 1"
    return ""


def _not_told(table: Path, found: str) -> RunFolderError:
    return RunFolderError(
        f"{table} cannot be read",
        found=found,
        expected="a row for each image: path, class and the probability of each class",
        do="copy the run folder again from where it was whole, or fit again",
    )
