"""The bank."""

import numpy as np
import pytest
import torch

import tlkit.train.bank as module
from tlkit.data.folder import scan
from tlkit.data.images import read
from tlkit.data.transforms import augmentation
from tlkit.errors import FolderError
from tlkit.model.build import Plan, build
from tlkit.model.device import engine
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.train.bank import fill

PLAN = {
    "weights": "default", "attach": "replace", "head": "linear", "hidden": 1, "dropout": 0.0,
    "pool": "keep", "freeze": "features", "seed": 0,
}  # fmt: skip


def filled(folder, views, preset="light", freeze="features"):
    cut = build(TINY, Plan(**{**PLAN, "freeze": freeze}), 3).cut
    look = augmentation(preset, cut.model.spec, 0)
    catalog = scan(folder)
    return (
        cut,
        look,
        catalog,
        finish(fill(cut, engine("cpu", "fp32"), catalog, look, views=views, what="bank")),
    )


@pytest.mark.parametrize("freeze", ["features", "to:stage1"])
def test_it_holds_what_the_frozen_part_makes_of_each_view(colours, freeze):
    cut, look, catalog, bank = filled(colours, views=3, freeze=freeze)
    assert bank.values.shape[:2] == (24, 3)
    for image, view in ((0, 0), (5, 2), (23, 1)):
        pixels = look.look(read(catalog.paths[image]), image, view)
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted = cut.frozen(inputs)[0]
        assert torch.allclose(bank.values[image, view], wanted, atol=1e-5)


def test_unreadable_images_have_no_row_and_labels_stay_beside_their_images(tmp_path):
    folder = make_folder(tmp_path / "photos")
    (folder / "blue" / "002.png").write_text("no image")
    _, _, catalog, bank = filled(folder, views=1, preset="none")
    assert [one.path.name for one in bank.bad] == ["002.png"]
    keep = [i for i, one in enumerate(catalog.files) if one != "blue/002.png"]
    assert torch.equal(bank.labels, torch.from_numpy(catalog.labels[keep]))
    assert len(bank.values) == len(keep)


def test_a_folder_without_one_readable_image_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=1)
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(FolderError, match="can be read"):
        filled(folder, views=1)


def test_a_bank_on_the_disk_equals_one_in_memory(colours, monkeypatch):
    _, _, _, small = filled(colours, views=2)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    _, _, _, large = filled(colours, views=2)
    assert torch.equal(small.values, large.values)
