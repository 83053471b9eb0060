"""Several processes end with the head that one would have made, whatever the number of images."""

import copy
import json
import sys

import pytest
import torch
from processes import run_python, run_together
from safetensors.torch import load_file
from torch import nn

from tlkit import ranks, runs
from tlkit.errors import OptionError
from tlkit.options import FitOptions
from tlkit.testing import make_folder
from tlkit.train.recipe import Recipe, refuse_idle_processes
from tlkit.train.together import Shared

# Batches of 5, in shares for 2 and for 3. No dropout: each process draws its own. No Adam: it moves
# by the sign of a gradient, and of one that is nothing but rounding that is chance.
STEPS = {
    "backbone": "tiny",
    "epochs": 2,
    "batch": 5,
    "seed": 3,
    "optimizer": "sgd",
    "lr": 0.05,
    "precision": "fp32",
}
FINE = {**STEPS, "freeze": "none", "strategy": "finetune"}
FITS = {
    "solved": {"backbone": "tiny", "epochs": 6, "precision": "fp32"},
    "folds": {"backbone": "tiny", "epochs": 4, "folds": 3},
    "a bank of each process": {"backbone": "tiny", "epochs": 6, "bank": "none"},
    "hidden": {
        **STEPS,
        "head": "bn-mlp",
        "hidden": 8,
        "dropout": 0.0,
        "augment": "mirror",
        "accumulate": 2,
    },
    "prefix": {**STEPS, "freeze": "to:stage1", "clip": 1.0},
    "fine": {**FINE, "augment": "standard", "ema": 0.9, "balance": "classes"},
    "norms": {**FINE, "batchnorm": "learn", "monitor": "accuracy", "unfreeze_every": 1},
    "behind a probe": {**STEPS, "freeze": "none", "strategy": "probe+finetune"},
}
EXACT = ("solved", "folds", "a bank of each process")

PROGRAM = """
import json, sys
import tlkit
from tlkit.ranks import here
fits, folder, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
for name, options in fits.items():
    result = tlkit.fit(folder, out=f"{out}/{name}", on_bad="skip", **options)
    accuracy = getattr(result, "validation", None) or result.out_of_fold
    told = here().gather((accuracy.accuracy, len(result.bad), str(result.run)))
    assert told == [told[0]] * here().size, told
"""


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Three classes of 9, 9 and 8 images, of which one cannot be read."""
    folder = make_folder(tmp_path_factory.mktemp("odd"), per_class=9)
    images = sorted(folder.glob("*/*"))
    images[4].write_bytes(b"no image")
    images[-1].unlink()
    return folder


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("program") / "fits.py"
    file.write_text(PROGRAM)
    return file


@pytest.fixture(scope="session")
def alone(odd, tmp_path_factory, tiny_plugin):
    """What one process makes of each."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(out / "cache"))
        patch.setenv("PYTHONPATH", f"{tiny_plugin}:{':'.join(sys.path)}")
        done = run_python(PROGRAM, json.dumps(FITS), odd, out, where=out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("count", [2, 3])
def test_processes_make_the_head_that_one_makes(count, alone, odd, program, tiny_plugin, tmp_path):
    done = run_together(program, count, json.dumps(FITS), odd, tmp_path, site=tiny_plugin)
    assert done.returncode == 0, done.stderr
    for name in FITS:
        heads = sorted(one.relative_to(alone) for one in (alone / name).rglob(runs.HEAD))
        assert len(heads) == (3 if name == "folds" else 1)
        for head in heads:
            one, other = load_file(alone / head), load_file(tmp_path / head)
            assert one.keys() == other.keys()
            for key in one:
                if name in EXACT:
                    assert torch.equal(one[key], other[key]), (name, key)
                else:
                    # The sums over images are rounded in another order, in each of a few steps.
                    torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=2e-6)


def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(odd, tiny_plugin, tmp_path):
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    options = json.dumps({**FINE, "epochs": 3, "augment": "standard"})
    done = run_together(program, 2, options, odd, tmp_path, site=tiny_plugin, restarts=1)
    assert done.returncode == 0, done.stderr
    assert "killed: goes on from step 7" in done.stdout
    one, other = (load_file(tmp_path / name / runs.HEAD) for name in ("undisturbed", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not list(tmp_path.glob(".*checkpoint"))


KILLED = """
import json, os, signal, sys
import tlkit.train.checkpoint as checkpoint
checkpoint.EVERY_S, checkpoint.SHARE = 0.0, 1e9
import tlkit
from tlkit.ranks import began_again, here

def fit(name):
    steps = 0
    options = tlkit.FitOptions(**json.loads(sys.argv[1]), on_bad="skip")
    for one in tlkit.fit_events(sys.argv[2], options, out=f"{sys.argv[3]}/{name}"):
        steps += type(one).__name__ == "Tick" and one.what.startswith("epoch")
        if here().first and type(one).__name__ == "Note":
            print(f"{name}: {one.text}", flush=True)
        if name == "killed" and steps == 7 and not began_again():
            here().wait()
            if here().rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)

fit("killed")
fit("undisturbed")
"""


@pytest.fixture
def a_job_of_one():
    """Torch's processes, of which there is this one."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 3)])
@pytest.mark.usefixtures("a_job_of_one")
def test_a_norm_over_one_process_is_torchs_own(shape):
    ours = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4)
    nn.init.normal_(ours.weight)
    theirs = copy.deepcopy(ours)
    for _ in range(3):
        inputs = torch.randn(shape).mul(3).add(100).requires_grad_()
        same = inputs.detach().clone().requires_grad_()
        with Shared():
            found = ours(inputs)
        expected = theirs(same)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        weights = torch.randn_like(found)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(inputs.grad, same.grad, rtol=1e-3, atol=1e-4)
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    ours.eval()
    with Shared():
        torch.testing.assert_close(ours(same), theirs.eval()(same))


def test_steps_of_fewer_images_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr("tlkit.train.recipe.here", lambda: ranks.Ranks(size=4))
    recipe = Recipe(optimizer="adamw", augment="none", refit=False, reasons=())
    with pytest.raises(OptionError, match="4 processes, and steps of 3 images"):
        refuse_idle_processes(FitOptions(batch=3), recipe, images=9)
    refuse_idle_processes(FitOptions(batch=8), recipe, images=9)
