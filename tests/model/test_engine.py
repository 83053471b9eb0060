"""Engines: they give what eager gives, and are chosen by how much there is to do."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tlkit.model.engine as module
from tlkit import cache
from tlkit.backbone import InputSpec
from tlkit.errors import DiskError, OptionError, UnknownName
from tlkit.model.assemble import Normalise
from tlkit.model.build import Plan, build
from tlkit.model.device import compute_on
from tlkit.model.engine import ENGINES, Work, choose, start, work_of
from tlkit.options import ENGINES_HELP
from tlkit.plugins import choose as choose_backbone
from tlkit.testing import TINY
from tlkit.weights import digest

CPU = compute_on("cpu", "fp32")
MUCH = Work(images=1_000_000, multiply_adds=10**9)
LITTLE = Work(images=100, multiply_adds=10**6)
SPEC = InputSpec(crop_px=32, resize_px=32, mean=(0.5,) * 3, std=(0.5,) * 3)
PLAN = Plan(
    weights="default", attach="replace", head="linear", hidden=1, dropout=0.0, pool="keep",
    freeze="features", seed=0,
)  # fmt: skip


@pytest.fixture
def frozen():
    part = build(TINY, PLAN, 3).cut.frozen
    CPU.place(part)
    return part


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)


def usable():
    return [name for name, row in ENGINES.items() if not row.lacks(CPU)]


@pytest.mark.parametrize("name", ["eager", "openvino"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_engine_gives_eagers_answer_for_any_number_of_images(name, count, frozen, images):
    if name not in usable():
        pytest.skip(ENGINES[name].lacks(CPU))
    runner = start(choose(name, CPU, MUCH), frozen, CPU, images[:2], MUCH)
    with torch.no_grad():
        expected = frozen(images[:count])
    found = runner(images[:count])
    assert (runner.name, found.dtype) == (name, torch.float32)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_more_may_be_begun_than_runs_at_once_and_answers_be_taken_in_any_order(name, frozen):
    if name not in usable():
        pytest.skip(ENGINES[name].lacks(CPU))
    counts = (40, 3, 57, 1, 40)
    parts = [torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8) for count in counts]
    runner = start(choose(name, CPU, MUCH), frozen, CPU, parts[0][:2], MUCH)
    begun = [runner.submit(one) for one in parts]
    for place in (3, 0, 4, 2, 1):
        found, expected = begun[place](), CPU.run(frozen, parts[place])
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["eager", "openvino"])
@pytest.mark.parametrize("backbone", ["tiny", "efficientnet_lite0"])
def test_what_was_started_for_any_size_runs_any_size(name, backbone):
    if name not in usable():
        pytest.skip(ENGINES[name].lacks(CPU))
    network = choose_backbone(backbone).backbone
    frozen = build(network, replace(PLAN, weights="none"), 3).cut.frozen
    CPU.place(frozen)
    noise = torch.Generator().manual_seed(0)
    sizes = [(64, 64), (65, 97), (79, 64), (96, 130)]
    parts = [
        torch.randint(0, 256, (2, 3, *one), dtype=torch.uint8, generator=noise) for one in sizes
    ]
    work = replace(MUCH, any_size=True)
    runner = start(choose(name, CPU, work), frozen, CPU, parts[0], work)
    assert runner.name == name
    for some in parts:
        expected = CPU.run(frozen, some)
        found = runner(some)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_whole_images_do_not_go_to_an_engine_of_one_size(monkeypatch):
    rows = {name: replace(row, lacks=lambda compute: "") for name, row in ENGINES.items()}
    rows["inductor"] = replace(rows["inductor"], start_s=0.0, speed={"fp32": 9.0})
    monkeypatch.setattr(module, "ENGINES", rows)
    assert choose("auto", CPU, MUCH).name == "inductor"
    whole = replace(MUCH, any_size=True)
    assert choose("auto", CPU, whole).name == "openvino"
    asked = choose("inductor", CPU, whole)
    assert asked.name == "eager"
    assert "inductor runs one size" in asked.reason


def test_a_trace_that_holds_for_one_size_only_is_found_out():
    class Sized(nn.Module):
        """Adds the height that it saw when it was traced."""

        def forward(self, images):
            return images.float().mean(dim=(2, 3)) + int(images.shape[2])

    pytest.importorskip("openvino")
    some = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    work = replace(MUCH, any_size=True)
    by_auto = replace(choose("openvino", CPU, work), asked=False)
    runner = start(by_auto, Sized().eval(), CPU, some, work)
    assert runner.name == "eager"
    assert "off by" in runner.fallback
    assert start(by_auto, Sized().eval(), CPU, some, MUCH).name == "openvino"


def test_torch_compiles_what_eager_runs_once_for_any_number_of_images(images):
    """On a network of one layer: compiling takes long."""
    if "inductor" not in usable():
        pytest.skip(ENGINES["inductor"].lacks(CPU))
    counters = pytest.importorskip("torch._dynamo.utils").counters
    counters.clear()
    network = nn.Sequential(nn.Flatten()).eval()
    runner = start(choose("inductor", CPU, MUCH), network, CPU, images[:2], MUCH)
    for some in (images, images[:1], images[:2], images.repeat(5, 1, 1, 1)):
        assert torch.equal(runner(some), some.flatten(1).float())
    assert counters["stats"]["unique_graphs"] == 1


def test_auto_compiles_for_many_images_only():
    little, much = choose("auto", CPU, LITTLE), choose("auto", CPU, MUCH)
    assert (little.name, little.asked) == ("eager", False)
    assert "100 views of 1 million" in little.reason
    if len(usable()) > 1:
        assert much.name != "eager"
        assert "worth" in much.reason


def with_row(monkeypatch, name, **changes):
    monkeypatch.setattr(module, "ENGINES", {**ENGINES, name: replace(ENGINES[name], **changes)})


def test_an_engine_that_lacks_something_is_not_taken_and_refused_by_name(monkeypatch):
    rows = {name: replace(row, lacks=lambda compute: "a licence") for name, row in ENGINES.items()}
    monkeypatch.setattr(module, "ENGINES", {**rows, "eager": ENGINES["eager"]})
    assert choose("auto", CPU, MUCH).name == "eager"
    with pytest.raises(OptionError, match="a licence"):
        choose("openvino", CPU, MUCH)


def fails(*args):
    raise RuntimeError("no such operation\nand a long trace")


def lies(part, compute, example, work, keep):
    return lambda images: lambda: compute.run(part, images) * 1.5


def misshapes(part, compute, example, work, keep):
    return lambda images: lambda: compute.run(part, images)[:, :1]


@pytest.mark.parametrize(
    ("make", "said"),
    [(fails, "no such operation"), (lies, "off by 0.5"), (misshapes, "an output")],
)
def test_an_engine_that_fails_or_lies_is_refused_or_replaced(
    make, said, monkeypatch, frozen, images
):
    with_row(monkeypatch, "openvino", make=make, lacks=lambda compute: "")
    with pytest.raises(OptionError, match=said):
        start(choose("openvino", CPU, MUCH), frozen, CPU, images[:2], MUCH)
    by_auto = replace(choose("openvino", CPU, MUCH), asked=False)
    runner = start(by_auto, frozen, CPU, images[:2], MUCH)
    assert runner.name == "eager"
    assert said in runner.fallback
    assert torch.allclose(runner(images), CPU.run(frozen, images), atol=1e-5)


def test_folding_changes_rounding_alone_and_leaves_the_network(images):
    torch.manual_seed(0)
    network = nn.Sequential(
        Normalise(SPEC), nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    ).eval()
    with torch.no_grad():
        network[2].running_mean.uniform_(-1, 1)
        network[2].running_var.uniform_(0.5, 2)
    before = digest(network.state_dict().items())
    folded = module._folded(network, CPU, images[:2])
    assert not any(isinstance(one, nn.BatchNorm2d) for one in folded.modules())
    assert torch.allclose(folded(images), network(images), atol=1e-5)
    assert digest(network.state_dict().items()) == before


def test_a_network_that_cannot_be_traced_is_run_as_it_is(images):
    class Branches(nn.Module):
        def forward(self, images):
            return images.float() if images.float().mean() > 1000 else images.float() * 2

    network = Branches().eval()
    assert module._folded(network, CPU, images) is network


def test_work_is_what_torch_counts_of_convolutions_and_linear_layers():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 4, 4, 4))
    work, answer = work_of(network, CPU, torch.zeros(1, 4, 4, 4), 3)
    assert work == Work(images=3, multiply_adds=counter.get_total_flops() // 2)
    assert answer.shape == (1, 5)


def test_openvino_is_imported_without_the_package_that_calls_home():
    pytest.importorskip("openvino")
    code = """
import sys
from tlkit.model.engine import without_telemetry
with without_telemetry():
    import openvino
sys.exit(bool({"openvino_telemetry", "openvino_telemetry.main"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_engine_is_an_error_that_names_the_known_ones():
    with pytest.raises(UnknownName, match="openvino"):
        choose("openvine", CPU, MUCH)


def test_help_names_every_engine():
    assert f"auto, {' or '.join(', '.join(ENGINES).rsplit(', ', 1))}" == ENGINES_HELP


def test_what_was_compiled_is_kept_and_made_anew_for_other_code(monkeypatch, frozen, images):
    pytest.importorskip("openvino")
    made = []
    convert = module._convert
    monkeypatch.setattr(module, "_convert", lambda *a, **k: made.append(1) or convert(*a, **k))
    chosen = choose("openvino", CPU, MUCH)
    first = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)(images)
    again = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)(images)
    assert len(made) == 1
    assert torch.equal(first, again)
    assert [one.about["what"] for one in cache.entries()] == ["a network, compiled by openvino"]
    frozen.register_forward_hook(lambda part, inputs, output: output * 2)
    changed = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)(images)
    assert len(made) == 2
    assert torch.allclose(changed, 2 * first, rtol=1e-4)
    start(chosen, frozen, CPU, images[:2], MUCH, keep=True)
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_changes_no_engine(monkeypatch, frozen, images, tmp_path):
    pytest.importorskip("openvino")
    chosen = choose("openvino", CPU, MUCH)
    expected = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)(images)
    entries = cache.entries()
    assert len(entries) == 1

    def refused(*args):
        raise DiskError("no", found="Read-only file system", expected="", do="")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "begin", refused)
        patch.setattr("tlkit.model.engine._convert", lambda *given, **how: pytest.fail("made anew"))
        runner = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)
        assert runner.name == "openvino"
        assert torch.equal(runner(images), expected)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file" / "cache"))
    runner = start(chosen, frozen, CPU, images[:2], MUCH, keep=True)
    assert runner.name == "openvino"
    assert torch.equal(runner(images), expected)


def test_a_full_disk_of_the_cache_changes_no_engine(monkeypatch, frozen, images):
    openvino = pytest.importorskip("openvino")
    save = openvino.save_model

    def full(network, path, **how):
        if cache.root() in path.parents:
            raise RuntimeError("Could not write the weights")
        save(network, path, **how)

    monkeypatch.setattr(openvino, "save_model", full)
    runner = start(choose("openvino", CPU, MUCH), frozen, CPU, images[:2], MUCH, keep=True)
    assert runner.name == "openvino"


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_answers_come_in_order_one_part_ahead(name, frozen, images):
    if name not in usable():
        pytest.skip(ENGINES[name].lacks(CPU))
    runner = start(choose(name, CPU, MUCH), frozen, CPU, images[:2], MUCH)
    begun = []

    def parts():
        for number, some in enumerate([images[:3], images[:0], images[3:4], images[4:]]):
            begun.append(number)
            yield number, some

    found = []
    for number, answer in runner.each(parts()):
        assert begun[-1] == min(number + 1, 3)
        assert (answer is None) == (number == 1)
        found += [] if answer is None else [answer]
    assert torch.allclose(torch.cat(found), runner(images), atol=1e-5)


@pytest.fixture
def off(monkeypatch):
    """An engine that is off by a share that a fit takes, and that some heads' answers show."""

    def make(module, compute, example, work, keep):
        def submit(images):
            found = compute.infer(module, images).cpu() * (1 + 5e-4)
            return lambda: found

        return submit

    row = replace(ENGINES["eager"], make=make)
    monkeypatch.setattr("tlkit.model.engine.ENGINES", {**ENGINES, "off": row})
    return module.Choice(name="off", asked=False, reason="")


def test_an_engine_that_moves_a_heads_scores_is_not_used_for_that_head(frozen, images, off):
    def started(choice, factor):
        scores = None if factor is None else lambda rows: factor * rows
        return start(choice, frozen, CPU, images[:2], MUCH, scores=scores)

    largest = float(CPU.infer(frozen, images[:2]).max())
    assert started(off, None).name == "off"
    assert started(off, 1e-1 / largest).name == "off"
    fallen_back = started(off, 1e2 / largest)
    assert fallen_back.name == "eager"
    assert "scores that are off by" in fallen_back.fallback
    with pytest.raises(OptionError, match="off cannot run this network"):
        started(replace(off, asked=True), 1e2 / largest)


def test_folding_that_moves_a_heads_scores_is_left_out(frozen, images, monkeypatch):
    monkeypatch.setattr(module, "_folded", lambda part, *_: lambda x: part(x) * (1 + 1e-4))
    eager, expected = choose("eager", CPU, MUCH), CPU.infer(frozen, images)
    folded = start(eager, frozen, CPU, images[:2], MUCH)
    assert not torch.equal(folded(images), expected)
    plain = start(eager, frozen, CPU, images[:2], MUCH, scores=lambda rows: 1e3 * rows)
    assert torch.equal(plain(images), expected)
