"""Exports: what another runtime answers is what tlkit answers, or there is no export."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tlkit
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.data.images import read
from tlkit.data.transforms import plain
from tlkit.errors import ExportError, OptionError, RunFolderError
from tlkit.export import Answering, export
from tlkit.export import formats as module
from tlkit.export.formats import FORMATS
from tlkit.steps import finish
from tlkit.testing import make_folder

INT8 = [name for name, one in FORMATS.items() if one.quantise is not None]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Parts of a folder of its own, which the run folder names."""
    folder = tmp_path_factory.mktemp("photos")
    make_folder(folder / "train")
    make_folder(folder / "test", per_class=4, seed=1)
    return folder


@pytest.fixture(scope="module")
def head(photos, tmp_path_factory):
    return load(tlkit.fit(photos, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").head)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, head, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / request.param
    return finish(export(head.head, to=request.param, out=out))


def views(head, paths):
    """(N, channels, px, px) uint8."""
    spec = head.head.model.spec
    return np.stack([plain(spec, read(one)).transpose(2, 0, 1) for one in paths])


def test_it_answers_as_tlkit_does_for_any_number_of_images(exported, head, photos):
    assert exported.images == 12
    assert exported.largest_change < 1e-3
    assert exported.agreement == 1
    assert exported.accuracy == exported.accuracy_of_head
    paths = scan(photos / "train").paths
    run = FORMATS[exported.format].open(exported.folder)
    wanted = np.stack([one.probabilities for one in head.predict(paths)])
    for some in (slice(0, 1), slice(0, 5), slice(0, 24)):
        found = run(np.ascontiguousarray(views(head, paths[some])))
        assert np.allclose(found, wanted[some], atol=1e-4)


def test_the_folder_says_all_that_one_needs(exported, head, monkeypatch, photos):
    folder = exported.folder
    assert (folder / "classes.txt").read_text().splitlines() == ["blue", "green", "red"]
    before = json.loads((folder / "preprocessing.json").read_text())
    assert (before["shorter_side_to_px"], before["square_from_the_middle_px"]) == (36, 32)
    assert json.loads((folder / "card.json").read_text())["backbone"] == "tiny"
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["largest_change_of_a_probability"] == exported.largest_change
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert "pipeline_tag: image-classification" in front
    assert "license: apache-2.0" in front
    # The code that it shows is run as it stands.
    (code,) = [part.split("```")[0] for part in body.split("```python\n")[1:]]
    monkeypatch.chdir(folder)
    paths = scan(photos / "test").paths
    names = {"images": np.ascontiguousarray(views(head, paths))}
    exec(compile(code, "README.md", "exec"), names)
    wanted = np.stack([one.probabilities for one in head.predict(paths)])
    assert np.allclose(names["probabilities"], wanted, atol=5e-4)


@pytest.mark.parametrize("to", INT8)
def test_int8_is_smaller_and_its_loss_is_measured(head, to, tmp_path, photos):
    whole = finish(export(head.head, to=to, out=tmp_path / "whole"))
    small = finish(export(head.head, to=to, int8=True, out=tmp_path / "small"))
    assert small.accuracy is not None
    assert small.accuracy >= whole.accuracy - 0.2
    assert 0 < small.largest_change < 0.5
    assert "int8" in (tmp_path / "small" / "README.md").read_text()
    names = {one.name for one in (tmp_path / "small").iterdir()}
    assert names == {one.name for one in (tmp_path / "whole").iterdir()}


def test_what_answers_otherwise_is_no_export(head, tmp_path, monkeypatch):
    real = FORMATS["torch"].write

    def hotter(network, example, folder):
        network.temperature *= 1.5
        real(network, example, folder)

    changed = {**FORMATS, "torch": replace(FORMATS["torch"], write=hotter)}
    monkeypatch.setattr("tlkit.export.FORMATS", changed)
    with pytest.raises(ExportError, match="answers otherwise"):
        finish(export(head.head, to="torch", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_a_runtime_cannot_take_is_said_in_its_words(head, tmp_path, monkeypatch):
    def refuse(network, example, folder):
        raise ValueError("no operator for this\nand a long trace")

    changed = {"onnx": replace(FORMATS["onnx"], write=refuse)}
    monkeypatch.setattr("tlkit.export.FORMATS", changed)
    with pytest.raises(ExportError, match="ValueError: no operator for this") as caught:
        finish(export(head.head, to="onnx", out=tmp_path / "out"))
    assert "long trace" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_labels_it_is_compared_and_not_judged(head, colours, tmp_path):
    paths = scan(colours).paths[:5]
    one = finish(export(head.head, to="torch", images=paths, out=tmp_path / "out"))
    assert (one.images, one.accuracy, one.accuracy_of_head) == (5, None, None)


def test_an_image_that_is_exchanged_meanwhile_is_the_same_for_both(head, tmp_path, monkeypatch):
    """Each is read once: else a sound export would be refused, or a broken one pass."""
    photos = make_folder(tmp_path / "photos", per_class=1)
    paths = sorted(photos.rglob("*.png"))

    def exchanged(path, **how):
        found = read(path, **how)
        path.write_bytes(b"no image any more")
        return found

    monkeypatch.setattr("tlkit.export.read", exchanged)
    one = finish(export(head.head, to="torch", images=paths, out=tmp_path / "out"))
    assert one.images == 3
    assert one.largest_change < 1e-5


def test_it_lies_beside_its_run_where_no_place_is_named(head):
    one = finish(export(head.head, to="torch"))
    assert one.folder.name == "run-torch"
    assert one.folder.parent == head.head.path.parents[1]
    with pytest.raises(RunFolderError):
        finish(export(head.head, to="torch"))


def test_without_images_there_is_no_comparison_and_so_no_export(head, tmp_path):
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes(head.head.path.read_bytes())
    with pytest.raises(OptionError) as caught:
        finish(export(load(lone).head, to="torch", out=tmp_path / "out"))
    assert "--images" in caught.value.do


def test_what_cannot_be_had_is_refused_before_anything_is_read(head, tmp_path, monkeypatch):
    with pytest.raises(OptionError) as caught:
        finish(export(head.head, to="torch", int8=True, out=tmp_path / "out"))
    assert "--to onnx or openvino" in caught.value.expected
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(OptionError) as caught:
        finish(export(head.head, to="openvino", int8=True, out=tmp_path / "out"))
    assert "openvino, nncf" in caught.value.found
    assert "pip install 'tlkit[openvino,int8]'" in caught.value.do


def test_the_network_that_is_exported_gives_calibrated_probabilities(head, photos):
    paths = scan(photos / "test").paths
    with torch.no_grad():
        found = Answering(head.head).eval()(torch.from_numpy(views(head, paths))).numpy()
    wanted = np.stack([one.probabilities for one in head.predict(paths)])
    assert np.allclose(found, wanted, atol=1e-5)
