"""Cache: where tlkit keeps what it can compute again, what is there, and how it stays small.

One folder for each kind of rows, with `about.json`, which says what they were made of. Its time of
change is when it was last used. Nothing in it is needed: it may be deleted at any time, but for
what a process is using just now, which holds a lock in it. Where it cannot be written, tlkit goes
on without it and says so once.
TLKIT_CACHE names another place, TLKIT_CACHE_GB another limit.
Next door: train/store.py, which writes and reads the rows.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from tlkit.errors import DiskError, OptionError, pick
from tlkit.files import disk_errors, is_locked, json_text, write_text

log = logging.getLogger("tlkit")

ABOUT = "about.json"
LOCK = ".lock"
OWN = re.compile(r"-[0-9a-f]{32}$")
"""How the names of entries end."""
AWAY = ".deleted"
LIMIT_GB = 10.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A folder of the cache."""

    name: str
    path: Path
    about: Mapping[str, str]
    """What its rows were made of."""
    size: int
    """Bytes."""
    used: float
    """When it was last used: seconds since the epoch."""


def root() -> Path:
    """The folder of the cache, which need not be there."""
    named = os.environ.get("TLKIT_CACHE", "")
    # Not Path.expanduser, which fails where there is no home folder; `begin` then says so.
    return Path(os.path.expanduser(named)) if named else user_cache_path("tlkit")


def limit() -> int:
    """How large the cache may become, in bytes. Raises `OptionError` for a word in its place."""
    text = os.environ.get("TLKIT_CACHE_GB", "") or str(LIMIT_GB)
    with contextlib.suppress(ValueError):
        if float(text) >= 0:
            return int(float(text) * 1e9)
    raise OptionError(
        "the limit of the cache cannot be used",
        found=f"TLKIT_CACHE_GB={text}",
        expected="a number of gigabytes, 0 or more",
        do="correct or unset it",
    )


_refused: set[Path] = set()
"""Folders of caches of which was said that they cannot be written."""


def go_without(error: DiskError) -> None:
    """Say that the cache cannot be written, once in a process: it saves time and nothing else."""
    if root() not in _refused:
        _refused.add(root())
        why = error.found.replace("\n", " ")
        log.warning(
            "the cache in %s cannot be written (%s): going on without it; "
            "TLKIT_CACHE names another folder", root(), why,
        )  # fmt: skip


@contextlib.contextmanager
def if_it_can_be_written() -> Iterator[None]:
    """Leave the block where the cache cannot be written, and say so."""
    try:
        yield
    except DiskError as error:
        go_without(error)


PROBE_S = 10.0
"""More than it takes to see whether a lock is held."""


def begin(path: Path, about: Mapping[str, str]) -> FileLock:
    """Make an entry, or note that it is used, and hold it: it is not deleted until the lock is
    released, or the process ends. Any number of processes may hold one. Raises `DiskError`.
    """
    if path.parts[0].startswith("~"):
        raise DiskError(
            f"{path} cannot be written",
            found="no home folder",
            expected="one, or the name of another folder",
            do="set TLKIT_CACHE to a folder",
        )
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        is_held(path)  # which removes the locks of those that were killed
        lock = _own_lock(path)
    write_text(path / ABOUT, json_text(about, indent=2, sort_keys=True) + "\n")
    return lock


def _own_lock(path: Path) -> FileLock:
    """A lock in an entry, held. Raises `OSError`."""
    while True:
        lock = FileLock(path / f"{os.getpid()}-{secrets.token_hex(4)}{LOCK}")
        # Another process may try it just now, and remove it, for it was not held yet.
        lock.acquire(timeout=PROBE_S)
        if Path(lock.lock_file).exists():
            return lock
        lock.release()


def end(lock: FileLock) -> None:
    """Let go of an entry."""
    lock.release()
    with contextlib.suppress(OSError):  # `is_held` removes it, once it may be
        Path(lock.lock_file).unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process uses the entry; locks of those that were killed are removed."""
    for one in path.glob(f"*{LOCK}"):
        try:
            if is_locked(one):
                return True
            one.unlink(missing_ok=True)
        except OSError:  # another user's
            return True
    return False


def entries() -> list[Entry]:
    """What is there, last used first."""
    # The folder may be one that holds more than the cache.
    found = [_entry(one.parent) for one in root().glob(f"*/{ABOUT}") if OWN.search(one.parent.name)]
    return sorted((one for one in found if one is not None), key=lambda one: -one.used)


def entry(name: str) -> Entry:
    """The entry of that name. Raises `UnknownName`."""
    return pick({one.name: one for one in entries()}, name, "cache entry")


def _entry(path: Path) -> Entry | None:
    # Another process may be deleting it just now.
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        return Entry(
            name=path.name,
            path=path,
            about={str(key): str(value) for key, value in about.items()},
            size=sum(one.stat().st_size for one in path.iterdir()),
            used=(path / ABOUT).stat().st_mtime,
        )
    return None


def delete(path: Path) -> None:
    """Delete an entry. A process that is stopped meanwhile leaves none that looks whole."""
    away = path.with_name(f".{path.name}{AWAY}")
    shutil.rmtree(away, ignore_errors=True)
    path.rename(away)
    shutil.rmtree(away)


def clear(names: Sequence[str] = ()) -> tuple[list[Entry], list[Entry]]:
    """Delete these entries, or all: what was deleted, and what is being used and was not.

    Raises `UnknownName` before any is.
    """
    chosen = [entry(name) for name in dict.fromkeys(names)] if names else entries()
    used = [one for one in chosen if is_held(one.path)]
    gone = [one for one in chosen if one not in used]
    for one in gone:
        with disk_errors(one.path):
            delete(one.path)
    return gone, used


def prune(keep: Collection[str]) -> list[Entry]:
    """Delete what was used longest ago until the limit holds, but for the entries to keep and
    those that are being used.
    """
    there, most = entries(), limit()
    for left in root().glob(f".*{AWAY}"):  # by a process that was stopped while it deleted
        shutil.rmtree(left, ignore_errors=True)
    total = sum(one.size for one in there)
    gone = []
    for one in reversed(there):
        if total > most and one.name not in keep and not is_held(one.path):
            with contextlib.suppress(OSError):  # another user's
                delete(one.path)
                total -= one.size
                gone.append(one)
    return gone
