"""Fitting as a whole: what is frozen stays, what is seeded repeats, the best is kept."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

import tlkit
from tlkit.classifier import load
from tlkit.data.folder import scan_parts
from tlkit.data.split import split
from tlkit.errors import (
    DiskError,
    FolderError,
    ImageError,
    OptionError,
    PluginError,
    RunFolderError,
    TlkitError,
    TrainingError,
)
from tlkit.model.device import Compute
from tlkit.options import FitOptions
from tlkit.plugins import choose
from tlkit.steps import Tick, finish
from tlkit.testing import TINY, make_folder
from tlkit.train import loop
from tlkit.train.events import Epoch, Note
from tlkit.train.run import train

WAYS = [
    {},
    {"head": "mlp", "epochs": 3},
    {"attach": "append", "epochs": 2},
    {"attach": "last", "freeze": "backbone", "head": "bn-mlp", "epochs": 2},
    {"freeze": "to:stage1", "epochs": 2},
    {"freeze": "none", "epochs": 2, "augment": "light"},
]


def tensors_in(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)


def trained(folder, **options):
    chosen = FitOptions(backbone="tiny", **options)
    parts = scan_parts(folder)
    splits = split(parts, val_fraction=chosen.val_fraction, seed=chosen.seed)
    events = []
    return finish(train(chosen, TINY, splits), events.append), events


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_frozen_tensors_and_buffers_are_bitwise_unchanged_by_a_fit(colours, way):
    result, _ = trained(colours, **way)
    fresh, _ = trained(colours, **{**way, "epochs": 1})
    before = fresh.cut.frozen_tensors()
    after = result.cut.frozen_tensors()
    network = TINY.build(fresh.weights)
    for name, value in network.features.state_dict().items():
        if f"features.{name}" in after:
            assert torch.equal(after[f"features.{name}"], value), name
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_same_seed_gives_the_same_head_bit_for_bit(colours, way):
    first, again = (trained(colours, **way)[0].cut.trained_tensors() for _ in range(2))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = trained(colours, **way, seed=1)[0].cut.trained_tensors()
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_does_not_change_the_head(colours, workers):
    way = {"freeze": "none", "epochs": 1, "augment": "light"}
    one = trained(colours, **way, workers=2)[0].cut.trained_tensors()
    other = trained(colours, **way, workers=workers)[0].cut.trained_tensors()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_colours_are_learnt(colours, tmp_path, monkeypatch):
    result = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run")
    assert result.validation.accuracy == 1.0
    monkeypatch.setattr("tlkit.train.run.FEW", 0)
    result = tlkit.fit(colours, backbone="tiny", out=tmp_path / "held-out")
    assert result.validation.accuracy == 1.0
    assert result.best.val_loss == min(one.val_loss for one in result.history)


def test_what_is_trained_through_moves_and_colours_are_learnt_that_way_too(colours):
    result, _ = trained(colours, freeze="none", epochs=6, lr=0.01, backbone_lr=0.01, augment="none")
    start = TINY.build(result.weights).features.state_dict()
    now = result.cut.model.features.state_dict()
    assert any(not torch.equal(start[name], now[name]) for name in start)
    assert result.best.val_accuracy == 1.0


def test_the_best_epoch_is_kept_not_the_last(colours):
    # A rate so high that later epochs are worse than the first ones.
    result, events = trained(colours, head="mlp", epochs=6, lr=3.0, optimizer="sgd", seed=3)
    history = [one for one in events if isinstance(one, Epoch)]
    assert len(history) == 6
    assert result.best.val_loss == min(one.val_loss for one in history)
    labels = torch.from_numpy(result.val_labels)
    chosen = torch.from_numpy(result.val_probabilities)[torch.arange(len(labels)), labels]
    assert -chosen.log().mean().item() == pytest.approx(result.best.val_loss, rel=1e-4, abs=1e-6)


def test_the_bank_runs_the_frozen_part_once_for_each_view_however_many_epochs(colours, monkeypatch):
    seen = []

    def counting(weights):
        network = TINY.build(weights)
        network.features[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
        return network

    from dataclasses import replace

    options = FitOptions(backbone="tiny", head="mlp", epochs=7, augment="light", views=3)
    splits = split(scan_parts(colours), val_fraction=0.25, seed=0)
    finish(train(options, replace(TINY, build=counting), splits))
    probes = seen.count(1)  # one empty image each, to find widths and sizes
    assert sum(seen) - probes == 3 * len(splits.train) + len(splits.val)


def test_a_bank_trains_the_same_head_as_images_do(colours):
    """The frozen part from the bank, and the same run in every step, give one head."""
    from tlkit.data.pixels import Decoded, Room
    from tlkit.data.transforms import augmentation
    from tlkit.model.build import build
    from tlkit.model.device import compute_on
    from tlkit.train.bank import extractor
    from tlkit.train.feeds import BankFeed, ImageFeed
    from tlkit.train.judge import Verdict
    from tlkit.train.loop import epochs, loss_for
    from tlkit.train.optimizer import optimizer_for
    from tlkit.train.recipe import plan_of

    catalog = scan_parts(colours).train
    options = FitOptions(
        backbone="tiny", freeze="features", epochs=2, batch=8, optimizer="sgd", lr=0.1
    )
    heads = []
    for banked in (True, False):
        one = build(TINY, plan_of(options), 3).cut
        chosen = compute_on("cpu", "fp32")
        chosen.place(one.model)
        look = augmentation("none", one.model.spec, 0)
        if banked:
            runs = extractor(one, chosen, backbone="tiny")
            bank = finish(runs.fill(catalog, look, views=1, what="bank"))
            feed = BankFeed(module=one.trained, bank=bank, batch=8, seed=0)
        else:
            feed = ImageFeed(
                module=one.model, catalog=catalog, augmentation=look, batch=8, seed=0, workers=1,
                pixels=Decoded(catalog.paths, at_least_px=36, room=Room("none", 0)),
            )  # fmt: skip
        steps = epochs(
            one, feed, lambda: Verdict(loss=0, accuracy=0, balanced_accuracy=0), options,
            optimizer=optimizer_for(one, options, "sgd"),
            loss=loss_for(chosen, feed.module, options, class_weights=None, classes=3),
        )  # fmt: skip
        list(steps)
        heads.append(one.trained_tensors())
    for name in heads[0]:
        # The bank holds half precision.
        assert torch.allclose(heads[0][name], heads[1][name], atol=1e-3), name


def test_ticks_reach_their_total(colours):
    _, events = trained(colours)
    ticks = [one for one in events if isinstance(one, Tick)]
    for what in {one.what for one in ticks}:
        last = [one for one in ticks if one.what == what][-1]
        assert last.done == last.total


def test_a_val_folder_judges_and_a_test_folder_is_reported_apart(tmp_path):
    for part, seed in (("train", 0), ("val", 1), ("test", 2)):
        make_folder(tmp_path / "photos" / part, per_class=4 if part != "train" else 8, seed=seed)
    result = tlkit.fit(tmp_path / "photos", backbone="tiny")
    assert result.card.images == {"train": 24, "val": 12, "left_out": 0}
    assert (result.validation.images, result.test.images) == (12, 12)
    scores = json.loads((result.run / "metrics.json").read_text())
    assert scores["test"]["accuracy"] == result.test.accuracy


def test_a_run_folder_holds_what_the_readme_says(colours, tmp_path):
    result = tlkit.fit(
        colours, backbone="tiny", out=tmp_path / "run", hidden=7, head="mlp", epochs=2
    )
    names = {one.name for one in (tmp_path / "run").iterdir()}
    assert names == {
        "head.safetensors", "history.csv", "validation.csv", "metrics.json", "options.json",
        "curves.png", "confusion.png",
    }  # fmt: skip
    options = json.loads((tmp_path / "run" / "options.json").read_text())
    assert options["given"] == {"backbone": "tiny", "hidden": 7, "head": "mlp", "epochs": 2}
    assert options["auto"]["optimizer"] == "adamw"
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 1 + 2
    assert result.head == tmp_path / "run" / "head.safetensors"


def test_a_frozen_backbone_gives_a_head_of_kilobytes(colours, tmp_path):
    result = tlkit.fit(colours, out=tmp_path / "run")
    assert result.card.backbone == "efficientnet_lite0"
    assert result.head.stat().st_size < 64 * 1024
    assert {name.split(".")[0] for name in tensors_in(result.head)} == {"head", "familiar"}


def test_runs_are_numbered_and_the_newest_is_found(colours):
    first = tlkit.fit(colours, backbone="tiny")
    second = tlkit.fit(colours, backbone="tiny", seed=1)
    assert first.run != second.run
    assert load().card.options["seed"] == 1


def test_a_folder_that_is_not_empty_is_never_overwritten_in_silence(colours, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError):
            tlkit.fit(colours, backbone="tiny", out=run, overwrite=overwrite)
    assert [one.name for one in run.iterdir()] == ["precious.txt"]
    (run / "precious.txt").unlink()
    first = tlkit.fit(colours, backbone="tiny", out=run).head.read_bytes()
    with pytest.raises(RunFolderError):
        tlkit.fit(colours, backbone="tiny", out=run, seed=1)
    assert (run / "head.safetensors").read_bytes() == first
    tlkit.fit(colours, backbone="tiny", out=run, seed=1, overwrite=True)
    assert (run / "head.safetensors").read_bytes() != first


@pytest.mark.parametrize("out", ["photos", "photos/red", "photos/run", "."])
def test_photos_are_never_in_the_way_of_a_run_folder(tmp_path, out):
    folder = make_folder(tmp_path / "photos")
    before = sorted(tmp_path.rglob("*"))
    for overwrite in (False, True):
        with pytest.raises(RunFolderError):
            tlkit.fit(folder, backbone="tiny", out=out, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_image_ends_the_fit_with_its_name_and_leaves_nothing(tmp_path):
    folder = make_folder(tmp_path / "photos")
    for name in ("red/bad one.png", "blue/worse.png"):
        (folder / name).write_text("no image")
    for way in ({}, {"freeze": "none"}):
        with pytest.raises(ImageError, match=r"(?s)bad one\.png.*worse\.png|worse.*bad one"):
            tlkit.fit(folder, backbone="tiny", out=tmp_path / "run", **way)
    assert not (tmp_path / "run").exists()
    assert {one.name for one in tmp_path.iterdir()} == {"photos"}


@pytest.mark.parametrize("way", [{}, {"freeze": "none", "epochs": 1}], ids=str)
def test_with_on_bad_skip_the_rest_is_learnt_and_the_bad_are_listed(tmp_path, way):
    folder = make_folder(tmp_path / "photos")
    (folder / "red" / "bad.png").write_text("no image")
    result = tlkit.fit(folder, backbone="tiny", on_bad="skip", **way)
    assert [one.path.name for one in result.bad] == ["bad.png"]
    images = result.card.images
    # Of few images all are learnt from, and all are judged.
    assert (images["train"], images["val"]) == ((19, 5) if way else (24, 24))


@pytest.mark.parametrize("more", [{}, {"folds": 2}], ids=str)
def test_a_large_confusion_matrix_is_a_table_of_what_is_not_empty(tmp_path, monkeypatch, more):
    monkeypatch.setattr("tlkit.metrics.MOST_CLASSES", 2)
    for part in ("train", "test"):
        make_folder(tmp_path / "photos" / part, per_class=4)
    given = {"backbone": "tiny", "out": tmp_path / "run", **more}
    result = tlkit.fit(tmp_path / "photos", **given)
    judged = "out_of_fold" if more else "validation"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    with (tmp_path / "run" / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    for part in (judged, "test"):
        evaluation = getattr(result, part)
        assert metrics[part]["confusion"] is None
        assert [list(one) for one in evaluation.confusions()] == metrics[part]["largest_confusions"]
        names = [one.name for one in evaluation.classes]
        cells = {
            (names.index(row["class"]), names.index(row["predicted"])): int(row["images"])
            for row in rows
            if row["part"] == part
        }
        assert cells == {(i, j): images for i, j, images in evaluation.cells()}
    # A run folder with that table is one that --overwrite knows, and that a report reads.
    tlkit.fit(tmp_path / "photos", overwrite=True, **given)
    assert tlkit.write_report(tmp_path / "run", check=False, maps=False).page.is_file()


def test_a_run_folder_that_cannot_be_made_is_refused_before_the_training(colours, tmp_path):
    (tmp_path / "file").write_text("x")
    events = tlkit.fit_events(colours, FitOptions(backbone="tiny"), out=tmp_path / "file" / "run")
    seen = []
    with pytest.raises(DiskError):
        finish(events, seen.append)
    assert not [one for one in seen if isinstance(one, Epoch | Tick)]


def test_a_bad_test_image_is_told_before_the_training_or_left_out(tmp_path):
    for part in ("train", "test"):
        make_folder(tmp_path / "photos" / part)
    (tmp_path / "photos" / "test" / "red" / "bad.png").write_text("no image")
    seen = []
    with pytest.raises(ImageError, match=r"bad\.png"):
        finish(tlkit.fit_events(tmp_path / "photos", FitOptions(backbone="tiny")), seen.append)
    assert not [one for one in seen if isinstance(one, Epoch)]
    result = tlkit.fit(tmp_path / "photos", backbone="tiny", on_bad="skip")
    assert result.test.images == 24
    assert [one.path.name for one in result.bad] == ["bad.png"]


@pytest.mark.parametrize("way", [{}, {"freeze": "none", "epochs": 1}], ids=str)
def test_a_class_of_which_nothing_can_be_read_is_named(tmp_path, way):
    folder = make_folder(tmp_path / "photos")
    for path in (folder / "red").iterdir():
        path.write_text("no image")
    with pytest.raises(FolderError, match=r"(?s)without a readable image.*red"):
        tlkit.fit(folder, backbone="tiny", on_bad="skip", balance="classes", **way)


def test_a_batch_of_one_through_a_trained_batchnorm_is_refused(colours):
    for way in ({"head": "bn-mlp"}, {"freeze": "none", "batchnorm": "learn"}):
        with pytest.raises(OptionError, match="--batch 2"):
            trained(colours, batch=1, epochs=1, **way)
    trained(colours, batch=1, epochs=1, head="mlp")


def test_overwrite_without_a_place_and_a_fraction_with_a_val_part_are_refused(colours, tmp_path):
    with pytest.raises(OptionError, match="--overwrite"):
        tlkit.fit(colours, backbone="tiny", overwrite=True)
    for part in ("train", "val"):
        make_folder(tmp_path / "photos" / part)
    with pytest.raises(OptionError, match="--val-fraction"):
        tlkit.fit(tmp_path / "photos", backbone="tiny", val_fraction=0.4)


def test_a_run_that_was_interrupted_is_not_the_newest(colours):
    result = tlkit.fit(colours, backbone="tiny")
    hidden = result.run.parent / ".half.tmp"
    hidden.mkdir()
    (hidden / "head.safetensors").write_text("half")
    assert load().card == result.card


def test_options_that_would_be_ignored_are_refused(colours):
    for way, named in (
        ({"hidden": 7}, "--hidden"),
        ({"dropout": 0.5}, "--dropout"),
        ({"lr": 0.5}, "--lr"),
        ({"batch": 5}, "--batch"),
        ({"backbone_lr": 0.5, "head": "mlp"}, "--backbone-lr"),
        ({"views": 3, "freeze": "none"}, "--views"),
        ({"views": 3, "augment": "mirror"}, "--views"),
        ({"optimizer": "lbfgs", "head": "mlp"}, "--optimizer lbfgs"),
        ({"optimizer": "lbfgs", "freeze": "none"}, "--optimizer lbfgs"),
    ):
        with pytest.raises(OptionError, match=named):
            tlkit.fit(colours, backbone="tiny", **way)


def test_every_option_changes_something(colours):
    """No option is accepted and then ignored: each moves the head, or what the card says of it."""
    base = {
        "head": "mlp",
        "attach": "append",
        "freeze": "to:stage1",
        "epochs": 2,
        "augment": "light",
    }
    changes = {
        "weights": "none", "attach": "replace", "head": "vgg", "hidden": 9, "dropout": 0.6,
        "pool": "max",
        "freeze": "to:stage2", "augment": "strong", "views": 1, "epochs": 3, "batch": 5,
        "optimizer": "sgd", "lr": 0.01, "backbone_lr": 0.01, "weight_decay": 0.5,
        "label_smoothing": 0.3, "val_fraction": 0.4, "seed": 5, "precision": "bf16",
        "schedule": "constant", "warmup": "0.5", "clip": 0.01, "ema": 0.9,
        "unfreeze_every": 1, "strategy": "probe+finetune",
        "layout": "contiguous", "batchnorm": "learn",
    }  # fmt: skip
    uneven = make_folder(colours.parent / "uneven", per_class=4)
    make_folder(uneven, classes=("red", "green", "blue", "black"), per_class=9, seed=1)
    plain = trained(colours, **base)[0].cut.trained_tensors()

    def differs(one, other):
        same = one.keys() == other.keys() and all(
            one[name].shape == other[name].shape and torch.equal(one[name], other[name])
            for name in one
        )
        return not same

    idle = []
    for name, value in changes.items():
        other = trained(colours, **{**base, name: value})[0].cut.trained_tensors()
        if not differs(plain, other):
            idle.append(name)
    assert idle == []
    longer = {**base, "epochs": 4}
    # What needs company, with what the base has besides it.
    pairs = {
        "momentum": ({**base, "optimizer": "sgd"}, 0.2),
        "step_epochs": ({**longer, "schedule": "step", "step_epochs": 1}, 3),
        "gamma": ({**longer, "schedule": "step", "step_epochs": 1}, 0.9),
        "jitter": ({**base, "freeze": "none", "augment": "vgg"}, "36,40"),
        "mixup": ({**base, "freeze": "none"}, 1.0),
        "accumulate": ({**base, "batch": 4}, 2),
        "stage_decay": ({**base, "freeze": "none"}, 0.1),
        "cutmix": ({**base, "freeze": "none"}, 1.0),
    }
    for name, (others, value) in pairs.items():
        one, other = (
            trained(colours, **options)[0].cut.trained_tensors()
            for options in (others, {**others, name: value})
        )
        assert differs(one, other), name
    (uneven / "red" / "000.png").unlink()
    one, other = (
        trained(uneven, **base, balance=how)[0].cut.trained_tensors() for how in ("none", "classes")
    )
    assert differs(one, other)
    # What is left is where to compute and what to do with files; each has a test of its own.
    from tlkit.options import declared

    rest = {one.name for one in declared(FitOptions)} - changes.keys() - pairs.keys()
    assert rest == {
        "backbone", "balance", "refit", "device", "workers", "on_bad",
        "plateau_epochs", "cuts", "patience", "monitor",  # tests/train/test_schedule.py
        "folds", "group_by",  # tests/train/test_folds.py
        "cache", "cache_gb",  # tests/data/test_pixels.py
        "engine", "bank",  # tests/model/test_engine.py, tests/train/test_bank.py
    }  # fmt: skip


def test_a_refit_learns_from_the_validation_images_and_leaves_their_scores_alone(
    colours, monkeypatch
):
    monkeypatch.setattr("tlkit.train.run.FEW", 0)
    once, _ = trained(colours, refit=False)
    twice, events = trained(colours)
    assert [one.text for one in events if isinstance(one, Note) and "all 24 images" in one.text]
    assert once.best.val_loss == twice.best.val_loss
    assert (once.val_probabilities == twice.val_probabilities).all()
    weight = "head.layers.weight"
    assert not torch.equal(once.cut.trained_tensors()[weight], twice.cut.trained_tensors()[weight])


def test_a_val_folder_of_the_users_is_never_learnt_from(tmp_path):
    for part, seed in (("train", 0), ("val", 1)):
        make_folder(tmp_path / "photos" / part, seed=seed)
    heads = [trained(tmp_path / "photos", refit=refit)[0] for refit in (True, False)]
    one, other = (head.cut.trained_tensors() for head in heads)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_diverges_is_an_error_that_names_step_rate_and_batch(colours):
    with pytest.raises(TrainingError, match="training diverged") as caught:
        trained(
            colours, freeze="none", optimizer="sgd", lr=1e30, backbone_lr=1e30, epochs=3, batch=6,
            schedule="constant",
        )  # fmt: skip
    first, *images = caught.value.found.splitlines()
    assert "epoch 1, step 2, at the rate 1e+30" in first
    known = {str(one) for one in colours.rglob("*.png")}
    assert len(images) == 6
    assert known.issuperset(images)


@pytest.mark.parametrize("options", [{"freeze": "none"}, {"head": "mlp", "hidden": 4}], ids=str)
def test_where_a_loss_diverges_later_the_best_epoch_before_is_kept(colours, monkeypatch, options):
    real, steps = loop.gradients, []

    def failing(loss, parts, optimizer):
        steps.append(parts)
        return real(loss, parts, optimizer) if len(steps) <= 10 else (math.nan, 6)

    common = {**options, "epochs": 4, "batch": 6, "optimizer": "adamw"}
    whole, _ = trained(colours, **{**common, "epochs": 3, "schedule": "constant"})
    monkeypatch.setattr(loop, "gradients", failing)
    result, events = trained(colours, **common, schedule="constant")
    (said,) = [one.text for one in events if isinstance(one, Note) and "diverged" in one.text]
    assert "epoch 4, step 11" in said
    assert f"up to epoch {result.best.number} is kept" in said
    assert len(result.history) == 3
    kept, expected = (one.cut.trained_tensors() for one in (result, whole))
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_a_batch_that_the_memory_does_not_hold_goes_through_in_pieces(colours, monkeypatch):
    """As on a GPU: what is too large raises, and the step is the same but for rounding."""
    common = {"freeze": "none", "epochs": 2, "batch": 7, "augment": "none"}
    whole, _ = trained(colours, **common)
    real = Compute.run

    def small(self, module, inputs):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(self, module, inputs)

    monkeypatch.setattr(Compute, "run", small)
    pieces, events = trained(colours, **common)
    notes = [one.text for one in events if isinstance(one, Note) and "pieces" in one.text]
    assert ["in 2 pieces" in notes[0], "in 4 pieces" in notes[1], len(notes)] == [True, True, 2]
    for name, one in whole.cut.trained_tensors().items():
        assert torch.allclose(one, pieces.cut.trained_tensors()[name], atol=1e-4)
    assert np.allclose(whole.val_probabilities, pieces.val_probabilities, atol=1e-4)

    def none(self, module, inputs):
        raise torch.OutOfMemoryError("no room at all")

    monkeypatch.setattr(Compute, "run", none)
    with pytest.raises(TrainingError, match="memory is too small"):
        trained(colours, **common)
    with pytest.raises(TlkitError, match="memory of cpu is too small"):
        trained(colours)


def test_a_folder_of_one_class_is_refused_before_the_backbone_is_built(tmp_path):
    folder = make_folder(tmp_path / "photos", classes=("red",))
    with pytest.raises(FolderError, match="has one class"):
        tlkit.fit(folder, backbone="resnet152")


def test_a_plugin_whose_build_raises_is_named(colours, monkeypatch):
    def fails(weights):
        raise ZeroDivisionError("by nought")

    from dataclasses import replace

    import tlkit.testing

    monkeypatch.setattr(tlkit.testing, "TINY", replace(TINY, build=fails))
    with pytest.raises(PluginError, match=r"(?s)'tiny' failed.*ZeroDivisionError: by nought"):
        tlkit.fit(colours, backbone="tiny")


def test_a_random_backbone_is_the_same_again_when_its_head_is_loaded(colours):
    result = tlkit.fit(colours, backbone="tiny", weights="none", seed=4)
    assert load(result.head).evaluate(colours).images == 24


@pytest.mark.parametrize(
    "name",
    ["vgg11_bn", "resnet18", "densenet121", "googlenet", "efficientnet_lite0", "timm/test_resnet"],
)
def test_every_family_stays_bitwise_frozen_and_loads_again(name, tmp_path):
    """One network of each plugin, through a fit that trains a head with BatchNorm and dropout."""
    folder = make_folder(tmp_path / "photos", classes=("red", "blue"), per_class=3)
    weights = "default" if name == "efficientnet_lite0" else "none"
    result = tlkit.fit(
        folder, backbone=name, weights=weights, head="bn-mlp", hidden=4, epochs=1, augment="none"
    )
    head = load(result.head)
    from tlkit.model.build import Plan, build
    from tlkit.weights import digest

    fresh = build(choose(name).backbone, Plan(**result.card.plan), 2)
    assert digest(fresh.cut.frozen_tensors().items()) == result.card.weights.frozen_sha256
    paths = sorted(folder.rglob("*.png"))
    assert len(head.predict(paths)) == len(paths)
