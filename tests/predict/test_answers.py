"""Answers: one image, one head, one probability, whichever command, engine or list asks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from altered import altered
from PIL import Image
from starlette.testclient import TestClient

import tlkit
from tlkit.artifact import load_all
from tlkit.ask.vectors import photos as photos_of
from tlkit.ask.vectors import scored
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.estimator import ImageClassifier
from tlkit.export import export
from tlkit.model.device import _products, compute_for_answers, compute_on
from tlkit.model.engine import ENGINES, PROMISE
from tlkit.options import PredictOptions, ServeOptions, SuggestOptions
from tlkit.report.evaluation import look
from tlkit.report.explain import explain
from tlkit.serve.app import app_of, service
from tlkit.steps import finish

CLASSES = ("blue", "green", "red")
SHARPER = 5
"""Times that a head's weights are larger than those of its fit: then bf16 moves answers by more."""

COMPILED = [name for name in ("openvino",) if not ENGINES[name].lacks(compute_on("cpu", "fp32"))]


@pytest.fixture(scope="module", params=["tiny", "efficientnet_lite0"])
def head(request, colours, tmp_path_factory):
    """A head that was fitted in bf16, as `auto` does where a processor has units for it."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    fitted = tlkit.fit(colours, backbone=request.param, precision="bf16", device="cpu", out=out)
    assert fitted.card.precision == "bf16"
    return altered(fitted.head, fitted.head, lambda tensors: sharpen(tensors, SHARPER))


def sharpen(tensors, factor):
    """Let smaller differences decide."""
    for name in ("head.layers.weight", "head.layers.bias"):
        tensors[name] *= factor


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """Large JPEGs of two colours and of fine noise, in class folders: no class is certain."""
    folder = tmp_path_factory.mktemp("unsure")
    noise = np.random.default_rng(3)
    for number, (first, second) in enumerate([(0, 1), (1, 2), (2, 0)]):
        for share in (35, 50, 65):
            pixels = noise.integers(0, 200, (950, 1100, 3))
            pixels[:, : 11 * share, (2, 1, 0)[first]] += 55
            pixels[:, 11 * share :, (2, 1, 0)[second]] += 55
            path = folder / CLASSES[number] / f"{share}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)
    return folder


def by_predict(head, folder, **options):
    rows = load(head).predict(folder, device="cpu", **options)
    return np.stack([one.probabilities for one in rows])


def one_by_one(head, folder):
    return np.concatenate([by_predict(head, path) for path in scan(folder).paths])


def in_other_batches(head, folder):
    paths = list(scan(folder).paths)
    return by_predict(head, paths[::-1], batch=4)[::-1]


def by_evaluate(head, folder):
    options = PredictOptions(device="cpu", batch=2)
    return finish(look([load(head).head], scan(folder), options)).probabilities[:, 0]


def by_explain(head, folder):
    found = explain(load(head).head, scan(folder).paths, device="cpu")
    return np.stack([one.prediction.probabilities for one in found])


def by_serve(head, folder):
    served = service(load(head), PredictOptions(device="cpu"), ServeOptions())
    try:
        client = TestClient(app_of(served), base_url="http://127.0.0.1")
        files = [("images", (one.name, one.read_bytes())) for one in scan(folder).paths]
        said = client.post("/api/predict", params={"top": 3}, files=files).json()["answers"]
    finally:
        served.desk.close()
    tops = [{each["class"]: each["probability"] for each in one["top"]} for one in said]
    return np.array([[top[name] for name in CLASSES] for top in tops])


def by_suggest(head, folder):
    found = finish(scored(load_all([head]), photos_of([folder]), SuggestOptions(device="cpu")))
    return found.probabilities


def by_report(head, folder, out):
    """The probability of the likeliest class, of all images."""
    options = {"maps": False, "check": False, "device": "cpu"}
    tlkit.write_report(head.parent, folder, out=out, **options)
    told = json.loads((out / "report.json").read_text())
    files = {one["file"]: one["probability"] for one in told["parts"]["photos"]["unsure"]}
    return np.array([files[name] for name in scan(folder).files])


WAYS = {
    "predict": by_predict,
    "one by one": one_by_one,
    "in other batches": in_other_batches,
    "evaluate": by_evaluate,
    "explain": by_explain,
    "serve": by_serve,
    "suggest": by_suggest,
    **{
        name: lambda head, folder, name=name: by_predict(head, folder, engine=name)
        for name in ("eager", *COMPILED)
    },
}


@pytest.fixture(scope="module")
def wanted(head, unsure):
    """What the network gives in fp32, run by hand; where bf16 gives something quite different."""
    exact = by_predict(head, unsure, engine="eager", precision="fp32")
    assert np.abs(by_predict(head, unsure, precision="bf16") - exact).max() > 1.5 * PROMISE
    assert 0.1 < exact.max(axis=1).min() < 0.95
    return exact


@pytest.mark.parametrize("way", WAYS, ids=lambda one: one.replace(" ", "-"))
def test_every_command_and_engine_gives_the_same_probability(head, unsure, wanted, way):
    assert np.abs(WAYS[way](head, unsure) - wanted).max() <= PROMISE


def test_an_export_gives_it_too(head, unsure, wanted, tmp_path):
    pytest.importorskip("openvino")
    exported = finish(export(load(head).head, to="openvino", images=[unsure], out=tmp_path / "out"))
    assert exported.largest_change <= PROMISE


def test_a_report_tells_it_too(head, unsure, wanted, tmp_path):
    assert (
        np.abs(by_report(head, unsure, tmp_path / "report") - wanted.max(axis=1)).max() <= PROMISE
    )


def test_a_list_that_is_scored_in_parts_gives_it_too(head, unsure, wanted, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    tlkit.score(unsure, tmp_path / "out", head=head, top=3, shard=2, device="cpu")
    rows = parquet.read_table(tmp_path / "out").sort_by("path").to_pylist()
    tops = [{row[f"class_{i}"]: row[f"probability_{i}"] for i in (1, 2, 3)} for row in rows]
    found = np.array([[top[name] for name in CLASSES] for top in tops])
    assert np.abs(found - wanted).max() <= PROMISE


@pytest.mark.parametrize("freeze", ["features", "none"])
def test_an_estimator_gives_what_its_head_file_gives(colours, unsure, tmp_path, freeze):
    photos = scan(colours)
    names = [CLASSES[label] for label in photos.labels]
    options = {"backbone": "tiny", "freeze": freeze, "epochs": 1, "device": "cpu"}
    estimator = ImageClassifier(**options).fit(list(photos.paths), names)
    estimator.save(tmp_path / "head.safetensors")
    found = estimator.predict_proba([str(path) for path in scan(unsure).paths])
    assert np.abs(found - by_predict(tmp_path / "head.safetensors", unsure)).max() <= PROMISE


def test_a_head_that_kept_features_are_too_coarse_for_is_asked_about_the_pixels(
    undecided, unsure, monkeypatch
):
    head = undecided(scan(unsure).paths[4])
    wanted = by_predict(head, unsure)
    assert np.abs(by_suggest(head, unsure) - wanted).max() <= PROMISE
    # Without that, it is not: the test would see it.
    monkeypatch.setattr("tlkit.ask.vectors.hang_on_rounding", lambda *_: np.zeros(0, np.int64))
    assert np.abs(by_suggest(head, unsure) - wanted).max() > PROMISE


@pytest.fixture
def undecided(colours, tmp_path):
    """Makes a head that is undecided about a photo, and lets very small differences decide."""

    def make(photo):
        fitted = tlkit.fit(colours, backbone="tiny", out=tmp_path / "run", device="cpu").head
        (row,) = by_predict(fitted, photo)
        temperature = load_all([fitted])[0].card.calibration.temperature

        def change(tensors):
            tensors["head.layers.bias"] -= temperature * torch.from_numpy(np.log(row)).float()
            sharpen(tensors, 40)

        return altered(fitted, tmp_path / "undecided.safetensors", change)

    return make


@pytest.mark.parametrize("setting", ["medium", "high"])
def test_the_users_shortcuts_are_not_taken_and_are_left_as_they_were(setting):
    before = torch.get_float32_matmul_precision()
    compute = compute_for_answers("cpu", fitted="bf16")
    inside = {}

    def module(images):
        inside.update({number: one.fp32_precision for number, one in enumerate(products)})
        inside["autocast"] = torch.is_autocast_enabled("cpu")
        return images.float()

    products = _products("cpu")
    try:
        torch.set_float32_matmul_precision(setting)
        was = [one.fp32_precision for one in products]
        with torch.autocast("cpu", torch.bfloat16):
            compute.infer(module, torch.zeros(1, 3, 4, 4))
        assert [one.fp32_precision for one in products] == was
    finally:
        torch.set_float32_matmul_precision(before)
    assert not inside.pop("autocast")
    assert set(inside.values()) <= {"none", "ieee"}


def test_only_what_learns_chooses_an_arithmetic_of_its_own():
    """Whatever asks a head goes by `compute_for_answers`; so will what is written next."""
    house = Path(tlkit.__file__).parent
    chosen = {
        path.relative_to(house).as_posix()
        for path in house.rglob("*.py")
        if re.search(r"\bcompute_on\(", path.read_text(encoding="utf-8"))
    }
    learn = {"train/run.py", "train/folds.py", "ask/study.py"}
    # Of vectors and features in front of a head that is not there yet.
    features = {"ask/vectors.py", "scale/features.py"}
    assert chosen == {"model/device.py", *learn, *features}
