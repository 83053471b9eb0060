"""Finite: nothing that is no number is an answer, and the error names the head or the image."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from altered import altered
from click.testing import CliRunner
from starlette.testclient import TestClient

import tlkit
from tlkit import artifact
from tlkit.artifact import load_all
from tlkit.classifier import load
from tlkit.cli import main
from tlkit.data.folder import scan
from tlkit.errors import AnswerError, HeadFileError, TlkitError
from tlkit.estimator import ImageClassifier
from tlkit.export import export
from tlkit.model.finite import check_finite, not_finite
from tlkit.options import PredictOptions, ServeOptions
from tlkit.predict.ensemble import join
from tlkit.report.explain import explain
from tlkit.serve.app import app_of, service
from tlkit.steps import finish
from tlkit.train.store import Store


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_hold_what_is_no_number_are_found(bad):
    rows = np.ones((4, 2, 3))
    assert not len(not_finite(rows))
    rows[1, 1, 2] = rows[3, 0, 0] = bad
    assert not_finite(rows).tolist() == not_finite(torch.from_numpy(rows)).tolist() == [1, 3]
    with pytest.raises(AnswerError, match="the head gives numbers that are not finite") as caught:
        check_finite(rows, of="the head", do="", images=["a", "b", "c", "d"])
    assert caught.value.found.splitlines()[1:] == ["b", "d"]
    check_finite(rows[:0], of="", do="")


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    out = tmp_path_factory.mktemp("finite") / "run"
    return tlkit.fit(colours, backbone="tiny", device="cpu", out=out).run


WAYS = {
    "infinite logits": lambda tensors: tensors["head.layers.weight"].fill_(3e38),
    "one infinite logit": lambda tensors: tensors["head.layers.weight"][0].fill_(3e38),
    "infinite vectors": lambda tensors: [
        tensors["head.scale.shift"].fill_(-3e38),
        tensors["head.scale.factor"].fill_(3e38),
    ],
}


@pytest.fixture(params=WAYS, ids=lambda one: one.replace(" ", "-"))
def broken(request, run, tmp_path):
    """A head whose weights are all finite, and whose answers are not."""
    return altered(run / "head.safetensors", tmp_path / "broken.safetensors", WAYS[request.param])


def asked(head, colours, out):
    """Every way to ask a head."""
    paths = list(scan(colours).paths[:3])
    heads = load(head)
    return {
        "predict": lambda: heads.predict(paths),
        "views": lambda: heads.predict(paths, tta="ten"),
        "dense": lambda: heads.predict(paths, tta="dense"),
        "evaluate": lambda: heads.evaluate(colours),
        "explain": lambda: list(explain(heads.head, paths)),
        "sort": lambda: tlkit.sort(head, colours, into=out / "sorted"),
        "suggest": lambda: tlkit.suggest(head, colours),
        "export": lambda: finish(
            export(heads.head, to="openvino", images=paths, out=out / "export")
        ),
    }


def test_every_way_of_asking_a_head_refuses_what_is_no_number(broken, colours, tmp_path):
    for way, ask in asked(broken, colours, tmp_path).items():
        with pytest.raises(TlkitError) as caught:
            ask()
        assert isinstance(caught.value, AnswerError), (way, caught.value)
        assert "broken.safetensors" in caught.value.about, way
    assert not (tmp_path / "export").exists()
    assert not list((tmp_path / "sorted").rglob("*.png"))


def test_an_error_names_the_photo(run, tmp_path, colours):
    """Of a head that only some photos are too much for: a number far from the mean, times 3e38."""

    def change(tensors):
        tensors["head.layers.weight"].zero_()
        tensors["head.layers.bias"].zero_()
        tensors["head.layers.weight"][0, 0] = 3e38

    head = altered(run / "head.safetensors", tmp_path / "altered.safetensors", change)
    paths = list(scan(colours).paths)
    told = {}
    for path in paths:
        try:
            load(head).predict(path)
        except AnswerError as error:
            told[path] = error.found
    assert 0 < len(told) < len(paths)
    assert all(str(path) in found for path, found in told.items())
    with pytest.raises(AnswerError) as caught:
        load(head).predict(paths)
    first = caught.value.found.splitlines()[1:]
    assert first
    assert {line for line in first if not line.startswith("...")} <= set(map(str, told))


def test_the_command_ends_with_an_error(broken, colours):
    result = CliRunner().invoke(main, ["predict", "--head", str(broken), str(colours)])
    assert result.exit_code == 2
    assert "broken.safetensors" in result.stderr
    assert "nan" not in result.stdout.lower()


def test_several_heads_name_the_one_that_is_at_fault(run, broken, colours):
    with pytest.raises(AnswerError, match=r"broken\.safetensors"):
        load([run / "head.safetensors", broken]).predict(colours)


def test_a_server_says_that_it_has_failed_and_why(broken, colours):
    served = service(load(broken), PredictOptions(device="cpu"), ServeOptions())
    try:
        client = TestClient(app_of(served), base_url="http://127.0.0.1")
        data = scan(colours).paths[0].read_bytes()
        answer = client.post("/api/predict", files={"images": data})
        map_of = client.post("/api/explain", files={"image": data})
    finally:
        served.desk.close()
    for response in (answer, map_of):
        assert response.status_code == 500, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert "broken.safetensors" in json.loads(response.text)["detail"]


def test_what_one_image_brings_about_takes_no_other_request_with_it(run, colours, monkeypatch):
    """Images of several requests go through the network together."""
    from tlkit.predict.session import Session

    ask, paths = Session.ask, scan(colours).paths[:3]

    def one_fails(self, images):
        if any(path.name == "bad.png" for path, _ in images):
            raise AnswerError("bad", found="", expected="", do="")
        return ask(self, images)

    monkeypatch.setattr(Session, "ask", one_fails)
    options = ServeOptions(gather_ms=500)
    served = service(load(run), PredictOptions(device="cpu", engine="eager"), options)
    try:
        names = ["good.png", "bad.png", "good too.png"]
        answers = [
            served.desk.predict("none", path.with_name(name), path.read_bytes())
            for name, path in zip(names, paths, strict=True)
        ]
        assert answers[0].result().label
        assert answers[2].result().label
        with pytest.raises(AnswerError):
            answers[1].result()
    finally:
        served.desk.close()


def test_a_network_that_gives_what_is_no_number_for_an_image_is_told_with_that_image(
    colours, tmp_path, monkeypatch
):
    """In a fit, in what the estimator makes of it, and in a search for what is alike."""
    photos = scan(colours)
    victim = photos.paths[5]
    real = Store.append
    seen = []

    from tlkit.model.engine import Runner

    each = Runner.each

    def one_is_none(self, parts):
        for part, rows in each(self, parts):
            if rows is not None and not seen:
                rows = rows.clone()
                seen.append(int(part[0].index[0] if isinstance(part, tuple) else part.index[0]))
                rows[0] = float("nan")
            yield part, rows

    monkeypatch.setattr(Runner, "each", one_is_none)
    monkeypatch.setattr(Store, "append", lambda *args: real(*args))
    ways = {
        "fit": lambda: tlkit.fit(colours, backbone="tiny", out=tmp_path / "run"),
        "similar": lambda: tlkit.similar(victim, colours, backbone="tiny"),
        "estimator": lambda: ImageClassifier(backbone="tiny").fit(
            list(photos.paths), photos.labels
        ),
    }
    for way, ask in ways.items():
        seen.clear()
        with pytest.raises(AnswerError) as caught:
            ask()
        assert sum(str(path) in caught.value.found for path in photos.paths) == 1, way
    assert not (tmp_path / "run").exists()


def test_features_that_are_no_numbers_are_not_taken_from_an_old_cache(tmp_path):
    store = Store(tmp_path, (3,))
    keys = np.array([b"a" * 16, b"b" * 16], dtype="V16")
    store.append(keys, torch.tensor([[1.0, 2, 3], [1, float("nan"), 3]]))
    store.settle()
    assert store.rows(np.array([0])).isfinite().all()
    with pytest.raises(AnswerError, match="the cache has features") as caught:
        store.rows(np.array([0, 1]))
    assert "tlkit cache --clear" in caught.value.do


@pytest.mark.parametrize("where", ["tensor", "validation", "test"])
def test_a_head_whose_training_gave_what_is_no_number_is_not_saved(
    colours, tmp_path, monkeypatch, where
):
    import tlkit.fitting as module

    folder = tmp_path / "photos"
    for part in ("train", "test"):
        for path in scan(colours).paths:
            new = folder / part / path.parent.name / path.name
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(path.read_bytes())
    real = module.train

    def spoilt(*args, **named):
        trained = yield from real(*args, **named)
        if where == "tensor":
            next(iter(trained.cut.trained_tensors().values())).data.view(-1)[0] = float("nan")
        elif where == "validation":
            trained.val_probabilities[0, 0] = float("nan")
        else:
            trained.test.probabilities[0, 0] = float("inf")
        return trained

    monkeypatch.setattr(module, "train", spoilt)
    with pytest.raises(AnswerError, match=r"validation images|test images|not saved"):
        tlkit.fit(folder, backbone="tiny", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["similarities", "thresholds"])
def test_a_calibration_of_what_is_no_number_is_refused(run, tmp_path, bad, field):
    (head,) = load_all([run / "head.safetensors"])
    calibration = head.card.calibration
    numbers = list(getattr(calibration, field))
    numbers[-1] = bad if field == "similarities" else (bad, 1.0)
    changed = replace(calibration, **{field: tuple(numbers)})
    card = replace(head.card, calibration=changed)
    file = tmp_path / "head.safetensors"
    artifact.save(file, artifact.tensors_of(head.cut), card)
    with pytest.raises(HeadFileError, match=rf"{field}: (nan|inf), which is no number"):
        load(file)


def test_weights_too_large_for_a_sum_are_a_mean_all_the_same_and_no_sum_of_logits(run, colours):
    heads = load([run, run])
    (plain,) = load(run).predict(scan(colours).paths[0])
    (mean,) = heads.predict(scan(colours).paths[0], head_weights="1e308,1e308")
    assert mean.probabilities == pytest.approx(plain.probabilities, abs=1e-6)
    unsure = replace(mean, probabilities=np.full(3, 1 / 3))
    with pytest.raises(AnswerError, match="logits") as caught:
        join([unsure, unsure], np.array([1e308, 1e308]), "logits")
    assert "--head-weights" in caught.value.do
