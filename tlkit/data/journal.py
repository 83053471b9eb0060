"""Journal: what is about to be done to files, on the disk before it is begun.

In: records, as JSON takes them. Out: a line for each, and the records again. Whoever comes after
one that was stopped at any moment finds in it all that may have been done. A last line that was cut
off is none: nothing of what it says was begun.
Next door: quarantine.py, placing.py (what is done, and taking it back).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from tlkit.errors import DiskError, raise_machine_error


@dataclass(frozen=True, kw_only=True)
class Left:
    """A file that stays where it is, and why."""

    file: str
    why: str


Write = Callable[[Iterable[Mapping[str, Any]]], None]
"""Adds records; they are on the disk when it returns. Raises `OSError`."""

LONGEST_LINE = 1 << 20
"""Bytes of a line: two paths of the longest that a disk takes, escaped, are a tenth of that."""

SAFELY: int = 0
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    SAFELY |= getattr(os, _flag, 0)
"""How a journal is opened: not through a link, without waiting for the other end of a pipe, and
byte for byte."""


@contextlib.contextmanager
def appending(journal: Path) -> Iterator[Write]:
    """Write behind what is there. Raises `OSError`, also for a journal that is a link."""
    opened = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND | SAFELY, 0o666)

    def write(records: Iterable[Mapping[str, Any]]) -> None:
        # ASCII: a name may hold bytes that are no text, which only an escape can carry.
        left = memoryview("".join(json.dumps(one) + "\n" for one in records).encode("ascii"))
        while left:
            left = left[os.write(opened, left) :]
        os.fsync(opened)

    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            # Its other name may lie in any folder: what is written here would stand there too.
            raise _refusal(journal, "it is not a file of its own")
        _end_last_line(opened, journal, status.st_size)
        yield write
    finally:
        os.close(opened)


def records(journal: Path, *, wrote: str) -> Iterator[dict[str, Any]]:
    """Yield what was written, in order; nothing where there is no journal.

    `wrote` is the command that did, for errors. Raises `DiskError` for what is no journal.
    """
    try:
        with _opened(journal) as file:
            before: bytes | None = None
            while line := file.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise unreadable(journal, wrote)
                if before is not None:
                    yield _record(before)
                before = line
            if before is not None:
                with contextlib.suppress(ValueError):  # cut off before anything was begun
                    yield _record(before)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise_machine_error(error)
        raise unreadable(journal, wrote) from error


def _opened(journal: Path) -> BinaryIO:
    """Open a regular file to read, not through a link. Raises `OSError`."""
    opened = os.open(journal, os.O_RDONLY | SAFELY)
    file = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        file.close()
        raise _refusal(journal, "it is not a file")
    return file


def _refusal(path: Path, why: str) -> OSError:
    return OSError(errno.EPERM, why, str(path))


def _record(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def unreadable(journal: Path, wrote: str) -> DiskError:
    """The error for a journal with anything else in it than that command has written."""
    return DiskError(
        f"{journal} cannot be read",
        found="no journal of moves",
        expected=f"what `{wrote}` has written",
        do=f"put the files in {journal.parent} back by hand",
    )


def refuse_outside(*names: str) -> None:
    """Raise `DiskError` for names that are not below a folder: anybody may have made a journal."""
    for path in map(PurePath, names):
        if path.anchor or ".." in path.parts or not path.parts or "\0" in str(path):
            raise DiskError(
                "the journal cannot be trusted",
                found=f"a move of {path}",
                expected="places below the folder",
                do="put the files back by hand",
            )
        os.fsencode(path)  # raises `ValueError` for what no disk takes as a name


def is_within(folder: Path, name: str) -> bool:
    """Return whether no link stands on the way from a folder to a name below it.

    What the name itself is does not matter, nor whether it is there.
    """
    way = folder
    for part in PurePath(name).parts[:-1]:
        way /= part
        try:
            if not stat.S_ISDIR(os.lstat(way).st_mode):
                return False
        except FileNotFoundError:
            return True
    return True


def _end_last_line(opened: int, journal: Path, size: int) -> None:
    """Cut off a last line that is not whole, or end it: the next record begins a line."""
    begin = max(0, size - LONGEST_LINE)
    os.lseek(opened, begin, os.SEEK_SET)
    tail = b""
    while data := os.read(opened, LONGEST_LINE):
        tail += data
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    if begin and last == tail:
        raise _refusal(journal, "a line of it is too long")
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        os.ftruncate(opened, size - len(last))
    else:
        os.write(opened, b"\n")
