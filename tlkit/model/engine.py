"""Engine: what runs a network that no longer changes over many images, as fast as the machine can.

In: a module in eval mode whose first part is the normalisation, so that uint8 goes in; where to
compute; how much work there is. Out: a `Runner`, which gives fp32 on the CPU, and can begin with
the next images before it is asked for the last ones.
An engine is a row in `ENGINES`. Compiling takes seconds, so `auto` weighs it against the work; the
numbers that it weighs by are constants, for the same folder must always get the same engine.
Which engine it is decides how long an answer takes and not what it is: one that moves a head's
scores, on pictures that are always the same, by more than `PROMISE` is not used for that head.
Next door: device.py (device and precision), which also runs what is still being trained.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from tlkit import cache, cores
from tlkit.backbone import InputSpec
from tlkit.errors import DiskError, OptionError, TlkitError, briefly, machine_error, pick
from tlkit.files import disk_errors
from tlkit.model.device import Compute
from tlkit.weights import digest

Answer = Callable[[], Tensor]
"""Waits for (B, ...) fp32 on the CPU. Called once."""

Submit = Callable[[Tensor], Answer]
"""Begins with (B, channels, px, px) uint8; B is at least 1."""

T = TypeVar("T")
Found = TypeVar("Found")

Keep = Literal["nothing", "found", "anew"]
"""Of what was compiled, for the next process: nothing; what is there already or is made now; that
which is made now, in the place of what is there."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done, for all images together."""

    images: int
    """Views, if an image has several."""
    multiply_adds: int
    """Of one image."""
    any_size: bool = False
    """Whether images of other sizes than the example's come too."""

    @property
    def total(self) -> float:
        return float(self.images) * self.multiply_adds


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A row of the table."""

    about: str
    lacks: Callable[[Compute], str]
    """What is missing to use it here; empty where nothing is."""
    make: Callable[[nn.Module, Compute, Tensor, Work, Keep], Submit]
    """(module, compute, example images, work, keep) -> what runs the module."""
    start_s: float
    """Seconds that making it takes."""
    speed: Mapping[str, float]
    """Times the speed of eager, by precision."""
    any_size: bool = True
    """Whether what was made runs images of other sizes than the example's."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine that was asked for or decided on, not started yet."""

    name: str
    asked: bool
    """Whether the user named it: then nothing else will do."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A module, started on an engine."""

    name: str
    submit: Submit
    fallback: str = ""
    """Why it is not the engine that was decided on; empty where it is."""

    def __call__(self, images: Tensor) -> Tensor:
        return self.submit(images)()

    def each(self, parts: Iterable[tuple[T, Tensor]]) -> Iterator[tuple[T, Tensor | None]]:
        """Each part with the answer to its images, in order; None where it has none.

        One part ahead: the next is computed while the caller works with an answer.
        """
        return one_ahead(
            (part, self.submit(images) if len(images) else lambda: None) for part, images in parts
        )


def one_ahead(begun: Iterable[tuple[T, Callable[[], Found]]]) -> Iterator[tuple[T, Found]]:
    """What was begun with each, once it is there, in order; the next one is begun before."""
    waiting: deque[tuple[T, Callable[[], Found]]] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > 1:
            first, answer = waiting.popleft()
            yield first, answer()
    for last, answer in waiting:
        yield last, answer()


# Multiply-adds a second and core that eager reaches, of fp32 and bf16: the orders of magnitude
# measured for EfficientNet-Lite0 and ResNet-50 on processors without and with matrix units.
PACE = {"fp32": 1.5e10, "bf16": 8e10}
ON_GPU = 500.0
"""Cores of a processor that a GPU is worth here."""

FEWEST = 16
"""Images that a network compiled by torch is given, some of them repeated if need be: for fewer, it
would be compiled a second time, with other convolutions."""

TOGETHER = 4
"""Images that OpenVINO is given at once: of more, what one layer leaves to the next has gone from
the processor's caches."""

WORTH_FOLDING = 5e9
"""Multiply-adds below which folding BatchNorms takes longer than it saves."""

TOLERANCE = {"fp32": 1e-3, "bf16": 1e-1}
"""Largest difference from eager, as a share of the largest output, by precision."""

PROMISE = 1e-3
"""Largest difference between two probabilities of one image by one head in fp32, whichever command
and engine gives them. Scores (logits over the temperature) may differ from eager's by as much: that
moves a probability by at most half of it, so that two engines are within it of each other."""

Scores = Callable[[Tensor], Tensor]
"""What an engine gives (B, ...) -> the scores (B, C) that come of it in the end."""


def example_for(spec: InputSpec) -> Tensor:
    """Two images of noise, always the same: that padding is right cannot be seen on one colour."""
    noise = torch.Generator().manual_seed(0)
    shape = (2, spec.channels, *spec.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)


def work_of(
    module: nn.Module, compute: Compute, example: Tensor, images: int
) -> tuple[Work, Tensor]:
    """The work for so many images like the example (1, ...), and eager's answer to that.

    Counted are convolutions and linear layers, where nearly all of it is; `tlkit summary` counts
    all, by a counter that takes longer to import than these images may take.
    """
    counted = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.get_parameter("weight")[0].numel()

    layers = [one for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        answer = compute.infer(module, example).cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return Work(images=images, multiply_adds=counted), answer


def choose(asked: str, compute: Compute, work: Work) -> Choice:
    """The engine that `--engine` means. Raises `UnknownName`, and `OptionError` for one that lacks
    something here.
    """
    if asked != "auto":
        row = pick(ENGINES, asked, "engine", also=", or auto")
        if lacking := row.lacks(compute):
            raise OptionError(
                f"the engine {asked} cannot be used here",
                found=lacking,
                expected="what it needs",
                do="install it, or use --engine auto",
            )
        if work.any_size and not row.any_size:
            return Choice(
                name="eager",
                asked=False,
                reason=f"engine for whole images: eager, {compute.words}: {asked} runs one size",
            )
        return Choice(name=asked, asked=True, reason=f"engine: {asked}, {compute.words}")
    there = {
        name: row
        for name, row in ENGINES.items()
        if not row.lacks(compute) and (row.any_size or not work.any_size)
    }
    seconds = {name: _seconds(row, compute, work) for name, row in there.items()}
    best = min(seconds, key=lambda name: seconds[name])
    size = f"{work.images} views of {work.multiply_adds / 1e6:.0f} million multiply-adds"
    if best == "eager":
        why = f"{size} are not worth compiling" if len(there) > 1 else "the only one here"
    else:
        why = f"{size} are worth {ENGINES[best].start_s:.0f} s of compiling"
    return Choice(name=best, asked=False, reason=f"engine: {best}, {compute.words}: {why}")


def _seconds(row: Engine, compute: Compute, work: Work) -> float:
    # The machine's, whatever this process may use of them: its part of the work is as small.
    count = cores.every() if compute.device.type == "cpu" else ON_GPU
    return row.start_s + work.total / (
        PACE[compute.precision] * count * row.speed[compute.precision]
    )


def start(
    choice: Choice,
    module: nn.Module,
    compute: Compute,
    example: Tensor,
    work: Work,
    *,
    keep: bool = False,
    scores: Scores | None = None,
) -> Runner:
    """Start an engine and hold its answer against eager's.

    With `scores`, what comes of the answer is held against `PROMISE` too. Where it fails or answers
    otherwise: `OptionError` if it was asked for, else eager. The module must be in eval mode and
    placed.
    """

    def make(name: str, keep: Keep = "nothing") -> Submit:
        return ENGINES[name].make(module, compute, example, work, keep)

    def fault_of(submit: Submit) -> str:
        pictures = example if scores is None else _with_smooth(example)
        sizes = [pictures, _larger(pictures)] if work.any_size else [pictures]
        faults = (_fault(submit, module, compute, one, scores) for one in sizes)
        return next(filter(None, faults), "")

    if choice.name == "eager":
        submit = make("eager")
        if scores is not None and _folds(work, compute) and fault_of(submit):
            submit = _plain(module, compute)
        return Runner(name="eager", submit=submit)
    # What was kept may be of other code with the same tensors: then it is made anew.
    tries: tuple[Keep, ...] = ("found", "anew") if keep else ("nothing",)
    fault = ""
    lacking: TlkitError | None = None
    for how in tries:
        try:
            submit = make(choice.name, how)
            fault = fault_of(submit)
        except Exception as error:  # compilers raise whatever a stranger's network leads them to
            fault, lacking = briefly(error), machine_error(error)
        if not fault:
            return Runner(name=choice.name, submit=submit)
    if lacking is not None and choice.asked:
        raise lacking
    if choice.asked:
        raise OptionError(
            f"the engine {choice.name} cannot run this network",
            found=fault,
            expected=f"what eager gives, within {TOLERANCE[compute.precision]:g} of the largest "
            "number" + (f", and scores within {PROMISE:g}" if scores is not None else ""),
            do="use --engine eager or --engine auto",
        )
    return Runner(
        name="eager",
        submit=make("eager"),
        fallback=f"{choice.name} cannot run this network: {fault}"
        if lacking is None
        else f"{choice.name} is not used: {lacking.about}: {fault}",
    )


def _fault(
    submit: Submit,
    module: nn.Module,
    compute: Compute,
    example: Tensor,
    scores: Scores | None,
) -> str:
    """How far it is from eager, where that is too far."""
    expected = compute.infer(module, example).cpu()
    found = submit(example)()
    if found.shape != expected.shape:
        return f"an output {tuple(found.shape)}, not {tuple(expected.shape)}"
    off = off_by(found, expected)
    if not off <= TOLERANCE[compute.precision]:
        return f"an answer that is off by {off:.2g}"
    if scores is None:
        return ""
    wanted = scores(expected)
    if not wanted.isfinite().all():
        return ""  # the head is at fault, and its answers will say so
    moved = float((scores(found) - wanted).abs().max())
    return "" if moved <= PROMISE else f"scores that are off by {moved:.2g}"


def _with_smooth(images: Tensor) -> Tensor:
    """The images, and behind them what is left of them without detail: as photos mostly are."""
    rough = nn.functional.adaptive_avg_pool2d(images.float(), 8)
    contrast = (rough - rough.mean()) * (64 / rough.std().clamp_min(1e-6)) + 128
    smooth = nn.functional.interpolate(contrast, images.shape[2:], mode="bilinear")
    return torch.cat([images, smooth.round().clamp(0, 255).to(torch.uint8)])


def _larger(images: Tensor) -> Tensor:
    """Images of another size, odd where the first was even: padding may depend on that."""
    height, width = images.shape[2:]
    rows, columns = torch.arange(height + height // 8 + 1), torch.arange(width + width // 4 + 1)
    return images[:, :, rows % height][:, :, :, columns % width]


def off_by(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two answers of one shape, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _eager(module: nn.Module, compute: Compute, example: Tensor, work: Work, keep: Keep) -> Submit:
    return _plain(_folded(module, compute, example) if _folds(work, compute) else module, compute)


def _folds(work: Work, compute: Compute) -> bool:
    """Whether eager folds BatchNorms for so much work."""
    return work.total >= WORTH_FOLDING and compute.precision == "fp32"


def _plain(module: nn.Module, compute: Compute) -> Submit:
    """What runs a module as it is."""

    def submit(images: Tensor) -> Answer:
        with torch.inference_mode():
            return compute.fetch(compute.infer(module, images))

    return submit


def _folded(module: nn.Module, compute: Compute, example: Tensor) -> nn.Module:
    """A copy with BatchNorms in the convolutions before them; the module where that fails."""
    from torch.fx.experimental.optimization import fuse

    try:
        folded: nn.Module = fuse(module)
        compute.place(folded)
        with torch.inference_mode():
            found, expected = compute.run(folded, example), compute.run(module, example)
    except Exception:  # torch.fx cannot follow every network
        return module
    same = found.shape == expected.shape and torch.allclose(
        found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )
    return folded if same else module


def _inductor(
    module: nn.Module, compute: Compute, example: Tensor, work: Work, keep: Keep
) -> Submit:
    import torch._dynamo
    import torch._inductor.config

    on_gpu = compute.device.type == "cuda"
    # CUDA graphs, which spare launching each kernel.
    compiled: Any = torch.compile(module, mode="reduce-overhead" if on_gpu else None)

    def for_any_number(images: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(images, 0)
        found: Tensor = compiled(images)
        return found

    def submit(images: Tensor) -> Answer:
        count = len(images)
        if count < FEWEST:
            images = images[torch.arange(FEWEST) % count]
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            # A copy: the next run of a graph writes where this one did.
            return compute.fetch(compute.run(for_any_number, images)[:count].clone())

    return submit


def _openvino(
    module: nn.Module, compute: Compute, example: Tensor, work: Work, keep: Keep
) -> Submit:
    with without_telemetry():
        import openvino
    precision = {"fp32": "f32", "bf16": "bf16"}[compute.precision]
    wanted = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    if (most := cores.limit()) is not None:
        wanted["INFERENCE_NUM_THREADS"] = str(most)
        wanted["ENABLE_CPU_PINNING"] = "NO"  # each process would take the same cores
    with contextlib.ExitStack() as stack:
        file = None
        if keep != "nothing":
            place = _kept_at(module, example, openvino.__version__, any_size=work.any_size)
            file = _from_cache(module, example, place, work, stack, anew=keep == "anew")
        if file is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlkit-")))
            file = _convert(module, example, place, any_size=work.any_size)
        # Always from the file: as it was converted, the last bits are others.
        compiled = openvino.Core().compile_model(file, "CPU", wanted)
    if keep != "nothing":
        cache.prune(keep=[place.name])
    # What comes in any size stays together: each stream would prepare for each size.
    return _requests(compiled, together=0 if work.any_size else TOGETHER)


def _requests(compiled: Any, *, together: int) -> Submit:
    """What runs a compiled network by requests of so many images; 0: all of them in one.

    They run at once, and behind those that were begun before.
    """
    streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    # One behind each that runs: making a request takes tens of milliseconds, and memory.
    idle = [compiled.create_infer_request() for _ in range(2 * streams)]
    running: deque[tuple[Any, dict[int, Tensor], int]] = deque()

    def settle() -> None:
        """Take the answer of the oldest request, which is then free."""
        request, found, begin = running.popleft()
        request.wait()
        found[begin] = torch.from_numpy(request.get_output_tensor(0).data.copy())
        idle.append(request)

    def submit(images: Tensor) -> Answer:
        every = images.contiguous().numpy()
        size = min(together, -(-len(every) // streams)) if together else len(every)
        begins = range(0, len(every), size)
        found: dict[int, Tensor] = {}
        for begin in begins:
            if not idle:
                settle()
            request = idle.pop()
            request.start_async([every[begin : begin + size]])
            running.append((request, found, begin))

        def answer() -> Tensor:
            while len(found) < len(begins):
                settle()
            return torch.cat([found[begin] for begin in begins]).float()

        return answer

    return submit


def as_openvino(module: nn.Module, example: Tensor, *, any_size: bool = False) -> Any:
    """The module as an `openvino.Model`, for any number of images."""
    with without_telemetry():
        import openvino
    sides = (-1, -1) if any_size else tuple(example.shape[2:])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's about tracing
        # Here, because openvino would have torch check what is traced: two more passes, and the
        # import of torch's compiler. The answer is checked against eager's anyway.
        traced = torch.jit.trace(module, example, check_trace=False)
        return openvino.convert_model(
            traced, example_input=example, input=[(-1, example.shape[1], *sides)]
        )


def _from_cache(
    module: nn.Module,
    example: Tensor,
    place: Path,
    work: Work,
    stack: contextlib.ExitStack,
    *,
    anew: bool,
) -> Path | None:
    """The converted network in the cache, made there if need be; None where it cannot be."""
    file = place / NETWORK
    try:
        held = cache.begin(place, {"what": "a network, compiled by openvino"})
        stack.callback(cache.end, held)
        if anew or not file.exists():
            _convert(module, example, place, any_size=work.any_size)
    except DiskError as error:
        cache.go_without(error)
        return None if anew or not os.path.isfile(file) else file
    return file


NETWORK = "network.xml"
"""The description of a converted network; its numbers are beside it."""


def _convert(module: nn.Module, example: Tensor, place: Path, *, any_size: bool) -> Path:
    """Write the module as openvino has it into a folder. Raises `DiskError`."""
    import openvino

    network = as_openvino(module, example, any_size=any_size)
    numbers = Path(NETWORK).with_suffix(".bin").name
    with disk_errors(place), tempfile.TemporaryDirectory(dir=place) as beside:
        try:
            openvino.save_model(network, Path(beside) / NETWORK, compress_to_fp16=False)
        except RuntimeError as error:  # it can be described: what fails is the disk
            raise DiskError(
                f"{place} cannot be written",
                found=briefly(error),
                expected="a disk with room, and the permission to write",
                do="free some space",
            ) from error
        # The numbers first: the description says that all is there.
        for name in (numbers, NETWORK):
            (Path(beside) / name).replace(place / name)
    return place / NETWORK


def _kept_at(module: nn.Module, example: Tensor, version: str, *, any_size: bool) -> Path:
    """Where the cache has a converted network."""
    shape = (*example.shape, "any size") if any_size else tuple(example.shape)
    made_of = (version, str(module), shape, digest(module.state_dict().items()))
    return cache.root() / f"openvino-{blake2b(repr(made_of).encode(), digest_size=16).hexdigest()}"


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Openvino tells its makers that it was imported, unless their package is not there."""
    name = "openvino_telemetry"
    if name in sys.modules or "openvino" in sys.modules:
        yield  # the user's program has imported it before
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _lacks_openvino(compute: Compute) -> str:
    if compute.device.type != "cpu":
        return f"the device {compute.device}; it runs on the processor"
    return "" if find_spec("openvino") else "no package openvino: pip install 'tlkit[openvino]'"


def _lacks_inductor(compute: Compute) -> str:
    if compute.device.type == "cuda":
        return "" if find_spec("triton") else "no package triton"
    if compute.device.type != "cpu":
        return f"the device {compute.device}"
    there = any(shutil.which(one) for one in ("g++", "clang++", "cl"))
    return "" if there else "no C++ compiler"


ENGINES: Mapping[str, Engine] = {
    "eager": Engine(
        about="torch as it is, channels-last, BatchNorms folded into the convolutions before them",
        lacks=lambda compute: "",
        make=_eager,
        start_s=0.0,
        speed={"fp32": 1.0, "bf16": 1.0},
    ),
    "openvino": Engine(
        about="compiled for the processor by OpenVINO, in about 2 s: "
        "`pip install 'tlkit[openvino]'`",
        lacks=_lacks_openvino,
        make=_openvino,
        start_s=2.0,
        speed={"fp32": 1.8, "bf16": 3.0},
    ),
    "inductor": Engine(
        about="compiled by torch, in about half a minute; needs a C++ compiler, or triton on a GPU",
        lacks=_lacks_inductor,
        make=_inductor,
        start_s=30.0,
        speed={"fp32": 1.2, "bf16": 2.5},
        any_size=False,
    ),
}
