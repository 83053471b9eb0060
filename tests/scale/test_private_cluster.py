"""A Ray cluster that tlkit starts is reached from this machine alone, and with its token."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("ray")

PROGRAM = """
import json, os, re, subprocess, sys
from pathlib import Path
from tlkit.scale import pool

def listening():
    "Return the addresses that this process and all below it listen on, from /proc (Linux)."
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    sockets = set()
    for pid in own:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.update(re.findall(r"socket:.(\\d+)", os.readlink(file)))
            except OSError:
                pass
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                addresses.append(fields[1].partition(":")[0])
    return addresses

CLIENT = '''
import sys
from ray._raylet import GcsClient
GcsClient(sys.argv[1]).get_all_node_info()
'''

def ask(address, **variables):
    "Return the exit status of a program that asks the cluster for its machines."
    there = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")} | variables
    words = [sys.executable, "-c", CLIENT, address]
    return subprocess.run(words, env=there, timeout=120).returncode

before = dict(os.environ)
with pool._own_cluster_is_private("auto"), pool._quiet(), pool._joined("auto"):
    import ray
    actor = ray.remote(pool.Tries).remote()
    assert ray.get(actor.begin.remote(1)) == 0
    address = ray.get_runtime_context().gcs_address
    token = os.environ["RAY_AUTH_TOKEN"]
    found = {
        "addresses": listening(),
        "with the token": ask(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token),
        "with another": ask(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64),
    }
changed = {k for k in os.environ.keys() | before.keys() if os.environ.get(k) != before.get(k)}
found["left"] = sorted(k for k in changed if "AUTH" in k or "CLUSTER" in k)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the listening sockets are read from /proc")
def test_a_cluster_that_tlkit_starts_listens_on_loopback_and_wants_its_token(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert report["addresses"]
    assert set(report["addresses"]) <= loopback
    assert report["with the token"] == 0
    assert report["with another"] != 0
    assert report["left"] == []
    assert not (tmp_path / ".ray").exists()
