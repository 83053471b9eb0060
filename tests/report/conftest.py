"""Runs to report on, and subjects made of numbers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tlkit
from tlkit import artifact
from tlkit.metrics import measure
from tlkit.report.part import Subject
from tlkit.testing import make_folder

NAMES = ('<img src=x onerror="alert(1)">', "قطط وكلاب", "\N{CAT FACE} & \N{DOG FACE}")


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """Three classes of colours with nasty names, parted; two files of the test part are no images.

    Some of the test images are in a wrong class, so that there is something to confuse.
    """
    place = tmp_path_factory.mktemp("parts") / "photos"
    make_folder(place / "train", classes=NAMES)
    make_folder(place / "test", classes=NAMES, per_class=6, seed=1)
    first, second, third = (place / "test" / one for one in NAMES)
    for number in range(3):
        (first / f"{number:03d}.png").rename(second / f"moved-{number}.png")
    (third / "000.png").rename(first / "</bdi><script>alert(2)</script>\u202e.png".replace("/", ""))
    (third / "cut.png").write_bytes((third / "001.png").read_bytes()[:40])
    (third / "words.jpg").write_text("no image")
    return place


@pytest.fixture(scope="session")
def run(parts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "<b>run</b>"
    return tlkit.fit(parts, backbone="tiny", out=out, on_bad="skip").run


@pytest.fixture(scope="session")
def validated(colours, tmp_path_factory) -> Path:
    """A run on a folder without a test part."""
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("val") / "run").run


@pytest.fixture(scope="session")
def subject(run):
    """Makes a subject of C classes from labels (N,) and probabilities (N, C)."""
    card = artifact.read_card(run / "head.safetensors")

    def make(labels, probabilities, names=None, paths=None, **more) -> Subject:
        count = probabilities.shape[1]
        names = names or tuple(f"class {number:04d}" for number in range(count))
        return Subject(
            run=run,
            cards=(replace(card, classes=tuple(names)),),
            heads=(),
            judged="images that were drawn",
            judged_by_fit=False,
            of_fit=0,
            files=tuple(f"{one}.jpg" for one in range(len(labels))),
            paths=paths or (None,) * len(labels),
            labels=labels,
            probabilities=probabilities,
            scores=measure(labels, probabilities, names),
            **more,
        )

    return make


@pytest.fixture(scope="session")
def drawn(subject):
    """The same, drawn: mostly right, and every class with at least one image."""

    def make(images: int, classes: int, **more) -> Subject:
        random = np.random.default_rng(0)
        labels = np.sort(np.arange(images) % classes)
        probabilities = random.random((images, classes)) ** 8 + 1e-9
        probabilities[np.arange(images), labels] += random.random(images) * 2
        return subject(labels, probabilities / probabilities.sum(axis=1, keepdims=True), **more)

    return make
