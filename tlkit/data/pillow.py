"""Pillow: its process-wide settings, set aside in the threads that decode for tlkit.

In: nothing. Out: a block in which Pillow decodes by tlkit's rules.
Pillow reads some settings from its modules while it decodes, and they belong to the user's program,
which may decode in other threads at the same time. So they are not changed: while tlkit decodes, an
object stands in their place that gives tlkit's threads tlkit's rule and all others the user's. When
the last thread has decoded, the user's own value is back.
Next door: images.py, which decodes.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile

TRUNCATED = "LOAD_TRUNCATED_IMAGES"
BOMB = "_decompression_bomb_check"


class _Decoding(threading.local):
    """Whether this thread decodes for tlkit."""

    now = False


_decoding = _Decoding()


class _NeverTruncated:
    """False for tlkit: a grey half would be learnt as if it were the photo. Else the user's."""

    def __init__(self, own: object) -> None:
        self.own = own

    def __bool__(self) -> bool:
        return not _decoding.now and bool(self.own)

    def __eq__(self, other: object) -> bool:
        return bool(self.own == other)

    def __hash__(self) -> int:
        return hash(self.own)

    def __repr__(self) -> str:
        return repr(self.own)


class _NoBombCheck:
    """Nothing for tlkit, which has a limit of its own and asks it first. Else the user's limit."""

    def __init__(self, own: Callable[..., None]) -> None:
        self.own = own

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if not _decoding.now:
            self.own(*args, **kwargs)


class _PillowHere:
    """Matches Pillow's modules for tlkit, whatever the user's filters of warnings say of them."""

    def match(self, module: str) -> bool:
        return _decoding.now and module.startswith("PIL.")


STAND_INS = ((ImageFile, TRUNCATED, _NeverTruncated), (Image, BOMB, _NoBombCheck))

# Pillow warns of broken tags, which do not matter here, and where a program makes errors of
# warnings, a photo with one would be unreadable.
_FILTER: Any = ("ignore", None, Warning, _PillowHere(), 0)


class _StandIns:
    """What stands in the place of the user's settings while any thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: list[Any] = []
        """The list that holds the filter. A program may have put another one in its place since."""

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            for module, name, stand_in in STAND_INS:
                own = getattr(module, name)
                if not isinstance(own, stand_in):
                    setattr(module, name, stand_in(own))
            filters: Any = warnings.filters
            if not filters or filters[0] is not _FILTER:
                self._remove_filter()
                self._filters = filters
                filters.insert(0, _FILTER)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            for module, name, stand_in in STAND_INS:
                there = getattr(module, name)
                if isinstance(there, stand_in):
                    setattr(module, name, there.own)
            self._remove_filter()

    def _remove_filter(self) -> None:
        filters: Any
        for filters in (self._filters, warnings.filters):
            if any(each is _FILTER for each in filters):
                filters[:] = [each for each in filters if each is not _FILTER]

    @property
    def undisturbed(self) -> bool:
        """Whether nobody has set a setting anew."""
        return all(isinstance(getattr(module, name), one) for module, name, one in STAND_INS)


_stand_ins = _StandIns()


@contextmanager
def by_own_rules() -> Iterator[Callable[[], bool]]:
    """Let this thread decode by tlkit's rules; what is given says whether they held until then.

    A program may set a setting in the middle: then what was decoded has to be decoded again.
    """
    before = _decoding.now
    _stand_ins.enter()
    _decoding.now = True
    try:
        yield lambda: _stand_ins.undisturbed
    finally:
        _decoding.now = before
        _stand_ins.leave()
