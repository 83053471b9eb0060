"""Desk: one thread owns the heads; images of many requests go through the network together.

In: images in memory, from any thread. Out: futures of their answers, each its own image's.
Images are decoded by several threads beside it. What waits is bounded in bytes: a reader whose
image finds no room waits, and begins no other. An answer that nobody waits for is not computed.
Not here: how much is let in at all (guard.py).
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tlkit.data.batches import even_parts
from tlkit.data.images import BadImage, Detail, Pixels, Unreadable
from tlkit.errors import AnswerError, pick
from tlkit.options import PredictOptions
from tlkit.predict.run import Prediction
from tlkit.predict.session import Look, Session
from tlkit.report.explain import Explainer, picture

MOST_DECODED = 256 * 2**20
"""Bytes of decoded images that may wait for the network."""

MOST_READERS = 4
"""Where no number is named: each may hold an image of `most_pixels` several times over."""

log = logging.getLogger("tlkit")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image that was read."""

    policy: str
    path: Path
    look: Look
    answer: Future[Prediction | BadImage]
    size: int


@dataclass(frozen=True, kw_only=True)
class _Chore:
    """Whatever else is done by the thread that owns the heads."""

    work: Callable[[], Any]
    answer: Future[Any]
    size: int = 0

    def do(self) -> None:
        if self.answer.set_running_or_notify_cancel():
            try:
                self.answer.set_result(self.work())
            except BaseException as error:  # whatever it was, the thread goes on
                self.answer.set_exception(_fault(error))


class Desk:
    """Where heads are asked. Raises, when it is made, what starting the first session raises."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        options: PredictOptions,
        *,
        gather_s: float = 0.005,
        told: Callable[[int], None] = lambda images: None,
    ) -> None:
        """`told` hears how many images have gone through the network together."""
        self.sessions = dict(sessions)
        self._most = options.batch
        self._gather_s = gather_s
        self._told = told
        self._started: dict[str, Session] = {}
        self._room = _Room(MOST_DECODED)
        self._waiting: queue.SimpleQueue[_Image | _Chore | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(
            options.workers or min(MOST_READERS, os.cpu_count() or 1),
            thread_name_prefix="tlkit-read",
        )
        self._thread = threading.Thread(target=self._work, name="tlkit-desk", daemon=True)
        self._thread.start()
        self.do(lambda: self._session(next(iter(self.sessions)))).result()

    @property
    def open(self) -> bool:
        """Whether questions are answered."""
        return self._thread.is_alive()

    def predict(self, policy: str, path: Path, data: bytes) -> Future[Prediction | BadImage]:
        """What the heads make of an image in a file's bytes; `path` is what to call it.

        Raises `UnknownName` for a policy that the heads cannot be asked under.
        """
        session = pick(self.sessions, policy, "test-time policy for this head")
        answer: Future[Prediction | BadImage] = Future()
        kept = _kept(answer, data)

        def then(look: Look) -> _Image:
            return _Image(policy=policy, path=path, look=look, answer=answer, size=_bytes(look))

        self._readers.submit(self._read, answer, path, lambda: session.look(kept.pop()), then)
        return answer

    def explain(
        self, explainer: Explainer, path: Path, data: bytes, target: str
    ) -> Future[bytes | BadImage]:
        """A PNG that shows where a class was seen on an image, as `explain.picture` makes it."""
        answer: Future[bytes | BadImage] = Future()
        kept = _kept(answer, data)

        def then(image: Mapping[Detail, Pixels]) -> _Chore:
            return _Chore(
                work=lambda: picture(explainer(path, image, target)),
                answer=answer,
                size=sum({id(pixels): pixels.nbytes for pixels in image.values()}.values()),
            )

        self._readers.submit(self._read, answer, path, lambda: explainer.decode(kept.pop()), then)
        return answer

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Have something done by the thread that owns the heads."""
        answer: Future[T] = Future()
        self._waiting.put(_Chore(work=work, answer=answer))
        return answer

    def close(self, *, wait: bool = True) -> None:
        """Answer what was read, and end; without `wait` with the process, whatever is open."""
        self._readers.shutdown(wait=wait, cancel_futures=True)
        if wait:
            self._waiting.put(None)
            self._thread.join()

    def _read(
        self,
        answer: Future[Any],
        path: Path,
        read: Callable[[], T],
        then: Callable[[T], _Image | _Chore],
    ) -> None:
        if answer.cancelled():
            return
        try:
            one = then(read())
        except Unreadable as error:
            _settle(answer, BadImage(path=path, reason=str(error)))
        except BaseException as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(_fault(error))
        else:
            self._room.take(one.size)
            self._waiting.put(one)

    def _work(self) -> None:
        while True:
            found, last = self._gathered()
            try:
                self._done(found)
            except BaseException:  # nothing ends this thread but `close`
                log.exception("the thread that asks the heads has met an error")
            finally:
                self._room.give(sum(one.size for one in found))
            if last:
                return

    def _done(self, found: list[_Image | _Chore]) -> None:
        images: dict[str, list[_Image]] = {}
        for one in found:
            if isinstance(one, _Image):
                images.setdefault(one.policy, []).append(one)
        asked = [size for policy, some in images.items() for size in self._answer(policy, some)]
        for one in found:
            if isinstance(one, _Chore):
                one.do()
        for size in asked:
            self._told(size)

    def _gathered(self) -> tuple[list[_Image | _Chore], bool]:
        """What has come within a few milliseconds, and whether it is the last."""
        found: list[_Image | _Chore] = []
        until = None
        while len(found) < self._most:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                one = self._waiting.get(timeout=left)
            except queue.Empty:
                break
            if one is None:
                return found, True
            found.append(one)
            until = until or time.monotonic() + self._gather_s
        return found, False

    def _answer(self, policy: str, images: list[_Image]) -> list[int]:
        """In the parts in which `predict` asks: one may be given up until its own begins.

        How many images of each went through the network.
        """
        most = max(1, self._most // self.sessions[policy].views)
        left = iter(images)
        parts = [itertools.islice(left, size) for size in even_parts(len(images), most)]
        return [asked for part in parts if (asked := self._ask(policy, part))]

    def _ask(self, policy: str, images: Iterable[_Image]) -> int:
        wanted = [one for one in images if one.answer.set_running_or_notify_cancel()]
        if not wanted:
            return 0
        try:
            session = self._session(policy)
            try:
                found = session.ask([(one.path, one.look) for one in wanted])
            except AnswerError:
                # One image of another request may have brought it about, and is not theirs.
                self._ask_each(session, wanted)
                return len(wanted)
        except BaseException as error:
            for one in wanted:
                one.answer.set_exception(_fault(error))
            return 0
        for one, prediction in zip(wanted, found, strict=True):
            one.answer.set_result(prediction)
        return len(wanted)

    def _ask_each(self, session: Session, images: Iterable[_Image]) -> None:
        """Ask for one image after the other; one that fails takes no other with it."""
        for image in images:
            try:
                (prediction,) = session.ask([(image.path, image.look)])
            except BaseException as error:
                image.answer.set_exception(_fault(error))
            else:
                image.answer.set_result(prediction)

    def _session(self, policy: str) -> Session:
        """With engines, which are started when they are first needed."""
        if policy not in self._started:
            made = (one for one in self._started.values() if all(r.crops for r in one.ready))
            self._started[policy] = self.sessions[policy].started(like=next(made, None))
        return self._started[policy]


class _Room:
    """Bytes that are taken and given back; what is larger than all of it gets it alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size

    def give(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()


def _kept(answer: Future[Any], data: bytes) -> list[bytes]:
    """An image's bytes, for one who takes them out; gone as soon as nobody waits for its answer."""
    kept = [data]
    answer.add_done_callback(lambda _: kept.clear())
    return kept


def _bytes(look: Look) -> int:
    """Of the scaled images that the views are parts of."""
    whole = [one if one.base is None else one.base for seen in look for one in seen.pixels]
    return sum({id(one): one.nbytes for one in whole}.values())


def _fault(error: BaseException) -> Exception:
    """What one who waits may get: `SystemExit` would end the server that waits for it."""
    if isinstance(error, Exception):
        return error
    fault = RuntimeError(f"{type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


def _settle(answer: Future[T], result: T) -> None:
    if answer.set_running_or_notify_cancel():
        answer.set_result(result)
