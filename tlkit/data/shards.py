"""Shards: tar files of images, read without being unpacked.

In: a tar file, laid out as WebDataset has it (`KEY.jpg` beside `KEY.cls`) or with class folders.
Out: which images are in it, of which class, and their bytes: one seek and one read for each.
A path may lead into one: `shards/train-0000.tar/cats/1.jpg`. What reads images asks `find` first.
Nothing is ever written to the disk, and no name in a tar file is used as one on the disk.
Next door: folder.py (what a folder of shards holds), images.py (bytes to pixels).
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.data.names import END, Names
from tlkit.errors import FolderError, briefly, printable, raise_machine_error, remedy

ENDING = ".tar"
CLASSES = "classes.txt"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How compressed files begin."""

LABEL = "cls"
LONGEST_LABEL = 1000
"""Bytes of a label."""

LARGEST_HEADER = 1 << 20
"""Bytes: what a tar file says of one member, its name in the main."""

BLOCK = tarfile.BLOCKSIZE
MOST_OPEN = 64
"""Shards that are open at once."""

State = tuple[int, int, int, int]
"""Of a file or folder: inode, bytes, and the times of its content and of its inode in ns."""


def state_of(status: os.stat_result) -> State:
    """What changes with a file. The inode in 63 bits: Windows has longer ones."""
    return (
        status.st_ino & (1 << 63) - 1, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


class Shard:
    """The images in a tar file, N of them, in its order."""

    def __init__(
        self,
        path: str,
        state: State,
        names: Names,
        places: NDArray[np.int64],
        labels: tuple[str | None, ...] | None = None,
    ) -> None:
        self.path = path
        self.state = state
        self.names = names
        self.places = places
        """(N, 2): where each begins, and its bytes."""
        self.labels = labels
        """What the `.cls` beside each says; None where there is none. Not kept in a manifest."""

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        names = list(self.names)
        return np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)

    def find(self, name: str) -> Member:
        """An image. Raises `FileNotFoundError`."""
        at = bisect_left(self._order, name, key=lambda row: self.names[int(row)])
        if at < len(self._order) and self.names[row := int(self._order[at])] == name:
            begin, size = self.places[row].tolist()
            return Member(path=self.path, state=self.state, begin=begin, size=size)
        raise _lost(2, "no such image in the shard", f"{self.path}/{name}")


@dataclass(frozen=True)
class Member:
    """An image in a shard."""

    path: str
    """Of the shard."""
    state: State
    """Of the shard."""
    begin: int
    size: int

    def read(self) -> bytes:
        """Its bytes, of the shard in this state. Raises `OSError`."""
        opened = _opened(self.path, self.state)
        data = opened.read(self.begin, self.size)
        if len(data) < self.size:
            raise _lost(5, "the shard ends before the image does", self.path)
        if opened.state != self.state:
            raise _lost(5, "the shard has changed since it was listed", self.path)
        return data


def find(path: str | Path) -> Member | None:
    """The image in a shard that a path leads to; None for one of a file of its own.

    Raises `FileNotFoundError` for what is not in the shard, `FolderError` for a broken shard.
    """
    text = str(path)
    if os.sep != "/":
        text = text.replace(os.sep, "/")
    low, at = text.lower(), 0
    while (at := low.find(f"{ENDING}/", at) + 1) > 0:
        end = at - 1 + len(ENDING)
        if os.path.isfile(text[:end]):
            return shard(text[:end]).find(text[end + 1 :])
    return None


def contents(path: Path) -> bytes:
    """All bytes of an image, wherever it lies. Raises `OSError`, and what `find` raises."""
    member = find(path)
    return path.read_bytes() if member is None else member.read()


def is_shard(name: str) -> bool:
    """Whether a file's ending is that of a shard."""
    return name.lower().endswith(ENDING)


_known: dict[str, Shard] = {}
_indexing = threading.Lock()


def shard(path: str) -> Shard:
    """The index of a tar file, from its headers once in a process. Raises `FolderError`."""
    try:
        state = state_of(os.stat(path))
        found = _known.get(path)
        if found is None or found.state != state:
            with _indexing:  # many threads may ask for the same one
                found = _known.get(path)
                if found is None or found.state != state:
                    found = _known[path] = _indexed(path, state)
        return found
    except OSError as error:
        raise _broken(path, briefly(error), remedy(error)) from error


def know(one: Shard) -> None:
    """Take an index from elsewhere, which is used as long as the file is as it says."""
    _known[one.path] = one


class _Broken(Exception):
    """What a tar file must not say."""


def _lost(number: int, why: str, path: str) -> OSError:
    """As the disk would tell it: 2 is that nothing is there, 5 that it cannot be read."""
    return OSError(number, why, path)


class _Headers(io.FileIO):
    """A file of which headers are read: one that claims to be huge must not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER:
            raise _Broken(f"a header of {size} bytes")
        return super().read(size) or b""


def _indexed(path: str, state: State) -> Shard:
    with _Headers(path) as file:
        start = file.read(8)
        if start.startswith(PACKED):
            raise compressed(path)
        try:
            images, labels = _members(file, state[1])
        except FolderError:
            raise
        except Exception as error:  # what a broken header leads the reader to
            raise_machine_error(error)
            raise _broken(path, briefly(error)) from error
    return Shard(
        path,
        state,
        Names.of(images),
        np.array(list(images.values()), dtype=np.int64).reshape(-1, 2),
        tuple(labels.get(_key(one)) for one in images) if labels else None,
    )


def _members(file: _Headers, total: int) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Place of each image, and label of each key."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        last = -1
        while (one := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            if one.offset <= last or one.size < 0 or one.offset_data + one.size > total:
                raise _Broken(f"a header that leads out of the file, at {one.offset}")
            last = one.offset
            name = _plain(one)
            if name is None:
                continue
            if name.lower().endswith(f".{LABEL}"):
                labels[_key(name)] = _label(file, one)
            else:
                images.pop(name, None)  # what stands later counts, as where it is unpacked
                images[name] = one.offset_data, one.size
        file.seek(tar.offset)
        # The reader takes a broken header for the end.
        if file.read(BLOCK) != bytes(BLOCK):
            raise _Broken(f"cut off or broken at byte {tar.offset:,}")
    return images, labels


def _plain(one: tarfile.TarInfo) -> str | None:
    """The name of a member that may be an image or a label; None for any other."""
    from tlkit.data.folder import is_image_name

    if one.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or one.issparse():
        return None
    name = posixpath.normpath(one.name)
    odd = name.startswith("/") or "\\" in name or END in name
    # `..` too begins as what is hidden does.
    if odd or any(each.startswith(".") for each in name.split("/")):
        return None
    return name if is_image_name(name) or name.lower().endswith(f".{LABEL}") else None


def _key(name: str) -> str:
    """What an image and its label have in common: the name up to the first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _label(file: _Headers, one: tarfile.TarInfo) -> str:
    if one.size > LONGEST_LABEL:
        raise _Broken(f"a label of {one.size:,} bytes: {printable(one.name)}")
    file.seek(one.offset_data)
    text = file.read(one.size).decode("utf-8", "surrogateescape").strip()
    if not text or END in text or "\n" in text:
        raise _Broken(f"no class in {printable(one.name)}")
    return text


class _Opened:
    """A file that is closed when nobody reads from it any more."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """As it is now."""
        return state_of(os.fstat(self._file))

    def read(self, begin: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file, size, begin)
        with self._lock:
            os.lseek(self._file, begin, os.SEEK_SET)
            return os.read(self._file, size)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


@lru_cache(maxsize=MOST_OPEN)
def _opened(path: str, state: State) -> _Opened:
    """A shard to read from. The state is part of what is asked for: a new file is opened anew."""
    return _Opened(path)


def compressed(path: str) -> FolderError:
    """The error for a tar file that images cannot be read from one by one."""
    return FolderError(
        f"{path} is compressed",
        found="a compressed tar file",
        expected="a plain .tar: photos are compressed already, and each is read by itself",
        do="unpack it, or write it again without compression (gunzip, unxz, zstd -d)",
    )


def _broken(path: str, reason: str, remedy: str = "") -> FolderError:
    if remedy:
        return FolderError(
            f"{path} cannot be read", found=reason, expected="a tar file to read", do=remedy
        )
    return FolderError(
        f"{path} is not a whole tar file",
        found=reason,
        expected="a tar file without compression, from its first header to its end",
        do="copy or make it again, or move it away",
    )


@dataclass(frozen=True)
class Gathered:
    """The images of a folder of shards, N of C classes, in the order of shards and members."""

    classes: tuple[str, ...]
    files: Names
    labels: NDArray[np.int64]
    shards: tuple[Shard, ...]
    unlabelled: tuple[str, ...]


def gather(folder: str, tars: list[str]) -> Gathered:
    """All shards of a folder together. Raises `FolderError`."""
    listed = _listed_classes(os.path.join(folder, CLASSES))
    found = [shard(os.path.join(folder, one)) for one in tars]
    text, names, labels = bytearray(), dict[str, int](), list[int]()
    unlabelled = []
    for tar, one in zip(tars, found, strict=True):
        for name, said in zip(one.names, one.labels or (None,) * len(one.names), strict=True):
            label = _class_of(name, said, listed, one.path)
            if label is None:
                unlabelled.append(f"{tar}/{name}")
                continue
            labels.append(names.setdefault(label, len(names)))
            text += f"{tar}/{name}{END}".encode("utf-8", "surrogateescape")
    classes = sorted(names)
    place = {label: number for number, label in enumerate(classes)}
    order = np.array([place[label] for label in names], dtype=np.int64)
    return Gathered(
        classes=tuple(classes),
        files=Names.of_text(text),
        labels=order[np.array(labels, dtype=np.int64)],
        shards=tuple(found),
        unlabelled=tuple(unlabelled),
    )


def _class_of(name: str, said: str | None, listed: list[str] | None, path: str) -> str | None:
    """The class of an image: what its label says, else the folder that it is in."""
    if said is None:
        return name.partition("/")[0] if "/" in name else None
    if listed is None or said in listed:
        return said
    if said.isascii() and said.isdecimal() and int(said) < len(listed):
        return listed[int(said)]
    raise FolderError(
        f"{path} has an image of no known class",
        found=f"{printable(said)}, the label of {printable(name)}",
        expected=f"a number below {len(listed)}, or one of the names in classes.txt beside it",
        do="correct classes.txt or the label",
    )


def _listed_classes(path: str) -> list[str] | None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise_machine_error(error)
        raise FolderError(
            f"{path} cannot be read",
            found=briefly(error),
            expected="the names of the classes in UTF-8, one in each line",
            do="correct it, or move it away",
        ) from error
    names = [one.strip() for one in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    twice = [one for one in names if names.count(one) > 1]
    if twice or not all(names):
        raise FolderError(
            f"{path} does not name classes",
            found=f"'{printable(twice[0])}' twice" if twice else "an empty line",
            expected="a name in each line, none of them twice",
            do="correct it",
        )
    return names


def images_in(path: str) -> Iterator[str]:
    """The images of a shard, each as a path."""
    return (f"{path}/{one}" for one in shard(path).names)
