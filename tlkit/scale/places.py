"""Places: files on disks and in object stores, by path or URI.

In: text such as photos/a.jpg, s3://bucket/a.jpg. Out: bytes, names, open files.
pyarrow knows s3, gs, abfs, hdfs and file; for another scheme fsspec is asked, with the package that
this scheme needs. What follows a `?` in a URI are options of pyarrow's, such as endpoint_override.
Not here: what the files hold.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tlkit.errors import DiskError, OptionError, briefly, raise_machine_error
from tlkit.files import disk_errors, write_bytes

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://")
PATTERN = re.compile(r"[*\[]")
"""What makes a glob of a URI."""


def is_uri(place: str) -> bool:
    """Whether it names a file by URI, and not by path."""
    return SCHEME.match(place) is not None


def on_disk(place: str) -> str:
    """A file:// URI as a path; anything else as it is."""
    return url2pathname(urlsplit(place).path) if place.startswith("file://") else place


def inside(folder: str, name: str) -> str:
    """A file in a folder."""
    if not is_uri(folder):
        return os.path.join(folder, name)
    start, mark, options = folder.partition("?")
    return f"{start.rstrip('/')}/{name}{mark}{options}"


def read(place: str) -> bytes:
    """All of a file. Raises `OSError`."""
    if not is_uri(place):
        return Path(place).read_bytes()
    system, path = _system(place)
    data: bytes = system.cat_file(path)
    return data


def write(place: str, data: bytes) -> None:
    """A whole file or none: by renaming on a disk, by one upload elsewhere. Raises `DiskError`."""
    if not is_uri(place):
        write_bytes(Path(place), data, tidy=False)  # of a thousand parts each would search for it
        return
    system, path = _system(place)
    with disk_errors(Path(place)), system.open(path, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def opened(place: str) -> Iterator[Any]:
    """A file to read anywhere in. Raises `OSError`."""
    if not is_uri(place):
        with open(place, "rb") as file:
            yield file
        return
    system, path = _system(place)
    with system.open(path, "rb") as file:
        yield file


def make_folder(place: str) -> None:
    """A folder that may be there; object stores need none. Raises `DiskError`."""
    if not is_uri(place):
        with disk_errors(Path(place)):
            Path(place).mkdir(parents=True, exist_ok=True)


def names(folder: str) -> list[str]:
    """Of what lies in a folder, none for one that is not there. Raises `DiskError`."""
    try:
        if not is_uri(folder):
            return sorted(os.listdir(folder))
        system, path = _system(folder)
        return sorted(one.rstrip("/").rpartition("/")[2] for one in system.ls(path, detail=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DiskError(
            f"{folder} cannot be listed",
            found=briefly(error),
            expected="a new or empty folder, or that of a job to go on with",
            do="choose another place",
        ) from error


def found(uri: str) -> list[str] | None:
    """The files that a URI means, at every depth of a folder; None where nothing is there.

    A file that is named is taken as it is. Raises `OSError`.
    """
    system, path = _system(uri)
    start, mark, options = uri.partition("?")
    root = _mounted(_root(uri))[1]

    def as_uri(one: str) -> str:
        if root is None:
            named: str = system.unstrip_protocol(one)
            return named
        below = one.removeprefix(root.rstrip("/")).lstrip("/")
        return f"{_root(start)}{below}{mark}{options}"

    if PATTERN.search(path):
        matches = system.glob(path)
        return [as_uri(one) for one in sorted(matches) if not system.isdir(one)] or None
    if system.isdir(path):
        return [as_uri(one) for one in sorted(system.find(path))]
    return [uri] if system.exists(path) else None


def _root(uri: str) -> str:
    """scheme://host/, with the options behind it."""
    start, mark, options = uri.partition("?")
    scheme, _, rest = start.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{mark}{options}"


def _system(uri: str) -> tuple[Any, str]:
    """A file system in fsspec's manner, and the path on it. Raises `OptionError`."""
    system, root = _mounted(_root(uri))
    host, slash, path = uri.partition("?")[0].partition("://")[2].partition("/")
    if root is None:
        return system, f"{host}{slash}{path}"
    return system, f"{root.rstrip('/')}/{path.strip('/')}" if path else root


@lru_cache(maxsize=64)
def _mounted(root: str) -> tuple[Any, str | None]:
    """The file system of all URIs that begin alike, and where on it they begin, where pyarrow
    says.
    """
    import fsspec
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import ArrowInvalid, fs

    try:
        with contextlib.suppress(ArrowInvalid):  # a scheme that it does not know
            system, path = fs.FileSystem.from_uri(root)
            return ArrowFSWrapper(system), path
        return fsspec.core.url_to_fs(root)[0], None
    except (ImportError, ValueError, OSError) as error:
        raise_machine_error(error)
        raise OptionError(
            f"{root} cannot be reached",
            found=briefly(error),
            expected="a path, or a URI such as s3://, gs://, abfs://, hdfs:// or file://",
            do="correct it, or install the package that fsspec wants for it",
        ) from error
