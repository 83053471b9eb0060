"""Jobs: what one that was stopped has left in its folder."""

import pytest

from tlkit.errors import RunFolderError
from tlkit.files import new_file
from tlkit.scale.job import LIST, PART, PLAN, begin

pyarrow = pytest.importorskip("pyarrow")


def begun(out):
    """Begin a job over two paths, or go on with it."""
    plan = {"what": "features", "folder": str(out), "versions": {}}
    return begin(
        str(out), plan, lambda: iter([pyarrow.table({"path": [b"a.png", b"b.png"]})]), shard=1
    )


def test_the_next_start_removes_what_was_abandoned_and_leaves_what_is_being_written(tmp_path):
    out = tmp_path / "out"
    begun(out)
    for name in (PLAN, LIST, PART.format(1)):
        (out / f".{name}.0123abcd.tmp").write_bytes(b"half")
    with new_file(out / PART.format(0), tidy=False) as file:
        (writing,) = out.glob(f".{PART.format(0)}.*.tmp")
        begun(out)
        assert sorted(one.name for one in out.iterdir()) == sorted([writing.name, PLAN, LIST])
        file.write(b"whole")
    assert (out / PART.format(0)).read_bytes() == b"whole"


def test_a_hidden_file_of_somebody_else_is_not_removed(tmp_path):
    out = tmp_path / "out"
    begun(out)
    (out / ".notes.0123abcd").write_text("mine")
    with pytest.raises(RunFolderError, match="something else"):
        begun(out)
    assert (out / ".notes.0123abcd").read_text() == "mine"
