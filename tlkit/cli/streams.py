"""Streams: standard output and error that no lost reader, full disk or encoding can break.

In: the streams that Python has opened. Out: streams in their place, to which anybody may write at
any time: print, click, rich, warnings, libraries. A write that fails raises nothing: the first
failure is remembered, all that follows is dropped, and the work goes on. What it means for the
exit status is for failure.py to say.
Characters that the encoding of a stream lacks are written as escapes.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

ASCII_FOR = {"±": "+-", "…": "...", "─": "-", "━": "-", "╸": "-", "╺": "-"}
"""What stands for characters of tlkit's tables where an encoding lacks them."""

ESCAPES = "tlkit.escapes"

NAMES = ("stdin", "stdout", "stderr")


class OutputLost(Exception):
    """Standard output takes nothing more; `fault` is what the system said."""

    def __init__(self, fault: OSError) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Output(io.RawIOBase):
    """A raw stream whose writes never fail."""

    def __init__(self, stream: TextIO, raw: Any, *, closed: bool) -> None:
        self._stream = stream  # Python closes a raw stream with the last one who has it
        self._raw = raw
        self._closed = closed
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or drop all of it once a write has failed."""
        if self._closed:
            self.fault = OSError(errno.EBADF, "it is closed")
        while self.fault is None:
            try:
                written = self._raw.write(data)
            except OSError as error:
                self.fault = error
                break
            if written is not None:
                return int(written)
            # Whoever shares the terminal has made it non-blocking.
            select.select([], [self.fileno()], [])
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())


_OUTPUT: list[_Output] = []
"""Standard output, once it is guarded."""


def guard() -> None:
    """Put guarded streams in the place of standard output and error; open the missing ones."""
    codecs.register_error(ESCAPES, _escaped)
    missing = _open_missing()
    for name in NAMES[1:]:
        old = getattr(sys, name)
        raw = _raw_of(old)
        if raw is None:
            continue
        output = _Output(old, raw, closed=name in missing)
        stream = _text_stream(output, old.encoding, line_buffering=old.line_buffering)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        if name == "stdout":
            _OUTPUT[:] = [output]


def _open_missing() -> set[str]:
    """Open the null device for each standard stream that is closed; return their names.

    Otherwise the next file that is opened takes the number of the stream, and what a library
    prints ends up in that file.
    """
    missing = set()
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            missing.add(name)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115
    return missing


def _raw_of(stream: Any) -> Any:
    """The raw stream below a text stream of Python's own; None for any other kind of stream."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    with contextlib.suppress(OSError):
        stream.flush()
    return getattr(stream.buffer, "raw", stream.buffer)


class _AsciiStream(io.TextIOWrapper):
    """A text stream that is only given ASCII, under the name of an encoding that has more.

    click takes a stream whose encoding is ASCII for misconfigured, and writes UTF-8 to it.
    """

    def write(self, text: str) -> int:
        """Write what ASCII has, and escapes for the rest."""
        super().write(text.encode("ascii", ESCAPES).decode("ascii"))
        return len(text)


def _text_stream(output: _Output, encoding: str, *, line_buffering: bool) -> TextIO:
    is_ascii = codecs.lookup(encoding).name == "ascii"
    kind = _AsciiStream if is_ascii else io.TextIOWrapper
    return kind(
        io.BufferedWriter(output),
        encoding="latin-1" if is_ascii else encoding,
        errors=ESCAPES,
        line_buffering=line_buffering,
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: tlkit's own characters in ASCII, any other as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(
        ASCII_FOR.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
        for character in error.object[error.start : error.end]
    )
    return text, error.end


def fault() -> OSError | None:
    """Return why standard output takes nothing more; None while it does, or is not guarded."""
    return _OUTPUT[0].fault if _OUTPUT else None


def check_output() -> None:
    """Raise `OutputLost` where nothing more can be written: further results would be lost."""
    lost = fault()
    if lost is not None:
        raise OutputLost(lost)


def flush() -> None:
    """Hand on what is still buffered."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def in_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where file names are decoded as ASCII.

    There the letters of a name beyond ASCII are no letters, and the classes of a head would not be
    those of the same folder seen by any other process.
    """
    if sys.getfilesystemencoding() == "ascii" and sys.executable and len(sys.orig_argv) > 1:
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
