"""The guard: strangers, other sites' pages and too much are turned away, with the reason."""

import threading

import pytest
from starlette.testclient import TestClient

from tlkit.errors import OptionError
from tlkit.serve.app import app_of
from tlkit.serve.guard import check_token, is_loopback

TOKEN = "a-token-of-enough-letters"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_the_names_of_this_machine_are_welcome(client, host):
    assert client().get("/api/head", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.0.0.1@evil", "", "["],
)
def test_another_name_for_the_loopback_address_is_refused(client, host):
    answer = client().get("/api/head", headers={"Host": host})
    assert answer.status_code == 400
    assert "tlkit serve" in answer.json()["do"]


def test_a_page_of_another_site_is_refused_and_nobody_is_told_to_share(client, photos, send):
    asked = client()
    for origin in ("https://evil.example", "http://127.0.0.1:9", "null"):
        answer = asked.post("/api/predict", files=send(photos[0]), headers={"Origin": origin})
        assert answer.status_code == 403
    own = asked.post("/api/predict", files=send(photos[0]), headers={"Origin": "http://127.0.0.1"})
    assert own.status_code == 200
    assert not [one for one in own.headers if one.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/api/head", "/api/predict", "/health/live", "/metrics"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_a_browser_sends_for_another_sites_page_is_refused(client, path, site):
    for method in ("get", "post"):
        answer = getattr(client(), method)(path, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403
        assert answer.json()["found"] == f"Sec-Fetch-Site: {site}"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_own_page_and_a_typed_address_are_welcome(client, site):
    assert client().get("/api/head", headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/head", "/nothing", "/metrics"])
def test_every_response_has_the_headers_that_protect_the_page(client, path):
    headers = client().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_page_has_no_inline_script_and_asks_nobody_else(client):
    asked = client()
    page = asked.get("/").text
    assert "<script>" not in page
    assert "style=" not in page
    files = [page, *(asked.get(f"/static/page.{one}").text for one in ("js", "css"))]
    assert not [one for one in files if "http://" in one or "https://" in one]


def test_a_token_is_wanted_by_the_api_and_not_by_the_page(client, photos, send):
    asked = client(token=TOKEN)
    for path in ("/", "/static/page.js", "/health/ready"):
        assert asked.get(path).status_code == 200
    for headers in ({}, bearer("b" + TOKEN), bearer(""), {"Authorization": TOKEN}, bearer("é")):
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        for path in ("/api/head", "/metrics", "/openapi.json"):
            answer = asked.get(path, headers=raw)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert asked.post("/api/predict", files=send(photos[0]), headers=raw).status_code == 401
    for path in ("/api/head", "/metrics", "/openapi.json"):
        assert asked.get(path, headers=bearer(TOKEN)).status_code == 200
    right = asked.post("/api/predict", files=send(photos[0]), headers=bearer(TOKEN))
    assert right.status_code == 200


def test_on_an_address_for_others_any_name_is_welcome_with_the_token(client):
    asked = client(token=TOKEN, host="0.0.0.0")
    named = {"Host": "photos.example", **bearer(TOKEN)}
    assert asked.get("/api/head", headers=named).status_code == 200


def test_an_address_for_others_wants_a_token_of_some_length():
    check_token("127.0.0.1", "")
    check_token("::1", "")
    check_token("localhost", "")
    check_token("0.0.0.0", TOKEN)
    for host in ("0.0.0.0", "::", "192.168.0.2", "photos.example"):
        assert not is_loopback(host)
        with pytest.raises(OptionError, match="TLKIT_TOKEN"):
            check_token(host, "")
    for token in ("short", "with a space in the middle", "ünübersehbar-lang-genug"):
        with pytest.raises(OptionError, match="cannot be used"):
            check_token("127.0.0.1", token)


def test_a_request_that_is_too_large_is_refused_while_it_comes(client, photos, send):
    asked = client(most_mb=0.005)
    told = asked.post("/api/predict", files=send(*photos[:8]))
    assert told.status_code == 413

    def chunks():
        yield b"x" * 4000
        yield b"x" * 4000

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = asked.post("/api/predict", content=chunks(), headers=kind)
    assert answer.status_code == 413
    assert "--most-mb" in answer.json()["do"]


def test_too_many_images_in_one_request_are_refused(client, photos, send):
    answer = client(most_images=2).post("/api/predict", files=send(*photos[:3]))
    assert answer.status_code == 413
    assert answer.json()["expected"] == "at most 2"


@pytest.mark.parametrize("kind", ["application/json", "image/png", ""])
def test_a_body_that_is_no_form_with_files_is_refused(client, kind):
    headers = {"content-type": kind} if kind else {}
    answer = client().post("/api/predict", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["expected"]


@pytest.mark.parametrize("limit", ["most_waiting", "most_waiting_mb"])
def test_more_than_can_wait_shall_come_again(start, photos, send, busy, limit):
    most = {"most_waiting": 1, "most_waiting_mb": 1.5 * photos[0].stat().st_size / 1e6}
    served = start(**{limit: most[limit]})
    asked = TestClient(app_of(served), base_url="http://localhost")
    go = busy(served)
    first = threading.Thread(
        target=lambda: found.append(asked.post("/api/predict", files=send(photos[0]))),
    )
    found = []
    first.start()
    while "tlkit_waiting_requests 1.0" not in asked.get("/metrics").text:
        pass
    late = asked.post("/api/predict", files=send(photos[1]))
    assert late.status_code == 429
    assert late.headers["retry-after"] == "1"
    counted = 'tlkit_requests_total{path="/api/predict",status="429"} 1.0'
    assert counted in asked.get("/metrics").text
    go.set()
    first.join()
    assert found[0].status_code == 200
    assert asked.post("/api/predict", files=send(photos[1])).status_code == 200


def test_requests_for_unknown_paths_are_counted_together(client):
    asked = client()
    for path in ("/nothing", "/api/nothing", "/api/predict/"):
        asked.get(path)
    told = asked.get("/metrics").text
    assert 'path="other",status="404"} ' in told
    assert "nothing" not in told


def test_what_takes_too_long_is_given_up_and_the_next_is_answered(start, photos, send, busy):
    served = start(timeout=0.2)
    asked = TestClient(app_of(served), base_url="http://localhost")
    go = busy(served)
    late = asked.post("/api/predict", files=send(photos[0]))
    assert late.status_code == 504
    assert "--timeout" in late.json()["do"]
    go.set()
    served.desk.do(lambda: None).result()
    assert asked.post("/api/predict", files=send(photos[1])).status_code in (200, 504)
