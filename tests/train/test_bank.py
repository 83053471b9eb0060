"""The bank."""

import gc
import shutil
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from banks import every

import tlkit
import tlkit.train.bank as module
from tlkit import cache
from tlkit.data.folder import scan
from tlkit.data.images import read
from tlkit.data.transforms import augmentation
from tlkit.errors import DiskError, ImageError
from tlkit.model.build import Plan, build
from tlkit.model.device import compute_on
from tlkit.model.engine import Runner
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.train.bank import extractor

PLAN = {
    "weights": "default", "attach": "replace", "head": "linear", "hidden": 1, "dropout": 0.0,
    "pool": "keep", "freeze": "features", "seed": 0,
}  # fmt: skip


def extracting(freeze="features", **options):
    cut = build(TINY, Plan(**{**PLAN, "freeze": freeze}), 3).cut
    return extractor(cut, compute_on("cpu", "fp32"), backbone="tiny", **options)


def filled(folder, views, preset="light", freeze="features", **options):
    runs = extracting(freeze, **options)
    look = augmentation(preset, runs.cut.model.spec, 0)
    catalog = scan(folder)
    bank = finish(runs.fill(catalog, look, views=views, what="bank"))
    return runs.cut, look, catalog, bank


@pytest.mark.parametrize("freeze", ["features", "to:stage1"])
def test_it_holds_what_the_frozen_part_makes_of_each_view(colours, freeze):
    cut, look, catalog, bank = filled(colours, views=3, freeze=freeze)
    assert bank.places.shape == (24, 3)
    for image, view in ((0, 0), (5, 2), (23, 1)):
        pixels = look.look(read(catalog.paths[image]), image, view)
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted = cut.frozen(inputs)[0]
        # Half precision, as shares of the largest number.
        off = (bank.at(np.array([image]), view)[0] - wanted).abs().max() / wanted.abs().max()
        assert off < 2**-11


def test_unreadable_images_have_no_row_and_labels_stay_beside_their_images(tmp_path):
    folder = make_folder(tmp_path / "photos")
    (folder / "blue" / "002.png").write_text("no image")
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    assert [one.path.name for one in bank.bad] == ["002.png"]
    keep = [i for i, one in enumerate(catalog.files) if one != "blue/002.png"]
    assert torch.equal(bank.labels, torch.from_numpy(catalog.labels[keep]))
    assert len(bank.places) == len(keep)


def test_a_folder_without_one_readable_image_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=1)
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(ImageError, match="can be read"):
        filled(folder, views=1)


@pytest.fixture
def counted(monkeypatch):
    """How many views the frozen part was run over, pass by pass."""
    seen = []
    each = Runner.each

    def noted(self, parts):
        return each(self, ((part, seen.append(len(images)) or images) for part, images in parts))

    monkeypatch.setattr(Runner, "each", noted)
    return seen


def test_the_next_fit_finds_every_row(colours, counted):
    first = every(filled(colours, views=2)[3])
    assert sum(counted) == 48
    again = every(filled(colours, views=2)[3])
    assert sum(counted) == 48
    assert torch.equal(first, again)


def test_a_changed_image_is_computed_alone_and_a_copy_not_at_all(tmp_path, counted):
    folder = make_folder(tmp_path / "photos")
    filled(folder, views=2, preset="mirror")
    counted.clear()
    other = make_folder(tmp_path / "other", per_class=1, seed=9) / "red" / "000.png"
    shutil.copy(other, folder / "red" / "003.png")
    shutil.copy(folder / "blue" / "000.png", folder / "blue" / "copy.png")
    _, _, catalog, bank = filled(folder, views=2, preset="mirror")
    assert sum(counted) == 2
    assert bank.places.shape == (25, 2)
    number = catalog.files.index("blue/copy.png")
    assert (bank.places[number] == bank.places[catalog.files.index("blue/000.png")]).all()


def test_the_plain_view_is_the_same_whatever_the_augmentation(colours, counted):
    filled(colours, views=2, preset="mirror")
    counted.clear()
    filled(colours, views=1, preset="none")
    assert counted == []


@pytest.mark.parametrize(
    "changes",
    [{"freeze": "to:stage1"}, {"preset": "mirror"}, {"engine": "openvino"}, {"views": 3}],
    ids=str,
)
def test_what_a_row_depends_on_is_part_of_its_name(colours, counted, changes):
    if "engine" in changes:
        pytest.importorskip("openvino")
    filled(colours, views=2)
    counted.clear()
    filled(colours, **{"views": 2, **changes})
    assert sum(counted) > 0


def test_rows_that_other_code_has_made_are_not_used(colours, counted):
    """A plugin whose code changes, and neither its version nor its tensors."""
    runs = extracting()
    plain = augmentation("none", runs.cut.model.spec, 0)
    finish(runs.fill(scan(colours), plain, views=1, what="bank"))
    counted.clear()
    changed = build(TINY, Plan(**PLAN), 3).cut
    changed.frozen[-1].register_forward_hook(lambda module, inputs, output: output * 1.01)
    runs = extractor(changed, compute_on("cpu", "fp32"), backbone="tiny")
    finish(runs.fill(scan(colours), plain, views=1, what="bank"))
    assert sum(counted) == 24


def test_a_pass_that_is_stopped_goes_on_where_it_was(colours, counted):
    runs = extracting()
    look = augmentation("none", runs.cut.model.spec, 0)
    module_batch = pytest.MonkeyPatch()
    module_batch.setattr(module, "BATCH", 4)
    events = runs.fill(scan(colours), look, views=1, what="bank")
    while sum(counted) < 8:
        next(events)
    events.close()
    done = sum(counted)
    filled(colours, views=1, preset="none")
    module_batch.undo()
    assert done < 24
    assert sum(counted) == 24 + 4  # the part that was begun when it was stopped


def test_images_are_read_while_the_engine_is_made(colours, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    runs = extracting()
    look = augmentation("none", runs.cut.model.spec, 0)
    seen, real = [], module.start

    def noted(image, number, view):
        seen.append(number)
        return look.look(image, number, view)

    def late(*given, **named):
        end = time.monotonic() + 60
        while len(seen) < 24 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(seen) == 24
        return real(*given, **named)

    monkeypatch.setattr(module, "start", late)
    bank = finish(runs.fill(scan(colours), replace(look, look=noted), views=1, what="bank"))
    assert torch.equal(every(bank), every(filled(colours, views=1, preset="none")[3]))


def test_of_more_rows_than_the_cache_may_hold_the_oldest_go(tmp_path, counted, monkeypatch):
    first, second = (make_folder(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    monkeypatch.setattr(cache, "limit", lambda: 2000)  # 24 rows of 52 bytes are 1248
    for folder in (first, second):
        filled(folder, views=1, preset="none")
        gc.collect()
    counted.clear()
    filled(second, views=1, preset="none")
    assert counted == []
    gc.collect()
    bank = filled(first, views=1, preset="none")[3]
    assert sum(counted) == 24
    # Rows that are being used stay, however many there are.
    filled(second, views=1, preset="none")
    assert sum(counted) == 24
    assert len(every(bank)) == 24


def test_nothing_is_kept_where_nothing_is_to_be(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bank = filled(colours, views=1, keep=False)[3]
    assert len(every(bank)) == 24
    assert cache.entries() == []
    del bank
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_copies_of_an_unreadable_image_are_each_named(tmp_path):
    folder = make_folder(tmp_path / "photos")
    for name in ("001.png", "002.png"):
        (folder / "blue" / name).write_text("no image")
    _, _, _, bank = filled(folder, views=1, preset="none")
    assert sorted(one.path.name for one in bank.bad) == ["001.png", "002.png"]
    assert len({one.reason for one in bank.bad}) == 1


@pytest.fixture
def meanwhile(monkeypatch):
    """Does something to a folder between the look at what images hold and the pass over them."""
    monkeypatch.setattr(module, "HELD", 0)
    own = module.digests

    def once(change):
        def looked(paths, **options):
            found = own(paths, **options)
            monkeypatch.setattr(module, "digests", own)
            change()
            return found

        monkeypatch.setattr(module, "digests", looked)

    return once


def exchange(path, other):
    """Swap two files, with their times."""
    away = path.with_name("away")
    path.rename(away)
    other.rename(path)
    away.rename(other)


def by_file(catalog, bank):
    """The first row of each image."""
    return dict(zip(bank.catalog.files, bank.at(np.arange(len(bank.places)), 0), strict=True))


def test_an_image_that_changes_before_the_pass_is_kept_as_what_it_was_then(
    tmp_path, meanwhile, monkeypatch
):
    folder = make_folder(tmp_path / "photos")
    path, other = folder / "red" / "000.png", tmp_path / "other.png"
    shutil.copy(folder / "blue" / "000.png", other)
    meanwhile(lambda: exchange(path, other))
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    rows = by_file(catalog, bank)
    assert torch.equal(rows["red/000.png"], rows["blue/000.png"])
    exchange(path, other)
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    again = by_file(catalog, bank)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "new"))
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    fresh = by_file(catalog, bank)
    # One that is computed alone may differ in its last bits.
    for name in fresh:
        assert torch.allclose(again[name], fresh[name], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(again["red/000.png"], rows["red/000.png"], rtol=1e-3, atol=1e-4)


def test_an_image_that_changes_before_the_pass_is_told_of(tmp_path, meanwhile):
    folder = make_folder(tmp_path / "photos")
    path, other = folder / "red" / "000.png", folder / "blue" / "000.png"
    meanwhile(lambda: shutil.copy(other, path))
    runs = extracting()
    notes = []
    look = augmentation("none", runs.cut.model.spec, 0)
    finish(
        runs.fill(scan(folder), look, views=1, what="bank"),
        lambda step: notes.append(getattr(step, "text", "")),
    )
    assert [one for one in notes if f"{path} changed while it was read" in one]


@pytest.mark.parametrize("change", ["exchanged", "broken", "gone"])
def test_a_copy_of_an_image_that_changes_before_the_pass_is_what_it_was(
    tmp_path, meanwhile, change
):
    folder = make_folder(tmp_path / "photos")
    path, copy = folder / "blue" / "000.png", folder / "blue" / "copy.png"
    shutil.copy(path, copy)
    expected = by_file(*filled(folder, views=1, preset="none")[2:])["blue/copy.png"]
    cache.clear()
    gc.collect()
    cache.clear()
    changes = {
        "exchanged": lambda: shutil.copy(folder / "red" / "000.png", path),
        "broken": lambda: path.write_bytes(b"no image"),
        "gone": path.unlink,
    }
    meanwhile(changes[change])
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    rows = by_file(catalog, bank)
    assert torch.allclose(rows["blue/copy.png"], expected, rtol=1e-3, atol=1e-4)
    assert [one.path for one in bank.bad] == ([] if change == "exchanged" else [path])


def test_an_image_that_appears_before_the_pass_is_kept_as_what_it_is(tmp_path, meanwhile):
    folder = make_folder(tmp_path / "photos")
    path = folder / "red" / "000.png"
    data = path.read_bytes()
    path.write_bytes(b"half")
    meanwhile(lambda: path.write_bytes(data))
    assert filled(folder, views=1, preset="none")[3].bad == ()


def test_what_is_looked_at_and_decoded_is_read_once(colours, monkeypatch):
    from tlkit.data import digests, images

    read = []
    own = images.content
    for each in (module, digests, images):
        monkeypatch.setattr(each, "content", lambda path: read.append(path.name) or own(path))
    filled(colours, views=2)
    assert len(read) == 24


@pytest.fixture
def said(monkeypatch, caplog):
    """What was said of a cache that cannot be written."""
    monkeypatch.setattr(cache, "_refused", set())
    monkeypatch.setattr("tlkit.cache.log.propagate", True)
    return lambda: [one.getMessage() for one in caplog.records if "cannot be written" in one.msg]


def test_a_cache_that_cannot_be_made_is_gone_without_and_said_once(
    colours, tmp_path, monkeypatch, said
):
    expected = every(filled(colours, views=1, preset="none")[3])
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert torch.equal(every(filled(colours, views=1, preset="none")[3]), expected)
    (line,) = said()
    assert str(tmp_path / "file" / "cache") in line
    assert "TLKIT_CACHE names another folder" in line


def test_without_a_home_folder_there_is_no_cache_and_no_folder_of_that_name(
    colours, tmp_path, monkeypatch, said
):
    monkeypatch.setenv("TLKIT_CACHE", "~nobody-of-that-name/cache")
    assert len(every(filled(colours, views=1, preset="none")[3])) == 24
    assert "no home folder" in said()[0]
    assert not list(tmp_path.glob("~*"))


def test_a_cache_that_can_be_read_alone_is_read(tmp_path, counted, monkeypatch, said):
    folder = make_folder(tmp_path / "photos")
    expected = every(filled(folder, views=1, preset="none")[3])
    gc.collect()
    counted.clear()

    def refused(*args):
        raise DiskError("no", found="Read-only file system", expected="", do="")

    monkeypatch.setattr(cache, "begin", refused)
    assert torch.equal(every(filled(folder, views=1, preset="none")[3]), expected)
    assert counted == []
    assert len(said()) == 1
    before = sorted(cache.root().rglob("*"))
    other = make_folder(tmp_path / "other", per_class=1, seed=9) / "red" / "000.png"
    shutil.copy(other, folder / "red" / "more.png")
    assert len(every(filled(folder, views=1, preset="none")[3])) == 25
    assert counted == [1]
    assert sorted(cache.root().rglob("*")) == before


@pytest.mark.parametrize("when", ["add", "close"])
def test_a_disk_of_the_cache_that_becomes_full_ends_no_fit(
    colours, tmp_path, monkeypatch, said, when
):
    from tlkit.train.store import _Segment

    expected = every(filled(colours, views=1, preset="none")[3])
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "BATCH", 4)
    own, times = getattr(_Segment, when), []

    def full(self, *args):
        if tmp_path in self._keys_path.parents:
            times.append(1)
            if when == "close" or len(times) == 3:
                raise OSError(28, "No space left on device")
        return own(self, *args)

    monkeypatch.setattr(_Segment, when, full)
    bank = filled(colours, views=1, preset="none")[3]
    assert torch.allclose(every(bank), expected, rtol=1e-3, atol=1e-4)
    assert "No space left" in said()[0]
    assert not list((tmp_path / "cache").rglob("*.rows"))


def test_a_full_disk_is_one_clear_error(colours, monkeypatch):
    def full(self, keys, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tlkit.train.store._Segment.add", full)
    with pytest.raises(DiskError, match="No space left"):
        filled(colours, views=1)


def test_a_fit_with_another_head_runs_nothing_again(tmp_path, counted):
    for part, seed in (("train", 0), ("test", 2)):
        make_folder(tmp_path / "photos" / part, seed=seed)
    seen_alike = {"backbone": "tiny", "augment": "mirror"}
    first = tlkit.fit(tmp_path / "photos", **seen_alike)
    assert sum(counted) > 0
    # Which photos are held out, and seen once only, is another matter.
    tlkit.fit(tmp_path / "photos", **seen_alike, folds=3)
    counted.clear()
    again = tlkit.fit(tmp_path / "photos", **seen_alike)
    tlkit.fit(tmp_path / "photos", **seen_alike, head="mlp", epochs=1, seed=1)
    assert counted == []
    assert first.card.tensors_sha256 == again.card.tensors_sha256
    assert first.test.plain() == again.test.plain()


def test_the_paths_of_a_folder_are_made_a_few_times_and_not_for_each_image(colours, monkeypatch):
    from tlkit.data.folder import Catalog

    made, paths = [], Catalog.paths.fget
    monkeypatch.setattr(Catalog, "paths", property(lambda self: made.append(1) or paths(self)))
    tlkit.fit(colours, backbone="tiny", epochs=1)
    tlkit.fit(colours, backbone="tiny", freeze="none", epochs=1)
    assert 2 < len(made) < 20
