"""Names: the files of a folder, millions of them, as two arrays and not as objects.

In: text. Out: sequences that make a `str` or a `Path` of a name when one is asked for.
Next door: folder.py, which finds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 4096
"""Names that are decoded one after another."""

END = "\0"
"""What no name has in it."""


class Names(Sequence[str]):
    """N names: the bytes of all in one piece, and where each begins and ends.

    What is taken from it shares the bytes. Equal to any sequence of the same names.
    """

    def __init__(
        self, data: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> None:
        self.data = data
        """UTF-8; what no UTF-8 was on the disk is what it was there."""
        self.begins = begins
        self.ends = ends

    @staticmethod
    def of(names: Iterable[str]) -> Names:
        """The same names, in order."""
        if isinstance(names, Names):
            return names
        data, ends, left = bytearray(), [0], iter(names)
        while some := [one.encode("utf-8", "surrogateescape") for one in islice(left, AT_ONCE)]:
            base = len(data)
            ends += (base + np.cumsum([len(one) for one in some])).tolist()
            data += b"".join(some)
        limits = np.array(ends, dtype=np.int64)
        return Names(np.frombuffer(data, np.uint8), limits[:-1], limits[1:])

    @staticmethod
    def of_text(data: bytes | bytearray) -> Names:
        """Of names in UTF-8, behind each of which stands `END`."""
        whole = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(whole == 0)
        begins = np.empty_like(ends)
        begins[:1] = 0
        begins[1:] = ends[:-1] + 1
        return Names(whole, begins, ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self.data, self.begins[index], self.ends[index])
        return _text(self.data.data, int(self.begins[index]), int(self.ends[index]))

    def __iter__(self) -> Iterator[str]:
        data = self.data.data
        for first in range(0, len(self), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            pairs = zip(self.begins[part].tolist(), self.ends[part].tolist(), strict=True)
            for begin, end in pairs:
                yield _text(data, begin, end)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return _told(self)

    def take(self, index: NDArray[np.int64]) -> Names:
        """The names at these positions."""
        return Names(self.data, self.begins[index], self.ends[index])


class Paths(Sequence[Path]):
    """The paths of names below a folder, each made when it is asked for."""

    def __init__(self, root: Path, names: Names) -> None:
        self.root = root
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Paths: ...
    def __getitem__(self, index: int | slice) -> Path | Paths:
        if isinstance(index, slice):
            return Paths(self.root, self.names[index])
        return self.root / self.names[index]

    def __iter__(self) -> Iterator[Path]:
        return map(self.root.joinpath, self.names)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return _told(self)

    def take(self, index: NDArray[np.int64]) -> Paths:
        """The paths at these positions."""
        return Paths(self.root, self.names.take(index))

    def texts(self) -> Iterator[str]:
        """`str` of each, several times as fast as by way of a `Path`."""
        before = "" if self.root == Path() else os.path.join(str(self.root), "")
        for one in self.names:
            yield before + (one if os.sep == "/" else one.replace("/", os.sep))


def _text(data: memoryview, begin: int, end: int) -> str:
    return str(data[begin:end], "utf-8", "surrogateescape")


def _same(one: Sequence[Any], other: object) -> bool:
    if not isinstance(other, Sequence) or isinstance(other, str):
        return False
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def _told(one: Sequence[Any]) -> str:
    some = ", ".join(repr(each) for each in one[:3])
    return f"{type(one).__name__}({len(one):,}: {some}{', ...' if len(one) > 3 else ''})"
