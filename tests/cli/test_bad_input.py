"""Each mistake gets found / expected / do and status 2, no traceback, and nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit.cli import main
from tlkit.testing import make_folder


def refused(result, *texts):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for text in ("found", "expected", "do", *texts):
        assert text in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("flag", "value", "texts"),
    [
        ("--backbone", "vgg16bn", ["did you mean 'vgg16_bn'", "resnet50"]),
        ("--backbone", "timm/resnet18x", ["did you mean"]),
        ("--backbone", "tmm/resnet18", ["timm/NAME"]),
        ("--backbone", "other:tiny", ["tiny"]),
        ("--head", "linaer", ["linear, mlp", "did you mean 'linear'"]),
        ("--augment", "stndard", ["did you mean 'standard'"]),
        ("--augment", "missing.yaml", ["missing.yaml"]),
        ("--weights", "seedd", ["did you mean 'seeded'"]),
        ("--weights", "missing.pth", ["missing.pth"]),
        ("--attach", "apend", ["replace, last, append", "did you mean 'append'"]),
        ("--pool", "mean", ["keep, avg, max"]),
        ("--freeze", "featurs", ["did you mean 'features'"]),
        ("--freeze", "to:stage9", ["to:stage1"]),
        ("--optimizer", "adamx", ["did you mean 'adam'"]),
        ("--epochs", "0", ["from 1"]),
        ("--epochs", "many", ["whole number"]),
        ("--lr", "-1", ["number from 0"]),
        ("--lr", "nan", ["number from 0"]),
        ("--dropout", "1.5", ["0.95"]),
        ("--device", "gpu", ["cpu"]),
        ("--val-fraction", "1", ["0.9"]),
    ],
)
def test_a_wrong_value_says_what_is_right(run, colours, tmp_path, flag, value, texts):
    words = {"--backbone": "tiny", flag: value}
    result = run("fit", colours, *[word for pair in words.items() for word in pair])
    refused(result, value.rpartition("/")[2], *texts)
    assert list(tmp_path.iterdir()) == []


def test_several_wrong_values_are_told_at_once(run, colours):
    result = run("fit", colours, "--attach", "x", "--epochs", 0, "--pool", "y")
    refused(result, "--attach", "--epochs", "--pool")


def test_an_unknown_flag_guesses(run, colours):
    result = run("fit", colours, "--epoch", 3)
    assert result.exit_code == 2
    assert "--epochs" in result.stderr


def test_a_folder_that_is_none(run, tmp_path):
    refused(run("fit", tmp_path / "missing"), "nothing at that path")
    (tmp_path / "file.txt").write_text("x")
    refused(run("fit", tmp_path / "file.txt"), "a text file")


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "photos").mkdir()
    refused(run("fit", tmp_path / "photos"), "no image")
    (tmp_path / "photos" / "cats").mkdir()
    refused(run("fit", tmp_path / "photos"), "no image")
    refused(run("predict", tmp_path / "photos"), "a folder without images")
    refused(run("evaluate", tmp_path / "photos"), "no image")


def test_one_class_and_one_image_in_each(run, tmp_path):
    refused(run("fit", make_folder(tmp_path / "one", classes=("red",))), "has one class", "red")
    folder = make_folder(tmp_path / "two", classes=("red", "blue"), per_class=1)
    steps = ["--backbone", "tiny", "--head", "mlp"]
    refused(run("fit", folder, *steps), "one image of each class", "at least 2", "linear head")


def test_an_image_that_is_no_image(run, tmp_path):
    folder = make_folder(tmp_path / "photos")
    (folder / "red" / "notes.jpg").write_text("hello")
    refused(
        run("fit", folder, "--backbone", "tiny", "--out", tmp_path / "run"), "notes.jpg", "skip"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_in_the_way(run, colours, fitted):
    before = {one.name: one.read_bytes() for one in fitted.iterdir()}
    refused(run("fit", colours, "--backbone", "tiny", "--out", fitted), "--overwrite")
    assert {one.name: one.read_bytes() for one in fitted.iterdir()} == before


def test_predicting_before_any_fit(run, colours):
    refused(run("predict", colours), "there is no run yet", "tlkit fit")


def test_a_path_that_is_not_there(run, fitted, tmp_path):
    result = run("predict", tmp_path / "a.jpg", tmp_path / "b*.jpg", "--head", fitted)
    refused(result, "a.jpg", "b*.jpg", "no such file")


def test_a_head_file_that_is_cut_off_altered_or_missing(run, colours, fitted, tmp_path):
    data = (fitted / "head.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    for broken in (data[: len(data) // 2], data[:-1], b"", b"x" * 100, data[:-1] + b"\x7f"):
        bad.write_bytes(broken)
        for command in ("predict", "evaluate"):
            refused(run(command, colours, "--head", bad), "bad.safetensors")
    refused(run("predict", colours, "--head", tmp_path / "missing"), "no file at that path")


def test_a_policy_that_does_not_exist(run, colours, fitted):
    result = run("predict", colours, "--head", fitted, "--tta", "tenn")
    refused(result, "did you mean 'ten'", "none, mirror, five, ten, multi")


def test_numbers_without_the_policy_that_takes_them(run, colours, fitted):
    refused(run("predict", colours, "--head", fitted, "--grid", 3), "--tta multi")


def test_options_of_several_heads_with_one(run, colours, fitted):
    for words in (["--combine", "logits"], ["--head-weights", "1"], ["--learn-weights", "x"]):
        for command in ("predict", "evaluate"):
            refused(run(command, colours, "--head", fitted, *words), words[0], "--head A --head B")


def test_weights_for_another_number_of_heads(run, colours, fitted):
    words = ["predict", colours, "--head", fitted, "--head", fitted]
    refused(run(*words, "--head-weights", "1,2,3"), "2 numbers", "--head-weights 0.5,0.5")
    refused(run(*words, "--head-weights", "half"), "2 numbers")
    refused(run(*words, "--combine", "vote"), "mean, logits")
    refused(run(*words, "--learn-weights", "not/there"), "not/there")


def test_one_of_several_heads_is_missing(run, colours, fitted):
    refused(run("predict", colours, "--head", fitted, "--head", "gone"), "gone", "no file")


def test_dense_evaluation_of_a_head_that_has_none(run, colours, tmp_path):
    out = tmp_path / "run"
    words = ["--backbone", "tiny", "--head", "mlp", "--epochs", 1, "--out", out]
    assert run("fit", colours, *words).exit_code == 0
    for command in ("predict", "evaluate"):
        result = run(command, colours, "--head", out, "--tta", "dense")
        refused(result, "no dense evaluation", "ReLU", "--tta vgg150")
    refused(run("predict", colours, "--head", out, "--tta", "vgg150", "--grid", 3), "--tta multi")


def test_parquet_without_a_file(run, colours, fitted):
    refused(run("predict", colours, "--head", fitted, "--format", "parquet"), "--out")


def test_a_table_does_not_go_into_a_file(run, colours, fitted):
    result = run("predict", colours, "--head", fitted, "--format", "table", "--out", "x.txt")
    refused(result, "csv, jsonl or parquet")


def test_a_name_and_a_search_at_once(run):
    refused(run("backbones", "tiny", "--find", "t"), "--find t")


def test_a_class_that_the_head_does_not_know(run, fitted, tmp_path):
    folder = make_folder(tmp_path / "photos", classes=("red", "grean"), per_class=1)
    refused(run("evaluate", folder, "--head", fitted), "did you mean 'green'")


def test_an_output_that_cannot_be_written(run, colours, fitted, tmp_path):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out.csv"
    refused(run("predict", colours, "--head", fitted, "--format", "csv", "--out", out), "out.csv")


def test_a_sample_that_does_not_exist(run, tmp_path):
    refused(run("sample", "digit", tmp_path / "x"), "did you mean 'digits'", "flowers102")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_here_name_the_three_ways_out(run, colours, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    result = run("fit", colours, "--backbone", "resnet18")
    refused(result, "download.pytorch.org", str(tmp_path / "torch"), "1. ", "2. ", "3. ")


def test_no_traceback_in_a_real_process_either(colours):
    ran = subprocess.run(
        [sys.executable, "-m", "tlkit", "fit", str(colours), "--backbone", "nothing"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: there is no backbone called 'nothing'")
    assert ran.stdout == ""


def test_a_head_on_a_backbone_that_is_gone(run, colours, fitted, monkeypatch):
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit_vgg")
    refused(run("predict", colours, "--head", fitted), "tlkit-tiny", "pip install")


def test_errors_show_control_characters_as_escapes(run, tmp_path):
    result = run("fit", str(tmp_path / "a\x1b[31mred"))
    assert "\x1b[31m" not in result.stderr
    assert r"\x1b" in result.stderr


def test_metrics_are_readable_json_after_it_all(fitted):
    assert json.loads((fitted / "metrics.json").read_text())["test"] is None


def test_a_summary_of_what_is_not_there_or_does_not_go(run, tmp_path):
    refused(run("summary", "vgg61"), "did you mean 'vgg")
    refused(run("summary", "tiny", "--head", "mlp"), "--classes N")
    refused(run("summary", "inception_small", "--px", 8), "--px 8")
    refused(run("summary", "tiny", "--depth", "deep"), "whole number")
    (tmp_path / "file").write_text("x")
    refused(run("summary", "tiny", "--json", tmp_path / "file" / "s.json"), "s.json")


def test_a_curve_that_cannot_be(run, colours, tmp_path):
    refused(run("curve", colours, "--backbone", "tinny"), "did you mean 'tiny'")
    refused(run("curve", colours, "--draws", 1), "--draws 1")
    refused(run("curve", colours, "--fractions", "half"), "three or more different numbers")
    refused(run("curve", colours, "--group-by", "(", "--backbone", "tiny"), "regular expression")
    refused(run("curve", tmp_path / "missing"), "nothing at that path")
    (tmp_path / "empty").mkdir()
    refused(run("curve", tmp_path / "empty"), "no image")
    refused(run("curve", colours, "--out", colours / "curve"), "one inside the other")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["empty"]


def test_a_range_test_that_cannot_be(run, colours, fitted, tmp_path):
    refused(run("lr-find", colours, "--backbone", "tiny"), "--optimizer adamw")
    refused(run("lr-find", colours, "--backbone", "tinny"), "did you mean 'tiny'")
    refused(run("lr-find", colours, "--backbone", "tiny", "--epochs", 3), "--epochs 3")
    refused(run("lr-find", tmp_path / "missing"), "nothing at that path")
    (tmp_path / "empty").mkdir()
    refused(run("lr-find", tmp_path / "empty"), "no image")
    before = sorted(one.name for one in fitted.iterdir())
    refused(run("lr-find", colours, "--backbone", "tiny", "--out", fitted), "is there already")
    refused(run("lr-find", colours, "--out", colours / "lr"), "one inside the other")
    assert sorted(one.name for one in fitted.iterdir()) == before


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain", "similar"])
def test_a_run_among_the_images_is_answered_with_the_right_command(run, colours, fitted, command):
    result = run(command, fitted, colours)
    refused(result, "a run folder", f"tlkit {command} {colours} --head {fitted}")


@pytest.mark.parametrize("command", ["fit", "check", "evaluate"])
def test_a_run_is_no_folder_of_images(run, fitted, command):
    refused(run(command, fitted), "a run folder", f"--head {fitted}")


def test_a_run_to_sort_is_refused(run, fitted, tmp_path):
    refused(run("sort", fitted, fitted, "--into", tmp_path / "sorted"), "a run folder")
    assert not (tmp_path / "sorted").exists()


def test_a_backbone_of_a_family_is_found_without_the_familys_name(run, colours):
    refused(run("fit", colours, "--backbone", "test_resnet"), "did you mean 'timm/test_resnet'?")


def test_a_class_that_is_like_none_is_answered_with_the_list(run, colours, fitted):
    result = run("explain", colours, "--head", fitted, "--class", "wasp")
    refused(result, "one of blue, green, red")
    assert "did you mean" not in result.stderr


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG image"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive"),
        (b"", "an empty file"),
        (b"<html>" * 9, "a web page"),
        (b"{}" * 9, "JSON"),
        (b"words " * 9, "text"),
    ],
)
def test_what_is_no_head_file_is_called_what_it_is(run, colours, tmp_path, content, kind):
    (tmp_path / "thing").write_bytes(content)
    result = run("predict", colours, "--head", tmp_path / "thing")
    refused(result, f"not a head file: it is {kind}")


def test_an_address_is_shown_as_typed_and_is_to_be_fetched_first(run, colours, fitted):
    typed = "https://example.org/photos/a.jpg"
    for words in (
        ["predict", typed, "--head", fitted], ["predict", colours, "--head", typed],
        ["fit", typed], ["fit", colours, "--weights", typed],
    ):  # fmt: skip
        refused(run(*words), typed, "an address on a network", "fetch")


@pytest.mark.parametrize("name", [name for name in main.commands if name != "plugin"])
@pytest.mark.parametrize("empty", [("",), ("  ",), ("--out=",), ("--into", "")])
def test_an_empty_argument_of_any_command_is_refused(run, name, empty):
    result = run(name, *empty)
    assert result.exit_code == 2
    assert "an argument is empty" in result.output
    assert list(Path().iterdir()) == []
