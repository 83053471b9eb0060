"""A Ray cluster of several machines, which are processes here, and a head to ask."""

from __future__ import annotations

import os
import warnings

import pytest
from click.testing import CliRunner

import tlkit


@pytest.fixture
def runner():
    return CliRunner()


@pytest.fixture(scope="session")
def head(colours, tmp_path_factory):
    return tlkit.fit(
        colours, backbone="tiny", epochs=1, out=tmp_path_factory.mktemp("run") / "head"
    ).head


@pytest.fixture(scope="session")
def cluster(tiny_plugin, tmp_path_factory):
    """Joined by this process. Its head has no CPU for the work, and so is never lost."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    before = os.environ.get("PYTHONPATH", "")
    here = os.pathsep.join(one for one in (str(tiny_plugin), before) if one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster

        with pytest.MonkeyPatch.context() as patch:
            # Machines find what was installed for the tests, and share one cache.
            patch.setenv("PYTHONPATH", here)
            patch.setenv("TLKIT_CACHE", str(tmp_path_factory.mktemp("cluster")))
            made = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "include_dashboard": False},
            )
            for _ in range(2):
                made.add_node(num_cpus=1)
            ray.init(address=made.address, log_to_driver=False, logging_level="CRITICAL")
            yield made
            ray.shutdown()
            made.shutdown()
