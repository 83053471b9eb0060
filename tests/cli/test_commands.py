"""What the commands print, write and return."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.testing import make_folder


def test_fit_prints_epochs_and_scores_and_says_where_the_head_is(run, colours):
    result = run("fit", colours, "--backbone", "tiny", "--epochs", "3")
    assert result.exit_code == 0, result.output
    assert (
        len([one for one in result.stdout.splitlines() if "%" in one and one.split()[0] in "123"])
        == 3
    )
    assert "validation" in result.stdout
    assert "runs/" in result.stdout
    assert "optimizer lbfgs" in result.stderr


def test_fit_takes_every_option_that_python_takes(run, colours):
    result = run(
        "fit", colours, "--backbone", "tiny", "--attach", "append", "--head", "mlp", "--hidden", 9,
        "--dropout", 0.1, "--freeze", "to:stage1", "--epochs", 1, "--batch", 5,
        "--optimizer", "sgd", "--lr", 0.01, "--weight-decay", 0, "--label-smoothing", 0.1,
        "--balance", "classes",
        "--seed", 3, "--device", "cpu", "--precision", "fp32", "--augment", "light", "--views", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    plan = load().card.plan
    assert (plan["attach"], plan["head"], plan["hidden"], plan["freeze"], plan["seed"]) == (
        "append", "mlp", 9, "to:stage1", 3,
    )  # fmt: skip


def test_fit_with_folds_prints_each_their_mean_and_where_the_heads_are(run, tmp_path):
    for part in ("train", "test"):
        make_folder(tmp_path / "photos" / part, per_class=6)
    for one in (tmp_path / "photos" / "test").rglob("*.png"):
        one.rename(one.with_name(f"test{one.name}"))  # groups of their own
    result = run(
        "fit", tmp_path / "photos", "--backbone", "tiny", "--epochs", 3, "--folds", 3,
        "--group-by", r"^(\w+)", "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    first = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert first[:6] == ["fold", "1", "2", "3", "mean", "std"]
    for words in ("out of fold", "test, mean of the heads", " ± ", "fold-1", "2 more"):
        assert words in result.stdout
    assert "for all folds" in result.stderr
    assert run("evaluate", tmp_path / "photos", "--head", tmp_path / "run/fold-2").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--folds", "1"], "--folds 1"),
        (["--folds", "2.5"], "--folds 2.5"),
        (["--folds", "99"], "cannot be shared out over 99 folds"),
        (["--folds", "2", "--group-by", "("], "not a regular expression"),
        (["--group-by", "nothing"], "does not name 24 of 24 images"),
    ],
)
def test_folds_that_cannot_be_end_with_an_error(run, colours, words, said):
    result = run("fit", colours, "--backbone", "tiny", *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_predict_takes_the_newest_run_and_shows_every_image(run, colours):
    assert run("fit", colours, "--backbone", "tiny").exit_code == 0
    result = run("predict", colours / "red", "--tta")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(".png") == 8


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("to_file", [True, False])
def test_every_format_holds_what_python_predicts(run, colours, fitted, tmp_path, form, to_file):
    if form == "parquet" and not to_file:
        pytest.skip("parquet is no text: it always goes to a file, which test_bad_input.py checks")
    words = ["predict", colours, "--head", fitted, "--format", form, "--top", 2]
    out = tmp_path / f"out.{form}"
    result = run(*words, *(["--out", out] if to_file else []))
    assert result.exit_code == 0, result.output
    text = out.read_bytes() if to_file else result.stdout_bytes
    if form == "csv":
        rows = list(csv.DictReader(text.decode().splitlines()))
        given = [(one["path"], one["class_1"], float(one["probability_1"])) for one in rows]
    elif form == "jsonl":
        rows = [json.loads(line) for line in text.decode().splitlines()]
        given = [
            (one["path"], one["top"][0]["class"], one["top"][0]["probability"]) for one in rows
        ]
    else:
        from pyarrow import parquet

        rows = parquet.read_table(out).to_pylist()
        given = [(one["path"], one["class_1"], one["probability_1"]) for one in rows]
    wanted = [(str(one.path), *one.top(1)[0]) for one in load(fitted).predict(colours)]
    assert [one[:2] for one in given] == [one[:2] for one in wanted]
    assert [one[2] for one in given] == pytest.approx([one[2] for one in wanted])


@pytest.mark.parametrize("form", ["table", "csv", "jsonl", "parquet"])
def test_an_unreadable_file_is_reported_and_the_status_says_so(run, fitted, tmp_path, form):
    folder = make_folder(tmp_path / "photos", per_class=1)
    (folder / "red" / "odd\nname.png").write_text("no image")
    out = [] if form == "table" else ["--out", tmp_path / "out"]
    result = run("predict", folder, "--head", fitted, "--format", form, *out)
    assert result.exit_code == 1, result.output
    assert r"odd\nname.png: not an image" in result.stderr.replace("\\\\", "\\").replace(
        "\n", r"\n"
    )
    assert "1 of 4" in result.stderr
    if form == "jsonl":
        lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        assert [("error" in one) for one in lines] == [False, False, False, True]


def test_the_ending_of_out_says_the_format(run, colours, fitted, tmp_path):
    for name in ("a.csv", "a.jsonl", "a.parquet", "a.txt"):
        result = run("predict", colours, "--head", fitted, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "a.txt").read_text()
    json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert (tmp_path / "a.parquet").read_bytes().startswith(b"PAR1")


def test_a_link_given_as_out_stays_a_link(run, colours, fitted, tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    assert run("predict", colours, "--head", fitted, "--out", tmp_path / "link.csv").exit_code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("path,")


@pytest.mark.parametrize(
    ("command", "more", "file"),
    [
        ("fit", (), "metrics.json"),
        ("fit", ("--folds", 2), "metrics.json"),
        ("curve", ("--draws", 2, "--penalties", 2), "curve.json"),
        ("lr-find", ("--optimizer", "adamw", "--steps", 10), "options.json"),
        ("search", ("--time", "2m"), "search.json"),
    ],
    ids=str,
)
def test_skipping_images_as_asked_is_success_and_they_are_counted(
    run, tmp_path, command, more, file
):
    folder = make_folder(tmp_path / "photos", size=(40, 40))
    for name in ("bad.png", "worse.png"):
        (folder / "red" / name).write_text("no image")
    words = [command, folder, "--backbone", "tiny", *more, "--out", tmp_path / "out"]
    refused = run(*words)
    assert refused.exit_code == 2, refused.output
    result = run(*words, "--on-bad", "skip")
    assert result.exit_code == 0, result.output
    assert "bad.png" in result.stderr
    assert "(--on-bad skip): 2 images" in result.stderr
    assert json.loads((tmp_path / "out" / file).read_text())["skipped_images"] == 2


@pytest.mark.parametrize(
    ("more", "column", "sign"),
    [
        ((), "+ prior", 1),
        (("--monitor", "balanced"), "balanced", -1),
        (("--head", "mlp", "--epochs", 4, "--lr", 0.05), "val loss", 1),
        (("--head", "mlp", "--epochs", 4, "--monitor", "accuracy"), "accuracy", -1),
    ],
    ids=str,
)
def test_the_row_that_is_kept_is_the_best_by_the_printed_figure(run, colours, more, column, sign):
    result = run("fit", colours, "--backbone", "tiny", *more)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (heading,) = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    names = re.split(r"\s{2,}", lines[heading].replace("train loss", " train loss"))
    rows = {}
    for line in lines[heading + 1 :]:
        if not re.match(r" *\d+ ", line):
            break
        cells = line.split()
        assert len(cells) == len(names)
        rows[int(cells[0])] = float(cells[names.index(column)].rstrip("%"))
    kept = re.search(
        r"^kept epoch (\d+) of (\d+), by the (lowest|highest) (.*)", result.stdout, re.M
    )
    assert int(kept[2]) == len(rows)
    assert sign * rows[int(kept[1])] == min(sign * value for value in rows.values())
    assert (kept[3] == "lowest") == (sign == 1)
    assert f"({rows[int(kept[1])]:.{4 if sign == 1 else 1}f}" in kept[4]
    assert ("prior" in kept[4]) == ("+ prior" in names)


def test_patterns_are_searched_for_also_when_the_shell_does_not(run, colours, fitted):
    result = run("predict", colours / "re*" / "00[12].png", "--head", fitted, "--format", "jsonl")
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "views"),
    [
        (["--tta", "PATH"], 2),
        (["PATH", "--tta"], 2),
        (["PATH", "--tta", "ten"], 10),
        (["--tta", "five", "PATH"], 5),
        (["--tta", "--batch", "4", "PATH"], 2),
        (["PATH", "--tta", "multi", "--scales", "32,40", "--grid", "2", "--no-mirror"], 8),
        (["PATH", "--tta", "vgg150", "--scales", "40,48"], 100),
        (["--tta", "dense", "PATH", "--no-mirror"], 3),
        (["--tta", "dense+crops", "PATH"], 156),
        (["PATH"], 1),
    ],
)
def test_tta_may_stand_alone_before_or_after_the_paths(
    run, colours, fitted, monkeypatch, words, views
):
    import tlkit.predict.run as module

    seen = []
    real = module.views_of
    monkeypatch.setattr(module, "views_of", lambda *a: seen.append(real(*a)) or seen[-1])
    path = str(colours / "red" / "000.png")
    result = run("predict", *[path if one == "PATH" else one for one in words], "--head", fitted)
    assert result.exit_code == 0, result.output
    assert len(seen[0]) == views


def test_evaluate_shows_plain_and_views_side_by_side_and_writes_json(
    run, colours, fitted, tmp_path
):
    result = run(
        "evaluate", colours, "--head", fitted, "--tta", "ten", "--json", tmp_path / "s.json"
    )
    assert result.exit_code == 0, result.output
    assert "plain" in result.stdout
    assert "ten" in result.stdout
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores) == {"plain", "ten"}
    assert scores["plain"]["accuracy"] == load(fitted).evaluate(colours).accuracy
    (views,) = [line for line in result.stdout.splitlines() if "views per image" in line]
    assert views.split()[-2:] == ["1", "10"]
    assert [scores[name]["views"] for name in ("plain", "ten")] == [1, 10]
    assert all(scores[name]["seconds_per_image"] > 0 for name in scores)
    for name in scan(colours).classes:
        assert name in result.stdout


@pytest.fixture(scope="session")
def another(colours, tmp_path_factory):
    """A second run folder, of another input size."""
    import tlkit

    out = tmp_path_factory.mktemp("cli") / "other"
    options = {"backbone": "inception_small", "weights": "none", "epochs": 1}
    return tlkit.fit(colours, out=out, **options).run


def test_several_heads_predict_what_python_predicts(run, colours, fitted, another):
    words = ["--head", fitted, "--head", another, "--format", "jsonl"]
    result = run("predict", colours, *words, "--combine", "logits", "--head-weights", "1,0.5")
    assert result.exit_code == 0, result.output
    given = [json.loads(line)["top"][0]["probability"] for line in result.stdout.splitlines()]
    wanted = load([fitted, another]).predict(colours, combine="logits", head_weights="1,0.5")
    assert given == pytest.approx([one.top(1)[0][1] for one in wanted])


def test_classes_that_no_image_is_of_are_named_and_have_no_scores(run, colours, fitted, tmp_path):
    for part, names in {"train": ["blue", "green", "red"], "val": ["red"], "test": ["red"]}.items():
        for name in ["blue", "green", "red"]:
            (tmp_path / "photos" / part / name).mkdir(parents=True)
        for name in names:
            for one in sorted((colours / name).iterdir())[:6]:
                shutil.copy(one, tmp_path / "photos" / part / name / f"{part}-{one.name}")
    result = run("fit", tmp_path / "photos", "--backbone", "tiny", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for part in ("val", "test"):
        assert f"{part}: no image is of blue, green: its scores say nothing of it" in result.output

    result = run("evaluate", tmp_path / "photos" / "test", "--head", fitted)
    assert result.exit_code == 0, result.output
    assert "no image is of blue, green: the scores say nothing of it" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["blue", "0", "0.000", "-", "-"] in rows
    assert ["red", "6", "1.000", "1.000", "1.000"] in rows


def test_evaluate_shows_each_head_all_together_and_the_policy_once(
    run, colours, fitted, another, tmp_path
):
    result = run(
        "evaluate", colours, "--head", fitted, "--head", another, "--tta", "five",
        "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert list(scores) == ["run", "other", "together", "together, five"]
    assert scores["run"]["loss"] == pytest.approx(load(fitted).evaluate(colours).loss)
    both = load([fitted, another])
    assert scores["together"]["loss"] == pytest.approx(both.evaluate(colours).loss)
    wanted = both.evaluate(colours, tta="five").loss
    assert scores["together, five"]["loss"] == pytest.approx(wanted)
    assert "views" not in scores["run"]
    assert scores["together, five"]["views"] == 5


def test_learnt_weights_are_shown_as_they_can_be_given_again(run, colours, fitted, another):
    heads = ["--head", fitted, "--head", another, "--format", "csv"]
    once = run("predict", colours, *heads, "--learn-weights", colours)
    assert once.exit_code == 0, once.output
    shown = once.stderr.split("learnt weights: ")[1].split()
    assert shown[0] == "--head-weights"
    again = run("predict", colours, *heads, *shown[:2])
    assert again.stdout == once.stdout
    assert "learnt" not in again.stderr


def test_a_run_of_folds_is_all_of_its_heads(run, colours, fitted, tmp_path):
    import shutil

    for number in (1, 2):
        shutil.copytree(fitted, tmp_path / "folds" / f"fold-{number}")
    result = run("evaluate", colours, "--head", tmp_path / "folds", "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert list(scores) == ["fold-1", "fold-2", "together"]


def test_evaluate_of_a_folder_with_parts_takes_test(run, fitted, tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        make_folder(tmp_path / "photos" / part, per_class=count)
    result = run("evaluate", tmp_path / "photos", "--head", fitted, "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s.json").read_text())["plain"]["images"] == 6


def test_many_classes_show_the_pairs_most_often_confused(run, tmp_path):
    folder = make_folder(
        tmp_path / "photos", classes=[f"hue{i:02d}" for i in range(14)], per_class=3
    )
    assert run("fit", folder, "--backbone", "tiny", "--epochs", "1").exit_code == 0
    result = run("evaluate", folder)
    assert result.exit_code == 0, result.output
    assert "top-5" in result.stdout


def test_backbones_lists_all_and_shows_one(run):
    result = run("backbones")
    names = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    for wanted in (
        "vgg16_bn",
        "resnet152",
        "densenet201",
        "inception_v3",
        "googlenet",
        "timm/NAME",
    ):
        assert wanted in names
    assert names.index("vgg11") < names.index("vgg16") < names.index("vgg19_bn")
    one = run("backbones", "tiny").stdout
    assert "seeded (default)" in one
    assert "stage2" in one
    assert "Apache-2.0" in one


def test_backbones_can_be_searched_for_in_the_families_too(run):
    result = run("backbones", "--find", "convnext_att")
    assert result.exit_code == 0
    assert "timm/convnext_atto" in result.stdout
    assert "vgg16" not in result.stdout


def test_plugins_shows_each_distribution_and_that_it_loads(run):
    result = run("plugins")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if "tlkit-tiny" in line and "loads" in line]


def test_sample_digits_are_an_image_folder_that_can_be_fitted(run):
    assert run("sample", "digits", "digits").exit_code == 0
    result = run("fit", "digits", "--backbone", "tiny", "--epochs", "2")
    assert result.exit_code == 0, result.output
    assert "test" in result.stdout


def test_an_interrupted_fit_says_so_and_leaves_nothing(run, colours, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tlkit.fitting.curves", interrupt)
    result = run("fit", colours, "--backbone", "tiny", "--out", tmp_path / "mine")
    assert result.exit_code == 130
    assert "stopped" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_summary_lists_layers_and_totals_and_writes_json(run, tmp_path):
    result = run("summary", "tiny", "--depth", 2, "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert "stage2" in result.stdout
    numbers = json.loads((tmp_path / "s.json").read_text())
    assert f"{numbers['parameters']:,}" in result.stdout
    assert f"{numbers['multiply_adds']:,}" in result.stdout
    assert numbers["bytes"]["total"] == sum(
        numbers["bytes"][one] for one in ("input", "forward", "backward", "parameters")
    )
    whole = run("summary", "vgg16")
    assert "138,357,544" in whole.stdout


def test_summary_with_classes_marks_what_is_frozen(run):
    result = run("summary", "tiny", "--classes", 3, "--head", "mlp", "--freeze", "to:stage1")
    assert result.exit_code == 0, result.output
    assert "frozen" in result.stdout.split("in all")[0]
    assert "trainable" in result.stdout.split("in all")[0]


def test_lr_find_prints_the_rates_and_writes_a_numbered_folder(run, colours):
    words = ["lr-find", colours, "--backbone", "tiny", "--freeze", "none", "--augment", "none"]
    for place in (f"runs/{colours.name}-tiny-lr-find", f"runs/{colours.name}-tiny-lr-find-2"):
        result = run(*words, "--batch", 8)
        assert result.exit_code == 0, result.output
        assert "suggested: --lr " in result.stdout
        assert "--backbone-lr" in result.stdout
        assert place in result.stdout
        names = sorted(one.name for one in Path(place).iterdir())
        assert names == ["lr-find.csv", "lr-find.png", "options.json"]
        rows = list(csv.DictReader((Path(place) / "lr-find.csv").read_text().splitlines()))
        assert list(rows[0]) == ["step", "rate", "loss", "smoothed"]
        assert f"{len(rows)} steps" in result.stdout
        told = json.loads((Path(place) / "options.json").read_text())
        assert f"suggested: {told['flags']}" in result.stdout


def test_a_curve_is_printed_and_kept(run, colours):
    words = ["curve", colours, "--backbone", "tiny", "--draws", 2, "--penalties", 2]
    for place in (f"runs/{colours.name}-tiny-curve", f"runs/{colours.name}-tiny-curve-2"):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert place in result.stdout
        assert sorted(one.name for one in Path(place).iterdir()) == ["curve.json", "curve.png"]
        kept = json.loads((Path(place) / "curve.json").read_text())
        assert result.stdout.splitlines()[-2] == kept["answer"]
        for one in kept["classes"]:
            assert one["name"] in result.stdout


def test_an_unreadable_photo_ends_a_curve_or_is_left_out(run, colours, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(colours, photos)
    broken = next(photos.rglob("*.png"))
    broken.write_bytes(b"no image")
    words = ["curve", photos, "--backbone", "tiny", "--draws", 2, "--penalties", 2]
    result = run(*words)
    assert result.exit_code == 2
    assert broken.name in result.stderr
    assert not (tmp_path / "runs").exists()
    result = run(*words, "--on-bad", "skip")
    assert result.exit_code == 0
    assert broken.name in result.stderr
    assert "twice the photos: " in result.stdout


def test_an_interrupted_curve_leaves_nothing(run, colours, tmp_path, monkeypatch):
    from tlkit.ask.study import Study

    def stop(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "told", stop)
    result = run("curve", colours, "--backbone", "tiny", "--out", tmp_path / "curve")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_search_prints_a_table_and_the_fit_to_go_on_with(run, colours):
    result = run("search", colours, "--backbone", "tiny,resnet20,vgg11,vgg13")
    assert result.exit_code == 0, result.output
    assert "resnet20=none (control)" in result.stdout
    assert "not tried: vgg11, vgg13: its weights are not on this disk" in result.stdout
    assert "photos that took part in no choice" in result.stdout
    assert f"go on with: tlkit fit {colours} --backbone tiny" in result.stdout
    assert f"runs/{colours.name}-search" in result.stdout
    wrong = run("search", colours, "--time", "soon")
    assert (wrong.exit_code, "such as 90s" in wrong.stderr) == (2, True)


def test_lr_find_says_why_it_suggests_nothing(run, colours):
    words = ["lr-find", colours, "--backbone", "tiny", "--optimizer", "adamw", "--out", "rates"]
    result = run(*words, "--min-lr", 1e-9, "--max-lr", 1e-8)
    assert result.exit_code == 0, result.output
    assert "no rate is suggested: the loss did not fall" in result.stdout
    assert "suggested: --lr" not in result.stdout
    told = json.loads(Path("rates/options.json").read_text())
    assert told["suggestion"] is None
    assert "--max-lr" in told["why_none"]


def test_an_interrupted_range_test_leaves_nothing(run, colours, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tlkit.rates.rate_range", interrupt)
    words = ["--backbone", "tiny", "--head", "mlp", "--steps", 10, "--out", tmp_path / "mine"]
    result = run("lr-find", colours, *words)
    assert result.exit_code == 130
    assert "stopped" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_cache_lists_shows_and_deletes_what_fits_have_kept(run, colours):
    assert "0 bytes of 10.0 GB" in run("cache").stdout
    assert run("fit", colours, "--backbone", "tiny").exit_code == 0
    listed = run("cache").stdout
    assert "features, up to head, of tiny" in listed
    (name,) = [word for word in listed.split() if word.startswith("tiny-")]
    assert "frozen tensors" in run("cache", name).stdout
    wrong = run("cache", "tiny-0", "--clear")
    assert (wrong.exit_code, name in wrong.stderr) == (2, True)
    assert "one entry" in run("cache", name, name).stderr
    assert "deleted 1 entries" in run("cache", "--clear").stdout
    assert "0 bytes" in run("cache").stdout


def test_nothing_is_kept_where_the_limit_is_zero(run, colours, monkeypatch):
    monkeypatch.setenv("TLKIT_CACHE_GB", "0")
    assert run("fit", colours, "--backbone", "tiny").exit_code == 0
    assert "0 bytes of 0 bytes" in run("cache").stdout


def test_ctrl_c_ends_a_fit_after_its_step_and_resume_goes_on(
    colours, tmp_path, tiny_plugin, monkeypatch
):
    """In a process of its own: a signal is for all of it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))
    words = [
        sys.executable, "-m", "tlkit", "fit", str(colours), "--backbone", "tiny", "--freeze",
        "none", "--strategy", "finetune", "--epochs", "4000", "--batch", "4", "--out",
        str(tmp_path / "run"),
    ]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.split()[:1] == ["3"]:  # an epoch
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in said
    assert "the same command with --resume goes on" in said
    assert [one.name for one in tmp_path.iterdir()] == [".run.checkpoint"]
    again = subprocess.Popen(
        [*words, "--resume"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    first = next(line.split()[0] for line in again.stdout if line.split()[0].isdigit())
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=60)
    assert "goes on from step" in said
    assert int(first) >= 4


def test_to_resume_what_has_ended_is_no_failure(run, colours, tmp_path):
    words = ["fit", colours, "--backbone", "tiny", "--out", tmp_path / "run", "--resume"]
    assert run(*words).exit_code == 0
    again = run(*words)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "this fit has ended" in again.stderr


def test_a_second_ctrl_c_is_not_waited_with():
    from tlkit.cli.interrupt import after_this_step

    # A process that is started in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with after_this_step("stopping") as check:
            check()
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    done = []
    thread = threading.Thread(target=lambda: done.append(_in_a_thread(after_this_step)))
    thread.start()
    thread.join()
    assert done == ["went on"]


def _in_a_thread(after_this_step):
    with after_this_step("stopping") as check:
        check()
    return "went on"


def test_inspect_shows_a_head_and_the_heads_of_a_run(run, fitted, colours, tmp_path):
    shown = run("inspect", fitted, "--tensors", "--json", tmp_path / "card.json")
    assert shown.exit_code == 0, shown.output
    for words in ("whole", "tiny, of tlkit-tiny 1.0", "blue, green, red", "head.layers.weight"):
        assert words in shown.stdout
    assert json.loads((tmp_path / "card.json").read_text())["classes"] == ["blue", "green", "red"]
    folds = tmp_path / "folds"
    assert run("fit", colours, "--backbone", "tiny", "--folds", 2, "--out", folds).exit_code == 0
    both = run("inspect", folds, "--json", tmp_path / "cards.json")
    assert both.stdout.count("whole") == 2
    assert len(json.loads((tmp_path / "cards.json").read_text())) == 2


def test_inspect_takes_no_number_of_a_card_for_granted():
    from tlkit.cli.inspect import _scores

    said = _scores({"validation": {"accuracy": 10**400, "loss": 0.25}})
    assert said == "loss 0.25"
    assert _scores({"validation": {"accuracy": True, "loss": "low"}}) == ""
    assert _scores({"validation": [1]}) == ""


def test_csv_on_a_terminal_shows_control_characters_escaped(monkeypatch, capfd):
    from tlkit.cli.predict import _lines

    for on_terminal, shown in ((True, "a\\x1b[2J,1\n"), (False, "a\x1b[2J,1\n")):
        monkeypatch.setattr("sys.stdout.isatty", lambda on_terminal=on_terminal: on_terminal)
        with _lines(None) as write:
            write("a\x1b[2J,1\n")
        assert capfd.readouterr().out == shown


def test_inspect_shows_what_a_stranger_wrote_without_obeying_it(run, fitted, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    from tlkit.artifact import CARD, CARD_DIGEST
    from tlkit.card import sha256_of

    with safe_open(fitted / "head.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = json.loads(file.metadata()[CARD])
    card.update(classes=["a\x1b[2Jb", "c\u202ed", "e\nf"], plan={}, metrics={"validation": 3})
    text = json.dumps(card)
    path = tmp_path / "strange.safetensors"
    save_file(tensors, path, {CARD: text, CARD_DIGEST: sha256_of(text)})
    shown = run("inspect", path)
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.stdout
    assert r"a\x1b[2Jb, c\u202ed, e\nf" in shown.stdout


def test_explain_writes_a_picture_for_each_image(run, fitted, colours, tmp_path):
    (tmp_path / "bad.png").write_text("none")
    asked = run("explain", colours / "red", tmp_path / "bad.png", "--head", fitted)
    assert asked.exit_code == 1
    assert "bad.png" in asked.stderr
    pictures = sorted(path.name for path in (tmp_path / "explained").glob("*.png"))
    assert pictures == [f"{number:03d}.png" for number in range(8)]
    assert asked.stdout.count(".png") == 16
    again = run("explain", colours / "red" / "000.png", "--head", fitted, "--class", "blue")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "explained-2" / "000.png").is_file()
    assert run("explain", colours, "--head", fitted, "--class", "bleu").exit_code == 2


def test_answers_that_are_unsure_stand_in_every_format(run, fitted, colours, tmp_path):
    ask = ("predict", colours, "--head", fitted, "--reject-below", "1", "--format")
    table = run(*ask, "table").stdout
    assert table.count("unsure") == 24
    lines = run(*ask, "csv").stdout.splitlines()
    assert lines[0].startswith("path,answer,class_1,probability_1")
    assert all(",unsure," in line for line in lines[1:])
    for line in run(*ask, "jsonl").stdout.splitlines():
        assert (json.loads(line)["answer"], json.loads(line)["unsure"]) == ("unsure", True)
    judged = run("evaluate", colours, "--head", fitted, "--reject-below", "0.9")
    assert "answered" in judged.stdout
    assert "calibration error" in judged.stdout


def test_export_writes_a_folder_and_says_how_it_compares(run, fitted, colours, tmp_path):
    asked = run("export", fitted, "--to", "torch", "--out", tmp_path / "out", "--images", colours)
    assert asked.exit_code == 0, asked.stderr
    assert "largest change of a probability" in asked.stdout
    assert "accuracy of the head" in asked.stdout
    assert (tmp_path / "out" / "model.pt2").is_file()
    refused = run("export", fitted, "--to", "torch", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "there already" in refused.stderr
