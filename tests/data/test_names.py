"""Names: sequences of names and paths that are arrays."""

import os
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tlkit.data.names import END, Names, Paths

NAMES = st.lists(
    st.binary(min_size=1, max_size=12)
    .filter(lambda one: b"\0" not in one)
    .map(lambda one: one.decode("utf-8", "surrogateescape"))
)


@given(NAMES)
def test_they_are_a_sequence_of_what_they_were_made_of(names):
    text = "".join(one + END for one in names).encode("utf-8", "surrogateescape")
    for found in (Names.of(names), Names.of_text(text), Names.of(iter(names))):
        assert list(found) == names
        assert found == names
        assert [found[i] for i in range(-len(names), len(names))] == names * 2
        assert found[1:-1] == names[1:-1]
        assert found != [*names, "more"]


def test_what_is_taken_shares_the_bytes_and_keeps_the_order():
    names = Names.of(f"a/{number}.jpg" for number in range(10_000))
    taken = names.take(np.array([9_999, 3, 3]))
    assert list(taken) == ["a/9999.jpg", "a/3.jpg", "a/3.jpg"]
    assert taken.data is names.data


def test_paths_are_made_when_they_are_asked_for(tmp_path):
    names = ["a/1.jpg", "b/2.jpg"]
    for root in (tmp_path, Path()):
        paths = Paths(root, Names.of(names))
        assert paths == [root / one for one in names]
        assert paths[1] == root / "b/2.jpg"
        assert paths[:1] == [root / "a/1.jpg"]
        assert list(paths.texts()) == [str(root / one) for one in names]
        assert paths.take(np.array([1])) == [root / "b/2.jpg"]
    assert os.fspath(Paths(Path(), Names.of(["/x/1.jpg"]))[0]) == str(Path("/x/1.jpg"))
