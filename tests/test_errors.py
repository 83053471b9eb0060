"""Errors: what they say, however odd the text that goes into them."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit import errors, options
from tlkit.errors import (
    DiskError,
    FolderError,
    NotEnoughMemory,
    OptionError,
    TlkitError,
    UnknownName,
    address,
    listing,
    machine_error,
    nearest,
    pick,
    printable,
    unknown,
)

KINDS = [
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, TlkitError)
]


def example(kind: type[TlkitError] = TlkitError, **changes: str) -> TlkitError:
    parts = {"about": "a", "found": "b", "expected": "c", "do": "d", **changes}
    return kind(parts.pop("about"), **parts)


def test_an_error_says_about_found_expected_and_do_in_this_order():
    assert str(example()).splitlines() == [
        "a",
        "  found     b",
        "  expected  c",
        "  do        d",
    ]


def test_further_lines_stand_below_the_first_and_carry_no_label():
    lines = str(example(found="one\ntwo\nthree")).splitlines()
    at = lines[1].index("one")
    assert [line[at:] for line in lines[1:4]] == ["one", "two", "three"]
    assert not lines[2][:at].strip()
    assert lines[4].split() == ["expected", "c"]


def test_an_empty_part_keeps_its_label():
    assert [line.strip() for line in str(example(found="")).splitlines()][1] == "found"


def test_what_an_error_is_about_is_one_line_even_with_a_line_break_in_a_file_name():
    text = str(example(about="a\n  do        rm -rf /"))
    assert len(text.splitlines()) == 4
    assert "\\n" in text.splitlines()[0]


@pytest.mark.parametrize("bad", ["\x1b[31m", "\r", "\x07", "\u202e", "\u200b", "\udcff", "\x9b"])
@pytest.mark.parametrize("part", ["about", "found", "expected", "do"])
def test_no_part_of_an_error_lets_a_control_character_through(part, bad):
    text = str(example(**{part: f"x{bad}y"}))
    assert not set(text) & set(bad[:1])
    text.encode("utf-8")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_printable_text_can_be_encoded_holds_no_control_and_does_not_change_again(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(category(one)[0] == "C" for one in shown if one != "\n")
    assert printable(shown) == shown


def test_letters_of_every_language_stay_as_they_are():
    assert printable("Käfer 猫 кот\nنحلة 🐝") == "Käfer 猫 кот\nنحلة 🐝"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_with_its_kind_and_text(kind):
    one = example(kind, about="a\nb", found="\x1b", expected="c\nd", do="\udcff")
    again = pickle.loads(pickle.dumps(one))
    assert type(again) is kind
    assert str(again) == str(one)


def test_every_error_is_in_the_tree_that_the_module_draws():
    assert len(KINDS) > 8
    assert all(one.__name__ in (errors.__doc__ or "") for one in KINDS)


def test_pick_gives_the_entry_of_that_name():
    assert pick({"a": 1, "b": 2}, "b", "letter") == 2


def test_a_name_that_is_not_there_lists_those_that_are_and_the_nearest():
    with pytest.raises(UnknownName) as caught:
        pick({"linear": 1, "mlp": 2}, "linaer", "head")
    error = caught.value
    assert isinstance(error, OptionError)
    assert error.found == "'linaer'"
    assert error.expected == "one of linear, mlp"
    assert error.do == "did you mean 'linear'?"
    assert "head" in error.about


def test_a_name_like_none_of_them_gets_no_guess():
    assert unknown(["linear", "mlp"], "zzzz", "head").do == "choose a head from the list"


def test_what_else_may_be_named_is_told_with_the_list_and_without_one():
    assert unknown(["a"], "b", "thing", also=", or a file").expected == "one of a, or a file"
    assert unknown([], "b", "thing", also=", or a file").expected == "none is known, or a file"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_nearest_to_a_known_name_is_that_name_whatever_the_case_of_its_letters(known):
    assert nearest(known[0], known).lower() == known[0].lower()


def test_the_nearest_is_told_as_it_is_written():
    assert nearest("imagenet1k_v1", ["IMAGENET1K_V1", "IMAGENET1K_V2"]) == "IMAGENET1K_V1"
    assert nearest("x", []) is None


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("learning_rate", ["lr", "epochs", "layer"], "lr"),
        ("Batch-Size", ["batch", "seed"], "batch"),
        ("random_state", ["seed", "weights"], "seed"),
        ("n_splits", ["folds", "lr"], "folds"),
        ("n_splits", ["lr", "seed"], None),
        ("wasp", ["ants", "bees"], None),
        ("ant", ["ants", "bees"], "ants"),
    ],
)
def test_a_guess_knows_other_peoples_words_and_is_none_where_little_is_alike(name, known, meant):
    assert nearest(name, known) == meant


def test_other_peoples_words_lead_to_options_that_there_are():
    known = {
        one.name
        for record in vars(options).values()
        if isinstance(record, type) and issubclass(record, options.Checked)
        for one in options.declared(record)
    }
    meant = set(errors.SYNONYMS.values())
    assert meant - known <= {"cuda", "out", "overwrite", "top"}
    assert not set(errors.SYNONYMS) & known


@pytest.mark.parametrize("text", ["https://a.b/c//d.jpg", "s3://photos", "hf://x/y z"])
def test_an_address_is_shown_as_it_was_typed(text):
    assert address(Path(text)).startswith(text.partition("//")[0] + "//")
    assert address(Path(text)).endswith(Path(text).name)


@pytest.mark.parametrize("text", ["photos/a.jpg", "/photos", "C:/photos", "a:b", "", "x://"])
def test_a_path_is_no_address(text):
    assert address(Path(text)) == ""


def test_a_listing_shows_all_lines_or_the_first_and_how_many_are_left():
    lines = [str(number) for number in range(25)]
    assert listing(lines[:20]).splitlines() == lines[:20]
    assert listing(lines).splitlines() == [*lines[:20], "... and 5 more"]
    assert listing(lines, most=2).splitlines() == ["0", "1", "... and 23 more"]
    assert listing([]) == ""


def test_a_kind_of_error_is_caught_as_a_tlkit_error():
    with pytest.raises(TlkitError):
        raise example(FolderError)


class OutOfMemoryError(RuntimeError):
    """Named as torch names that of a GPU."""


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "x", "some/file"), DiskError, "some/file cannot be"),
        (PermissionError(errno.EACCES, "x", "some/file"), DiskError, "give the permission"),
        (OSError(errno.EROFS, "x", b"some/file"), DiskError, "some/file cannot be"),
        (RuntimeError(f"saving: {os.strerror(errno.ENOSPC)}"), DiskError, "free some space"),
        (RuntimeError("I/O error: it is full (os error 28)"), DiskError, "free some space"),
        (MemoryError("30 GB"), NotEnoughMemory, "30 GB"),
        (OSError(errno.ENOMEM, "x"), NotEnoughMemory, "memory"),
        (OutOfMemoryError("CUDA out of memory"), NotEnoughMemory, "CUDA out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            NotEnoughMemory,
            "you tried",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_machine_lacks_is_found_in_an_error_and_in_its_causes(error, kind, text):
    assert type(machine_error(error)) is kind
    assert text in str(machine_error(error))
    with pytest.raises(ValueError, match="outer") as caught:
        raise ValueError("outer") from error
    assert type(machine_error(caught.value)) is kind


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        FileNotFoundError(errno.ENOENT, "x", "some/file"),
        PermissionError(errno.EACCES, "a server refuses"),
        OSError("no number"),
        RuntimeError("size mismatch"),
    ],
    ids=lambda error: str(error),
)
def test_the_machine_is_not_blamed_for_anything_else(error):
    assert machine_error(error) is None


def test_the_machine_is_not_blamed_for_an_error_that_was_dealt_with():
    def deal_with_it():
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("x") from None

    with pytest.raises(ValueError, match="x") as caught:
        deal_with_it()
    assert machine_error(caught.value) is None
