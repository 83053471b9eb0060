"""Exports: what another runtime answers is what tlkit answers, or there is no export."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tlkit
from tlkit.backbone import InputSpec
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.data.geometry import detail
from tlkit.data.images import content, read
from tlkit.data.transforms import plain
from tlkit.errors import ExportError, OptionError, RunFolderError
from tlkit.export import Answering, export, preprocessing
from tlkit.export import formats as module
from tlkit.export.formats import FORMATS
from tlkit.export.preprocess import preprocess
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
    assert (before["resize_size"], before["crop_size"]) == ([36, 36], [32, 32])
    assert any("EXIF" in step for step in before["steps"])
    assert json.loads((folder / "card.json").read_text())["backbone"] == "tiny"
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["largest_change_of_a_probability"] == exported.largest_change
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert "pipeline_tag: image-classification" in front
    assert "license: apache-2.0" in front
    assert all(step in body for step in before["steps"])
    paths = list(scan(photos / "test").paths)
    wanted = np.stack([one.probabilities for one in head.predict(paths)])
    assert np.allclose(run_snippet(folder, paths, monkeypatch), wanted, atol=1e-4)


def run_snippet(folder, paths, monkeypatch):
    """Run the code that the README shows, as it stands, in its folder."""
    _, code = (folder / "README.md").read_text().split("```python\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "preprocess", raising=False)
    names = {"paths": paths}
    try:
        exec(compile(code.split("```")[0], "README.md", "exec"), names)
    finally:
        sys.modules.pop("preprocess", None)
    return names["probabilities"]


def hostile_photos(folder):
    """Files of every kind that is read otherwise than it looks."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:51, 0:77]
    waves = np.stack([128 + 120 * np.sin(x / (4 + k) + y / (9 - 2 * k)) for k in range(3)], axis=2)
    photo = Image.fromarray(waves.astype(np.uint8))
    folder.mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo.save(folder / f"exif{orientation}.jpg", exif=exif, quality=95)
        photo.save(folder / f"exif{orientation}.tif", exif=exif)
    alpha = Image.fromarray(random.integers(0, 256, (51, 77), dtype=np.uint8))
    clear = photo.copy()
    clear.putalpha(alpha)
    clear.save(folder / "rgba.png")
    clear.convert("LA").save(folder / "la.png")
    photo.convert("P").save(folder / "palette.png", transparency=3)
    photo.save(folder / "declared.png", transparency=(8, 8, 8))
    photo.convert("L").save(folder / "grey.png")
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("1").save(folder / "bits.png")
    deep = (waves[..., 0] * 257).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep.astype(np.float32) / 65535).save(folder / "float.tif")
    photo.resize((1, 1)).save(folder / "tiny.png")
    photo.resize((3, 2)).save(folder / "small.bmp")
    photo.resize((900, 11)).save(folder / "wide.png")
    photo.resize((8, 700)).save(folder / "high.webp")
    photo.resize((1200, 808)).save(folder / "large.jpg")
    photo.resize((1203, 811)).save(folder / "large-and-odd.jpg")
    photo.save(folder / "moving.gif", save_all=True, append_images=[photo.rotate(90)])
    return sorted(folder.iterdir())


def test_the_code_in_the_readme_answers_as_tlkit_does_on_hostile_photos(
    exported, head, tmp_path, monkeypatch
):
    paths = hostile_photos(tmp_path / "hostile")
    wanted = np.stack([one.probabilities for one in head.predict(paths)])
    assert np.allclose(run_snippet(exported.folder, paths, monkeypatch), wanted, atol=1e-4)


def test_the_code_in_the_readme_asks_for_the_precision_of_the_comparison():
    assert "INFERENCE_PRECISION_HINT" in FORMATS["openvino"].code
    assert "CPUExecutionProvider" in FORMATS["onnx"].code


MODES = {
    "center": {}, "squash": {"crop_mode": "squash"}, "grey": {"channels": 1},
    "border": {"crop_mode": "border", "resize_px": 32},
    "pad": {"crop_mode": "pad", "resize_px": 25},
    "rectangle": {"crop_width_px": 20, "resize_width_px": 24, "interpolation": "bilinear"},
    "squashed rectangle": {"crop_width_px": 20, "resize_width_px": 24, "crop_mode": "squash"},
    "tlkit 0.1.0": {"preprocessing": 1},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_makes_the_very_pixels_that_tlkit_makes(mode, tmp_path):
    channels = MODES[mode].get("channels", 3)
    spec = InputSpec(
        **{
            "crop_px": 32, "resize_px": 36, "interpolation": "bicubic",
            "mean": (0.3, 0.5, 0.7)[:channels], "std": (0.5,) * channels, **MODES[mode],
        }
    )  # fmt: skip
    for path in hostile_photos(tmp_path / "hostile"):
        wanted = plain(spec, read(path, at_least_px=detail(spec))).transpose(2, 0, 1)
        assert np.array_equal(preprocess(path, preprocessing(spec)), wanted), path.name


def test_the_comparison_is_made_on_what_the_reference_reads(head, tmp_path, monkeypatch, photos):
    def darker(file, settings):
        return preprocess(file, settings) // 2

    monkeypatch.setattr("tlkit.export.preprocess", darker)
    with pytest.raises(ExportError, match="answers otherwise"):
        finish(export(head.head, to="torch", out=tmp_path / "out"))


def test_the_reference_needs_pillow_and_numpy_alone(exported, photos):
    photo = next((photos / "test").rglob("*.png"))
    code = (
        f"import sys; from preprocess import preprocess; preprocess({str(photo)!r}); "
        "sys.exit(any(one in sys.modules for one in ('torch', 'tlkit', 'cv2', 'simplejpeg')))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=exported.folder, check=False)
    assert run.returncode == 0


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

    def exchanged(path):
        found = content(path)
        path.write_bytes(b"no image any more")
        return found

    monkeypatch.setattr("tlkit.export.content", exchanged)
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
