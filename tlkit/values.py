"""Values: what a caller from Python gives for an option, as the option's own type.

In: any object. Out: `int`, `float`, `bool` or `str`, the very value that the option's text on the
command line gives; or `Misfit`. A text option says in `Limits.takes` (options.py) which objects
stand for its text: numbers, lists, switches, devices, patterns.
Not here: limits, choices, and what a text means.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any


class Misfit(Exception):
    """A value that no text of the option stands for."""


def converted(value: Any, kind: type, takes: tuple[str, ...] = ()) -> Any:
    """Return `value` as `kind`. Raises `Misfit`."""
    # Arrays and tensors without dimensions are numbers; those of NumPy's that are, stay as exact as
    # their text.
    if not isinstance(value, Real) and getattr(value, "shape", None) == ():
        value = value.item() if hasattr(value, "item") else value
    return KINDS[kind](value) if kind is not str else _text(value, takes)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Misfit


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise Misfit
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Decimal | Fraction) and str(value).lstrip("+-").isdecimal():
        return int(value)
    raise Misfit


def _number(value: Any) -> float:
    if isinstance(value, float) and type(value) is not float:
        value = float(value)  # numpy.float64, whose text differs between its versions
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise Misfit
    # The text of numpy.float32(0.1) is 0.1, its value is not.
    own = isinstance(value, Integral | float | Decimal | Fraction)
    try:
        return float(value) if own else float(str(value))
    except (ValueError, OverflowError) as error:
        raise Misfit from error


KINDS: Mapping[type, Callable[[Any], Any]] = {bool: _switch, int: _whole, float: _number}


def _text(value: Any, takes: tuple[str, ...]) -> str:
    """Return the text that stands for a value on the command line. Raises `Misfit`."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    for name in takes:
        text = TEXTS[name](value)
        if text is not None:
            return text
    raise Misfit


def _of_number(value: Any) -> str | None:
    try:
        return str(_whole(value))
    except Misfit:
        pass
    try:
        number = _number(value)
    except Misfit:
        return None
    return repr(number) if math.isfinite(number) else None


def _of_numbers(value: Any) -> str | None:
    return _of_number(value) or _joined(value, _of_number)


def _of_names(value: Any) -> str | None:
    return _joined(value, lambda item: str(item) if isinstance(item, str) else None)


def _joined(value: Any, text_of: Callable[[Any], str | None]) -> str | None:
    """Return the texts of all items with commas between; None where one has none."""
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        return None
    texts = [text_of(item) for item in value]
    return ",".join(text for text in texts if text is not None) if _all_there(texts) else None


def _all_there(texts: list[str | None]) -> bool:
    return bool(texts) and None not in texts


def _of_switch(value: Any) -> str | None:
    """Return what --tta alone means, and its opposite."""
    return {True: "mirror", False: "none"}[value] if isinstance(value, bool) else None


def _of_device(value: Any) -> str | None:
    # By name: importing torch for a check of options would cost seconds.
    named = type(value).__module__ == "torch" and type(value).__name__ == "device"
    return str(value) if named else None


def _of_pattern(value: Any) -> str | None:
    if not isinstance(value, re.Pattern) or not isinstance(value.pattern, str):
        return None
    flags = re.RegexFlag(value.flags) & ~re.UNICODE
    letters = "".join(
        letter
        for letter, flag in {"a": re.A, "i": re.I, "m": re.M, "s": re.S, "x": re.X}.items()
        if flags & flag
    )
    return f"(?{letters}){value.pattern}" if letters else value.pattern


def _of_time(value: Any) -> str | None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    text = _of_number(seconds)
    return None if text is None else f"{float(text):f}".rstrip("0").rstrip(".")


TEXTS: Mapping[str, Callable[[Any], str | None]] = {
    "number": _of_number,
    "numbers": _of_numbers,
    "names": _of_names,
    "switch": _of_switch,
    "device": _of_device,
    "pattern": _of_pattern,
    "time": _of_time,
}

IN_WORDS: Mapping[str, str] = {
    "number": "a number",
    "numbers": "a number, a list of numbers",
    "names": "a list of texts",
    "switch": "True or False",
    "device": "a torch.device",
    "pattern": "a compiled pattern",
    "time": "a number of seconds, a timedelta",
}
