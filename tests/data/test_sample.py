from __future__ import annotations

import errno
import http.client
import io
import pickle
import socket
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets as published
from PIL import Image
from scipy.io import savemat

from tlkit.data.folder import scan, scan_parts
from tlkit.data.images import read
from tlkit.data.sample import SAMPLES, folder_names, write_sample
from tlkit.errors import DiskError, FolderError, RunFolderError, UnknownName

REMOTE = [name for name in SAMPLES if name != "digits"]


def finish(name: str, folder: Path) -> tuple[int, list[tuple[int, int]]]:
    """Run the writing to its end: the number returned, and what was yielded."""
    writing = write_sample(name, folder)
    ticks = []
    while True:
        try:
            ticks.append(next(writing))
        except StopIteration as end:
            return end.value, ticks


def jpeg(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=60)


# Only the download is replaced: torchvision's own readers run on a small data set of the same
# layout, so that a change of theirs is noticed here.


def flowers102(self) -> None:
    base = Path(self.root) / "flowers-102"
    for number in range(1, 7):
        jpeg(base / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 102, 86]])})
    ids = {"trnid": np.array([[1, 2]]), "valid": np.array([[3, 4]]), "tstid": np.array([[5, 6]])}
    savemat(base / "setid.mat", ids)


def pets(self) -> None:
    base = Path(self.root) / "oxford-iiit-pet"
    listed = {"trainval": ["yorkshire_terrier_1 2 2 1", "Abyssinian_1 1 1 1"]}
    listed["test"] = ["Abyssinian_2 1 1 1", "yorkshire_terrier_2 2 2 1"]
    (base / "annotations").mkdir(parents=True, exist_ok=True)
    for part, lines in listed.items():
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            jpeg(base / "images" / f"{line.split()[0]}.jpg", len(line))


def eurosat(self) -> None:
    for number, name in enumerate(["AnnualCrop", "SeaLake"]):
        jpeg(Path(self.root) / "eurosat" / "2750" / name / f"{name}_1.jpg", number)


def stl10(self) -> None:
    base = Path(self.root) / "stl10_binary"
    base.mkdir(exist_ok=True)
    (base / "class_names.txt").write_text("airplane\nbird\n")
    for part in ("train", "test"):
        (base / f"{part}_X.bin").write_bytes(bytes(2 * 3 * 96 * 96))
        (base / f"{part}_y.bin").write_bytes(bytes([2, 1]))


def cifar10(self) -> None:
    base = Path(self.root) / "cifar-10-batches-py"
    base.mkdir(exist_ok=True)
    for name, _ in [*self.train_list, *self.test_list]:
        data = {"data": np.full((2, 3072), 7, dtype=np.uint8), "labels": [1, 0]}
        (base / name).write_bytes(pickle.dumps(data))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile"]}))


def mnist(self) -> None:
    base = Path(self.raw_folder)
    base.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(range(196)) * 8
        (base / f"{part}-images-idx3-ubyte").write_bytes(images)
        (base / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + b"\3\0")


DOWNLOADS = {
    "flowers102": (published.Flowers102, "download", flowers102),
    "pets": (published.OxfordIIITPet, "_download", pets),
    "stl10": (published.STL10, "download", stl10),
    "cifar10": (published.CIFAR10, "download", cifar10),
    "mnist": (published.MNIST, "download", mnist),
    "eurosat": (published.EuroSAT, "download", eurosat),
}

WRITTEN = {
    "flowers102": {
        "train/pink_primrose/image_00001.jpg",
        "train/hard-leaved_pocket_orchid/image_00002.jpg",
        "val/pink_primrose/image_00003.jpg",
        "val/hard-leaved_pocket_orchid/image_00004.jpg",
        "test/blackberry_lily/image_00005.jpg",
        "test/tree_mallow/image_00006.jpg",
    },
    "pets": {
        "train/Yorkshire_Terrier/yorkshire_terrier_1.jpg",
        "train/Abyssinian/Abyssinian_1.jpg",
        "test/Yorkshire_Terrier/yorkshire_terrier_2.jpg",
        "test/Abyssinian/Abyssinian_2.jpg",
    },
    "stl10": {
        "train/bird/00000.png",
        "train/airplane/00001.png",
        "test/bird/00000.png",
        "test/airplane/00001.png",
    },
    "cifar10": {
        *(f"train/automobile/{number:05d}.png" for number in range(0, 10, 2)),
        *(f"train/airplane/{number:05d}.png" for number in range(1, 10, 2)),
        "test/automobile/00000.png",
        "test/airplane/00001.png",
    },
    "mnist": {
        "train/3_three/00000.png",
        "train/0_zero/00001.png",
        "test/3_three/00000.png",
        "test/0_zero/00001.png",
    },
    "eurosat": {"AnnualCrop/AnnualCrop_1.jpg", "SeaLake/SeaLake_1.jpg"},
}


@pytest.fixture
def offline(monkeypatch):
    for kind, method, write in DOWNLOADS.values():
        monkeypatch.setattr(kind, method, write)
    for kind in (published.Flowers102, published.CIFAR10):
        monkeypatch.setattr(kind, "_check_integrity", lambda _: True)
    monkeypatch.setattr(published.CIFAR10, "meta", {**published.CIFAR10.meta, "md5": None})


def fail_with(monkeypatch, error: BaseException) -> None:
    def fail(self) -> None:
        (Path(self.root) / "half.tgz").write_bytes(b"half")
        raise error

    for kind, method, _ in DOWNLOADS.values():
        monkeypatch.setattr(kind, method, fail)


def files_in(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}


def test_digits_are_1797_grey_pictures_a_quarter_of_each_class_for_testing(tmp_path):
    written, ticks = finish("digits", tmp_path / "digits")
    parts = scan_parts(tmp_path / "digits")
    assert parts.val is None
    assert parts.test is not None
    assert parts.train.classes == parts.test.classes == tuple("0123456789")
    assert len(parts.train) + len(parts.test) == written == 1797
    share = parts.test.counts / (parts.train.counts + parts.test.counts)
    assert np.allclose(share, 0.25, atol=0.005)
    assert ticks == [(done, 1797) for done in range(1, 1798)]
    pixels = read(parts.train.paths[0])
    assert pixels.shape == (64, 64, 3)
    assert pixels.min() == 0
    assert pixels.max() > 200


def test_digits_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        finish("digits", tmp_path / name)
    names = files_in(tmp_path / "a")
    assert names == files_in(tmp_path / "b")
    one = sorted(names)[7]
    assert (tmp_path / "a" / one).read_bytes() == (tmp_path / "b" / one).read_bytes()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", REMOTE)
def test_a_published_data_set_keeps_its_parts_classes_and_labels(tmp_path, name):
    written, ticks = finish(name, tmp_path / "new" / name)
    assert files_in(tmp_path / "new" / name) == WRITTEN[name]
    assert written == len(WRITTEN[name])
    assert ticks == [(done, written) for done in range(1, written + 1)]
    assert [one.name for one in (tmp_path / "new").iterdir()] == [name]
    parts = scan_parts(tmp_path / "new" / name) if name != "flowers102" else None
    assert parts is None or not parts.train.left_out


@pytest.mark.usefixtures("offline")
def test_photos_are_copied_byte_for_byte(tmp_path):
    finish("eurosat", tmp_path / "sat")
    jpeg(tmp_path / "original.jpg", 1)
    copied = tmp_path / "sat" / "SeaLake" / "SeaLake_1.jpg"
    assert copied.read_bytes() == (tmp_path / "original.jpg").read_bytes()


@pytest.mark.usefixtures("offline")
def test_pixels_are_written_without_loss(tmp_path):
    finish("mnist", tmp_path / "mnist")
    file = io.BytesIO((tmp_path / "mnist" / "test" / "3_three" / "00000.png").read_bytes())
    assert np.asarray(Image.open(file)).tobytes() == bytes(range(196)) * 4


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize(
    "error",
    [
        URLError("no route to host"),
        OSError("connection lost"),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted."),
        http.client.RemoteDisconnected("closed"),
        http.client.IncompleteRead(b""),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_download_that_fails_is_one_error_and_leaves_nothing(tmp_path, monkeypatch, name, error):
    fail_with(monkeypatch, error)
    with pytest.raises(FolderError) as caught:
        finish(name, tmp_path / name)
    assert type(error).__name__ in caught.value.found
    assert "tlkit sample digits" in caught.value.do
    assert caught.value.__cause__ is error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path, monkeypatch):
    fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DiskError, match="No space left"):
        finish("pets", tmp_path / "pets")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        finish("pets", tmp_path / "pets")
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_not_waited_for_without_end(tmp_path, monkeypatch):
    limits = []

    def look(self) -> None:
        limits.append(socket.getdefaulttimeout())
        eurosat(self)

    monkeypatch.setattr(published.EuroSAT, "download", look)
    before = socket.getdefaulttimeout()
    finish("eurosat", tmp_path / "sat")
    assert limits != [None]
    assert socket.getdefaulttimeout() == before


def test_nothing_is_seen_before_the_last_image_is_written(tmp_path):
    target = tmp_path / "digits"
    writing = write_sample("digits", target)
    for _ in range(20):
        next(writing)
        assert not target.exists()
    writing.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["digits", "pets"])
def test_a_folder_that_holds_something_is_refused_before_any_download(tmp_path, monkeypatch, name):
    fail_with(monkeypatch, AssertionError("must not be reached"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(RunFolderError):
        finish(name, tmp_path / "mine")
    assert files_in(tmp_path) == {"mine/photo.jpg"}


def test_an_unknown_sample_lists_those_there_are(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        finish("digit", tmp_path / "digits")


def test_every_sample_says_what_it_is_and_under_which_licence():
    assert all(one.about and one.licence for one in SAMPLES.values())


def test_flowers_without_names_are_numbered(tmp_path, monkeypatch, offline):
    monkeypatch.delattr(published.Flowers102, "classes", raising=False)
    finish("flowers102", tmp_path / "flowers")
    assert scan(tmp_path / "flowers" / "train").classes == ("flower_1", "flower_2")


@pytest.mark.parametrize(
    "classes", [["a b", "a_b"], ["Rose", "rose"], ["???", "x"], ["a", "a"], ["x_1", "x", "x"]]
)
def test_two_classes_never_share_a_folder(classes):
    names = folder_names(classes)
    assert len({one.casefold() for one in names}) == len(classes)
    assert all(names)


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "c:\\d", "nul\0", ".hidden", "pink-yellow dahlia?"]
)
def test_a_class_name_stays_inside_its_folder(name):
    (plain,) = folder_names([name])
    assert plain
    assert not set(plain) & set('/\\:*?"<>|\0. ')


def test_the_flowers_keep_names_one_can_read():
    names = folder_names(["colt's foot", "pink-yellow dahlia?", "0 - zero", "Hôtel"])
    assert names == ["colts_foot", "pink-yellow_dahlia", "0_zero", "Hôtel"]


def test_offline_downloads_nothing_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(FolderError, match="TLKIT_OFFLINE is set"):
        finish("mnist", tmp_path / "mnist")
    assert not (tmp_path / "mnist").exists()
