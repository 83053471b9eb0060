"""Folds: one head for each, as a fit on that very split would give it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tlkit
from tlkit.artifact import read_card, tensors_of
from tlkit.classifier import load
from tlkit.data.folder import scan_parts
from tlkit.data.split import folds
from tlkit.errors import FolderError, ImageError, OptionError, RunFolderError
from tlkit.model.familiar import TENSOR
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.train.events import Epoch, FoldScore, Note, Tick
from tlkit.train.folds import Fold, train_folds
from tlkit.train.probe import solve
from tlkit.train.run import train

WAYS = [
    {"head": "mlp", "epochs": 3},
    {"freeze": "to:stage1", "epochs": 2, "augment": "none"},
    {"freeze": "none", "epochs": 1, "augment": "light"},
]


def crossed(folder, count=3, **options):
    """Each fold with a copy of its tensors, and the other events."""
    chosen = FitOptions(backbone="tiny", folds=count, **options)
    parts = scan_parts(folder)
    plan = folds(parts, count=count, seed=chosen.seed, group_by=chosen.group_by)
    made, events = [], []
    for one in train_folds(chosen, TINY, plan, parts.train):
        if isinstance(one, Fold):
            made.append((one, tensors_of(one.trained.cut)))
        else:
            events.append(one)
    return plan, made, events


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_fold_is_what_a_fit_on_that_split_gives_bit_for_bit(colours, way):
    plan, made, _ = crossed(colours, **way)
    for splits, (fold, tensors) in zip(plan, made, strict=True):
        other = finish(train(FitOptions(backbone="tiny", **way, refit=False), TINY, splits))
        assert replace(fold.trained.best, wall_s=0) == replace(other.best, wall_s=0)
        wanted = tensors_of(other.cut)
        assert tensors.keys() == wanted.keys()
        assert all(torch.equal(tensors[name], wanted[name]) for name in tensors)
        assert (fold.trained.val_probabilities == other.val_probabilities).all()


def test_a_solved_fold_is_on_the_path_of_a_fit_on_that_split_bit_for_bit(colours, monkeypatch):
    """Which place of the path is kept is decided for all folds together, and by a fit alone."""
    plan, made, _ = crossed(colours, epochs=6)
    path = []

    def watching(cut, *words, **more):
        for record in solve(cut, *words, **more):
            path.append(tensors_of(cut))
            yield record

    monkeypatch.setattr("tlkit.train.run.solve", watching)
    for splits, (fold, tensors) in zip(plan, made, strict=True):
        path.clear()
        finish(train(FitOptions(backbone="tiny", epochs=6, refit=False), TINY, splits))
        wanted = path[fold.trained.best.number - 1]
        assert tensors.keys() == {*wanted, TENSOR}  # which is found when all is solved
        assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_the_same_seed_gives_the_same_folds_and_heads(colours):
    (_, one, _), (_, other, _) = (crossed(colours, epochs=3) for _ in range(2))
    for (first, tensors), (second, others) in zip(one, other, strict=True):
        assert first.files == second.files
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    _, third, _ = crossed(colours, epochs=3, seed=1)
    assert [fold.files for fold, _ in third] != [fold.files for fold, _ in one]


@pytest.mark.parametrize(("way", "passes"), [({}, 1), ({"head": "mlp", "augment": "light"}, 3)])
def test_the_frozen_part_is_run_once_over_each_view_for_all_folds(
    colours, monkeypatch, way, passes
):
    seen = []

    def counting(weights):
        network = TINY.build(weights)
        network.features[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
        return network

    parts = scan_parts(colours)
    plan = folds(parts, count=4, seed=0)
    options = FitOptions(backbone="tiny", epochs=2, folds=4, **way)
    list(train_folds(options, replace(TINY, build=counting), plan, parts.train))
    probes = seen.count(1)  # one empty image each, to find widths and sizes
    assert sum(seen) - probes == passes * len(parts.train)


def test_what_is_fitted_to_a_fold_sees_its_training_rows_alone(tmp_path):
    """Images of one fold's validation part may become anything: its head does not change."""
    from PIL import Image

    folder = make_folder(tmp_path / "photos")
    plan, before, _ = crossed(folder, epochs=1)
    for name in plan[0].val.files:
        Image.new("RGB", (64, 48), (1, 2, 3)).save(folder / name)
    _, after, _ = crossed(folder, epochs=1)
    assert all(torch.equal(before[0][1][name], after[0][1][name]) for name in before[0][1])
    assert any(not torch.equal(before[1][1][name], after[1][1][name]) for name in before[1][1])


def test_all_solved_folds_have_the_penalty_that_is_best_on_average(colours):
    _, made, events = crossed(colours, epochs=6)
    kept = {fold.trained.best.number for fold, _ in made}
    losses = np.mean([[one.val_loss for one in fold.trained.history] for fold, _ in made], axis=0)
    assert kept == {int(losses.argmin()) + 1}
    assert [one.text for one in events if isinstance(one, Note) and "for all folds" in one.text]


def test_class_weights_are_of_the_folds_own_images(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=4)
    make_folder(folder, classes=("red", "green", "blue"), per_class=4)
    (folder / "red" / "000.png").unlink()
    way = {"head": "mlp", "epochs": 1, "balance": "classes"}
    plan, made, _ = crossed(folder, **way)
    for splits, (_, tensors) in zip(plan, made, strict=True):
        other = finish(train(FitOptions(backbone="tiny", **way), TINY, splits))
        wanted = tensors_of(other.cut)
        assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    _, plain, _ = crossed(folder, head="mlp", epochs=1)
    assert any(not torch.equal(plain[0][1][name], made[0][1][name]) for name in plain[0][1])


@pytest.mark.parametrize("way", [{"epochs": 2}, {"freeze": "none", "epochs": 1}], ids=str)
def test_notes_are_told_once_and_ticks_reach_their_total(colours, way):
    _, _, events = crossed(colours, **way)
    notes = [one.text for one in events if isinstance(one, Note)]
    assert len(notes) == len(set(notes))
    for what in {one.what for one in events if isinstance(one, Tick)}:
        last = [one for one in events if isinstance(one, Tick) and one.what == what][-1]
        assert last.done == last.total
    assert len([one for one in events if isinstance(one, Epoch)]) == 3 * way["epochs"]


def test_every_image_is_judged_once_by_a_head_that_did_not_learn_from_it(colours, tmp_path):
    # 24 images over 5 folds: 8 of a class do not divide evenly.
    result = tlkit.fit(colours, backbone="tiny", epochs=3, folds=5, out=tmp_path / "run")
    files = [name for one in result.folds for name in one.files]
    assert sorted(files) == list(scan_parts(colours).train.files)
    assert result.out_of_fold.images == 24
    for one in result.folds:
        head = load(one.head)
        paths = [colours / name for name in one.files]
        rows = np.stack([seen.probabilities for seen in head.predict(paths)])
        assert np.allclose(rows, one.probabilities, atol=1e-5)
        assert one.card.images["train"] + one.card.images["val"] == 24
        assert one.card.metrics["fold"] == {"number": one.number, "of": 5}
        assert read_card(one.head) == one.card


def test_a_run_folder_of_folds_holds_what_the_readme_says(tmp_path):
    for part, seed in (("train", 0), ("test", 2)):
        make_folder(tmp_path / "photos" / part, per_class=6, seed=seed)
    run = tmp_path / "run"
    result = tlkit.fit(tmp_path / "photos", backbone="tiny", epochs=3, folds=3, out=run)
    below = {str(one.relative_to(run)) for one in run.rglob("*") if one.is_file()}
    assert below == {
        "folds.csv", "out-of-fold.csv", "metrics.json", "options.json", "confusion.png",
        *(f"fold-{number}/head.safetensors" for number in (1, 2, 3)),
    }  # fmt: skip
    scores = json.loads((run / "metrics.json").read_text())
    values = [one.validation.accuracy for one in result.folds]
    assert scores["over_folds"]["accuracy"] == {
        "mean": pytest.approx(np.mean(values)), "std": pytest.approx(np.std(values, ddof=1)),
        "min": min(values), "max": max(values),
    }  # fmt: skip
    assert result.spread["accuracy"].mean == pytest.approx(np.mean(values))
    assert scores["out_of_fold"]["images"] == 18
    assert scores["test"]["images"] == 18
    assert set(scores["test_over_folds"]) == {"accuracy", "balanced_accuracy", "loss"}
    rows = list(csv.DictReader((run / "folds.csv").read_text().splitlines()))
    assert [one["fold"] for one in rows] == ["1", "2", "3"]
    assert {one["penalty"] for one in rows} == {str(result.folds[0].best.rate)}
    rows = list(csv.DictReader((run / "out-of-fold.csv").read_text().splitlines()))
    assert [one["path"] for one in rows] == list(scan_parts(tmp_path / "photos").train.files)
    right = [max(["red", "green", "blue"], key=lambda c: float(one[f"probability_{c}"]))
             == one["class"] for one in rows]  # fmt: skip
    assert np.mean(right) == pytest.approx(result.out_of_fold.accuracy)
    options = json.loads((run / "options.json").read_text())
    assert options["given"]["folds"] == 3


@pytest.mark.parametrize("way", [{"epochs": 2}, {"freeze": "none", "epochs": 1}], ids=str)
def test_the_test_part_is_judged_by_the_mean_of_all_heads(tmp_path, way):
    for part, seed in (("train", 0), ("test", 2)):
        make_folder(tmp_path / "photos" / part, per_class=5, seed=seed)
    result = tlkit.fit(tmp_path / "photos", backbone="tiny", folds=2, **way)
    test = scan_parts(tmp_path / "photos").test
    each = [
        np.stack([one.probabilities for one in load(head).predict(test.paths)])
        for head in result.heads
    ]
    from tlkit.metrics import measure

    wanted = measure(test.labels, np.mean(each, axis=0), test.classes)
    assert result.test.loss == pytest.approx(wanted.loss, rel=1e-3)
    for one, rows in zip(result.folds, each, strict=True):
        assert one.test.loss == pytest.approx(
            measure(test.labels, rows, test.classes).loss, rel=1e-3
        )


def test_a_run_of_folds_may_be_replaced_and_nothing_else_in_it(colours, tmp_path):
    run = tmp_path / "run"
    way = {"backbone": "tiny", "epochs": 1, "out": run}
    tlkit.fit(colours, folds=3, **way)
    with pytest.raises(RunFolderError):
        tlkit.fit(colours, folds=2, **way)
    tlkit.fit(colours, folds=2, overwrite=True, **way)
    assert not (run / "fold-3").exists()
    for precious in ("fold-1/mine.txt", "notes/head.safetensors", "fold-1/more/head.safetensors"):
        (run / precious).parent.mkdir(exist_ok=True)
        (run / precious).write_text("mine")
        with pytest.raises(RunFolderError):
            tlkit.fit(colours, overwrite=True, **way)
        (run / precious).unlink()
        if not any((run / precious).parent.iterdir()):
            (run / precious).parent.rmdir()
    tlkit.fit(colours, overwrite=True, **way)
    assert (run / "head.safetensors").exists()


@pytest.mark.parametrize("way", [{"epochs": 2}, {"freeze": "none", "epochs": 1}], ids=str)
def test_with_on_bad_skip_the_bad_are_in_no_fold_and_are_listed(tmp_path, way):
    for part in ("train", "test"):
        make_folder(tmp_path / "photos" / part, per_class=4)
        (tmp_path / "photos" / part / "red" / "bad.png").write_text("no image")
    with pytest.raises(ImageError, match=r"bad\.png"):
        tlkit.fit(tmp_path / "photos", backbone="tiny", folds=2, **way)
    result = tlkit.fit(tmp_path / "photos", backbone="tiny", folds=2, on_bad="skip", **way)
    assert [one.path.parent.parent.name for one in result.bad] == ["train", "test"]
    assert result.out_of_fold.images == result.test.images == 12
    assert not [name for one in result.folds for name in one.files if "bad" in name]
    assert {one.card.images["left_out"] for one in result.folds} == {1}


@pytest.mark.parametrize("way", [{"epochs": 2}, {"freeze": "none", "epochs": 1}], ids=str)
def test_a_class_that_a_fold_cannot_learn_is_named(tmp_path, way):
    folder = make_folder(tmp_path / "photos", per_class=3)
    for name in ("000", "001", "002"):
        (folder / "red" / f"{name}.png").write_text("no image")
    with pytest.raises(FolderError, match="red"):
        tlkit.fit(folder, backbone="tiny", folds=3, on_bad="skip", **way)


def test_folds_that_cannot_be_are_refused(colours, tmp_path):
    with pytest.raises(OptionError, match="--folds 1"):
        tlkit.fit(colours, backbone="tiny", folds=1)
    with pytest.raises(OptionError, match="--val-fraction"):
        tlkit.fit(colours, backbone="tiny", folds=2, val_fraction=0.4)
    with pytest.raises(FolderError, match="8 images in 'red'"):
        tlkit.fit(colours, backbone="tiny", folds=9)
    for part in ("train", "val"):
        make_folder(tmp_path / "photos" / part)
    with pytest.raises(FolderError, match="--folds"):
        tlkit.fit(tmp_path / "photos", backbone="tiny", folds=2)
    with pytest.raises(FolderError, match="both in train and in val"):
        tlkit.fit(tmp_path / "photos", backbone="tiny", group_by="^[0-9]+")


def test_groups_are_kept_together_with_and_without_folds(colours):
    # 000 and 001 are one group, 002 and 003 the next: by the number halved.
    pattern = "^00([01]|[23]|[45]|[67])"
    way = {"backbone": "tiny", "epochs": 1}
    with pytest.raises(FolderError, match="does not name 18 of 24"):
        tlkit.fit(colours, folds=2, group_by="^00[01]", **way)
    result = tlkit.fit(colours, folds=4, group_by=pattern, **way)
    for one in result.folds:
        numbers = {name.rsplit("/")[-1] for name in one.files}
        assert all(f"red/{number}" in one.files for number in numbers)
    assert result.card.options["group_by"] == pattern
    tlkit.fit(colours, group_by=pattern, **way)


def test_a_fold_is_told_of_and_finetuned_folds_keep_their_own_epoch(colours):
    seen = []
    options = FitOptions(backbone="tiny", folds=2, strategy="probe+finetune", epochs=1)
    result = finish(tlkit.fit_events(colours, options), seen.append)
    told = [one for one in seen if isinstance(one, FoldScore)]
    assert [(one.number, one.of, one.images) for one in told] == [(1, 2, 12), (2, 2, 12)]
    assert [one.accuracy for one in told] == [one.validation.accuracy for one in result.folds]
    assert [one.kept for one in told] == [one.best for one in result.folds]


def test_fine_tuned_folds_are_checked_once_and_not_by_each_fold(colours):
    options = FitOptions(backbone="tiny", folds=3, freeze="none", epochs=1)
    plan = folds(scan_parts(colours), count=3, seed=0)
    events = list(train_folds(options, TINY, plan, scan_parts(colours).train))
    checks = [one for one in events if isinstance(one, Tick) and one.what == "checking images"]
    assert [one.done for one in checks] == [24]
