"""Formats: the runtimes that a network can be written for. A format is a row in `FORMATS`.

In: a module from uint8 images to probabilities. Out: files, and what they answer when they are run.
Every library is imported inside its row's functions.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.model.engine import as_openvino, without_telemetry

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], NDArray[Any]]
"""(B, channels, height, width) -> (B, C)."""

IMAGES, PROBABILITIES = "images", "probabilities"
"""The names of the input and of the output."""

INT8 = ("Conv", "Gemm", "MatMul")
"""ONNX operations that are worth it."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A row of the table."""

    about: str
    extra: str
    """Of tlkit, which brings the packages."""
    needs: tuple[str, ...]
    """Modules that must be there."""
    needs_int8: tuple[str, ...] = ()
    write: Callable[[nn.Module, Tensor, Path], None]
    """(module, example images, folder)"""
    open: Callable[[Path], Run]
    quantise: Callable[[Path, Iterable[Pixels]], None] | None = None
    """(folder, images) -> the same files in int8; None where there is no such thing."""
    code: str
    """How it is run, in Python: `images` are given, `probabilities` found."""

    def lacking(self, int8: bool) -> list[str]:
        """Modules that are not installed."""
        wanted = (*self.needs, *(self.needs_int8 if int8 else ()))
        return [one for one in wanted if find_spec(one) is None]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters tell standard output and the logs what they are doing, step by step."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _any_number() -> dict[str, Any]:
    """What torch.export is told: the number of images is free."""
    return {IMAGES: {0: torch.export.Dim("batch", min=1, max=1 << 16)}}


def _write_onnx(module: nn.Module, example: Tensor, folder: Path) -> None:
    with _quietly():
        torch.onnx.export(
            module, (example,), folder / "model.onnx", dynamo=True, external_data=False,
            input_names=[IMAGES], output_names=[PROBABILITIES],
            dynamic_shapes=_any_number(), optimize=True, verbose=False,
        )  # fmt: skip


def _open_onnx(folder: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {IMAGES: images})[0]


def _quantise_onnx(folder: Path, images: Iterable[Pixels]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Pixels] | None:
            found = next(self.left, None)
            return None if found is None else {IMAGES: found}

    model, ready = folder / "model.onnx", folder / "ready.onnx"
    with _quietly():
        quant_pre_process(model, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, model, Reader(), per_channel=True, op_types_to_quantize=list(INT8),
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    ready.unlink()


def _write_openvino(module: nn.Module, example: Tensor, folder: Path) -> None:
    with without_telemetry():
        import openvino
    with _quietly():
        network = as_openvino(module, example)
    network.inputs[0].get_tensor().set_names({IMAGES})
    network.outputs[0].get_tensor().set_names({PROBABILITIES})
    openvino.save_model(network, folder / "model.xml", compress_to_fp16=False)


def _open_openvino(folder: Path) -> Run:
    with without_telemetry():
        import openvino
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", exact)
    return lambda images: compiled(images)[0]


def _quantise_openvino(folder: Path, images: Iterable[Pixels]) -> None:
    with without_telemetry():
        import nncf
        import openvino
    model = folder / "model.xml"
    network = openvino.Core().read_model(model)
    data = list(images)
    with _quietly():
        made = nncf.quantize(network, nncf.Dataset(data), subset_size=len(data))
    del network  # which holds the file open
    openvino.save_model(made, folder / "int8.xml", compress_to_fp16=False)
    for ending in (".bin", ".xml"):
        (folder / f"int8{ending}").replace(model.with_suffix(ending))


def _write_torch(module: nn.Module, example: Tensor, folder: Path) -> None:
    with _quietly():
        program = torch.export.export(module, (example,), dynamic_shapes=_any_number())
        # Not to the file: where the disk is full, torch's writer ends the process.
        content = io.BytesIO()
        torch.export.save(program, content)
        (folder / "model.pt2").write_bytes(content.getbuffer())


def _open_torch(folder: Path) -> Run:
    with _quietly():
        module = torch.export.load(folder / "model.pt2").module()

    def run(images: Pixels) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = module(torch.from_numpy(images)).numpy()
            return found

    return run


FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        about="ONNX, for ONNX Runtime and whatever else reads it",
        extra="tlkit[onnx]",
        needs=("onnx", "onnxscript", "onnxruntime"),
        write=_write_onnx,
        open=_open_onnx,
        quantise=_quantise_onnx,
        code="import onnxruntime\n"
        "session = onnxruntime.InferenceSession(\n"
        '    "model.onnx", providers=["CPUExecutionProvider"]\n)\n'
        'probabilities = session.run(None, {"images": images})[0]',
    ),
    "openvino": Format(
        about="OpenVINO's two files, for Intel's and other processors",
        extra="tlkit[openvino,int8]",
        needs=("openvino",),
        needs_int8=("nncf",),
        write=_write_openvino,
        open=_open_openvino,
        quantise=_quantise_openvino,
        code="import openvino\n"
        "# Some processors would compute in 16 bits, and give other probabilities.\n"
        'exact = {"INFERENCE_PRECISION_HINT": "f32"}\n'
        'network = openvino.Core().compile_model("model.xml", "CPU", exact)\n'
        "probabilities = network(images)[0]",
    ),
    "torch": Format(
        about="torch.export's program, for torch without tlkit",
        extra="tlkit",
        needs=(),
        write=_write_torch,
        open=_open_torch,
        code='import torch\nnetwork = torch.export.load("model.pt2").module()\n'
        "probabilities = network(torch.from_numpy(images)).detach().numpy()",
    ),
}
