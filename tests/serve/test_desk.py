"""The desk: every question gets its own answer, however many come at once, and waits in bounds."""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tlkit.classifier import load
from tlkit.data.images import BadImage
from tlkit.errors import OptionError, UnknownName
from tlkit.options import PredictOptions
from tlkit.predict.session import Session, sessions
from tlkit.predict.tta import POLICIES
from tlkit.serve import desk as module


def until_read(desk, count):
    """Wait until so many wait for the network."""
    while desk._waiting.qsize() < count:
        threading.Event().wait(0.01)


def test_many_at_once_get_each_their_own_answer(start, head, photos):
    sizes = []
    served = start({"batch": 16}, gather_ms=20.0)
    served.desk._told = sizes.append
    policies = ["none", "mirror", "five"]
    asked = [(policies[i % 3], photos[i % len(photos)]) for i in range(200)]
    wanted = {
        (tta, one.path): one.probabilities
        for tta in policies
        for one in load(head).predict(photos, tta=tta, engine="eager", device="cpu")
    }
    with ThreadPoolExecutor(20) as pool:
        futures = list(
            pool.map(lambda one: served.desk.predict(one[0], one[1], one[1].read_bytes()), asked)
        )
    for (tta, path), future in zip(asked, futures, strict=True):
        one = future.result(timeout=30)
        assert one.path == path
        assert np.allclose(one.probabilities, wanted[tta, path], atol=1e-6)
    served.desk.do(lambda: None).result()
    assert sum(sizes) == 200
    assert len(sizes) < 150
    assert max(sizes) <= 16


def test_what_comes_together_goes_through_the_network_together(start, photos, busy):
    sizes = []
    served = start()
    served.desk._told = sizes.append
    go = busy(served)
    futures = [served.desk.predict("none", one, one.read_bytes()) for one in photos[:20]]
    served.desk._readers.submit(lambda: None).result()
    go.set()
    for future in futures:
        future.result(timeout=30)
    served.desk.do(lambda: None).result()
    assert sum(sizes) == 20
    assert len(sizes) <= 3


def test_an_answer_that_nobody_waits_for_is_not_computed(start, photos, busy):
    sizes = []
    served = start()
    served.desk._told = sizes.append
    go = busy(served)
    dropped, kept = (served.desk.predict("none", one, one.read_bytes()) for one in photos[:2])
    assert dropped.cancel()
    go.set()
    assert kept.result(timeout=30).path == photos[1]
    served.desk.do(lambda: None).result()
    assert sizes == [1]


@pytest.mark.parametrize("way", ["predict", "explain"])
def test_the_bytes_of_what_was_given_up_are_not_kept(start, photos, way):
    class Bytes:
        """As bytes have no weak references."""

    desk, go = start({"workers": 1}).desk, threading.Event()
    desk._readers.submit(go.wait)
    data = Bytes()
    left = weakref.ref(data)
    if way == "predict":
        answer = desk.predict("none", photos[0], data)
    else:
        answer = desk.explain(None, photos[0], data, "")
    del data
    assert left() is not None
    assert answer.cancel()
    assert left() is None
    go.set()


def test_where_all_were_given_up_the_network_is_not_asked(start, photos, busy):
    sizes = []
    served = start()
    served.desk._told = sizes.append
    go = busy(served)
    dropped = [served.desk.predict("five", one, one.read_bytes()) for one in photos[:2]]
    until_read(served.desk, 2)
    assert all(one.cancel() for one in dropped)
    go.set()
    served.desk.do(lambda: None).result()
    assert sizes == []
    assert "five" not in served.desk._started


def test_what_is_given_up_between_two_passes_is_not_computed(start, photos, busy, monkeypatch):
    served = start({"batch": 10})
    asked, ask = [], Session.ask

    def give_up(self, images):
        asked.append(len(images))
        for one in futures:
            one.cancel()
        return ask(self, images)

    monkeypatch.setattr(Session, "ask", give_up)
    go = busy(served)
    futures = [served.desk.predict("five", one, one.read_bytes()) for one in photos[:8]]
    until_read(served.desk, 8)
    go.set()
    served.desk.do(lambda: None).result()
    assert asked == [2]
    assert sum(one.cancelled() for one in futures) == 6


def test_what_waits_is_bounded_and_all_is_answered(start, photos, busy, monkeypatch):
    monkeypatch.setattr(module, "MOST_DECODED", 1)
    served = start()
    go = busy(served)
    futures = [served.desk.predict("none", one, one.read_bytes()) for one in photos]
    for _ in range(100):
        if served.desk._waiting.qsize():
            break
        threading.Event().wait(0.02)
    assert served.desk._waiting.qsize() == 1
    go.set()
    assert [one.result(timeout=30).path for one in futures] == photos


def test_a_fault_is_that_of_its_batch_alone(start, photos, monkeypatch):
    served = start()
    with monkeypatch.context() as broken:
        broken.setattr("tlkit.predict.session.Session.ask", lambda self, images: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            served.desk.predict("none", photos[0], photos[0].read_bytes()).result(timeout=30)
    assert served.desk.predict("none", photos[0], photos[0].read_bytes()).result(timeout=30)


def leave(*args, **named):
    raise SystemExit(3)


@pytest.mark.parametrize(
    "place", ["tlkit.predict.session.Session.ask", "tlkit.predict.session.decode"]
)
def test_nothing_that_is_raised_ends_the_desk(start, photos, monkeypatch, place):
    served = start()
    with monkeypatch.context() as broken:
        broken.setattr(place, leave)
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            served.desk.predict("none", photos[0], photos[0].read_bytes()).result(timeout=30)
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        served.desk.do(leave).result(timeout=30)
    assert served.desk.predict("none", photos[0], photos[0].read_bytes()).result(timeout=30)
    served.desk.do(lambda: None).result(timeout=30)
    assert served.desk._room._taken == 0


def test_who_is_told_of_the_images_cannot_take_an_answer_away(start, photos, caplog):
    served = start()
    served.desk._told = leave
    assert served.desk.predict("none", photos[0], photos[0].read_bytes()).result(timeout=30)
    served.desk.do(lambda: None).result(timeout=30)
    assert "has met an error" in caplog.text
    assert served.desk.open
    assert served.desk._room._taken == 0


def test_few_read_at_once_unless_more_are_named(start, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert start().desk._readers._max_workers == 4
    assert start({"workers": 9}).desk._readers._max_workers == 9


def test_what_cannot_be_read_takes_no_place(start, photos):
    served = start()
    bad = served.desk.predict("none", Path("a.png"), b"none").result(timeout=30)
    assert bad == BadImage(path=Path("a.png"), reason="not an image that Pillow knows")
    assert served.desk._room._taken == 0


def test_a_reader_that_runs_out_of_memory_says_so(start, photos, monkeypatch):
    def full(*args, **named):
        raise MemoryError

    served = start()
    monkeypatch.setattr("tlkit.predict.session.decode", full)
    with pytest.raises(MemoryError):
        served.desk.predict("none", photos[0], b"").result(timeout=30)


def test_closing_answers_what_was_read(start, photos):
    served = start()
    futures = [served.desk.predict("none", one, one.read_bytes()) for one in photos[:2]]
    for one in futures:
        one.result(timeout=30)
    served.desk.close()
    assert not served.desk.open


def test_a_policy_that_the_head_cannot_be_asked_under_is_refused(start, photos):
    with pytest.raises(UnknownName, match="mirrr"):
        start().desk.predict("mirrr", photos[0], b"")


def test_scales_that_no_policy_could_take_are_refused_at_once(start):
    with pytest.raises(OptionError, match="--scales 5"):
        start({"scales": "5"})


def test_a_policy_of_a_package_that_refuses_the_head_is_left_out(head, install):
    code = """
from tlkit.errors import DataError, OptionError
from tlkit.predict.tta import Policy, View


def refuses(kind):
    def views(spec, options):
        raise kind("other heads", found="this", expected="another", do="take it")

    return views


option = Policy(about="", views=refuses(OptionError))
data = Policy(about="", views=refuses(DataError))
fine = Policy(about="", views=lambda spec, options: (View(shorter_px=spec.resize_px),))
"""
    install("zz-rows", code, policies=["option", "data", "fine"])
    found = sessions(load(head).heads, PredictOptions(engine="eager", device="cpu"))
    assert list(found) == [*POLICIES.own, "fine"]
