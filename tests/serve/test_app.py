"""The API: the numbers of `tlkit predict`, a reason for what cannot be read, and what it says."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import tlkit
from tlkit.classifier import load
from tlkit.predict.tta import POLICIES
from tlkit.report.explain import explain
from tlkit.serve.app import app_of


def probabilities(answer):
    return {one["class"]: one["probability"] for one in answer["top"]}


@pytest.mark.parametrize("tta", POLICIES)
def test_the_answers_are_those_of_predict(client, head, photos, send, tta):
    some = photos[::5]
    asked = client().post("/api/predict", params={"tta": tta}, files=send(*some))
    answers = asked.json()["answers"]
    wanted = load(head).predict(some, tta=tta, engine="eager", device="cpu")
    for answer, one in zip(answers, wanted, strict=True):
        assert answer["path"] == one.path.name
        assert answer["answer"] == one.label
        assert probabilities(answer) == pytest.approx(dict(one.top(3)), abs=1e-6)
        assert answer["familiarity"] == pytest.approx(one.familiarity, abs=1e-3)


def test_a_policy_that_is_not_named_is_the_one_that_was_started_with(client, photos, send):
    asked = client({"tta": "five"})
    assert asked.post("/api/predict", files=send(photos[0])).json()["tta"] == "five"
    assert asked.get("/api/head").json()["policies"][0]["name"] == "five"


def test_scales_and_grid_are_for_the_policies_that_take_them(client, head, photos, send):
    asked = client({"grid": 2, "mirror": False})
    views = {one["name"]: one["views"] for one in asked.get("/api/head").json()["policies"]}
    assert views["multi"] == 3 * 2 * 2
    assert views["mirror"] == 2
    (answer,) = asked.post("/api/predict?tta=multi", files=send(photos[3])).json()["answers"]
    (wanted,) = load(head).predict(photos[3], tta="multi", grid=2, mirror=False, engine="eager")
    assert probabilities(answer) == pytest.approx(dict(wanted.top(3)), abs=1e-6)


def test_several_heads_are_asked_together(client, colours, photos, send, tmp_path):
    run = tlkit.fit(colours, backbone="tiny", folds=2, out=tmp_path / "folds").run
    asked = client({"combine": "logits"}, heads=run)
    answers = asked.post("/api/predict?tta=mirror", files=send(*photos[::6])).json()["answers"]
    wanted = load(run).predict(photos[::6], tta="mirror", combine="logits", engine="eager")
    for answer, one in zip(answers, wanted, strict=True):
        assert probabilities(answer) == pytest.approx(dict(one.top(3)), abs=1e-6)
    refused = asked.post("/api/explain", files=send(photos[0], name="image"))
    assert refused.status_code == 422
    assert asked.get("/api/head").json()["explains"] is False


def test_what_is_not_believed_is_unsure(client, head, photos, send):
    asked = client({"reject_below": "0.999"})
    answers = asked.post("/api/predict", files=send(*photos)).json()["answers"]
    wanted = load(head).predict(photos, reject_below="0.999", engine="eager")
    assert [one["answer"] for one in answers] == [one.label for one in wanted]
    assert [one["unsure"] for one in answers] == [one.unsure for one in wanted]
    assert asked.get("/api/head").json()["rejects"]


def test_what_cannot_be_read_is_told_beside_the_others(client, photos, send, tmp_path):
    (tmp_path / "none.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:200])
    (tmp_path / "empty.png").touch()
    asked = send(tmp_path / "none.png", photos[0], tmp_path / "cut.png", tmp_path / "empty.png")
    answers = client().post("/api/predict", files=asked).json()["answers"]
    assert [one["error"] is None for one in answers] == [False, True, False, False]
    assert answers[3]["error"] == "empty file"
    assert answers[0]["answer"] is None
    assert answers[0]["top"] == []


def test_an_image_of_too_many_pixels_is_unreadable(client, photos, send, monkeypatch):
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "100")
    (answer,) = client().post("/api/predict", files=send(photos[0])).json()["answers"]
    assert "more than 100 pixels" in answer["error"]


def test_a_strip_is_not_looked_at_as_a_whole(client, tmp_path, send):
    Image.new("RGB", (9000, 3)).save(tmp_path / "strip.png")
    asked = client()
    (answer,) = asked.post("/api/predict?tta=dense", files=send(tmp_path / "strip.png")).json()[
        "answers"
    ]
    assert "too narrow" in answer["error"]
    (answer,) = asked.post("/api/predict", files=send(tmp_path / "strip.png")).json()["answers"]
    assert answer["error"] is None


def test_the_explanation_is_that_of_explain(client, head, photos, send):
    answer = client().post("/api/explain?class=red", files=send(photos[0], name="image"))
    assert answer.headers["content-type"] == "image/png"
    (wanted,) = explain(load(head).head, [photos[0]], target="red", device="cpu")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), wanted.overlay())


def test_an_explanation_of_what_is_no_image_is_refused(client, send, tmp_path):
    (tmp_path / "none.png").write_text("no image")
    answer = client().post("/api/explain", files=send(tmp_path / "none.png", name="image"))
    assert answer.status_code == 422
    assert answer.json()["found"] == "not an image that Pillow knows"


@pytest.mark.parametrize(
    ("path", "name", "found"),
    [
        ("/api/predict?tta=fife", "images", "'fife'"),
        ("/api/predict?top=0", "images", "query.top"),
        ("/api/predict?top=many", "images", "query.top"),
        ("/api/predict", "pictures", "body.images"),
        ("/api/explain?class=rad", "image", "'rad'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(client, photos, send, path, name, found):
    answer = client().post(path, files=send(photos[0], name=name))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert found in problem["found"]
    assert problem["do"]
    assert problem["expected"]


def test_a_name_is_text_whatever_it_looks_like(client, photos):
    name = "../../<b>\u202eé.png"
    files = {"images": (name, photos[0].read_bytes())}
    (answer,) = client().post("/api/predict", files=files).json()["answers"]
    assert answer["path"] == "../../<b>\\u202eé.png"


def test_a_form_that_is_broken_is_told(client):
    kind = {"content-type": "multipart/form-data"}
    answer = client().post("/api/predict", content=b"what", headers=kind)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_not_there_or_not_so_asked_is_a_problem_too(client):
    asked = client()
    assert asked.get("/nothing").status_code == 404
    assert asked.get("/static/../app.py").status_code == 404
    wrong = asked.get("/api/predict")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.headers["content-type"] == "application/problem+json"


def test_what_fails_is_told_without_what_it_was(client, start, photos, send, monkeypatch):
    asked = client()
    monkeypatch.setattr("tlkit.predict.session.Session.ask", lambda self, images: 1 / 0)
    answer = asked.post("/api/predict", files=send(photos[0]))
    assert answer.status_code == 500
    assert "division" not in answer.text
    monkeypatch.undo()
    assert asked.post("/api/predict", files=send(photos[0])).status_code == 200


def test_health_and_metrics_tell_what_was_done(client, start, photos, send, tmp_path):
    asked = client({"reject_below": "0.5"})
    assert asked.get("/health/live").json() == {"ok": True}
    assert asked.get("/health/ready").json() == {"ok": True}
    (tmp_path / "none.png").write_text("no image")
    asked.post("/api/predict", files=send(photos[0], photos[9], tmp_path / "none.png"))
    told = asked.get("/metrics").text
    assert 'tlkit_images_total{result="unreadable"} 1.0' in told
    assert 'tlkit_requests_total{path="/api/predict",status="200"} 1.0' in told
    assert "tlkit_batch_images_sum 2.0" in told
    assert "tlkit_waiting_requests 0.0" in told


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready"])
def test_what_watches_may_ask_for_the_head_alone(client, path):
    assert client().head(path).status_code == 200


def test_a_server_that_is_stopping_is_not_ready(start, photos, send):
    served = start()
    asked = TestClient(app_of(served), base_url="http://localhost")
    served.desk.close()
    assert asked.get("/health/ready").status_code == 503
    assert asked.post("/api/predict", files=send(photos[0])).status_code == 503
    assert asked.get("/health/live").status_code == 200
