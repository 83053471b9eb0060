"""The card: whatever is in it comes back, and whatever else is in its place is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.backbone import InputSpec
from tlkit.card import DEEPEST, Calibration, Card, WeightsCard, parsed, sha256_of
from tlkit.errors import HeadFileError

HERE = Path("some.safetensors")

# File names can hold bytes that are no text, which Python keeps as lone surrogates.
text = st.text(st.characters(exclude_categories=()), max_size=20)
counts = st.integers(min_value=0, max_value=2**63 - 1)
whole = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
plain = st.none() | st.booleans() | whole | st.floats(allow_nan=False) | text
nested = st.recursive(
    plain, lambda one: st.lists(one, max_size=3) | st.dictionaries(text, one, max_size=3)
)
inputs = st.integers(1, 500).flatmap(
    lambda px: st.builds(
        InputSpec,
        crop_px=st.just(px),
        resize_px=st.integers(px, 1000),
        mean=st.tuples(*[st.floats(-1, 1)] * 3),
        std=st.tuples(*[st.floats(0.1, 1)] * 3),
        interpolation=st.sampled_from(["bilinear", "bicubic"]),
        crop_mode=st.sampled_from(["center", "pad", "squash", "border"]),
        preprocessing=st.sampled_from([1, 2]),
    )
)
cards = st.builds(
    Card,
    format=st.just(1),
    created=text,
    backbone=text,
    distribution=text,
    distribution_version=text,
    weights=st.builds(
        WeightsCard, name=text, licence=text, classes=st.none() | counts, frozen_sha256=text
    ),
    input=inputs,
    classes=st.lists(text, min_size=1, max_size=5, unique=True).map(tuple),
    plan=st.dictionaries(text, nested, max_size=3),
    options=st.dictionaries(text, nested, max_size=3),
    precision=st.sampled_from(["fp32", "bf16"]),
    images=st.dictionaries(text, counts, max_size=3),
    metrics=st.dictionaries(text, nested, max_size=3),
    calibration=st.builds(
        Calibration,
        images=counts,
        temperature=st.floats(0.01, 100),
        similarities=st.sampled_from([(), tuple(n / 100 for n in range(101))]),
        thresholds=st.lists(
            st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3, unique_by=(min, max)
        )
        .map(lambda pairs: zip(*map(sorted, zip(*pairs, strict=True)), strict=True))
        .map(tuple)
        .filter(
            lambda pairs: all(
                len(set(column)) == len(pairs) for column in zip(*pairs, strict=False)
            )
        ),
    ),
    versions=st.dictionaries(text, text, max_size=3),
    tensors_sha256=text,
)


def read(raw):
    written = json.dumps(raw)
    return parsed(HERE, written, sha256_of(written))


@given(cards)
def test_every_card_comes_back_as_it_was(card):
    written = card.to_json()
    assert written.isascii()
    assert parsed(HERE, written, sha256_of(written)) == card


@given(cards)
def test_a_card_of_the_first_format_has_the_first_preprocessing(card):
    raw = json.loads(card.to_json())
    for name in ("crop_mode", "crop_width_px", "resize_width_px", "preprocessing"):
        del raw["input"][name]
    read_input = read({**raw, "format": 1}).input
    assert (read_input.crop_mode, read_input.preprocessing) == ("center", 1)
    del raw["input"]["interpolation"]
    with pytest.raises(HeadFileError, match="not the fields"):
        read(raw)


@given(cards, st.data())
def test_a_field_of_another_type_is_refused_by_its_name(card, data):
    raw = json.loads(card.to_json())
    name = data.draw(st.sampled_from(sorted(raw)))
    kinds = {str: 1, int: "x", dict: [], list: {}}
    raw[name] = kinds[type(raw[name])]
    with pytest.raises(HeadFileError) as caught:
        read(raw)
    assert "some.safetensors" in caught.value.about


@given(cards, nested)
def test_anything_at_all_in_the_place_of_a_card_is_read_or_refused(card, raw):
    for one in (raw, [raw], {"format": 1, "x": raw}, {**json.loads(card.to_json()), "input": raw}):
        with pytest.raises(HeadFileError):
            read(one)


@pytest.mark.parametrize("deep", [DEEPEST + 1, 5_000, 200_000])
def test_what_is_nested_too_deeply_is_refused(deep):
    written = '{"format": 1, "x": ' + "[" * deep + "]" * deep + "}"
    with pytest.raises(HeadFileError):
        parsed(HERE, written, sha256_of(written))


def test_an_enormous_card_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr("tlkit.card.LARGEST", 100)
    monkeypatch.setattr("json.loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(HeadFileError, match="101 characters"):
        parsed(HERE, "x" * 101, "")
