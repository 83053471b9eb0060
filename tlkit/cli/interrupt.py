"""Interrupt: Ctrl-C, once: stop after this step; twice: at once; or not here at all."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click


@contextlib.contextmanager
def after_this_step(note: str) -> Iterator[Callable[[], None]]:
    """What is yielded is called between two steps, and raises `KeyboardInterrupt` if it is time.

    `note` is shown at the first Ctrl-C. Outside of the main thread signals stay what they are.
    """
    asked = False

    def first(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        click.echo(f"\n{note}", err=True)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def not_here() -> Iterator[Callable[[], None]]:
    """Leave it to another process of the same job, without which this one cannot go on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield lambda: None
    finally:
        signal.signal(signal.SIGINT, before)
