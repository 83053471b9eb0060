"""Device: where to compute, in which arithmetic, and from which random numbers.

In: the options' words. Out: a `Compute`. Training is told its arithmetic by `compute_on`; whatever
asks a head, in whichever command, by `compute_for_answers`, and by nothing else.
Next door: assemble.py (what is computed), engine.py (running what no longer changes).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from tlkit import cores, ranks
from tlkit.errors import OptionError, TlkitError
from tlkit.settings import ProcessSetting, SetAside

log = logging.getLogger("tlkit")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device and an arithmetic."""

    device: torch.device
    precision: str
    """`fp32` (never TF32) or `bf16` (autocast: master weights stay fp32)."""
    layout: str = "channels-last"
    """Of feature maps in memory: `channels-last` or `contiguous`."""

    @property
    def words(self) -> str:
        """cpu, fp32"""
        return f"{self.device}, {self.precision}"

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, convolutions in this layout."""
        module.to(self.device, memory_format=self._memory_format)  # type: ignore[call-overload]

    def run(self, module: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The module's output in fp32; gradients flow if the caller lets them.

        Raises `TlkitError` in a process that was forked from one that had computed.
        """
        cores.check_not_forked()
        inputs = self.send(inputs)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._memory_format)
        with self.arithmetic():
            output = module(inputs)
        return output.float()

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute in this precision inside the block, whatever the user's program has set."""
        if self.precision == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
            return
        # Not in an autocast of the user's either.
        with _no_shortcuts(self.device.type), torch.autocast(self.device.type, enabled=False):
            yield

    def infer(self, module: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """As `run`, without gradients; in halves of halves where the memory does not hold it all.

        Raises `TlkitError` where it does not hold one.
        """
        with torch.inference_mode():
            try:
                return self.run(module, inputs)
            except torch.OutOfMemoryError as error:
                if len(inputs) == 1:
                    raise TlkitError(
                        f"the memory of {self.device} is too small to run this network",
                        found="no room for one image",
                        expected="room for at least that",
                        do="take a smaller --backbone, or --device cpu",
                    ) from error
            log.info("%d images at once are too many for the memory: in halves", len(inputs))
            torch.cuda.empty_cache()
            half = len(inputs) // 2
            return torch.cat([self.infer(module, inputs[:half]), self.infer(module, inputs[half:])])

    def send(self, inputs: Tensor) -> Tensor:
        """On the device; to a GPU beside what it is computing."""
        if self.device.type != "cuda" or inputs.device.type != "cpu":
            return inputs.to(self.device)
        copies = _copies(self.device)
        with torch.cuda.stream(copies):
            sent = inputs.pin_memory().to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(copies)
        sent.record_stream(computing)
        return sent

    def fetch(self, found: Tensor) -> Callable[[], Tensor]:
        """Begin to bring it to the CPU; what is returned waits for it."""
        if found.device.type != "cuda":
            there = found.cpu()
            return lambda: there
        coming = found.to("cpu", non_blocking=True)  # into memory that torch pins
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(found.device))

        def wait() -> Tensor:
            arrived.synchronize()
            return coming

        return wait

    @property
    def _memory_format(self) -> torch.memory_format:
        last = self.layout == "channels-last"
        return torch.channels_last if last else torch.contiguous_format


def compute_on(device: str, precision: str, layout: str = "auto") -> Compute:
    """What the options mean. Raises `OptionError` for a device that is not there, and `TlkitError`
    in a process that was forked from one that had computed.
    """
    cores.check_not_forked()
    chosen = _device(device)
    if precision == "auto":
        precision = "bf16" if _has_bf16_units(chosen) else "fp32"
    if chosen.type == "cpu":
        _keep_memory()
        if (most := cores.limit()) is not None:
            torch.set_num_threads(most)
    if chosen.type == "cuda":
        # Batches are of one or two shapes, each of which cuDNN tries its algorithms on once.
        torch.backends.cudnn.benchmark = True
    layout = "channels-last" if layout == "auto" else layout
    return Compute(device=chosen, precision=precision, layout=layout)


def compute_for_answers(
    device: str, precision: str = "auto", *, fitted: str, layout: str = "auto"
) -> Compute:
    """Decide in which arithmetic a head answers: the one rule of every command that asks a head.

    `auto` is fp32, on every device, with every engine and for any number of images. bf16 changes
    a probability by some hundredths, and otherwise on every engine, so it computes answers only
    where the user names it, or `as-fitted` means it: `fitted` is what the head was trained with.
    Raises `OptionError` for a device that is not there.
    """
    named = {"auto": "fp32", "as-fitted": fitted}
    return compute_on(device, named.get(precision, precision), layout)


def _has_bf16_units(device: torch.device) -> bool:
    """Whether the device multiplies bf16 faster than fp32, and not only pretends to."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
        return False
    units = torch.cpu.get_capabilities()
    return bool(units.get("amx_bf16") or units.get("avx512_bf16"))


def _device(name: str) -> torch.device:
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name in ("auto", "cuda") and "cuda" in there and ranks.here().several:
        own = torch.device("cuda", ranks.here().local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        return own
    if name == "auto":
        return torch.device(next((one for one in ("cuda", "mps") if one in there), "cpu"))
    if name not in there:
        why, do = _absent(name.partition(":")[0])
        raise OptionError(
            f"there is no device '{name}' here",
            found=f"--device {name}{why}",
            expected=f"auto, {', '.join(there)}",
            do=do or "choose one of these",
        )
    return torch.device(name)


def _absent(kind: str) -> tuple[str, str]:
    """Return why a kind of device is not there, and what to do; empty where neither is known."""
    if kind == "gpu":
        return ", which torch calls cuda or mps", "choose one of these"
    if kind == "cuda":
        if torch.version.cuda is None and torch.version.hip is None:
            return (
                f", and torch {torch.__version__} is built for the CPU alone",
                "install a torch that is built for the GPU (https://pytorch.org), or use cpu",
            )
        if not torch.cuda.is_available():
            return (
                ", and torch finds no GPU, or no driver for one",
                "see whether `nvidia-smi` lists the GPU and CUDA_VISIBLE_DEVICES does not hide it, "
                "or use cpu",
            )
    if kind == "mps":
        if not torch.backends.mps.is_built():
            return ", and this torch is built without it: it is for Macs alone", "use cpu"
        if not torch.backends.mps.is_available():
            return ", and this Mac has no GPU for it, or a macOS that is too old", "use cpu"
    return "", ""


@cache
def _no_shortcuts(kind: str) -> SetAside:
    """Keep fp32 products fp32 on a kind of device, while any thread is inside.

    Neither TF32, which cuDNN takes unless told otherwise, nor bf16.
    """

    def settings() -> list[ProcessSetting]:
        return [
            ProcessSetting(
                read=partial(getattr, one, "fp32_precision"),
                write=partial(setattr, one, "fp32_precision"),
                value="ieee",
            )
            for one in _products(kind)
            if one.fp32_precision not in ("none", "ieee")
        ]

    return SetAside(settings)


def _products(kind: str) -> list[Any]:
    """Torch's settings for the products of fp32 numbers on a kind of device."""
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "matmul"):  # before torch 2.9
        return [_Tf32(one) for one in (backends.cuda.matmul, backends.cudnn)]
    if kind == "cuda":
        return [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    return [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]


class _Tf32:
    """A setting of torch before 2.9, in the words of the later ones."""

    def __init__(self, setting: Any) -> None:
        self.setting = setting

    @property
    def fp32_precision(self) -> str:
        return "tf32" if self.setting.allow_tf32 else "ieee"

    @fp32_precision.setter
    def fp32_precision(self, word: str) -> None:
        self.setting.allow_tf32 = word == "tf32"


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream that brings images to this GPU."""
    return torch.cuda.Stream(device)


@cache
def _keep_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system.

    Every pass of a network frees and takes the same large blocks; by default each of them is
    unmapped and faulted in again, which takes longer than much of the arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        mmap_threshold, trim_threshold = -3, -1
        if not library.mallopt(mmap_threshold, 1 << 30):
            library.mallopt(mmap_threshold, 1 << 25)  # the most that glibc takes before 2.35
        library.mallopt(trim_threshold, 1 << 30)


@contextlib.contextmanager
def drawn(*key: str | int) -> Iterator[None]:
    """Random numbers inside the block are a function of `key` alone; the caller's are untouched.

    So a step can be repeated without what came before it. Never `yield` to a caller inside.
    """
    stream = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream)
        yield
