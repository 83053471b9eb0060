"""`tlkit fit --devices`: the same command, in processes that know of each other."""

import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tlkit import launch, ranks, runs
from tlkit.cli import main
from tlkit.errors import OptionError


@pytest.fixture
def launched(monkeypatch):
    """What would be started."""
    calls = []

    def start(arguments, count, tell):
        calls.append((list(arguments), count))
        return 0

    monkeypatch.setattr(launch, "launch", start)
    return calls


@pytest.mark.parametrize(
    "words",
    [["fit", "a", "--devices", "3", "--seed", "1"], ["fit", "--devices=3", "a", "--seed=1"]],
)
def test_the_processes_get_the_same_words_but_for_this_one(words, launched):
    assert CliRunner().invoke(main, words).exit_code == 0
    assert launched == [([one for one in words if "3" not in one and one != "--devices"], 3)]


def test_one_process_is_this_one(launched, colours):
    words = ["fit", str(colours), "--devices", "1", "--backbone", "tiny", "--epochs", "2"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert not launched


@pytest.mark.parametrize("devices", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_is_refused(devices):
    with pytest.raises(OptionError, match="a whole number from 1"):
        launch.processes(devices)


def test_all_are_the_gpus(monkeypatch):
    assert launch.processes("all") >= 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert launch.processes("all") == 4


@pytest.fixture
def among_others(monkeypatch):
    for module in (ranks, sys.modules["tlkit.cli"]):
        monkeypatch.setattr(module, "here", lambda: ranks.Ranks(size=2))


@pytest.mark.usefixtures("among_others")
def test_started_by_torchrun_it_would_be_ignored():
    done = CliRunner().invoke(main, ["fit", "a", "--devices", "2"])
    assert done.exit_code == 2
    assert "leave --devices out" in done.output


@pytest.mark.usefixtures("among_others")
def test_other_commands_would_be_done_by_each():
    done = CliRunner().invoke(main, ["predict", "a"])
    assert done.exit_code == 2
    assert "tlkit predict does not share its work out" in done.output


def command(tiny_plugin, *words):
    path = [str(tiny_plugin), *sys.path]
    code = f"import sys; sys.path[:0] = {path}; from tlkit.cli import run; run()"
    return [sys.executable, "-c", code, *map(str, words)]


def environment(tiny_plugin, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tiny_plugin), *sys.path]))


def test_an_error_is_told_once_and_nothing_is_started_again(tiny_plugin, tmp_path, monkeypatch):
    environment(tiny_plugin, monkeypatch)
    words = ["fit", tmp_path / "nothing", "--backbone", "tiny", "--devices", "2"]
    done = subprocess.run(command(tiny_plugin, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("is not a folder") == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_behind_a_step_and_the_same_command_goes_on(
    colours, tiny_plugin, tmp_path, monkeypatch
):
    environment(tiny_plugin, monkeypatch)
    words = [
        "fit", colours, "--backbone", "tiny", "--freeze", "none", "--strategy", "finetune",
        "--epochs", "100000", "--batch", "8", "--out", tmp_path / "run", "--devices", "2",
    ]  # fmt: skip
    process = subprocess.Popen(
        command(tiny_plugin, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.strip().startswith("2 "):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume goes on from here" in said
    assert "Traceback" not in said
    assert list(runs.checkpoint_of(tmp_path / "run").glob("last-*.safetensors"))
