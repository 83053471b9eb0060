"""Journal: what is about to be done to files, on the disk before it is begun.

In: records, as JSON takes them. Out: a line for each, and the records again. Whoever comes after
one that was stopped at any moment finds in it all that may have been done. A last line that was cut
off is none: nothing of what it says was begun.
Next door: quarantine.py, placing.py (what is done, and taking it back).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tlkit.errors import DiskError, raise_machine_error

Write = Callable[[Iterable[Mapping[str, Any]]], None]
"""Adds records; they are on the disk when it returns. Raises `OSError`."""


@contextlib.contextmanager
def appending(journal: Path) -> Iterator[Write]:
    """Write behind what is there. Raises `OSError`."""
    _end_last_line(journal)
    opened = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(records: Iterable[Mapping[str, Any]]) -> None:
        # ASCII: a name may hold bytes that are no text, which only an escape can carry.
        left = memoryview("".join(json.dumps(one) + "\n" for one in records).encode("ascii"))
        while left:
            left = left[os.write(opened, left) :]
        os.fsync(opened)

    try:
        yield write
    finally:
        os.close(opened)


def records(journal: Path, *, wrote: str) -> Iterator[dict[str, Any]]:
    """What was written, one by one; nothing where there is no journal.

    `wrote` is the command that did, for errors. Raises `DiskError` for what is no journal.
    """
    try:
        with journal.open("rb") as file:
            before: bytes | None = None
            for line in file:
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
    for path in map(PurePosixPath, names):
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in str(path):
            raise DiskError(
                "the journal cannot be trusted",
                found=f"a move of {path}",
                expected="places below the folder",
                do="put the files back by hand",
            )


def _end_last_line(journal: Path) -> None:
    """Cut off a last line that is not whole, or end it: the next record begins a line."""
    begin, last = 0, b""
    with contextlib.suppress(FileNotFoundError), journal.open("rb") as file:
        for line in file:
            begin, last = begin + len(last), line
    if not last or last.endswith(b"\n"):
        return
    try:
        json.loads(last)
    except ValueError:
        os.truncate(journal, begin)
    else:
        with journal.open("ab") as file:
            file.write(b"\n")
