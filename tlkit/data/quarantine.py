"""Quarantine: files that are taken out of a folder and can be put back.

In: a folder and files below it. Out: the files under the same names in FOLDER/.quarantine, which no
scan looks into, and a journal of what was moved and why.
Each move stands in the journal (journal.py) before it is made, so that one that was stopped at any
moment can be undone. Nothing is overwritten, in either direction, and nothing is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tlkit.data.journal import appending, records, refuse_outside, unreadable
from tlkit.errors import DiskError
from tlkit.files import disk_errors

NAME = ".quarantine"
JOURNAL = "moves.jsonl"
WROTE = "tlkit check --fix"


@dataclass(frozen=True, kw_only=True)
class Move:
    """A line of the journal."""

    file: str
    """Below the folder."""
    kept_as: str
    """Below the quarantine."""
    why: str


def move(folder: Path, why: Mapping[str, str]) -> list[Move]:
    """Move files into the quarantine; `why` has the reason of each. Raises `DiskError`."""
    place = folder / NAME
    done: list[Move] = []
    with disk_errors(place):
        place.mkdir(exist_ok=True)
        with appending(place / JOURNAL) as write:
            for file, reason in why.items():
                one = Move(file=file, kept_as=_free(place, file), why=reason)
                write([asdict(one)])
                target = place / one.kept_as
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / file).rename(target)
                done.append(one)
    return done


def undo(folder: Path) -> list[Move]:
    """Put back all that is in the quarantine, and remove it; what was put back.

    Raises `DiskError` before anything is moved where another file has taken the place of one, where
    two were moved from one place, and where a line of the journal names a place outside of the
    folder.
    """
    place = folder / NAME
    there = moved(folder)
    first: dict[str, Move] = {}
    for one in there:
        refuse_outside(one.file, one.kept_as)
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
    with disk_errors(folder):
        for one in there:
            (folder / one.file).parent.mkdir(parents=True, exist_ok=True)
            (place / one.kept_as).rename(folder / one.file)
        if place.is_dir():
            (place / JOURNAL).unlink(missing_ok=True)
            # What somebody else has put there stays, and so do the folders around it.
            for below in sorted((one for one in place.rglob("*") if one.is_dir()), reverse=True):
                _remove_empty(below)
            _remove_empty(place)
    return there


def moved(folder: Path) -> list[Move]:
    """What lies in the quarantine of a folder. Raises `DiskError`."""
    place = folder / NAME
    # A move that was stopped before it was made, and made later, stands there twice.
    lines = {(one.file, one.kept_as): one for one in _journal(place)}
    return [one for one in lines.values() if os.path.lexists(place / one.kept_as)]


def _free(place: Path, file: str) -> str:
    """A name that nothing in the quarantine has."""
    path, number = PurePosixPath(file), 1
    while os.path.lexists(place / path):
        number += 1
        path = PurePosixPath(file).with_name(f"{number}-{PurePosixPath(file).name}")
    return path.as_posix()


def _journal(place: Path) -> Iterator[Move]:
    for one in records(place / JOURNAL, wrote=WROTE):
        try:
            yield Move(**one)
        except TypeError as error:
            raise unreadable(place / JOURNAL, WROTE) from error


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
