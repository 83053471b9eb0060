"""Signature: which journals the user's own tlkit has written, on this machine.

In: what a journal begins with. Out: a signature of it, and later whether a signature is ours.
A journal that came with a folder from elsewhere may name any folder to move files to; with our
signature it names the one that the user has named. The key lies in the cache and is readable by its
owner alone. Without it, because the cache was deleted or cannot be written to, nothing is signed
and nothing is recognised, and the user is asked.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlkit import cache
from tlkit.files import rename_new

KEY = "journal.key"
KEY_BYTES = 32
POSIX = os.name == "posix"


def sign(record: Mapping[str, Any]) -> str:
    """Return the signature of a record; empty where there can be no key."""
    with contextlib.suppress(OSError):
        return _signature(_key() or _new_key(), record)
    return ""


def is_ours(record: Mapping[str, Any], signature: object) -> bool:
    """Return whether `sign` gave this signature for this record, to this user on this machine."""
    with contextlib.suppress(OSError):
        key = _key()
        if key is not None and isinstance(signature, str):
            return hmac.compare_digest(
                _signature(key, record).encode(), signature.encode("utf-8", "surrogatepass")
            )
    return False


def _signature(key: bytes, record: Mapping[str, Any]) -> str:
    return hmac.new(key, json.dumps(record, sort_keys=True).encode(), "sha256").hexdigest()


def _key() -> bytes | None:
    """Return the key; None where there is none, or one that others may have read or written."""
    try:
        opened = os.open(cache.root() / KEY, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(opened, "rb") as file:
        status = os.fstat(opened)
        if POSIX and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
            return None
        key = file.read(KEY_BYTES + 1)
    return key if len(key) == KEY_BYTES else None


def _new_key() -> bytes:
    """Make a key, or return the one that another process makes just now. Raises `OSError`."""
    folder = cache.root()
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f".{KEY}.{secrets.token_hex(4)}.tmp"
    _write(written, secrets.token_bytes(KEY_BYTES))
    try:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            rename_new(written, folder / KEY)
    finally:
        for one in folder.glob(f".{KEY}.*.tmp"):  # also of processes that were killed
            one.unlink(missing_ok=True)
    key = _key()
    if key is None:
        raise _no_key(folder / KEY)
    return key


def _write(path: Path, data: bytes) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(opened)


def _no_key(path: Path) -> OSError:
    return PermissionError(f"{path} is not the user's own")
