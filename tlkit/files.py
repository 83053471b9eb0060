"""Files: how anything is written, so that a reader sees the old content or the new, never half.

A file is written under a temporary name beside its place, flushed to the disk and renamed; a folder
is filled under a temporary name and renamed as a whole. What fails on the way (a full disk, a lost
permission, Ctrl-C) leaves what was there before. A process that is killed leaves the temporary name
too; whoever writes to that place next removes it. What is being written is locked meanwhile, by
which it is told from what was abandoned.
Not here: what is written.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import functools
import glob
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

if os.name == "posix":
    import fcntl

from tlkit.errors import DiskError, OptionError, RunFolderError, remedy

LONGEST = 50
"""Characters of a name that a temporary one begins with: 200 bytes at most, a disk takes 255."""

ROOM = 1 << 20
"""Bytes that are written to find out whether a disk is full."""

OLD = ".old"
"""Ending of the folder that a new one takes the place of, until it has."""


@contextlib.contextmanager
def new_file(path: Path, *, tidy: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends without an error.

    A link is followed; a pipe or a device is written to, not replaced. Without `tidy` the folder is
    not searched for what killed processes have left. Raises `DiskError`.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with disk_errors(path), path.open("wb") as device:
            yield device
        return
    with contextlib.ExitStack() as locks, disk_errors(path):
        if tidy:
            remove_abandoned(path)
        temporary, file = _new_beside(path, locks)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def csv_line(cells: Iterable[object]) -> str:
    """Return the cells as one row of CSV that every reader takes apart into the same texts."""
    text = io.StringIO()
    # The writer quotes the characters of its own line end, and a lone carriage return would end a
    # row for the readers too.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def json_text(data: Any, **how: Any) -> str:
    """Return `data` as JSON: readable, but escaped where a name in it is no UTF-8."""
    text = json.dumps(data, ensure_ascii=False, **how)
    try:
        text.encode()
    except UnicodeEncodeError:  # a strict reader would refuse those bytes
        return json.dumps(data, **how)
    return text


def shortened(name: str, most: int) -> str:
    """Return a file's name, or as many whole characters of it as `most` bytes hold."""
    whole = name.encode("utf-8", "surrogateescape")
    return name if len(whole) <= most else whole[:most].decode("utf-8", "ignore")


def as_path(value: object, what: str) -> Path:
    """Return the path that a caller from Python means: text, bytes or a `PathLike`.

    Raises `OptionError` for anything else; `what` says there which path is meant.
    """
    return Path(as_text(value, what))


def as_text(value: object, what: str) -> str:
    """Return the text of a path, which may be a URI. Raises `OptionError` as `as_path` does."""
    if isinstance(value, str | bytes | os.PathLike):
        _refuse_blank(value, what)
        return os.fsdecode(value)
    raise OptionError(
        f"the {what} is not a path",
        found=_in_words(value),
        expected="a path, as text or as a pathlib.Path",
        do=f"name the {what} by its path",
    )


def _refuse_blank(path: object, what: str) -> None:
    """Raise `OptionError` for a path of no characters or of blanks: it would be the current folder.

    `Path("")` is the current folder already, and cannot be told from it.
    """
    if isinstance(path, str | bytes) and not path.strip():
        raise OptionError(
            f"the path of the {what} is empty",
            found=repr(path),
            expected="a path: an empty one would be the current folder, which is called .",
            do=f"name the {what} by its path, or leave it out where it may be left out",
        )


def as_list(value: object, what: str) -> list[Any]:
    """Return the items of what a caller from Python has given, a lone path as a list of itself.

    Takes lists, tuples, generators, arrays, columns of tables. Raises `OptionError` for anything
    else.
    """
    if isinstance(value, str | bytes | os.PathLike):
        return [value]
    # A dict or a table would give its keys or the names of its columns.
    if isinstance(value, Iterable) and not isinstance(value, Mapping) and not _is_table(value):
        with contextlib.suppress(TypeError):  # an array without dimensions
            return list(value)
    raise OptionError(
        f"this names no {what}",
        found=_in_words(value),
        expected=f"a path ({what}), or a list of paths",
        do="pass a path or a list of paths; of a table, the column with the paths",
    )


def _is_table(value: object) -> bool:
    return hasattr(value, "columns")


def _in_words(value: object) -> str:
    """Name a value that is no path: a number as it is, anything else by its type."""
    if value is None or isinstance(value, int | float):
        return repr(value)[:80]
    return f"a value of the type {type(value).__name__}"


def write_bytes(path: Path, data: bytes, *, tidy: bool = True) -> None:
    """Write a whole file, or leave what was there; `tidy` as for `new_file`. Raises `DiskError`."""
    with new_file(path, tidy=tidy) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave what was there. Raises `DiskError`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def new_folder(path: Path, *, replace: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends without an error.

    A folder that holds files of the names in `replace` and nothing else may be replaced; a name may
    have wildcards, and a folder before it (`fold-*/a.csv`). Raises `RunFolderError` at once if
    `path` holds anything else; `DiskError` where the disk refuses.
    """
    remove_abandoned(path)
    refuse_occupied(path, replace=replace)
    with contextlib.ExitStack() as locks, disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = _new_folder_beside(path, locks)
        try:
            yield staged
            old = _beside(path, OLD)
            if path.exists():
                refuse_occupied(path, replace=replace)
                _lock_folder(path, locks)
                path.rename(old)
            try:
                staged.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
            with contextlib.suppress(OSError):  # there may have been none
                shutil.rmtree(_not_to_be_returned(old), ignore_errors=True)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def refuse_unwritable(path: Path) -> None:
    """Raise `DiskError` where nothing can be made at `path`: before the work, not after it."""
    # Tried in the nearest folder that is there: what fails later must not leave empty folders.
    there = next(one for one in path.absolute().parents if one.exists())
    with disk_errors(path):
        if not _takes_nameless(there):
            probe = _beside(there / path.name)
            probe.touch()
            probe.unlink(missing_ok=True)


def _takes_nameless(folder: Path) -> bool:
    """Return whether a file without a name could be made in a folder, of which nothing is left
    however the process ends; False where the system has none. Raises `OSError`.
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def check_room(folder: Path) -> None:
    """Raise `DiskError` where the disk of a folder has no room for another `ROOM` bytes.

    For libraries that do not say why they could not write a file.
    """
    probe = _beside(folder / "room")
    with disk_errors(folder):
        try:
            probe.write_bytes(bytes(ROOM))
        finally:
            probe.unlink(missing_ok=True)


def refuse_occupied(path: Path, *, replace: Collection[str] = ()) -> None:
    """Raise `RunFolderError` where something is in the way that is not to be replaced."""
    if Path.cwd().is_relative_to(os.path.realpath(path)):
        raise RunFolderError(
            f"{path} cannot become a new folder",
            found="the current folder, or one around it",
            expected="a new or empty folder elsewhere, which can be renamed",
            do="name a folder inside this one, such as ./new",
        )
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if path.is_dir() and _holds_only(path, replace):
        return
    raise RunFolderError(
        f"{path} is there already",
        found="a folder that is not empty" if path.is_dir() else "a file",
        expected="a new or empty folder",
        do="choose another place"
        + ("; --overwrite replaces a run folder, and nothing else" if path.is_dir() else ""),
    )


def _holds_only(path: Path, names: Collection[str]) -> bool:
    """Whether all below a folder has one of these names, or is a folder that a name begins with."""
    folders = {str(PurePosixPath(one).parent) for one in names} - {"."}
    return all(
        _named(below.relative_to(path), folders if _real_folder(below) else names)
        for below in path.rglob("*")
    )


def _named(path: Path, names: Collection[str]) -> bool:
    # `match` compares from the right: a name says nothing of folders that it does not have.
    parts = len(path.parts)
    return any(len(PurePosixPath(one).parts) == parts and path.match(one) for one in names)


def _real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into a `DiskError`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written",
            found=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
            expected="a disk with room, and the permission to write",
            do=remedy(error) or "choose another place",
        ) from error


def rename_new(source: Path, target: Path) -> None:
    """Rename a file to a name that nothing has. Raises `OSError`, `FileExistsError` for one that is
    taken.

    Where the system cannot look and rename in one step, a file that appears between is replaced.
    """
    rename = _without_replacing()
    number = errno.ENOSYS if rename is None else rename(source, target)
    if number == 0:
        return
    if number in (errno.ENOSYS, errno.EINVAL):  # the C library, or this file system, has no such
        if not os.path.lexists(target):
            os.rename(source, target)
            return
        number = errno.EEXIST
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@functools.cache
def _without_replacing() -> Callable[[Path, Path], int] | None:
    """Linux's renameat2, which gives an error's number or 0; None where there is none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):
        return None
    here, no_replace = ctypes.c_int(-100), ctypes.c_uint(1)

    def rename(source: Path, target: Path) -> int:
        failed = function(here, os.fsencode(source), here, os.fsencode(target), no_replace)
        return ctypes.get_errno() if failed else 0

    return rename


def sync_folder(path: Path) -> None:
    """Put on the disk which names a folder has, where the system can. Raises `OSError`."""
    if os.name == "posix":
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock in this file, this process included. Raises `OSError`."""
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def remove_staged(path: Path) -> None:
    """Remove what was begun under a temporary name for `path` and never renamed.

    For one who knows that nobody is writing it now.
    """
    for one in _staged(path):
        _remove_or_return(one, path)


def remove_abandoned(path: Path) -> None:
    """Remove what was begun under a temporary name for `path` by processes that are no more.

    What is being written now stays. So does all of it where the system cannot tell (Windows, some
    network drives).
    """
    for one in _staged(path):
        with contextlib.suppress(OSError), contextlib.ExitStack() as lock:
            if _lock(one, lock, wait=False):
                _remove_or_return(one, path)


def _staged(path: Path) -> list[Path]:
    """Find the temporary names for `path`, what it was before first.

    A name that was shortened is left alone: it may be another's.
    """
    if len(path.name) >= LONGEST:
        return []
    begun = f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"
    return [*path.parent.glob(begun + OLD), *path.parent.glob(begun + ".tmp")]


def _remove_or_return(one: Path, path: Path) -> None:
    """Remove what has a temporary name; or give it back its own, where that was taken away by a
    process that was stopped before it had put the new one there.
    """
    if one.name.endswith(OLD):
        if not path.exists():
            one.rename(path)
            return
        one = _not_to_be_returned(one)
    if _real_folder(one):
        shutil.rmtree(one, ignore_errors=True)
    else:
        one.unlink(missing_ok=True)


def _not_to_be_returned(old: Path) -> Path:
    """Rename what was replaced before it is deleted: half of it must not be given back its name.

    Raises `OSError`.
    """
    return old.rename(old.with_suffix(".tmp"))


def _new_beside(path: Path, stack: contextlib.ExitStack) -> tuple[Path, BinaryIO]:
    """Open a new file beside a path, locked until the stack ends. Raises `OSError`."""
    while True:
        temporary = _beside(path)
        file = temporary.open("xb")
        if not _lock_opened(file.fileno(), wait=True):
            return temporary, file
        # Before it was locked another process may have taken it for abandoned.
        if _is_at(file.fileno(), temporary):
            stack.callback(
                os.close, os.dup(file.fileno())
            )  # it is locked while it is open anywhere
            return temporary, file
        file.close()


def _new_folder_beside(path: Path, stack: contextlib.ExitStack) -> Path:
    """Make a new folder beside a path, locked until the stack ends. Raises `OSError`."""
    while True:
        staged = _beside(path)
        staged.mkdir()
        with contextlib.suppress(FileNotFoundError):
            _lock_folder(staged, stack)
            if staged.exists():
                return staged


def _lock_folder(folder: Path, stack: contextlib.ExitStack) -> None:
    """Lock a folder where the system can. Raises `OSError`."""
    if os.name == "posix":
        _lock(folder, stack, wait=True)


def _lock(path: Path, stack: contextlib.ExitStack, *, wait: bool) -> bool:
    """Lock a file or folder until the stack ends; False where that cannot be done. Raises
    `OSError`.
    """
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    stack.callback(os.close, opened)
    return _lock_opened(opened, wait=wait) and _is_at(opened, path)


def _lock_opened(opened: int, *, wait: bool) -> bool:
    """Lock an open file; False where another has it, or where the system has no such lock."""
    if os.name != "posix":
        return False
    with contextlib.suppress(OSError):
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(opened: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened), os.lstat(path))
    return False


def _beside(path: Path, ending: str = ".tmp") -> Path:
    """A new hidden name in the same folder, hence on the same file system."""
    return path.parent / f".{path.name[:LONGEST]}.{secrets.token_hex(4)}{ending}"
