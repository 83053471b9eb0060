"""A process that was forked from one that has computed refuses, where torch would wait for ever."""

import multiprocessing
import os
import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, os, sys
import tlkit

photos, run, image = sys.argv[1:]

def attempts(head):
    yield "predict", lambda: head.predict(image)
    yield "evaluate", lambda: head.evaluate(photos)
    yield "load", lambda: tlkit.load(run)
    yield "fit", lambda: tlkit.fit(photos, backbone="tiny", out=run + "-2")
    yield "estimator", lambda: tlkit.ImageClassifier(backbone="tiny").fit([image] * 4, [0, 1] * 2)

def child(head):
    for name, attempt in attempts(head):
        try:
            attempt()
        except tlkit.TlkitError as error:
            print(name, "refused" if "spawn" in error.do else error)
        else:
            print(name, "answered")

def forked(*args):
    process = multiprocessing.get_context("fork").Process(target=child, args=args)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        print("hangs")

tlkit.fit(photos, backbone="tiny", out=run)
head = tlkit.load(run)
print("parent", head.predict(image)[0].label)
sys.stdout.flush()
forked(head)
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_process_forked_after_a_prediction_refuses_with_what_to_use_instead(
    colours, tiny_plugin, tmp_path
):
    image = next(colours.rglob("*.png"))
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, colours, tmp_path / "run", image]
    ran = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tiny_plugin), *sys.path])},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("parent "), ran.stderr
    assert lines[1:] == [
        f"{name} refused" for name in ("predict", "evaluate", "load", "fit", "estimator")
    ]
