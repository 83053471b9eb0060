"""Settings: what a program has set for its whole process, set aside while tlkit works in it.

In: a function or a generator. Out: the same, whose results do not depend on these settings, and
which leaves them as they were, also between the steps of a generator.
Settings of one thread (torch's default device, gradient and inference mode, autocast, numpy's
errors) are set for that thread alone. Those of the whole process (torch's default number type and
precision of products) have no other place: they are set where they differ from torch's own, while
any thread is inside, and then set back.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

Params = ParamSpec("Params")
Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ProcessSetting:
    """A setting that all threads of the process share."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    value: Any = None
    """What it is to be; None where it may be anything, and is only set back."""


class SetAside:
    """Settings of the process, set aside while any thread is inside the block."""

    def __init__(self, settings: Callable[[], Sequence[ProcessSetting]]) -> None:
        """`settings` is called when the first thread comes in."""
        self._settings = settings
        self._lock = threading.Lock()
        self._inside = 0
        self._users: list[tuple[ProcessSetting, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            for setting in self._settings():
                before = setting.read()
                if before != setting.value:
                    self._users.append((setting, before))
                    if setting.value is not None:
                        setting.write(setting.value)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            for setting, before in self._users:
                now = setting.read()
                # A value that the program has set meanwhile stays.
                if now != before and setting.value in (None, now):
                    setting.write(before)
            self._users.clear()


def _of_torch() -> Sequence[ProcessSetting]:
    """What torch computes by; nothing before it is imported: then everything is as it comes."""
    return _torchs() if _torch() is not None else ()


def _torch() -> Any:
    """Torch, where it has been imported, to its end."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "set_default_dtype") and hasattr(torch, "autocast") else None


@functools.cache
def _torchs() -> Sequence[ProcessSetting]:
    import torch

    always = (
        ProcessSetting(
            read=torch.get_default_dtype, write=torch.set_default_dtype, value=torch.float32
        ),
        ProcessSetting(read=_products, write=_set_products, value="highest"),
    )
    if not torch.cuda.is_available():
        return always
    cudnn = torch.backends.cudnn
    # tlkit sets it where it computes on a GPU.
    benchmark = ProcessSetting(
        read=lambda: cudnn.benchmark, write=lambda value: setattr(cudnn, "benchmark", value)
    )
    return *always, benchmark


def _products() -> str | tuple[str, ...]:
    """The precision of products of fp32 matrices: they may be bf16's, on processors too.

    A tuple where it was set by torch's newer way, in which each library has its own.
    """
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # what the libraries have is not what this one word says
        return tuple(each.fp32_precision for each in _libraries())


def _set_products(value: str | tuple[str, ...]) -> None:
    import torch

    if isinstance(value, str):
        torch.set_float32_matmul_precision(value)
        return
    for library, precision in zip(_libraries(), value, strict=True):
        library.fp32_precision = precision


def _libraries() -> tuple[Any, ...]:
    import torch

    backends: Any = torch.backends
    return backends.mkldnn.matmul, backends.cuda.matmul


_torchs_aside = SetAside(_of_torch)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Compute by tlkit's settings in this block, whatever the program has set.

    Never `yield` to a caller inside.
    """
    with _torchs_aside, np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        others = _of_this_thread()
        if not others:
            yield
            return
        with contextlib.ExitStack() as stack:
            for one in others:
                stack.enter_context(one)
            yield


def _of_this_thread() -> list[Any]:
    """Blocks that set torch's settings of this thread aside, as far as the program has set any."""
    torch = _torch()
    if torch is None:
        return []
    found: list[Any] = []
    if torch.is_inference_mode_enabled():
        found.append(torch.inference_mode(False))
    if found or not torch.is_grad_enabled():
        found.append(torch.enable_grad())
    found += [
        torch.autocast(device, enabled=False)
        for device in ("cpu", "cuda")
        if torch.is_autocast_enabled(device)
    ]
    if torch.empty(0).device.type != "cpu":
        found.append(torch.device("cpu"))
    return found


def with_own_settings(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Run a function by tlkit's settings; of a generator each step, and the caller's between."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: Params.args, **kwargs: Params.kwargs) -> Any:
            return (yield from _stepped(cast("Any", function(*args, **kwargs))))

        return cast("Callable[Params, Result]", steps)

    @functools.wraps(function)
    def whole(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        with own_settings():
            return function(*args, **kwargs)

    return whole


def _stepped(steps: Generator[Step, Any, Result]) -> Generator[Step, Any, Result]:
    """Pass on each step; the generator itself runs by tlkit's settings alone."""
    run: Callable[[], Step] = functools.partial(next, steps)
    while True:
        try:
            with own_settings():
                step = run()
        except StopIteration as end:
            return cast("Result", end.value)
        try:
            sent = yield step
        except GeneratorExit:
            with own_settings():
                steps.close()
            raise
        except BaseException as error:
            run = functools.partial(steps.throw, error)
        else:
            run = functools.partial(steps.send, sent)
