"""Folder lock: one process at a time moves what lies in a folder.

In: folders, to change or only to look into. Out: a context in which no other process of tlkit
changes them, or an error that says so at once: nobody waits for hours behind a progress bar.
The lock is on the folder itself, which needs no file in it, and ends with the process, however that
ends. Where the system has no such lock (Windows, some network drives), a folder that is to be
filled is locked by a file in it, and the others are not.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tlkit.errors import RunFolderError

if os.name == "posix":
    import fcntl

LOCK = ".lock"
"""The file by which a folder is locked where it cannot be locked itself."""


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing, and let no other process fill it or take from it.

    What was made and is empty at the end is removed. Raises `RunFolderError` where another process
    has the folder, `OSError`.
    """
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            opened = _locked(folder, alone=True)
            if opened is None:
                stack.enter_context(_by_file(folder))
                break
            # Who had it before may have removed the folder meanwhile.
            if _is_at(opened, folder):
                stack.callback(_release, opened)
                break
            _release(opened)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the first that is not empty, and those above it
                for one in missing:
                    one.rmdir()


@contextlib.contextmanager
def changing(*folders: Path, reading: Iterable[Path] = ()) -> Iterator[None]:
    """Let no other process move what lies in these folders, or look into them to move it.

    `reading`: folders out of which nothing is taken here, and nobody else may take anything. What
    is locked is locked with all that is below it. Raises `RunFolderError`, `OSError`.
    """
    alone = {
        one: one in folders
        for folder in (*reading, *folders)
        for one in (folder, *_own_parents(folder))
    }
    with contextlib.ExitStack() as stack:
        for folder, is_alone in alone.items():
            opened = _locked(folder, alone=is_alone)
            if opened is not None:
                stack.callback(_release, opened)
        yield


def _own_parents(folder: Path) -> Iterator[Path]:
    """Yield the folders around one that belong to the same user: a process that moves what is in
    one of those moves what is in this one too.
    """
    for one in folder.parents:
        with contextlib.suppress(OSError):
            if os.name == "posix" and os.stat(one).st_uid == os.geteuid():
                yield one


def _locked(folder: Path, *, alone: bool) -> int | None:
    """Lock a folder; None where that cannot be done. Raises `RunFolderError`, `OSError`."""
    if os.name != "posix":
        return None
    try:
        opened = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return None
    try:
        fcntl.flock(opened, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _in_use(folder) from error
        return None
    return opened


def _is_at(opened: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), os.stat(folder))
    except FileNotFoundError:
        return False


def _release(opened: int) -> None:
    # A process that was forked meanwhile may have it open too: closing is not enough.
    fcntl.flock(opened, fcntl.LOCK_UN)
    os.close(opened)


@contextlib.contextmanager
def _by_file(folder: Path) -> Iterator[None]:
    if os.path.islink(folder / LOCK):  # would empty what it leads to
        raise _in_use(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _in_use(folder) from error
    try:
        yield
    finally:
        lock.release()


def _in_use(folder: Path) -> RunFolderError:
    return RunFolderError(
        f"{folder} is in use",
        found="another process of tlkit that moves what lies in it, or looks into it to do that",
        expected="one at a time",
        do="wait for it, and give the command again",
    )
