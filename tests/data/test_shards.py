"""Shards: tar files of images."""

import io
import tarfile

import numpy as np
import pytest

import tlkit
from tlkit import cache
from tlkit.checking import fix
from tlkit.data import manifest, shards
from tlkit.data.folder import find_images, scan, scan_parts
from tlkit.data.images import Unreadable, read
from tlkit.errors import FolderError, OptionError
from tlkit.testing import make_folder


@pytest.fixture(autouse=True)
def forgotten():
    """No index of another test."""
    shards._known.clear()


def packed(path, members, mode="w"):
    """A tar file of names and bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            one = tarfile.TarInfo(name)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    return path


def photos(tmp_path, seed=0, per_class=6):
    folder = make_folder(tmp_path / f"made-{seed}", per_class=per_class, seed=seed)
    return [
        (one.relative_to(folder).as_posix(), one.read_bytes())
        for one in sorted(folder.rglob("*.png"))
    ]


def shown(catalog):
    return {
        file: catalog.classes[label]
        for file, label in zip(catalog.files, catalog.labels, strict=True)
    }


def test_class_folders_in_a_shard_are_classes_in_the_order_of_the_members(tmp_path):
    packed(tmp_path / "s" / "1.tar", [("dogs/2.jpg", b"d"), ("./cats/1.jpg", b"c")])
    packed(tmp_path / "s" / "0.tar", [("cats/9.png", b"e"), ("note.txt", b"n")])
    catalog = scan(tmp_path / "s")
    assert catalog.classes == ("cats", "dogs")
    assert list(shown(catalog).items()) == [
        ("0.tar/cats/9.png", "cats"),
        ("1.tar/dogs/2.jpg", "dogs"),
        ("1.tar/cats/1.jpg", "cats"),
    ]
    assert [shards.contents(one) for one in catalog.paths] == [b"e", b"d", b"c"]


@pytest.mark.parametrize("listed", [False, True])
def test_labels_beside_the_images(tmp_path, listed):
    members = [("x/7.jpg", b"1"), ("x/7.cls", b"1\n"), ("8.left.png", b"2"), ("8.cls", b"0")]
    packed(tmp_path / "a.tar", [*members, ("9.jpg", b"no label")])
    if listed:
        (tmp_path / "classes.txt").write_text("cats\ndogs\n")
    catalog = scan(tmp_path)
    names = ("cats", "dogs") if listed else ("0", "1")
    assert shown(catalog) == {"a.tar/x/7.jpg": names[1], "a.tar/8.left.png": names[0]}
    assert catalog.left_out == ("no class: a.tar/9.jpg",)


def test_a_label_that_no_line_names_is_an_error(tmp_path):
    packed(tmp_path / "a.tar", [("7.jpg", b"1"), ("7.cls", b"2")])
    (tmp_path / "classes.txt").write_text("cats\ndogs\n")
    with pytest.raises(FolderError, match="a number below 2"):
        scan(tmp_path)


@pytest.mark.parametrize(
    "name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "a/.x.jpg", "a\\x.jpg"]
)
def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path, name):
    packed(tmp_path / "a.tar", [("c/1.jpg", b"1"), (name, b"2")])
    assert list(scan(tmp_path).files) == ["a.tar/c/1.jpg"]


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
    packed(tmp_path / "a.tar", [("c/1.jpg", b"old"), ("d/1.jpg", b"x"), ("c/1.jpg", b"new")])
    (path,) = (one for one in scan(tmp_path).paths if one.parent.name == "c")
    assert shards.contents(path) == b"new"


@pytest.mark.parametrize("ending", ["tar.gz", "tar.bz2", "tar.xz", "tar"])
def test_a_compressed_shard_says_what_to_do(tmp_path, ending):
    kind = "gz" if ending == "tar" else ending.rpartition(".")[2]
    packed(tmp_path / f"a.{ending}", [("c/1.jpg", b"1")], f"w:{kind}")
    with pytest.raises(FolderError, match="without compression"):
        scan(tmp_path)


@pytest.mark.parametrize("left", [0, 100, 512, 700, 1024, 1600])
def test_a_shard_that_is_cut_off_is_an_error(tmp_path, left):
    path = packed(tmp_path / "a.tar", [("c/1.jpg", b"1" * 600), ("d/2.jpg", b"2")])
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(FolderError, match="not a whole tar file"):
        scan(tmp_path)


@pytest.mark.parametrize("seed", range(30))
def test_no_broken_byte_gives_a_traceback(tmp_path, seed):
    path = packed(tmp_path / "a.tar", [(f"c/{n}.jpg", b"x" * 700) for n in range(3)])
    data = bytearray(path.read_bytes())
    draw = np.random.default_rng(seed)
    for at in draw.integers(0, 600, 12):
        data[at] = draw.integers(0, 256)
    path.write_bytes(data)
    try:
        catalog = scan(tmp_path)
    except FolderError:
        return
    assert all(isinstance(shards.contents(one), bytes) for one in catalog.paths)


def test_a_header_that_claims_to_be_huge_fills_no_memory(tmp_path):
    one = tarfile.TarInfo("././@LongLink")
    one.type, one.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "a.tar").write_bytes(one.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(FolderError, match="a header of"):
        scan(tmp_path)


def test_images_are_found_in_folders_of_shards_in_shards_and_by_name(tmp_path):
    path = packed(tmp_path / "in" / "a.tar", [("c/1.jpg", b"1"), ("2.png", b"2")])
    (tmp_path / "in" / "3.jpg").touch()
    inside = [path / "c/1.jpg", path / "2.png"]
    assert find_images([path]) == inside
    assert find_images([tmp_path / "in"]) == [*inside, tmp_path / "in" / "3.jpg"]
    assert find_images([path / "2.png"]) == [path / "2.png"]
    with pytest.raises(FolderError, match="no such file"):
        find_images([path / "gone.png"])


def test_what_is_not_in_the_shard_is_unreadable_and_so_is_all_of_a_broken_one(tmp_path):
    path = packed(tmp_path / "a.tar", [("c/1.jpg", b"1")])
    with pytest.raises(Unreadable, match="no such file"):
        read(path / "c/2.jpg")
    with pytest.raises(Unreadable, match="not an image"):
        read(path / "c/1.jpg")
    path.write_bytes(b"no tar file at all" * 100)
    with pytest.raises(Unreadable, match="not a whole tar file"):
        read(path / "c/1.jpg")


def test_a_folder_called_tar_is_a_folder(tmp_path):
    (tmp_path / "x.tar" / "a").mkdir(parents=True)
    (tmp_path / "x.tar" / "a" / "1.jpg").write_bytes(b"1")
    assert list(scan(tmp_path / "x.tar").files) == ["a/1.jpg"]
    assert shards.contents(tmp_path / "x.tar" / "a" / "1.jpg") == b"1"


def test_many_shards_are_read_with_few_open_files(tmp_path):
    for number in range(2 * shards.MOST_OPEN):
        packed(tmp_path / f"{number:03d}.tar", [(f"c{number % 2}/1.jpg", b"%d" % number)])
    catalog = scan(tmp_path)
    assert [int(shards.contents(one)) for one in catalog.paths] == list(range(len(catalog)))


def test_the_index_is_kept_and_a_new_shard_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MANY", 1)
    monkeypatch.setattr(manifest, "JUST_NOW_NS", 0)
    place = tmp_path / "s"
    path = packed(place / "a.tar", [("c/1.jpg", b"1"), ("d/2.jpg", b"22")])
    first = scan(place)
    shards._known.clear()
    indexed, index = [], shards._indexed
    monkeypatch.setattr(
        shards, "_indexed", lambda path, state: indexed.append(path) or index(path, state)
    )
    again = scan(place)
    assert shown(again) == shown(first)
    assert [shards.contents(one) for one in again.paths] == [b"1", b"22"]
    assert indexed == []
    assert len(cache.entries()) == 1
    packed(path, [("c/1.jpg", b"new"), ("d/2.jpg", b"22"), ("d/3.jpg", b"3")])
    assert [shards.contents(one) for one in scan(place).paths] == [b"new", b"22", b"3"]


def test_a_fit_on_shards_is_that_on_the_same_images_in_folders(tmp_path):
    for part, seed in (("train", 0), ("val", 1), ("test", 2)):
        packed(tmp_path / "shards" / part / "0.tar", photos(tmp_path, seed))
        (tmp_path / f"made-{seed}").rename(tmp_path / part)
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / part).rename(tmp_path / "folders" / part)
    assert scan_parts(tmp_path / "shards").test is not None
    chosen = {"backbone": "tiny", "augment": "none"}
    one = tlkit.fit(tmp_path / "shards", **chosen, out=tmp_path / "one")
    other = tlkit.fit(tmp_path / "folders", **chosen, out=tmp_path / "other")
    assert one.card.tensors_sha256 == other.card.tensors_sha256
    assert one.test.plain() == other.test.plain()
    head = tlkit.load(one.head)
    found = list(head.predict(tmp_path / "shards" / "test"))
    assert len(found) == len(find_images([tmp_path / "folders" / "test"]))
    assert head.evaluate(tmp_path / "shards").accuracy == other.test.accuracy


def test_nothing_is_moved_out_of_a_shard(tmp_path):
    members = photos(tmp_path)
    packed(
        tmp_path / "s" / "0.tar",
        [*members, (members[0][0].replace(".png", "x.png"), members[0][1])],
    )
    found = tlkit.check(tmp_path / "s")
    assert any(one.kind == "duplicate" for one in found.findings)
    with pytest.raises(OptionError, match="moved out of a tar file"):
        fix(found)


def test_of_a_shard_that_is_exchanged_no_other_bytes_are_read(tmp_path):
    """Between the look at where an image begins and the read, another shard takes the name."""
    path = packed(tmp_path / "a.tar", photos(tmp_path))
    first = next(iter(find_images([path])))
    member = shards.find(first)
    packed(tmp_path / "new.tar", photos(tmp_path, seed=1)).replace(path)
    with pytest.raises(OSError, match="has changed since"):
        member.read()
    assert shards.find(first).read()
