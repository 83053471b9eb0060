"""Checkpoints: a fit that was interrupted ends with the very bits of one that was not."""

from __future__ import annotations

import json
import os
import re
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

import tlkit.train.checkpoint as module
from tlkit import runs
from tlkit.errors import DiskError, FitEnded, RunFolderError
from tlkit.fitting import fit_events
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.train.checkpoint import Checkpoints, Standing
from tlkit.train.events import Note, Tick

COMMON = {"backbone": "tiny", "epochs": 3, "seed": 3}
IN_STEPS = {"batch": 5}
FITS = {
    "fine-tuning": {"freeze": "none", "strategy": "finetune", "augment": "standard", "ema": 0.9},
    "behind a probe": {"freeze": "none", "strategy": "probe+finetune", "optimizer": "sgd"},
    "a prefix from the bank": {"freeze": "to:stage1", "optimizer": "adam", "augment": "none"},
    "a hidden head": {"head": "mlp", "hidden": 8, "augment": "mirror", "accumulate": 2},
    "plateaus and patience": {
        "freeze": "none", "strategy": "finetune", "schedule": "plateau", "cuts": 1,
        "plateau_epochs": 1, "epochs": 6, "patience": 2, "lr": 0.05, "backbone_lr": 0.05,
    },
    "blended": {"freeze": "none", "strategy": "finetune", "mixup": 0.4, "clip": 1.0},
    "a solved head": {"freeze": "features"},
}  # fmt: skip


def options(name, **more):
    steps = {} if name == "a solved head" else IN_STEPS
    return FitOptions.of({**COMMON, **steps, **FITS[name], **more})


def interrupted(folder, out, given, *, after, **more):
    """Begin a fit and go away after so many events; they, unless it was done before."""
    events = fit_events(folder, given, out=out, **more)
    told = list(islice(events, after))
    events.close()
    return told


def steps_in(told):
    return sum(isinstance(one, Tick) and one.what.startswith("epoch") for one in told)


def tensors_of(run):
    return load_file(run / runs.HEAD)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_was_interrupted_again_and_again_ends_with_the_same_bits(
    colours, tmp_path, name
):
    told = []
    whole = finish(fit_events(colours, options(name), out=tmp_path / "whole"), told.append)
    third = len(told) // 3
    for after in (third, third + 1, third + 2):
        interrupted(colours, tmp_path / "run", options(name), after=after, resume=True)
        assert not (tmp_path / "run").exists()
    parts = finish(fit_events(colours, options(name), out=tmp_path / "run", resume=True))
    assert same(tensors_of(whole.run), tensors_of(parts.run))
    scores = [
        [(one.number, one.train_loss, one.val_loss, one.rate) for one in result.history]
        for result in (whole, parts)
    ]
    assert scores[0] == scores[1]
    assert whole.best.number == parts.best.number
    assert {one.name for one in tmp_path.iterdir()} == {"whole", "run"}


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_what_a_killed_fit_has_written_last_is_gone_on_from(colours, tmp_path, monkeypatch, kept):
    """Killed: it wrote when it was time, and had no chance to do so at the end."""
    given = options("fine-tuning")
    whole = finish(fit_events(colours, given, out=tmp_path / "whole"))
    written = []
    write = Checkpoints.write

    def some(self, training, standing):
        if len(written) < kept:
            written.append(standing.counts["training"]["steps"])
            write(self, training, standing)

    monkeypatch.setattr(Checkpoints, "write", some)
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e9)
    while len(written) < kept:
        told = interrupted(colours, tmp_path / "run", given, after=5 + 2 * kept)
        assert steps_in(told) >= kept
    monkeypatch.undo()
    events = list_of(fit_events(colours, given, out=tmp_path / "run", resume=True))
    assert f"goes on from step {written[-1]}" in [
        one.text for one in events if isinstance(one, Note)
    ]
    assert same(tensors_of(whole.run), tensors_of(tmp_path / "run"))


def list_of(events):
    told = []
    finish(events, told.append)
    return told


def test_folds_that_were_interrupted_go_on_with_the_one_that_was_at_work(
    colours, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e9)
    given = options("a prefix from the bank", folds=3)
    whole = finish(fit_events(colours, given, out=tmp_path / "whole"))
    for after in (12, 24):
        told = interrupted(colours, tmp_path / "run", given, after=after, resume=after > 12)
        assert steps_in(told) >= 2
    assert not (tmp_path / "run").exists()
    told = list_of(fit_events(colours, given, out=tmp_path / "run", resume=True))
    assert sum("goes on from" in one.text for one in told if isinstance(one, Note)) >= 2
    for number in (1, 2, 3):
        one, other = (runs.fold_head(tmp_path / run, number) for run in ("whole", "run"))
        assert same(load_file(one), load_file(other))
    assert (
        whole.out_of_fold.accuracy
        == json.loads((tmp_path / "run" / "metrics.json").read_text())["out_of_fold"]["accuracy"]
    )


def test_another_fit_is_not_gone_on_with(colours, tmp_path):
    given = options("fine-tuning")
    assert steps_in(interrupted(colours, tmp_path / "run", given, after=8))
    for other, named in (
        (options("fine-tuning", lr=0.5), "--lr"),
        (options("fine-tuning", seed=4), "--seed"),
    ):
        with pytest.raises(RunFolderError, match=f"different {named}"):
            finish(fit_events(colours, other, out=tmp_path / "run", resume=True))
    # Threads and caches change nothing.
    finish(fit_events(colours, options("fine-tuning", workers=1, cache="none"),
                      out=tmp_path / "run", resume=True))  # fmt: skip


def test_without_resume_a_fit_begins_anew_and_says_so(colours, tmp_path):
    given = options("fine-tuning")
    assert steps_in(interrupted(colours, tmp_path / "run", given, after=8))
    told = list_of(fit_events(colours, given, out=tmp_path / "run"))
    notes = [one.text for one in told if isinstance(one, Note)]
    assert any("--resume would have gone on" in one for one in notes)
    assert not any("goes on from" in one for one in notes)


def test_with_nothing_to_go_on_from_a_fit_begins_and_says_so(colours, tmp_path):
    told = list_of(fit_events(colours, options("a solved head"), out=tmp_path / "r", resume=True))
    assert any("no checkpoint" in one.text for one in told if isinstance(one, Note))
    assert [one.name for one in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("more", [{}, {"folds": 2}])
def test_a_fit_that_has_ended_is_not_done_again(colours, tmp_path, monkeypatch, more):
    given = options("a solved head", **more)
    monkeypatch.chdir(tmp_path)
    for out, run in (("named", Path("named")), (None, Path("runs") / f"{colours.name}-tiny")):
        # As by a process that was killed when the run folder was there and its checkpoints too.
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "clear", lambda one: one.write("last", standing(1)))
            made = finish(fit_events(colours, given, out=out)).run
        before = {one: one.read_bytes() for one in made.rglob("*.*") if one.is_file()}
        assert runs.checkpoint_of(run).exists()
        with pytest.raises(FitEnded, match=f"{run} is there"):
            finish(fit_events(colours, given, out=out, resume=True))
        assert {one: one.read_bytes() for one in before} == before
        assert [one.name for one in run.parent.iterdir() if one.name.startswith(".")] == []


def test_the_run_folder_of_another_fit_is_in_the_way(colours, tmp_path):
    finish(fit_events(colours, options("a solved head"), out=tmp_path / "run"))
    for damage in (None, "{", "[]", "{}"):
        if damage is not None:
            (tmp_path / "run" / runs.OPTIONS).write_text(damage)
        with pytest.raises(RunFolderError, match="not empty") as caught:
            finish(fit_events(
                colours, options("a solved head", seed=4), out=tmp_path / "run", resume=True
            ))  # fmt: skip
        assert not isinstance(caught.value, FitEnded)
    # --overwrite asks for it to be made once more.
    again = finish(fit_events(
        colours, options("a solved head"), out=tmp_path / "run", overwrite=True, resume=True
    ))  # fmt: skip
    assert again.validation.images


def test_what_another_fit_has_left_is_not_deleted(colours, tmp_path):
    run, whole = tmp_path / "run", options("a solved head")
    finish(fit_events(colours, whole, out=run))
    assert steps_in(interrupted(colours, run, options("fine-tuning"), after=9, overwrite=True))
    left = sorted(runs.checkpoint_of(run).glob("*.safetensors"))
    assert left
    with pytest.raises(FitEnded):
        finish(fit_events(colours, whole, out=run, resume=True))
    with pytest.raises(RunFolderError, match="is not this one"):
        finish(fit_events(
            colours, options("a solved head", folds=2), out=run, overwrite=True, resume=True
        ))  # fmt: skip
    assert sorted(runs.checkpoint_of(run).glob("*.safetensors")) == left


def test_a_fit_whose_file_of_augmentations_has_changed_is_another(colours, tmp_path):
    import albumentations

    file = tmp_path / "looks.yaml"
    albumentations.save(albumentations.HorizontalFlip(p=0.5), file, data_format="yaml")
    given = options("fine-tuning", augment=str(file))
    assert steps_in(interrupted(colours, tmp_path / "run", given, after=8))
    albumentations.save(albumentations.HorizontalFlip(p=0.25), file, data_format="yaml")
    with pytest.raises(RunFolderError, match="different file"):
        finish(fit_events(colours, given, out=tmp_path / "run", resume=True))


def test_two_fits_do_not_make_one_run_folder(colours, tmp_path, monkeypatch):
    given = options("fine-tuning")
    events = fit_events(colours, given, out=tmp_path / "run")
    for _ in islice(events, 10):
        pass
    with pytest.raises(RunFolderError, match="made by another fit"):
        finish(fit_events(colours, given, out=tmp_path / "run"))
    # Without a name, the second one takes the next.
    monkeypatch.chdir(tmp_path)
    first = fit_events(colours, given)
    for _ in islice(first, 10):
        pass
    second = finish(fit_events(colours, given))
    assert second.run.name.endswith("-tiny-2")
    assert finish(first).run.name.endswith("-tiny")
    events.close()
    assert not (tmp_path / "run").exists()


# --- the files ------------------------------------------------------------------------------------


def standing(number):
    return Standing(counts={"steps": number}, tensors={"a": torch.full((3,), float(number))})


def test_the_newest_whole_one_is_read_and_old_ones_go(tmp_path):
    place = Checkpoints(tmp_path / "c", {"--lr": 1}, resume=True)
    assert place.read("last") == (None, ())
    for number in range(1, 6):
        place.write("last", standing(number))
    place.write("fold-1", standing(9))
    files = sorted(one.name for one in (tmp_path / "c").iterdir())
    assert len(files) == module.KEPT + 1
    assert steps_of(place.read("last")) == (5, 0)
    newest = tmp_path / "c" / files[-1]
    data = newest.read_bytes()
    altered = load_file(tmp_path / "c" / files[-2])
    save_file(altered, newest)  # no counts
    assert steps_of(place.read("last")) == (4, 2)
    newest.write_bytes(data)
    assert steps_of(place.read("last")) == (5, 0)
    place.clear_files()
    assert place.read("fold-1") == (None, ())


def steps_of(read):
    """The steps of a checkpoint that was read, and how many notes came with it."""
    standing, notes = read
    return standing.counts["steps"], len(notes)


DAMAGES = {
    "empty": lambda data: b"",
    "cut in its description": lambda data: data[:20],
    "cut at its end": lambda data: data[:-5],
    "a bit of a tensor": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "a letter of its description": lambda data: data.replace(b"steps", b"stept"),
    "not a checkpoint": lambda data: b"hello " * 30,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_a_reason_and_the_one_before_it_is_used(
    tmp_path, damage
):
    place = Checkpoints(tmp_path / "c", {"--lr": 1}, resume=True)
    for number in (1, 2):
        place.write("last", standing(number))
    older, newest = sorted((tmp_path / "c").iterdir())
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    again = Checkpoints(tmp_path / "c", {"--lr": 1}, resume=True)
    found, notes = again.read("last")
    assert found.counts["steps"] == 1
    assert len(notes) == 2
    assert str(newest) in notes[0]
    assert re.search(r"is damaged: \w+", notes[0])
    assert str(older) in notes[1]
    # What is written next takes the place of the damaged one, never of the last whole one.
    again.write("last", standing(3))
    names = sorted(one.name for one in (tmp_path / "c").iterdir())
    assert names == [older.name, "last-000000003.safetensors"]
    # With none left it says that it begins.
    for one in (tmp_path / "c").iterdir():
        one.write_bytes(DAMAGES[damage](one.read_bytes()))
    found, notes = Checkpoints(tmp_path / "c", {"--lr": 1}, resume=True).read("last")
    assert found is None
    assert [note.count("is damaged") for note in notes] == [1, 1, 0]
    assert "begins at the start" in notes[-1]


def test_a_checkpoint_that_may_not_be_read_is_an_error_and_stays(tmp_path, monkeypatch):
    """It is whole: beginning anew would delete it."""
    Checkpoints(tmp_path / "c", {}, resume=True).write("last", standing(1))
    (path,) = (tmp_path / "c").iterdir()
    real = Path.open

    def refused(self, *rest, **more):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *rest, **more)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(RunFolderError, match="Permission denied") as caught:
        Checkpoints(tmp_path / "c", {}, resume=True)
    assert caught.value.do == f"chmod u+r {path}"
    assert path.exists()


def test_a_checkpoint_of_another_format_is_refused_and_stays(tmp_path, monkeypatch):
    fit = {"version of tlkit": "0.1.0"}
    with monkeypatch.context() as patch:
        patch.setattr(module, "FORMAT", 1)
        Checkpoints(tmp_path / "c", fit, resume=True).write("last", standing(1))
    with pytest.raises(RunFolderError, match=r"tlkit 0\.1\.0 in format 1"):
        Checkpoints(tmp_path / "c", fit, resume=True)
    assert len(list((tmp_path / "c").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "more"), [("fine-tuning", {}), ("a prefix from the bank", {"folds": 2})]
)
def test_a_fit_with_damaged_checkpoints_says_so_and_ends_with_the_same_bits(
    colours, tmp_path, monkeypatch, name, more
):
    given = options(name, **more)
    events = []
    whole = finish(fit_events(colours, given, out=tmp_path / "whole"), events.append)
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e9)
    interrupted(colours, tmp_path / "run", given, after=2 * len(events) // 3)
    files = sorted(runs.checkpoint_of(tmp_path / "run").glob("*.safetensors"))
    assert len(files) >= 2
    for path in files[-1:] if not more else files:
        path.write_bytes(path.read_bytes()[:-9])
    told = list_of(fit_events(colours, given, out=tmp_path / "run", resume=True))
    notes = [one.text for one in told if isinstance(one, Note)]
    assert any("is damaged" in note and str(files[-1]) in note for note in notes)
    assert any("is used" in note for note in notes) == (not more)
    assert any("begins at the start" in note for note in notes) == bool(more)
    heads = sorted(one.relative_to(whole.run) for one in whole.run.rglob(runs.HEAD))
    assert heads
    for head in heads:
        assert same(load_file(whole.run / head), load_file(tmp_path / "run" / head))


def copied(folder, to):
    """The same bytes under the same names, in other files of another time."""
    shutil.copytree(folder, to)
    for path in to.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return to


def test_a_copy_of_the_images_is_gone_on_with_wherever_it_lies(colours, tmp_path):
    given = options("fine-tuning")
    whole = finish(fit_events(colours, given, out=tmp_path / "whole"))
    before = copied(colours, tmp_path / "before")
    assert steps_in(interrupted(before, tmp_path / "run", given, after=9))
    shutil.rmtree(before)
    after = copied(colours, tmp_path / "after")
    told = list_of(fit_events(after, given, out=tmp_path / "run", resume=True))
    assert any("goes on from" in one.text for one in told if isinstance(one, Note))
    assert same(tensors_of(whole.run), tensors_of(tmp_path / "run"))
    # And a fit of the copy that has ended has ended.
    with pytest.raises(FitEnded):
        finish(fit_events(colours, given, out=tmp_path / "run", resume=True))


def test_of_images_that_differ_it_says_what_differs_and_throws_nothing_away(colours, tmp_path):
    given = options("fine-tuning")
    folder = copied(colours, tmp_path / "photos")
    assert steps_in(interrupted(folder, tmp_path / "run", given, after=9))
    left = sorted(runs.checkpoint_of(tmp_path / "run").glob("*.safetensors"))
    image = sorted(folder.rglob("*.png"))[0]

    def refusal():
        with pytest.raises(RunFolderError, match="is not this one") as caught:
            finish(fit_events(folder, given, out=tmp_path / "run", resume=True))
        assert "--resume" not in caught.value.do
        assert "--out" in caught.value.do
        assert sorted(runs.checkpoint_of(tmp_path / "run").glob("*.safetensors")) == left
        return caught.value.found

    image.rename(image.with_name("renamed.png"))
    assert "different names of images" in refusal()
    image.with_name("renamed.png").rename(image)
    data = image.read_bytes()
    status = image.stat()
    image.write_bytes(data[:-1] + b"x")  # one byte, the size and the time as they were
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert refusal() == "different content of images"
    image.unlink()
    assert "different number of images in train (23, it was 24)" in refusal()
    image.write_bytes(data)
    told = list_of(fit_events(folder, given, out=tmp_path / "run", resume=True))
    assert any("goes on from" in one.text for one in told if isinstance(one, Note))


def test_a_file_of_augmentations_that_has_moved_is_the_same(colours, tmp_path):
    import albumentations

    file = tmp_path / "looks.yaml"
    albumentations.save(albumentations.HorizontalFlip(p=0.5), file, data_format="yaml")
    assert steps_in(
        interrupted(colours, tmp_path / "run", options("fine-tuning", augment=str(file)), after=8)
    )
    moved = file.rename(tmp_path / "moved.yaml")
    told = list_of(
        fit_events(
            colours, options("fine-tuning", augment=str(moved)), out=tmp_path / "run", resume=True
        )
    )
    assert any("goes on from" in one.text for one in told if isinstance(one, Note))


def test_without_resume_nothing_is_read(tmp_path):
    Checkpoints(tmp_path / "c", {}, resume=True).write("last", standing(1))
    assert Checkpoints(tmp_path / "c", {}, resume=False).read("last") == (None, ())


def test_a_disk_that_refuses_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        Checkpoints(tmp_path / "file" / "c", {}, resume=True).write("last", standing(1))


def test_checkpoints_are_written_when_it_is_time_and_never_most_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    keeper = Checkpoints(tmp_path / "c", {}, resume=True).of("last")
    assert not keeper.due
    clock[0] = module.EVERY_S
    assert keeper.due
    keeper.write(standing(1))
    assert not keeper.due
    write = Checkpoints.write

    def slow(self, *args):
        clock[0] += 10
        write(self, *args)

    monkeypatch.setattr(Checkpoints, "write", slow)
    keeper.write(standing(2))
    clock[0] += 10 / module.SHARE - 1
    assert not keeper.due
    clock[0] += 2
    assert keeper.due


def test_a_lock_that_nobody_holds_is_no_obstacle(tmp_path):
    run = tmp_path / "run"
    with runs.held(run):
        assert FileLock(runs.checkpoint_of(run) / runs.LOCK).lock_file
    with runs.held(run):
        pass
    assert list(tmp_path.iterdir()) == []
