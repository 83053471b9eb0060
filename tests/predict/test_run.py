"""Predicting: the same file gets the same answer, whoever asks."""

import logging

import numpy as np
import pytest
import torch

import tlkit
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.data.images import BadImage
from tlkit.options import PredictOptions
from tlkit.predict import ensemble
from tlkit.predict.run import predict
from tlkit.report.evaluation import evaluate
from tlkit.steps import finish
from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def result(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run")


@pytest.fixture
def head(result):
    return load(result.head)


def test_probabilities_sum_to_one_and_the_label_is_the_likeliest(head, colours):
    for one in head.predict(colours, tta="ten"):
        assert one.probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert one.label == head.classes[one.probabilities.argmax()]
        tops = [p for _, p in one.top(3)]
        assert tops == sorted(tops, reverse=True)


def test_a_file_gets_the_same_probabilities_alone_and_among_others(head, colours):
    together = {one.path: one.probabilities for one in head.predict(colours)}
    for path, wanted in list(together.items())[::5]:
        (alone,) = head.predict(path)
        assert np.allclose(alone.probabilities, wanted, atol=1e-6)


def test_predict_and_evaluate_agree_bit_for_bit(head, colours, monkeypatch):
    seen = []

    real = ensemble.members

    def spy(*args, **kwargs):
        for one in real(*args, **kwargs):
            seen.append(one[0].probabilities)
            yield one

    monkeypatch.setattr("tlkit.report.evaluation.members", spy)
    evaluation = head.evaluate(colours)
    wanted = [one.probabilities for one in head.predict(colours)]
    assert np.array_equal(seen, wanted)
    labels = scan(colours).labels
    assert evaluation.accuracy == (np.argmax(wanted, axis=1) == labels).mean()


def test_views_are_averaged_as_probabilities(head, colours):
    path = scan(colours).paths[3]
    (both,) = head.predict(path, tta="mirror")
    (plain,) = head.predict(path)
    mirrored = path.parent.parent / "mirrored.png"
    from PIL import Image, ImageOps

    ImageOps.mirror(Image.open(path)).save(mirrored)
    try:
        (other,) = head.predict(mirrored)
    finally:
        mirrored.unlink()
    assert np.allclose(
        both.probabilities, (plain.probabilities + other.probabilities) / 2, atol=1e-6
    )


def test_validation_scores_are_those_that_predict_gives(colours):
    from tlkit.data.folder import scan_parts
    from tlkit.data.split import split

    result = tlkit.fit(colours, backbone="tiny", refit=False)
    val = split(scan_parts(colours), val_fraction=0.2, seed=0).val
    rows = [one.probabilities for one in load(result.head).predict(val.paths)]
    true = np.array(rows)[np.arange(len(val)), val.labels]
    assert -np.log(true).mean() == pytest.approx(result.validation.loss, abs=1e-5)


def test_saving_and_loading_changes_no_logit(colours, tmp_path):
    from tlkit import artifact
    from tlkit.data.folder import scan_parts
    from tlkit.fitting import fit_parts
    from tlkit.options import FitOptions
    from tlkit.plugins import choose

    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    for way in (
        {}, {"head": "bn-mlp", "epochs": 2}, {"attach": "append", "epochs": 2},
        {"freeze": "none", "epochs": 1},
    ):  # fmt: skip
        options = FitOptions(backbone="tiny", **way)
        fitted = finish(fit_parts(options, choose("tiny"), scan_parts(colours)))
        trained, card = fitted.trained, fitted.card
        artifact.save(tmp_path / "head.safetensors", artifact.tensors_of(trained.cut), card)
        loaded = artifact.load(tmp_path / "head.safetensors")
        assert loaded.card == card
        with torch.inference_mode():
            placed = trained.cut.model(images)
            trained.compute.place(loaded.model)
            assert torch.equal(loaded.model.eval()(images), placed)


def test_an_unreadable_file_is_named_in_its_place_and_the_rest_predicted(head, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=2)
    (folder / "green" / "000.png").write_text("no image")
    results = head.predict(folder)
    bad = [one for one in results if isinstance(one, BadImage)]
    assert [one.path.name for one in bad] == ["000.png"]
    assert len(results) == 6
    assert [one.path for one in results] == sorted(folder.rglob("*.png"))
    assert head.evaluate(folder).images == 5


def test_prediction_holds_a_bounded_number_of_images(head, colours, monkeypatch):
    """However many paths there are, only a few batches are read ahead of the network."""
    import tlkit.data.batches as module

    reads = []
    monkeypatch.setattr(module, "read", lambda path, **kw: reads.append(path) or real(path, **kw))
    from tlkit.data.images import read as real

    steps = predict(head.head, list(scan(colours).paths) * 50, PredictOptions(batch=4, workers=2))
    next(steps)
    assert len(reads) <= 4 * (module.AHEAD + 1)
    steps.close()


@pytest.mark.parametrize("fitted", ["fp32", "bf16"])
def test_precision_is_fp32_unless_told_otherwise_whatever_the_fit_used(
    colours, tmp_path, monkeypatch, fitted
):
    from tlkit.model.device import Compute

    head = load(tlkit.fit(colours, backbone="tiny", precision=fitted, out=tmp_path / "run").head)
    monkeypatch.setattr("tlkit.model.device._has_bf16_units", lambda device: True)
    seen = []
    run = Compute.run
    monkeypatch.setattr(
        Compute, "run", lambda self, *a: seen.append(self.precision) or run(self, *a)
    )
    for wanted, options in {
        "fp32": {}, "bf16": {"precision": "bf16"}, fitted: {"precision": "as-fitted"},
    }.items():  # fmt: skip
        seen.clear()
        head.predict(colours, **options)
        assert set(seen) == {wanted}


def test_many_crops_are_worth_a_line_on_the_engine(head, colours, caplog):
    caplog.set_level("INFO", logger="tlkit")
    logging.getLogger("tlkit").propagate = True
    head.predict(colours)
    assert caplog.text == ""
    head.predict(colours, tta="ten")
    assert "engine: eager" in caplog.text
    assert "240 views" in caplog.text


def test_classes_are_matched_by_name_not_by_place(head, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=2)
    import shutil

    shutil.rmtree(folder / "blue")
    evaluation = head.evaluate(folder)
    assert evaluation.accuracy == 1.0
    assert [one.images for one in evaluation.classes] == [0, 2, 2]


def test_a_class_that_the_head_does_not_know_is_an_error_with_the_nearest(head, tmp_path):
    folder = make_folder(tmp_path / "photos", classes=("red", "gren"), per_class=2)
    with pytest.raises(tlkit.TlkitError, match="did you mean 'green'"):
        head.evaluate(folder)


def test_nothing_readable_at_all_is_an_error(head, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=1)
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(tlkit.TlkitError, match="unreadable"):
        finish(evaluate(head.head, scan(folder), PredictOptions()))
