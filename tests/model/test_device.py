"""Devices, precision and random numbers."""

import pytest
import torch
from torch import nn

from tlkit.errors import OptionError
from tlkit.model.device import compute_on, drawn


def test_an_absent_device_lists_those_that_are_here():
    with pytest.raises(OptionError, match="auto, cpu"):
        compute_on("cuda:9", "fp32")


@pytest.mark.parametrize(
    ("built", "text"), [(None, "built for the CPU alone"), ("13.0", "finds no GPU")]
)
def test_a_gpu_that_is_not_there_says_why(monkeypatch, built, text):
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError) as caught:
        compute_on("cuda", "fp32")
    assert text in caught.value.found
    assert "use cpu" in caught.value.do


@pytest.mark.parametrize(("built", "text"), [(False, "for Macs alone"), (True, "too old")])
def test_a_macs_gpu_that_is_not_there_says_why(monkeypatch, built, text):
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(OptionError) as caught:
        compute_on("mps", "fp32")
    assert text in caught.value.found


def test_bf16_computes_in_half_precision_and_answers_in_full():
    seen = []

    class Spy(nn.Linear):
        def forward(self, inputs):
            result = super().forward(inputs)
            seen.append(result.dtype)
            return result

    module = Spy(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        output = compute_on("cpu", precision).run(module, torch.randn(2, 4))
        assert output.dtype == torch.float32
        assert seen[-1] == dtype


def test_numbers_drawn_depend_on_the_key_alone():
    def numbers(*key):
        with drawn(*key):
            return torch.rand(4)

    torch.manual_seed(1)
    first = numbers(0, "step", 3)
    torch.manual_seed(2)
    assert torch.equal(first, numbers(0, "step", 3))
    assert not torch.equal(first, numbers(0, "step", 4))
    assert not torch.equal(first, numbers(1, "step", 3))


def test_drawing_leaves_the_callers_stream_alone():
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    with drawn(0):
        torch.rand(100)
    assert torch.equal(torch.rand(2), wanted)


def test_placing_a_module_lays_its_convolutions_out_channels_last():
    module = nn.Conv2d(4, 4, 3)
    compute_on("cpu", "fp32").place(module)
    assert module.weight.is_contiguous(memory_format=torch.channels_last)
