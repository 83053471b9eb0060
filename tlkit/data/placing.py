"""Placing: photos into a folder by link, copy or move, and back, whenever it was stopped.

In: a folder of photos, another folder, and for each photo its place in there. Out: the photos in
their places, and `undo.jsonl` beside them, a journal (journal.py) by which they are taken back.

Each photo stands in the journal before it is touched. Whether it was placed is not written down
but seen: what lies in its place with its inode, or with its size and time, is the photo. Hence a
stop at any moment leaves nothing that could not be told.

    link   a symbolic link to the photo, which stays
    copy   a copy under a hidden name, flushed to the disk, then renamed; the photo stays
    move   a rename; to another file system a copy as above, and then the photo is removed

Nothing is overwritten in either direction: names are taken in one step that fails where one is
taken, and the photo gets the next number. A photo that is no longer what was looked at stays where
it is, and so does one that the system does not give; a full disk ends it all.

A folder with a journal may have come from anybody. Nothing is reached through a link in it, or in
the folder of photos. Moves go back only to a folder that the user has named: by the command that
sorted, which the journal's signature tells (signature.py), or now.
Not here: which photo goes where (tlkit/sorting.py).
Next door: quarantine.py (files of a data folder, which stay on its file system).
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tlkit.data.folder_lock import LOCK, changing, making
from tlkit.data.journal import (
    Left,
    Write,
    appending,
    is_within,
    records,
    refuse_outside,
    unreadable,
)
from tlkit.data.signature import is_ours, sign
from tlkit.errors import DiskError, FolderError, OptionError, RunFolderError, shell_word
from tlkit.files import disk_errors, refuse_occupied, rename_new, sync_folder

JOURNAL = "undo.jsonl"
OWN = frozenset({JOURNAL, LOCK})
"""What lies in a folder to sort into before the first photo does."""
BEGIN, SIGNATURE = b'{"format"', "signature"
WROTE = "tlkit sort"
FORMAT = 1
BY = ("link", "copy", "move")

CHANGED = "it has changed since it was looked at"
TAKEN = "something else has its place there"
LINKED = "a link is on the way to it"
NO_FOLDER = "a link has the place of the folder that it would go to"

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What the system says where it would say so of the next photo too."""
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})

TOLERANCE_NS = 2_000_000_000
"""By which a copy's time may be off: FAT counts in steps of two seconds."""

State = tuple[int, int, int, int]
"""Device, inode, bytes, and the time of its content in ns: which file it is, and in which state."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """From where, to where, and how."""

    photos: Path
    """Without links in it."""
    out: Path
    by: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the journal: what was, or was about to be, placed."""

    file: str
    """Below the photos."""
    place: str
    """Below the folder that they go to."""
    state: State
    told: Mapping[str, Any]
    """What the caller wants to read again."""
    inode_ns: int = 0
    """When its inode changed last, as it was looked at; 0: unknown. Not written down. A photo that
    was exchanged for a moment has its old state again, but not this time."""


def state_of(status: os.stat_result) -> State:
    """What tells a file, and a state of it, from any other."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def begin(ground: Ground, asked: Mapping[str, Any]) -> None:
    """Begin a journal, or go on in a folder where the same was asked. Call it while `held`.

    Raises `RunFolderError` for a folder with anything else in it, `DiskError`.
    """
    head = {
        "format": FORMAT, "photos": str(ground.photos), "by": ground.by, "asked": dict(asked),
    }  # fmt: skip
    journal = ground.out / JOURNAL
    there = _head(ground.out)
    if there is None:
        _refuse_strangers(ground.out)
        with disk_errors(ground.out), appending(journal) as write:
            write([{**head, SIGNATURE: sign(head)}])
            sync_folder(ground.out)
            with contextlib.suppress(PermissionError):
                sync_folder(ground.out.parent)
    elif _without_signature(there) != head:
        other = next(
            (one for one in ("photos", "by") if there.get(one) != head[one]), "head or options"
        )
        raise RunFolderError(
            f"{ground.out} holds photos that were sorted in another way",
            found=f"other {other}" + (f": {there.get(other)}" if other in there else ""),
            expected="the same command, which goes on, or a new folder",
            do="name another folder, or take these back first: tlkit sort --undo "
            + shell_word(str(ground.out)),
        )


def ground_of(out: Path, into: Path | None = None) -> Ground | None:
    """Return where the photos in a folder go back to; None where a sort was stopped before its
    first photo.

    `into` is the folder that they came from, where the user names it. Raises `FolderError` for a
    folder that was not sorted into, and where moves would go to a folder that the user has not
    named; `DiskError`, `OptionError`.
    """
    head = _head(out)
    if head is None:
        if _is_unbegun(out):
            return None
        raise FolderError(
            f"there is nothing to take back from {out}",
            found=f"no {JOURNAL} in it" if out.is_dir() else "no such folder",
            expected="a folder that `tlkit sort` has filled",
            do="check the path",
        )
    by, named = head.get("by"), head.get("photos", "")
    if head.get("format") != FORMAT or by not in BY or not _is_path(named):
        raise unreadable(out / JOURNAL, WROTE)
    if into is not None and by != "move":
        raise OptionError(
            "an option would be ignored",
            found=f"--into {into}, and photos that were not moved (--by {by})",
            expected="--into only where photos are to be moved back",
            do="leave it out",
        )
    photos = Path(named) if into is None else into
    if by == "move" and into is None and not _is_own(head):
        raise FolderError(
            f"the photos in {out} are not moved to a folder that you have not named",
            found=f"{photos}, named by a journal that your tlkit did not write on this machine",
            expected="the folder that they came from, named by you",
            do="name it: tlkit sort --undo DIR --into FOLDER",
        )
    if not photos.is_dir():
        raise FolderError(
            f"the photos in {out} cannot be taken back",
            found=f"no folder {photos}",
            expected="the folder that they have come from",
            do="make it, or mount the disk that it is on",
        )
    return Ground(photos=photos, out=out, by=by)


def _is_path(value: object) -> bool:
    """Return whether it is a path that a disk can have."""
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and os.path.isabs(value) and b"\0" not in os.fsencode(value)
    return False


def _is_own(head: Mapping[str, Any]) -> bool:
    """Return whether a command of the user's has named the folder of photos that is still there."""
    photos = head["photos"]
    return is_ours(_without_signature(head), head.get(SIGNATURE)) and (
        os.path.realpath(photos) == photos
    )


def _without_signature(head: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in head.items() if name != SIGNATURE}


def _is_unbegun(out: Path) -> bool:
    """Return whether a folder holds only what a sort leaves that was stopped at its very begin."""
    if not out.is_dir() or {one.name for one in out.iterdir()} - OWN:
        return False
    try:
        data = (out / JOURNAL).read_bytes() if (out / JOURNAL).is_file() else b""
    except OSError:
        return False
    return b"\n" not in data and data[: len(BEGIN)] == BEGIN[: len(data)]


def forget(out: Path) -> None:
    """Remove what a sort has made in a folder beside the photos, and the folder if nothing is left.

    Raises `OSError`.
    """
    for name in (JOURNAL, LOCK):
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()


@contextlib.contextmanager
def held(ground: Ground) -> Iterator[None]:
    """Let no other process move what this one does; makes the folder where it is missing.

    Raises `RunFolderError`, `DiskError`.
    """
    moves = ground.by == "move"
    with contextlib.ExitStack() as stack:
        with disk_errors(ground.out):
            stack.enter_context(making(ground.out))
            stack.enter_context(
                changing(
                    *([ground.photos] if moves else []),
                    reading=[ground.out.parent, *([] if moves else [ground.photos])],
                )
            )
        yield


def lines(ground: Ground) -> Iterator[Line]:
    """What the journal says, in order. Raises `DiskError` for one that cannot be trusted."""
    said = records(ground.out / JOURNAL, wrote=WROTE)
    next(said, None)
    for one in said:
        try:
            yield _line(one)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise unreadable(ground.out / JOURNAL, WROTE) from error


def _line(record: Mapping[str, Any]) -> Line:
    """Raises `DiskError` for names outside, and what the parts of a record raise that is none."""
    device, inode, size, mtime_ns = map(int, record["state"])
    line = Line(
        file=record["file"],
        place=record["place"],
        state=(device, inode, size, mtime_ns),
        told=dict(record["told"]),
    )
    refuse_outside(line.file, line.place)
    if "/" not in line.place:  # a photo lies in a folder: what lies beside these is not to be moved
        raise DiskError(
            "the journal cannot be trusted",
            found=f"a photo placed as {line.place}",
            expected="photos in the folders of their classes",
            do="put the files back by hand",
        )
    return line


def _record(line: Line) -> dict[str, Any]:
    return {name: value for name, value in asdict(line).items() if name != "inode_ns"}


def placed(ground: Ground) -> Iterator[Line]:
    """The photos that lie in their places, after what a stop has left half-done is put right."""
    for line in lines(ground):
        _forget_parts(ground, line)
        if _lies(ground, line):
            if ground.by == "move":
                _forget_original(ground, line)
            yield line


def place(ground: Ground, wanted: Sequence[Line]) -> Iterator[Line | Left]:
    """Place photos: each as it lies there now, or why it stays. Raises `DiskError`.

    A line's state is that in which the photo was looked at.
    """
    with disk_errors(ground.out):
        ready = [_ready(ground, one) for one in wanted]
        with appending(ground.out / JOURNAL) as write:
            write(_record(one) for one in ready if isinstance(one, Line))
            for one in ready:
                yield _placed(ground, write, one) if isinstance(one, Line) else one


def take_back(ground: Ground) -> Generator[Line, None, tuple[Left, ...]]:
    """Undo: yields each line of the journal when it was seen to, returns what could not be.

    The folder is gone at the end, unless something is left in it. Raises `DiskError`.
    """
    left: dict[str, str] = {}
    folders: set[Path] = set()
    with disk_errors(ground.photos):
        for line in lines(ground):
            _forget_parts(ground, line)
            if _lies(ground, line) and (why := _tried(_taken_back, ground, line)):
                left[line.file] = why
            folders.update((ground.out / line.place).parents)
            yield line
        for line in lines(ground):
            if line.file not in left and (why := _missing(ground, line)):
                left[line.file] = why
    with disk_errors(ground.out):
        # Folders that somebody else has put something into stay.
        inside = (one for one in folders if one != ground.out and one.is_relative_to(ground.out))
        for folder in sorted(inside, reverse=True):
            if is_within(ground.out, str(folder.relative_to(ground.out))):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if not left:
            forget(ground.out)
    return tuple(Left(file=file, why=why) for file, why in left.items())


def _head(out: Path) -> dict[str, Any] | None:
    return next(records(out / JOURNAL, wrote=WROTE), None)


def _refuse_strangers(out: Path) -> None:
    """Refuse a folder with anything in it but what a stop at the very begin has left."""
    if not _is_unbegun(out):
        refuse_occupied(out)


def _ready(ground: Ground, one: Line) -> Line | Left:
    """The photo with a place that nothing has."""
    source = ground.photos / one.file
    if ground.by == "move" and not is_within(ground.photos, one.file):
        return Left(file=one.file, why=LINKED)
    try:
        # A move takes the name itself, which must not have become a link.
        now = os.lstat(source) if ground.by == "move" else os.stat(source)
    except OSError as error:
        return Left(file=one.file, why=_words(error))
    # Of a file with several names the inode changes too where another of these is moved.
    touched = one.inode_ns and now.st_nlink == 1 and now.st_ctime_ns != one.inode_ns
    if state_of(now) != one.state or touched:
        return Left(file=one.file, why=CHANGED)
    return replace(one, place=_free(ground.out, one.place))


def _free(out: Path, place: str) -> str:
    """cats/1.jpg, or where something has that name, cats/1-2.jpg and so on."""
    base, ending = os.path.splitext(place)
    number, free = 1, place
    while os.path.lexists(out / free):
        number += 1
        free = f"{base}-{number}{ending}"
    return free


def _placed(ground: Ground, write: Write, line: Line) -> Line | Left:
    while True:
        try:
            why = _tried(_put, ground, line)
            return Left(file=line.file, why=why) if why else line
        except FileExistsError:  # between the look and the step, or in another letter case
            line = replace(line, place=_free(ground.out, line.place))
            write([_record(line)])


def _tried(action: Callable[[Ground, Line], str], ground: Ground, line: Line) -> str:
    """Why a photo stays; empty where it does not. Raises `OSError` for what ends it all."""
    try:
        return action(ground, line)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in FULL or (ground.by == "link" and error.errno in NO_LINKS):
            raise
        return _words(error)


def _put(ground: Ground, line: Line) -> str:
    source, target = ground.photos / line.file, ground.out / line.place
    if not is_within(ground.out, line.place):
        return NO_FOLDER
    _make_folders(target.parent)
    if ground.by == "link":
        os.symlink(source, target)
        return ""
    if ground.by == "move" and _renamed(source, target):
        return _kept_or_returned(source, target, line)
    if not _copy(source, target, line.state):
        return CHANGED
    if ground.by == "move":
        _sync_up(target.parent, ground.out)
        try:
            if state_of(os.lstat(source)) != line.state:
                os.unlink(target)
                return CHANGED
            os.unlink(source)
        except FileNotFoundError:  # removed by another: ours is the only one now
            return ""
        except OSError:
            os.unlink(target)
            raise
    return ""


def _kept_or_returned(source: Path, target: Path, line: Line) -> str:
    """Leave a file where it was moved to; put it back where another had taken the photo's name just
    before.
    """
    if state_of(os.lstat(target)) == line.state:
        return ""
    with contextlib.suppress(FileExistsError):  # and a third one has it now: both are there
        rename_new(target, source)
    return CHANGED


def _taken_back(ground: Ground, line: Line) -> str:
    source, target = ground.photos / line.file, ground.out / line.place
    if ground.by == "link":
        os.unlink(target)
        return ""
    if ground.by == "move" and not is_within(ground.photos, line.file):
        return NO_FOLDER
    there = os.path.lexists(source)
    if there and not _two_alike(source, target):
        return TAKEN if ground.by == "move" else "the photo that it is a copy of has changed"
    if ground.by == "move" and not there:
        _make_folders(source.parent)
        try:
            if _renamed(target, source):
                return ""
            if not _copy(target, source, state_of(os.lstat(target))):
                return CHANGED
        except FileExistsError:
            return TAKEN
        _sync_up(source.parent, ground.photos)
    elif not there:
        return "the photo that it is a copy of is gone"
    os.unlink(target)
    return ""


def _missing(ground: Ground, line: Line) -> str:
    """Why a photo that nothing was done to is not as it was before the sort; empty where it is."""
    if ground.by == "move":
        gone = not os.path.lexists(ground.photos / line.file)
        return f"it is no longer {line.place}" if gone else ""
    there = os.path.lexists(ground.out / line.place)
    return f"{line.place} is no longer what was put there" if there else ""


def _renamed(source: Path, target: Path) -> bool:
    """Whether it could be renamed: not to another file system."""
    try:
        rename_new(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(source: Path, target: Path, state: State) -> bool:
    """A copy with its times and permissions, on the disk; False where the file was not in that
    state any more. Raises `FileExistsError` where something has the name.
    """
    part = _part(target)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        shutil.copyfile(source, part)
        shutil.copystat(source, part)
        sync_file(part)
        if state_of(os.stat(source)) != state:
            return False
        rename_new(part, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    return True


def sync_file(path: Path) -> None:
    """Put the content of a file on the disk. Raises `OSError`."""
    opened = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sync_up(folder: Path, top: Path) -> None:
    """Put the names on the way from a folder up to `top` on the disk."""
    while True:
        sync_folder(folder)
        if folder == top:
            return
        folder = folder.parent


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        os.listdir(folder)  # says that it is a file: another number for the photo would not help


def _part(target: Path) -> Path:
    """The hidden name of a copy that is being made: the same one whenever that is begun again."""
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".{name}.tlkit-part")


def _forget_parts(ground: Ground, line: Line) -> None:
    """Remove copies that were begun and never renamed."""
    sides = {
        "link": (),
        "copy": ((ground.out, line.place),),
        "move": ((ground.out, line.place), (ground.photos, line.file)),
    }
    for top, name in sides[ground.by]:
        part = _part(top / name)
        if is_within(top, name) and os.path.lexists(part):
            os.unlink(part)


def _forget_original(ground: Ground, line: Line) -> None:
    """Remove a photo that was copied to its place on another file system, and not removed yet."""
    source = ground.photos / line.file
    if not is_within(ground.photos, line.file):
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        target = ground.out / line.place
        renamed = state_of(os.lstat(target))[:2] == line.state[:2]
        same = state_of(os.lstat(source))[2:] == line.state[2:]
        if same and not renamed and _two_alike(source, target):
            os.unlink(source)


def _lies(ground: Ground, line: Line) -> bool:
    """Whether the photo lies in its place."""
    target = ground.out / line.place
    if not is_within(ground.out, line.place):
        return False
    try:
        now = os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if ground.by == "link":
        return stat.S_ISLNK(now.st_mode) and os.readlink(target) == str(ground.photos / line.file)
    if not stat.S_ISREG(now.st_mode):
        return False
    device, inode, size, mtime_ns = line.state
    if ground.by == "move" and (now.st_dev, now.st_ino) == (device, inode):
        return True
    return now.st_size == size and abs(now.st_mtime_ns - mtime_ns) <= TOLERANCE_NS


def _two_alike(one: Path, other: Path) -> bool:
    """Whether these are two files with the same bytes: of which one may be removed.

    Not one file on two paths, which a link somewhere on them may make of it.
    """
    if not os.path.exists(one) or os.path.samefile(one, other):
        return False
    filecmp.clear_cache()  # it goes by size and time, which a copy keeps
    return filecmp.cmp(one, other, shallow=False)


def _words(error: OSError) -> str:
    return "it is gone" if error.errno == errno.ENOENT else error.strerror or str(error)
