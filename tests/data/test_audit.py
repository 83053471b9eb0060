"""Audits: what was planted in a folder is found, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tlkit.data.audit as module
from tlkit.data.audit import KINDS, audit, brief
from tlkit.data.folder import scan_parts
from tlkit.steps import finish


def picture(seed: int, height: int = 90, width: int = 120) -> Image.Image:
    """A picture of its own: a few smooth blots of colour, as unlike as photos are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
    image = np.zeros((height, width, 3)) + random.uniform(60, 200, 3)
    for _ in range(12):
        cy, cx, size = random.uniform(0, 1, 3)
        blot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.004 + 0.03 * size))
        image += blot[..., None] * random.uniform(-150, 150, 3)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def plant(folder: Path, name: str, image: Image.Image, **options) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return name


@pytest.fixture
def folder(tmp_path):
    """Two parts of two classes, every image another."""
    for number in range(24):
        part, label = ("train", "test")[number % 3 == 2], "ab"[number % 2]
        plant(tmp_path, f"{part}/{label}/{number:02}.png", picture(number))
    return tmp_path


def findings(folder, **options):
    return finish(audit(folder, scan_parts(folder), **options)).findings


def of(found, kind):
    return [one for one in found if one.kind == kind]


def test_in_a_clean_folder_nothing_is_found(folder):
    found = finish(audit(folder, scan_parts(folder)))
    assert (found.images, dict(found.classes), found.findings) == (24, {"a": 12, "b": 12}, ())
    assert found.compared
    assert found.serious == 0


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda image: (image, "png", {}), True),
        (lambda image: (image, "jpg", {"quality": 40}), False),
        (lambda image: (image.resize((70, 52)), "png", {}), False),
        (lambda image: (image.resize((200, 150)), "jpg", {"quality": 80}), False),
        (lambda image: (image, "webp", {"quality": 60}), False),
    ],
    ids=["copied", "re-encoded", "smaller", "larger", "webp"],
)
def test_an_image_that_is_there_twice_is_found_by_where_it_is(folder, change, exact):
    image, ending, options = change(picture(0))
    same = plant(folder, f"train/a/zz.{ending}", image, **options)
    other = plant(folder, f"train/b/zz.{ending}", change(picture(4))[0], **options)
    leak = plant(folder, f"test/a/zz.{ending}", change(picture(6))[0], **options)
    found = findings(folder)
    assert Counter(one.kind for one in found) == {"duplicate": 1, "conflict": 1, "leak": 1}
    assert {one.exact for one in found} == {exact}
    (one,) = of(found, "duplicate")
    assert (one.files, one.to_move) == (("train/a/00.png", same), (same,))
    (one,) = of(found, "conflict")
    assert set(one.files) == set(one.to_move) == {"train/a/04.png", other}
    (one,) = of(found, "leak")
    # What is judged by stays.
    assert (one.files, one.to_move) == ((leak, "train/a/06.png"), ("train/a/06.png",))
    near = findings(folder, near=False)
    assert len(near) == (3 if exact else 0)


def test_copies_in_a_test_part_are_duplicates_there_and_leave_one(folder):
    for name in ("x", "y"):
        plant(folder, f"test/a/{name}.png", picture(0))
    found = findings(folder)
    assert of(found, "leak")[0].to_move == ("train/a/00.png",)
    assert of(found, "duplicate")[0].to_move == ("test/a/y.png",)


def test_what_an_image_shows_by_itself(folder):
    flat = plant(folder, "train/a/flat.png", Image.new("RGB", (90, 90), (80, 90, 100)))
    flat2 = plant(folder, "train/b/flat.png", Image.new("RGB", (95, 95), (80, 90, 100)))
    night = plant(folder, "train/a/night.png", picture(50).point(lambda value: value // 10))
    tiny = plant(folder, "train/b/tiny.png", picture(51, 20, 30))
    narrow = plant(folder, "train/b/narrow.jpg", picture(52, 64, 600))
    (folder / "train/b/broken.jpg").write_bytes(b"no image")
    found = findings(folder)
    assert {(one.kind, *one.files) for one in found} == {
        ("blank", flat), ("blank", flat2), ("dark", night), ("tiny", tiny), ("narrow", narrow),
        ("unreadable", "train/b/broken.jpg"),
    }  # fmt: skip
    assert of(found, "tiny")[0].about == "30 x 20 px"
    assert of(found, "unreadable")[0].about == "not an image that Pillow knows"


def test_the_size_told_is_the_files_not_that_of_a_draft(folder):
    plant(folder, "train/a/large.jpg", picture(60, 500, 4000))
    assert of(findings(folder), "narrow")[0].about == "4000 x 500 px"


def test_uneven_classes_and_what_lies_there_unused(folder):
    for number in range(80):
        plant(folder, f"train/b/more{number}.png", picture(100 + number, 40, 40))
    (folder / "train" / "empty").mkdir()
    (folder / "train" / "notes.txt").write_text("words")
    (folder / "train" / ".quarantine").mkdir()
    found = findings(folder)
    assert of(found, "imbalance")[0].about == "b has 88 images, a has 8"
    assert [one.about for one in of(found, "left out")] == [
        "train: no images: empty/", "train: not in a class folder: notes.txt",
    ]  # fmt: skip


def test_too_many_images_are_compared_by_their_bytes_alone(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_TO_COMPARE", 10)
    plant(folder, "train/a/zz.jpg", picture(0))
    plant(folder, "train/a/zz.png", picture(0))
    found = finish(audit(folder, scan_parts(folder)))
    assert not found.compared
    assert [one.files for one in found.findings] == [("train/a/00.png", "train/a/zz.png")]


def test_blocks_of_pairs_find_what_all_pairs_find(folder, monkeypatch):
    for number in range(0, 24, 3):
        plant(folder, f"train/a/copy{number}.jpg", picture(number), quality=60)
    whole = findings(folder)
    assert len(whole) == 8
    for cells in (40, 100):
        monkeypatch.setattr(module, "CELLS", cells)
        assert findings(folder) == whole


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_ones_are_counted_alike_with_every_numpy(numbers):
    array = np.array(numbers, dtype=np.uint64)
    assert module._ones_by_table(array).tolist() == [one.bit_count() for one in numbers]
    assert module._ones(array).tolist() == [one.bit_count() for one in numbers]


def test_a_brief_look_tells_of_the_same_bytes_alone(folder):
    assert list(brief(scan_parts(folder))) == []
    plant(folder, "train/a/zz.png", picture(0))
    plant(folder, "train/a/zz.jpg", picture(9))
    plant(folder, "train/b/zz.png", picture(4))
    plant(folder, "test/a/zz.png", picture(6))
    assert list(brief(scan_parts(folder))) == [
        "images in more than one part: 1; the score is of what was learnt by heart",
        "images in more than one class: 1",
        "images that are there more than once: 1",
    ]


def test_every_kind_says_what_it_is_and_what_is_moved():
    assert {one.moves for one in KINDS.values()} <= {"none", "all", "but the first"}
    assert json.dumps({name: one.about for name, one in KINDS.items()})
