"""Scoring in parts: nothing is lost, nothing twice, and the answers are those of one process."""

import hashlib
import json
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import tlkit
from tlkit.classifier import load
from tlkit.cli import main
from tlkit.errors import (
    ClusterError,
    FolderError,
    HeadFileError,
    OptionError,
    RunFolderError,
)
from tlkit.options import ScoreOptions
from tlkit.scale import job as jobs
from tlkit.scale import pool
from tlkit.scale.listing import listed
from tlkit.steps import finish

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)  # fmt: skip


@pytest.fixture
def photos(colours, tmp_path):
    """24 images and one that is none."""
    shutil.copytree(colours, tmp_path / "photos")
    (tmp_path / "photos" / "red" / "bad.jpg").write_bytes(b"not an image")
    return tmp_path / "photos"


def table(out):
    return parquet.read_table(out).to_pydict()


def probabilities(path, top=3):
    """(N, C) of a table in the order of the classes' names."""
    rows = parquet.read_table(path).to_pylist() if isinstance(path, str | Path) else path
    return np.array(
        [
            [p for _, p in sorted((row[f"class_{i}"], row[f"probability_{i}"]) for i in (1, 2, 3))]
            for row in rows
            if row["error"] is None
        ]
    )


def times(out):
    return {one.name: one.stat().st_mtime_ns for one in Path(out).glob("part-*")}


def test_parts_have_the_columns_and_answers_of_the_local_run(photos, head, runner):
    ran = runner.invoke(main, ["predict", "photos", "--head", str(head), "--out", "whole.parquet"])
    assert ran.exit_code == 1
    left = tlkit.score("photos", "parts", head=head)
    assert (left.images, left.bad, left.parts, left.found) == (25, 1, 1, 0)
    assert left.unreadable == (("photos/red/bad.jpg", "not an image that Pillow knows"),)
    # One shard holds all: the very batches, and so the very bits, of the local run.
    assert parquet.read_table("parts").equals(parquet.read_table("whole.parquet"))


def test_another_size_of_shards_changes_rounding_and_nothing_else(photos, head):
    one = tlkit.score(photos, "one", head=head)
    many = tlkit.score(photos, "many", head=head, shard=4)
    assert (one.parts, many.parts) == (1, 7)
    assert table("one")["path"] == table("many")["path"]
    assert np.allclose(probabilities("one"), probabilities("many"), atol=1e-6)


def test_a_cluster_gives_what_one_process_gives_by_every_way_of_naming(photos, head, cluster):
    rows = pyarrow.table({"path": [f"photos/blue/{i:03d}.png" for i in range(8)], "more": range(8)})
    parquet.write_table(rows, "list.parquet")
    given = ["photos/green", "list.parquet", (photos / "red").as_uri() + "/*.*"]
    here = tlkit.score(given, "here", head=head, shard=5, top=2)
    there = tlkit.score(given, "there", head=head, shard=5, top=2, ray="auto", cpus=1)
    assert there == replace(here, out=str(Path("there").absolute()))
    assert (here.images, here.bad) == (25, 1)
    assert parquet.read_table("here").equals(parquet.read_table("there"))
    for name in ("_paths.parquet", "part-00000001.parquet"):
        assert Path("there", name).is_file()
    told = json.loads(Path("there/_manifest.json").read_text())
    assert told["complete"]
    assert (told["images"], told["bad"]) == (25, 1)
    for part in told["parts"]:
        data = Path("there", part["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == part["sha256"]


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(photos, head):
    tlkit.score(photos, "out", head=head, shard=5)
    before, answers = times("out"), table("out")
    (photos / "blue" / "later.png").write_bytes(b"not in the list")
    again = tlkit.score(photos, "out", head=head, shard=5, batch=3)
    assert again.found == again.parts == 5
    assert times("out") == before
    Path("out/part-00000001.parquet").write_bytes(b"cut off")
    shutil.copy("out/part-00000000.parquet", "out/part-00000002.parquet")
    Path("out/part-00000003.parquet").unlink()
    mended = tlkit.score(photos, "out", head=head, shard=5)
    assert mended.found == 2
    changed = {name for name, one in times("out").items() if one != before[name]}
    assert changed == {f"part-0000000{i}.parquet" for i in (1, 2, 3)}
    assert table("out")["path"] == answers["path"]


def test_a_stop_leaves_whole_parts_and_the_next_start_goes_on(photos, head):
    from tlkit.scale.scoring import Asked, score_events

    asked = Asked(paths=(str(photos),), out="out", head=head)
    steps = score_events(asked, ScoreOptions(shard=5))
    while next(steps).done < 10:
        pass
    steps.close()
    before = times("out")
    assert len(before) == 2
    assert not Path("out/_manifest.json").exists()
    left = finish(score_events(asked, ScoreOptions(shard=5)))
    assert left.found == 2
    assert {name: times("out")[name] for name in before} == before


def test_another_job_is_refused_with_what_differs(photos, head, colours):
    tlkit.score(photos, "out", head=head, shard=5)
    with pytest.raises(RunFolderError, match="another job") as caught:
        tlkit.score(photos, "out", head=head, shard=6, tta="mirror")
    assert caught.value.found == "--tta: none\n--shard: 5"
    assert caught.value.expected == "--tta: mirror\n--shard: 6"
    other = tlkit.fit(colours, backbone="tiny", pool="max", epochs=1).head
    with pytest.raises(RunFolderError, match="heads"):
        tlkit.score(photos, "out", head=other, shard=5)
    Path("mine").mkdir()
    Path("mine/letter.txt").touch()
    with pytest.raises(RunFolderError, match=r"letter\.txt"):
        tlkit.score(photos, "mine", head=head)
    Path("out/_paths.parquet").write_bytes(b"")
    with pytest.raises(RunFolderError, match="not the list"):
        tlkit.score(photos, "out", head=head, shard=5)


@dataclass(frozen=True)
class Slow:
    """Work that takes its time, and writes down that it was done."""

    notes: str
    wait_s: float = 0.3
    deadly: int = -1
    wrong: int = -1
    device: str = "cpu"

    def begin(self, job):
        def done(rows):
            import os

            paths = rows.column("path").to_pylist()
            shard = int(paths[0]) // job.shard
            time.sleep(self.wait_s)
            if shard == self.deadly:
                os._exit(1)
            if shard == self.wrong:
                raise HeadFileError("a head", found="a crack", expected="none", do="mend it")
            Path(self.notes, f"{shard}-{os.getpid()}").touch()
            names = [one.decode() for one in paths]
            none = pyarrow.nulls(len(names), pyarrow.string())
            return pyarrow.table({"path": names, "error": none})

        return done


def slow_job(out, images=40, shard=2):
    rows = pyarrow.table({"path": [str(i).encode() for i in range(images)]})
    plan = {"folder": "/", "versions": {}}
    return jobs.begin(out, plan, lambda: iter([rows]), shard=shard)


def test_the_loss_of_a_machine_loses_no_image_and_doubles_none(cluster, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    job = slow_job(str(tmp_path / "out"), images=60)
    extra = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    lost = threading.Event()

    def lose():
        while len(list(notes.iterdir())) < 5:
            time.sleep(0.05)
        cluster.remove_node(extra, allow_graceful=False)
        lost.set()

    loser = threading.Thread(target=lose)
    loser.start()
    steps = pool.run(job, Slow(str(notes)), ScoreOptions(ray="auto", cpus=1), what="")
    left = finish(steps)
    loser.join()
    assert lost.is_set()
    assert (left.images, left.parts) == (60, 30)
    assert table(tmp_path / "out")["path"] == [str(i) for i in range(60)]
    assert {one.name.partition("-")[0] for one in notes.iterdir()} == {str(i) for i in range(30)}


def test_what_the_work_finds_wrong_ends_the_job_with_its_own_words(cluster, tmp_path):
    job = slow_job(str(tmp_path / "out"))
    work = Slow(str(tmp_path), wait_s=0.0, wrong=7)
    with pytest.raises(HeadFileError, match="a crack") as caught:
        finish(pool.run(job, work, ScoreOptions(ray="auto", cpus=1), what=""))
    assert caught.value.do == "mend it"


def test_a_shard_that_ends_its_process_is_not_tried_for_ever(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "MOST_TRIES", 1)
    job = slow_job(str(tmp_path / "out"), images=4)
    work = Slow(str(tmp_path), wait_s=0.0, deadly=1)
    with pytest.raises(ClusterError, match="shard 1 has ended its process 1 times"):
        finish(pool.run(job, work, ScoreOptions(ray="auto", cpus=1), what=""))


def test_machines_that_are_set_up_otherwise_are_named(monkeypatch):
    job = jobs.Job(out="x", id="", images=1, shard=1, folder="/", versions={"tlkit": "0.0.1"})
    with pytest.raises(ClusterError, match="set up otherwise") as caught:
        pool._refuse_other_versions(job)
    assert caught.value.expected == "tlkit 0.0.1"
    assert caught.value.found == f"tlkit {tlkit.__version__}"


def test_a_cluster_that_does_not_answer_is_told_at_once(loopback, monkeypatch):
    with pytest.raises(OSError, match="refused"):
        pool._knock("127.0.0.1:1")
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(ClusterError, match=r"cannot be joined") as caught,
        pool._joined("ray://127.0.0.1:1"),
    ):
        pass
    assert "refused" in caught.value.found


def test_what_would_be_ignored_or_is_missing_is_refused(photos, head, monkeypatch):
    with pytest.raises(OptionError):
        tlkit.score(photos, "out", head=head, cpus=1)
    monkeypatch.setattr(pool, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"tlkit\[ray\]"):
        tlkit.score(photos, "out", head=head, ray="auto")
    with pytest.raises(OptionError, match=r"tlkit\[parquet\]"):
        tlkit.score(photos, "out", head=head)
    assert not Path("out").exists()


def test_a_list_names_all_that_is_missing_and_merges_folders_that_overlap(photos):
    assert listed(["photos", "photos/red"]) == listed(["photos"])
    parquet.write_table(pyarrow.table({"file": ["a"]}), "other.parquet")
    parquet.write_table(pyarrow.table({"path": ["x.png", "/y.png", "s3://z/z.png"]}), "m.parquet")
    Path("torn.parquet").write_bytes(b"no")
    assert listed(["m.parquet"]) == ["x.png", "/y.png", "s3://z/z.png"]
    with pytest.raises(FolderError) as caught:
        listed(["photos", "nothing", "other.parquet", "torn.parquet", "file:///no/where"])
    for word in ("nothing: no such", "no column path, but file", "torn.parquet", "/no/where"):
        assert word in caught.value.found


def test_an_object_store_takes_a_whole_job(photos, head):
    left = tlkit.score(photos, "memory://bucket/out", head=head, shard=10)
    assert left.parts == 3
    again = tlkit.score(photos, "memory://bucket/out", head=head, shard=10)
    assert again.found == 3


def test_the_command_refuses_what_does_not_go_with_a_cluster(photos, head, runner):
    for words in (["--ray", "auto"], ["--ray", "auto", "--out", "o", "--format", "csv"]):
        ran = runner.invoke(main, ["predict", "photos", "--head", str(head), *words])
        assert ran.exit_code == 2
        assert "Parquet parts" in ran.stderr
    ran = runner.invoke(main, ["predict", "photos", "--head", str(head), "--shard", "5"])
    assert "--ray auto, or an address" in ran.stderr


def test_the_command_tells_what_was_bad(photos, head, runner, cluster):
    words = ["--ray", "auto", "--out", "out", "--shard", "10", "--cpus", "1"]
    for before in ("", ", 3 of them there before"):
        ran = runner.invoke(main, ["predict", "photos", "--head", str(head), *words])
        assert ran.exit_code == 1
        assert f"25 images in 3 parts{before}: {Path('out').absolute()}\n" in ran.stderr
        assert "unreadable: photos/red/bad.jpg: not an image" in ran.stderr
        assert "1 of 25 images could not be read" in ran.stderr
    assert len(load(head).classes) == 3


def test_a_path_is_scored_as_often_as_it_is_named_and_only_folders_are_merged(colours):
    file = str(next((colours / "blue").iterdir()))
    assert listed([file, file]) == [file, file]
    assert len(listed([str(colours), str(colours / "blue")])) == 24
    assert len(listed([str(colours / "blue"), file])) == 9
    parquet.write_table(pyarrow.table({"path": [file, file]}), "list.parquet")
    assert listed(["list.parquet", "list.parquet"]) == [file] * 4
