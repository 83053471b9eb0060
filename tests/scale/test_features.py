"""Features in parts: the rows of a fit's bank."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import tlkit
from tlkit.ask.vectors import extractor_by
from tlkit.cli import main
from tlkit.data.folder import scan
from tlkit.data.transforms import augmentation
from tlkit.errors import OptionError
from tlkit.options import FeatureOptions
from tlkit.steps import finish
from tlkit.train import bank as banks

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)  # fmt: skip


@pytest.fixture
def photos(colours, tmp_path):
    shutil.copytree(colours, tmp_path / "photos")
    return tmp_path / "photos"


def bank_of(folder, **options):
    runs = extractor_by(FeatureOptions(backbone="tiny", **options), 24)
    plain = augmentation("none", runs.cut.model.spec, 0)
    return finish(runs.fill(scan(folder), plain, views=1, what=""))


def features(out):
    rows = parquet.read_table(out).to_pylist()
    return np.array([row["features"] for row in rows if row["error"] is None], np.float32)


def test_the_rows_are_those_of_the_bank_and_a_fit_computes_none(photos, monkeypatch):
    left = tlkit.features(photos, "out", backbone="tiny", shard=8)
    assert (left.images, left.parts, left.bad) == (24, 3, 0)
    began = []
    monkeypatch.setattr(banks.Extractor, "start", lambda self: began.append(1) or iter(()))
    bank = bank_of(photos)
    tlkit.fit(photos, backbone="tiny", epochs=1, augment="none")
    assert not began
    expected = bank.at(np.arange(24), 0).numpy()
    assert np.array_equal(features("out"), expected.reshape(24, -1))
    assert parquet.read_table("out")["label"].to_pylist() == [
        one.parent.name for one in scan(photos).paths
    ]


def test_shards_without_a_readable_image_have_their_reasons(photos, runner):
    for one in (photos / "red").iterdir():
        one.write_bytes(b"no")
    words = ["features", "photos", "--out", "out", "--backbone", "tiny", "--shard", "4"]
    for _ in range(2):
        ran = runner.invoke(main, words)
        assert ran.exit_code == 1
        assert "8 of 24 images could not be read" in ran.stderr
    rows = parquet.read_table("out").to_pylist()
    assert [row["label"] for row in rows if row["error"]] == ["red"] * 8
    assert all((row["features"] is None) == bool(row["error"]) for row in rows)


def test_parts_of_a_folder_and_maps_are_written_and_a_stop_is_gone_on_from(photos, tmp_path):
    parts = tmp_path / "parts"
    for part in ("train", "test"):
        shutil.copytree(photos, parts / part)
    left = tlkit.features(parts, "out", backbone="tiny", shard=10, pool="max")
    assert (left.images, left.parts) == (48, 5)
    Path("out/part-00000002.parquet").unlink()
    assert tlkit.features(parts, "out", backbone="tiny", shard=10, pool="max").found == 4


def test_a_cluster_writes_the_same(photos, cluster):
    tlkit.features(photos, "here", backbone="tiny", shard=8, engine="eager")
    tlkit.features(photos, "there", backbone="tiny", shard=8, engine="eager", ray="auto", cpus=1)
    assert np.allclose(features("here"), features("there"), rtol=1e-3)


def test_a_network_of_which_nothing_is_frozen_has_none(photos):
    with pytest.raises(OptionError, match="nothing is frozen"):
        tlkit.features(photos, "out", backbone="tiny", freeze="none")
