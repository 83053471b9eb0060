"""Quarantine: files that are taken out of a folder and can be put back.

In: a folder and files below it. Out: the files under the same names in FOLDER/.quarantine, which no
scan looks into, and a journal of what was moved and why.
Each move stands in the journal (journal.py) before it is made, so that one that was stopped at any
moment can be undone. Nothing is overwritten, in either direction, and nothing is deleted. Nothing
leaves the folder or comes from outside: what a link leads to stays, and so does a file that has
changed since it was looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tlkit.data.folder_lock import changing
from tlkit.data.journal import Left, appending, is_within, records, refuse_outside, unreadable
from tlkit.errors import DiskError
from tlkit.files import disk_errors, rename_new, sync_folder

NAME = ".quarantine"
JOURNAL = "moves.jsonl"
WROTE = "tlkit check --fix"

CHANGED = "it has changed since it was looked at"
LINKED = "a link leads to it, out of the folder or to another name in it"

Stamp = tuple[int, ...]
"""What changes with a file: device, inode, bytes and times, of the name itself and of what a link
leads to."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """A line of the journal."""

    file: str
    """Below the folder."""
    kept_as: str
    """Below the quarantine."""
    why: str


def stamp_of(path: str | Path) -> Stamp:
    """Return the stamp of a file, by which it is told from any other, and from a later state of
    itself; zeros for what is not there.
    """
    with contextlib.suppress(OSError):
        return (*_stamp(os.lstat(path)), *_stamp(os.stat(path)))
    return (0,) * 10


def _stamp(status: os.stat_result) -> Stamp:
    # Of a file with several names the inode changes where another of these is moved.
    changed_ns = status.st_ctime_ns if status.st_nlink == 1 else 0
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed_ns


def move(
    folder: Path, why: Mapping[str, str], stamps: Mapping[str, Stamp] | None = None
) -> list[Move | Left]:
    """Move files into the quarantine; `why` has the reason of each. Return what became of each.

    `stamps`: of files as they were looked at; one with another stamp now stays. Raises
    `RunFolderError` where another process moves files there, `DiskError`.
    """
    folder = Path(os.path.realpath(folder))
    place = folder / NAME
    done: list[Move | Left] = []
    with contextlib.ExitStack() as stack, disk_errors(place):
        stack.enter_context(changing(folder))
        place.mkdir(exist_ok=True)
        _refuse_link(place)
        with appending(place / JOURNAL) as write:
            sync_folder(place)
            for file, reason in why.items():
                one = Move(file=file, kept_as=_free(place, file), why=reason)
                fault = _stays(folder, file, (stamps or {}).get(file))
                if not fault:
                    write([asdict(one)])
                    fault = _moved(folder, one)
                done.append(Left(file=file, why=fault) if fault else one)
    return done


def _moved(folder: Path, one: Move) -> str:
    """Move a file; return why it stays, empty where it does not. Raises `OSError`."""
    target = folder / NAME / one.kept_as
    if not is_within(folder / NAME, one.kept_as):
        return "a link has the place of its folder in the quarantine"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        rename_new(folder / one.file, target)
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return "it lies on another file system than the folder"
    return ""


def _stays(folder: Path, file: str, stamp: Stamp | None) -> str:
    """Return why a file is not to be moved; empty where it is."""
    if not is_within(folder, file):
        return LINKED
    if not os.path.lexists(folder / file):
        return "it is gone"
    return CHANGED if stamp not in (None, stamp_of(folder / file)) else ""


def _refuse_link(place: Path) -> None:
    """Raise `DiskError` for a quarantine that is no folder: a link would lead files elsewhere."""
    if os.path.lexists(place) and not stat.S_ISDIR(os.lstat(place).st_mode):
        raise DiskError(
            f"{place} cannot be used",
            found="a link" if place.is_symlink() else "a file",
            expected="a folder, or nothing at that path",
            do="move it away",
        )


def undo(folder: Path) -> list[Move]:
    """Put back all that is in the quarantine, and remove it; what was put back.

    Raises `DiskError` before anything is moved where another file has taken the place of one, where
    two were moved from one place, and where a line of the journal names a place outside of the
    folder, or one that a link leads to. Raises `RunFolderError` where another process moves files
    there.
    """
    folder = Path(os.path.realpath(folder))
    place = folder / NAME
    with contextlib.ExitStack() as stack:
        with disk_errors(folder):
            stack.enter_context(changing(folder))
        there = moved(folder)
        _refuse_taken(folder, there)
        with disk_errors(folder):
            for one in there:
                (folder / one.file).parent.mkdir(parents=True, exist_ok=True)
                rename_new(place / one.kept_as, folder / one.file)
            if place.is_dir():
                (place / JOURNAL).unlink(missing_ok=True)
                # What somebody else has put there stays, and so do the folders around it.
                for below, _, _ in os.walk(place, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(below)
    return there


def _refuse_taken(folder: Path, there: list[Move]) -> None:
    """Raise `DiskError` where a file cannot be put back."""
    place = folder / NAME
    first: dict[str, Move] = {}
    for one in there:
        if not is_within(folder, one.file):
            raise DiskError(
                f"{folder / one.file} cannot be put back",
                found="a link on the way to it",
                expected="folders",
                do="put a folder in the place of the link, or take the file from "
                + str(place / one.kept_as),
            )
        if (other := first.setdefault(one.file, one)) is not one:
            raise DiskError(
                f"{folder / one.file} cannot be put back",
                found=f"two files that were there: {place / other.kept_as}\n{place / one.kept_as}",
                expected="one",
                do="move one of them elsewhere",
            )
        if os.path.lexists(folder / one.file):
            raise DiskError(
                f"{folder / one.file} cannot be put back",
                found="another file in its place",
                expected="nothing at that path",
                do="move that file away, or take yours from " + str(place / one.kept_as),
            )


def moved(folder: Path) -> list[Move]:
    """What lies in the quarantine of a folder. Raises `DiskError`."""
    place = folder / NAME
    _refuse_link(place)
    # A move that was stopped before it was made, and made later, stands there twice.
    lines = {(one.file, one.kept_as): one for one in _journal(place)}
    return [
        one
        for one in lines.values()
        if is_within(place, one.kept_as) and os.path.lexists(place / one.kept_as)
    ]


def _free(place: Path, file: str) -> str:
    """A name that nothing in the quarantine has."""
    path, number = PurePosixPath(file), 1
    while os.path.lexists(place / path):
        number += 1
        path = PurePosixPath(file).with_name(f"{number}-{PurePosixPath(file).name}")
    return path.as_posix()


def _journal(place: Path) -> Iterator[Move]:
    for record in records(place / JOURNAL, wrote=WROTE):
        try:
            line = Move(**record)
            refuse_outside(line.file, line.kept_as)
        except (TypeError, ValueError) as error:
            raise unreadable(place / JOURNAL, WROTE) from error
        # The journal itself is none of the files.
        if PurePosixPath(line.kept_as) != PurePosixPath(JOURNAL):
            yield line
